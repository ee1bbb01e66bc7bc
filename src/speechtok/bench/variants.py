"""Variants of a training run, each in a process of its own: trained once, gone on with, and known again when done."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speechtok.config import recipe_path
from speechtok.errors import ConfigError
from speechtok.files import make_folder, write_text_atomic
from speechtok.processes import child_environment

DONE = "done.json"
"""Says in a variant's folder from what it was trained to its end."""


@dataclass
class Variant:
    """One training run of a study."""

    kind: str
    """As ``speechtok train`` names it."""
    name: str
    recipe: str
    """A YAML file."""
    overrides: list[str]
    """``name=value``, all that change the recipe."""
    place: Path
    """The run's folder."""
    files: Sequence[str]
    """What a finished run has left there."""
    given: dict[str, Any] = field(default_factory=dict)
    """What else decides the result, JSON values, such as digests of models that it begins with."""

    @property
    def order(self) -> dict[str, Any]:
        """All that decides how it is trained.

        Raises:
            ConfigError: the recipe cannot be read.
        """
        try:
            recipe = recipe_path(self.recipe).read_bytes()
        except OSError as error:
            raise ConfigError(
                f"{self.recipe}: cannot be read ({error.strerror}); correct recipe in the study"
            ) from error
        return {"recipe": hashlib.sha256(recipe).hexdigest(), "overrides": self.overrides} | self.given

    @property
    def trained(self) -> bool:
        """Whether it was trained to its end from these very settings."""
        try:
            done = json.loads((self.place / DONE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return done == self.order and all((self.place / file).is_file() for file in self.files)

    def train(self) -> bool:
        """Train it in a process of its own, or go on where it was; returns whether it is trained."""
        if self.trained:
            return True
        print(f"training {self.name}: {' '.join(self.overrides)}", flush=True)
        make_folder(self.place)
        command = [sys.executable, "-m", "speechtok", "train", self.kind, self.recipe, *self.overrides]
        finished = subprocess.run([*command, f"name={self.name}", f"out={self.place}"], env=child_environment())
        if finished.returncode:
            print(f"training {self.name} ended with exit code {finished.returncode}", file=sys.stderr, flush=True)
            return False
        write_text_atomic(self.place / DONE, json.dumps(self.order))
        return True
