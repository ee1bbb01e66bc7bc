"""Models of the Hugging Face Hub: fetched into its cache, and only the files that are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from speechtok.errors import CheckpointError


def require_place(name: str | Path, what: str) -> None:
    """Refuse what is neither here nor an id on the Hub, before a client asks for it there, again and again.

    Raises:
        CheckpointError: it is neither; ``what`` it should be is said.
    """
    if not Path(name).exists() and str(name).count("/") != 1:
        raise CheckpointError(f"{name}: no such {what} here, and no Hub id, which is written ORGANISATION/NAME")


def fetch(repository: str, files: Sequence[str], name: str | None = None) -> Path:
    """The folder of a copy of ``repository`` with those of ``files`` that it has.

    Args:
        repository: ``organisation/repository``.
        files: paths inside the repository, or patterns of such.
        name: what the user asked for, where that is not the repository itself.

    Raises:
        CheckpointError: it cannot be fetched.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, allow_patterns=list(files)))
    except Exception as error:  # the client's own, its HTTP library's and the system's errors share no base class
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{name or repository}: no such folder here, and it cannot be fetched from the Hugging Face Hub ({reason});"
            " connect to the network or give the folder of a downloaded copy"
        ) from None
