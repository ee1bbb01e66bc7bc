"""Networks of ``transformers``, from a folder or the Hub: nothing of theirs is run, and no weight is made up.

Left to itself, ``transformers`` offers to run the code of a repository, and draws at random the weights that a file
lacks. Here both are errors.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from speechtok.errors import CheckpointError

SAFE = {"trust_remote_code": False}
"""Left out, ``transformers`` asks on the terminal."""
UNUSED = ("masked_spec_embed", "inited", "initialized", "cluster_size", "embed_avg", "num_batches_tracked")
"""Ends of the names of weights that only training uses; a file may lack them."""
IRRELEVANT = {
    "_name_or_path", "transformers_version", "architectures", "torch_dtype", "dtype", "_attn_implementation_autoset",
}  # fmt: skip
"""Entries of a configuration that decide no result, so they stay out of fingerprints."""


def load_part(kind: str, name: str | Path, what: str = "model", **options: Any) -> Any:
    """A configuration, preprocessor or vocabulary: ``transformers``' class ``kind``, such as ``AutoConfig``.

    Args:
        kind: name of the class.
        name: folder or Hub id.
        what: the thing is for, in messages.
        options: of its ``from_pretrained``.

    Raises:
        CheckpointError: ``transformers`` is not installed or cannot load it.
    """
    library = _transformers(name, what)
    with _one_line(name, what), _quiet():
        return getattr(library, kind).from_pretrained(name, **SAFE, **options)


def load_network(
    kind: str,
    name: str | Path,
    what: str = "model",
    advice: str = "fetch it again",
    only_safetensors: bool = False,
    **options: Any,
) -> Any:
    """A network in evaluation mode and float32, all of whose weights stood in its files and are finite.

    Many a HuBERT is published as ``pytorch_model.bin`` alone; torch's restricted loader, which runs no code, reads it.

    Args:
        kind: name of the class of ``transformers``, such as ``AutoModel``.
        name: folder or Hub id.
        what: it is called in messages.
        advice: what to do where weights are missing.
        only_safetensors: refuse any other file of weights.
        options: of its ``from_pretrained``, such as ``config``.

    Raises:
        CheckpointError: ``transformers`` is not installed or cannot load it, or weights are missing or not finite.
    """
    library = _transformers(name, what)
    weights = {"use_safetensors": True} if only_safetensors else {"weights_only": True}
    with _one_line(name, what), _quiet():
        network, report = getattr(library, kind).from_pretrained(
            name, **SAFE, **weights, output_loading_info=True, **options
        )
    missing = sorted(key for key in report["missing_keys"] if not key.endswith(UNUSED))
    if missing:
        first = ", ".join(missing[:3])
        raise CheckpointError(f"{name}: lacks {len(missing)} weights of its model ({first}); {advice}")
    for key, value in network.state_dict().items():
        if not value.isfinite().all():
            raise CheckpointError(f"{name}: {key} is not finite; {advice}")
    return network.float().eval()


def settings_of(part: Any) -> list[Any]:
    """A configuration, generation settings or a preprocessor of ``transformers`` as JSON values, for fingerprints.

    Its class, and what differs from the defaults of that: an option that a newer release adds changes nothing.
    """
    said = json.loads(part.to_json_string())
    bare = getattr(part, "has_no_defaults_at_initialization", False)
    usual = {} if bare else json.loads(type(part)().to_json_string())
    return [type(part).__name__, relevant({k: v for k, v in said.items() if k not in usual or usual[k] != v})]


def relevant(value: Any) -> Any:
    """Without the ``IRRELEVANT`` entries, at any depth."""
    if isinstance(value, dict):
        return {key: relevant(inner) for key, inner in value.items() if key not in IRRELEVANT}
    return value


def _transformers(name: str | Path, what: str) -> Any:
    try:
        import transformers
    except ImportError as error:
        raise CheckpointError(
            f"{name}: this {what} needs transformers; pip install 'speechtok[transformers]'"
        ) from error
    return transformers


@contextmanager
def _one_line(name: str | Path, what: str) -> Iterator[None]:
    """Whatever ``transformers`` raises on a foreign, damaged or unknown model, as one line that names it."""
    try:
        yield
    except Exception as error:  # its own errors, those of safetensors, torch and the configuration share no base class
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise CheckpointError(f"{name}: transformers cannot load this {what} ({reason.strip()})") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the bars and remarks of ``transformers``: what matters is checked and raised."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
