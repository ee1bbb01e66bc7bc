"""Reading other people's torch files without running their code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from speechtok.errors import CheckpointError


def read_torch_file(path: Path) -> Any:
    """Content of a ``.pt`` or ``.ckpt`` file, by torch's restricted loader: a pickle that asks for more is refused.

    Raises:
        CheckpointError: damaged, or it holds more than tensors and plain values.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise CheckpointError(
            f"{path}: damaged, or not a file of plain torch weights ({type(error).__name__}); fetch it again"
        ) from error
