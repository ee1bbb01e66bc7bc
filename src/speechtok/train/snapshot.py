"""Checkpoints of training runs: any nesting of tensors and plain values in one safetensors file, no pickle.

Tensors are stored by their path in the nesting; everything else travels as JSON in the file's metadata. The file is
written to a temporary name and renamed, so a killed run leaves the previous checkpoint readable.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from speechtok.errors import CheckpointError
from speechtok.files import atomic_path

FORMAT = "speechtok.training"


def save_snapshot(path: str | Path, state: dict[str, Any]) -> None:
    """Write ``state``: nested dicts, lists, numbers, strings, None and tensors.

    Raises:
        OutputError: the place cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    skeleton = _split(state, "", tensors)
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"format": FORMAT, "skeleton": json.dumps(skeleton)})


def load_snapshot(path: str | Path) -> dict[str, Any]:
    """Inverse of :func:`save_snapshot`.

    Raises:
        CheckpointError: missing, truncated, or not such a checkpoint.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise CheckpointError(f"{path}: not a checkpoint of a training run; start in an empty folder")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); delete it to start again") from error
    return _join(json.loads(metadata["skeleton"]), tensors)


def random_state() -> dict[str, Any]:
    """State of torch's generators."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """Inverse of :func:`random_state`."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _split(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        tensors[name] = value.detach().contiguous().clone()  # shared storage cannot be saved twice
        return {"tensor": name}
    if isinstance(value, dict):
        # pairs, because JSON would turn the optimisers' integer keys into strings
        return {"dict": [[key, _split(item, f"{name}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return {"list": [_split(item, f"{name}/{i}", tensors) for i, item in enumerate(value)]}
    return {"value": value}


def _join(skeleton: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
    ((kind, content),) = skeleton.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _join(item, tensors) for key, item in content}
    if kind == "list":
        return [_join(item, tensors) for item in content]
    return content
