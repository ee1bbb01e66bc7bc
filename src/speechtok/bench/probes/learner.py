"""A probe's training: state, step, validation, export; checkpoints and the loop are ``train.loop``."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from speechtok.bench.probes.examples import Examples, batch_of, in_order
from speechtok.bench.probes.goals import Goal
from speechtok.bench.probes.network import Probe
from speechtok.bench.probes.recipe import NewBob, ProbeRecipe
from speechtok.files import make_folder, write_bytes_atomic, write_text_atomic
from speechtok.train.batches import EndlessBatches
from speechtok.train.learner import Learner


class Progress:
    """What validations have decided so far: the share of the rate that is left, and the best error."""

    def __init__(self, annealing: NewBob | None):
        self.annealing, self.factor = annealing, 1.0
        self.last_loss: float | None = None
        self.best_error: float | None = None

    def see(self, loss: float, error: float) -> bool:
        """Take in a validation; True where its error is the lowest so far."""
        if self.annealing and self.last_loss is not None:
            better = (self.last_loss - loss) / self.last_loss if self.last_loss else 0.0
            self.factor *= self.annealing.factor if better < self.annealing.threshold else 1.0
        best = self.best_error is None or error < self.best_error
        self.last_loss, self.best_error = loss, error if best else self.best_error
        return best

    def state_dict(self) -> dict[str, float | None]:
        """For the checkpoint."""
        return {"factor": self.factor, "last_loss": self.last_loss, "best_error": self.best_error}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of ``state_dict``."""
        self.factor, self.last_loss, self.best_error = (state[name] for name in self.state_dict())


class ProbeLearner(Learner):
    """A run of probe training.

    Args:
        model: built after the seed was set.
        corpus: digest of what is learned from.
    """

    model: Probe

    def __init__(
        self, recipe: ProbeRecipe, model: Probe, goal: Goal, training: Examples, held_out: Examples, corpus: str
    ):
        super().__init__(recipe, model, {goal.loss: 1.0})
        self.recipe: ProbeRecipe = recipe
        self.goal, self.training, self.held_out, self.corpus = goal, training, held_out, corpus
        self.share = self.devices.share_of(recipe.data.batch)
        self.batches = EndlessBatches(training.lengths, recipe.data.batch, recipe.seed)
        self.progress = Progress(recipe.annealing)
        self.kept: Probe = deepcopy(self.average)
        """The weights that are tested."""

    @property
    def parts(self) -> dict[str, Any]:
        """See ``Learner``."""
        return super().parts | {"progress": self.progress, "kept": self.kept}

    @property
    def peak_rate(self) -> float:
        """See ``Learner``; as low as NewBob has made it."""
        return self.recipe.optimisation.rate * self.progress.factor

    def losses(self) -> dict[str, Tensor]:
        """Of this process's share of the step's utterances."""
        batch = batch_of(self.training, self.batches(self.step)[self.share])
        logits = self.model(batch.rows.to(self.devices.device), batch.lengths)
        with torch.autocast(self.devices.device.type, enabled=False):
            return self.goal.losses(logits.float(), batch.lengths, batch.targets, self.devices)

    @torch.inference_mode()
    def validate(self, counted: bool) -> tuple[dict[str, Any], list[str]]:
        """Loss and error of the held-out part: errors over characters, frames or utterances."""
        losses, sizes, errors = [], [], []
        for picks, batch in in_order(self.held_out, self.recipe.data.batch):
            logits = self.average(batch.rows.to(self.devices.device), batch.lengths).float()
            losses.append(self.goal.losses(logits, batch.lengths, batch.targets))
            sizes.append(len(picks))
            errors += [
                self.goal.errors(one, self.held_out.targets[pick])
                for pick, one in zip(picks, self.apart(logits, batch.lengths), strict=True)
            ]
        means = {
            name: float(np.average([float(one[name]) for one in losses], weights=sizes)) for name in losses[0]
        }  # by utterances
        wrong, total = np.sum(errors, axis=0)
        error = float(wrong / max(1, total))
        if counted and (self.progress.see(means[self.goal.loss], error) or self.recipe.keep == "last"):
            self.kept.load_state_dict(self.average.state_dict())
        return means | {f"error/{self.goal.name}": error, "rate": self.peak_rate}, []

    @torch.inference_mode()
    def answers(self, examples: Examples) -> list[Tensor]:
        """Logits ``[N R, C]`` or ``[C]`` of every utterance by the weights that are kept, on the CPU."""
        found: dict[int, Tensor] = {}
        for picks, batch in in_order(examples, self.recipe.data.batch):
            logits = self.kept(batch.rows.to(self.devices.device), batch.lengths).float()
            found |= dict(zip(picks.tolist(), self.apart(logits, batch.lengths), strict=True))
        return [found[i] for i in range(len(found))]

    def apart(self, logits: Tensor, lengths: Tensor) -> list[Tensor]:
        """A batch's answers one by one on the CPU, without padding."""
        ends = [None] * len(logits) if self.goal.pooled else (lengths * self.goal.per_frame).tolist()
        return [one[:end] if end else one for one, end in zip(logits.cpu(), ends, strict=True)]

    def export(self, folder: Path) -> None:
        """The weights that are kept as ``probe.safetensors``, and ``config.json`` with the shape and the classes."""
        make_folder(folder)
        write_bytes_atomic(folder / "probe.safetensors", save(self.kept.state_dict()))
        about = {"network": asdict(self.recipe.network), "goal": self.goal.name, "classes": list(self.goal.classes)}
        write_text_atomic(folder / "config.json", json.dumps(about | {"steps": self.step}, indent=1) + "\n")
