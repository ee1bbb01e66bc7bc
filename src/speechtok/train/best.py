"""The weights with the lowest error on held-out speech so far."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from torch import nn


class Best:
    """A copy of a model as it was when its error was lowest; before the first error, as it was at the beginning."""

    def __init__(self, model: nn.Module):
        self.model, self.error = deepcopy(model), None

    def see(self, error: float, model: nn.Module) -> bool:
        """Take in an error; True where it is the lowest so far, and the model's weights are kept then."""
        if self.error is not None and error >= self.error:
            return False
        self.error = error
        self.model.load_state_dict(model.state_dict())
        return True

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"error": self.error, "model": self.model.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of ``state_dict``."""
        self.error = state["error"]
        self.model.load_state_dict(state["model"])
