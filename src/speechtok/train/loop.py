"""The loop of every training run: steps, log, validation, checkpoints, resuming, export."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import torch

from speechtok.config import from_mapping, from_yaml, require_whole
from speechtok.errors import ConfigError
from speechtok.files import make_folder, write_text_atomic
from speechtok.train.devices import Devices
from speechtok.train.log import RunLog
from speechtok.train.plot import draw
from speechtok.train.samples import show
from speechtok.train.snapshot import load_snapshot, random_state, restore_random_state, save_snapshot

CHECKPOINT = "checkpoint.safetensors"
FREE = {"name", "log_every", "validate_every", "checkpoint_every", "threads", "alarm", "log_audio"}
"""Settings that may change between the parts of a run: they decide no weight."""
PLACES = {
    "data": {"manifests", "validation", "cache", "validation_files"},
    "replay": {"manifests"},
    "unpaired": {"speech", "text"},
}
"""The same, by section: a corpus may be found elsewhere next time; ``Trainee.corpus`` tells whether it is another."""


@dataclass
class RunRecipe:
    """What every training run has."""

    name: str = "run"
    seed: int = 0
    steps: int = 10000
    log_every: int = 50
    validate_every: int = 1000
    checkpoint_every: int = 500
    log_audio: int = 2
    """Held-out utterances that each validation puts into TensorBoard, where the trainee makes any."""
    threads: int = 0
    """CPU threads; 0 leaves torch's choice."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the heavy layers in training; losses and weights stay fp32."""

    def __post_init__(self) -> None:
        require_whole(self, 1, "steps", "log_every", "validate_every", "checkpoint_every")
        require_whole(self, 0, "seed", "log_audio", "threads")


class Trainee(Protocol):
    """Something that learns step by step. ``parts`` is all that changes while it does, by name."""

    recipe: RunRecipe
    devices: Devices
    step: int
    corpus: str
    """Digest of the training speech and of models that it begins with, which a resumed run must find again."""

    @property
    def parts(self) -> dict[str, Any]:
        """Objects with ``state_dict`` and ``load_state_dict``."""
        ...

    def advance(self) -> dict[str, float]:
        """One update, which counts ``step`` up; returns losses and what else should be logged."""
        ...

    def validate(self, counted: bool) -> tuple[dict[str, Any], list[str]]:
        """Figures on held-out speech, and alarms. Where not ``counted``, it must leave no trace in ``parts``."""
        ...

    def export(self, folder: Path) -> None:
        """Write the trained model."""
        ...


def prepare(recipe: RunRecipe, folder: Path) -> None:
    """What comes before anything is built: the run's folder and torch's threads.

    Raises:
        OutputError: the folder cannot be made.
    """
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    make_folder(folder)


def run(trainee: Trainee, folder: Path, stop_at: int | None = None) -> None:
    """Train until ``recipe.steps`` (or ``stop_at``), resuming what ``folder`` holds, and export the model there.

    Raises:
        ConfigError: ``folder`` holds a run of another recipe, on other speech or from other models.
        OutputError: ``folder`` cannot be written.
        TrainingError: a loss or gradient is not finite; the last checkpoint stays as it is.
    """
    recipe, devices = trainee.recipe, trainee.devices
    load_checkpoint(trainee, folder)
    end = min(recipe.steps, stop_at or recipe.steps)
    with closing(RunLog(folder, recipe.steps, trainee.step)) if devices.main else nullcontext() as log:
        while trainee.step < end:
            values = trainee.advance()
            if devices.main:
                after_step(trainee, log, folder, values, trainee.step == end)
    if devices.main:
        write_text_atomic(folder / "recipe.json", json.dumps(asdict(recipe), indent=2))
        trainee.export(folder / "model")
    devices.wait()


def after_step(trainee: Trainee, log: RunLog, folder: Path, values: dict[str, Any], last: bool) -> None:
    """Log, validate and save where it is due.

    A trainee may have a method ``samples(count)``, which yields ``train.samples.Sample`` and leaves no trace either.
    """
    recipe, done = trainee.recipe, trainee.step
    log.step()
    if done % recipe.log_every == 0 or last:
        log.write("train", done, values)
    if done % recipe.validate_every == 0 or last:
        # an early stop must leave no trace, or the resumed run would differ from one that never stopped
        row, alarms = trainee.validate(done % recipe.validate_every == 0 or done == recipe.steps)
        for line in alarms:
            log.alarm(done, line)
        log.write("validation", done, row)
        if log.board is not None and hasattr(trainee, "samples"):
            show(log, done, trainee.samples(recipe.log_audio), first=done <= recipe.validate_every)
    if done % recipe.checkpoint_every == 0 or last:
        save_checkpoint(trainee, folder)


def save_checkpoint(trainee: Trainee, folder: Path) -> None:
    """Everything needed to go on as if nothing had happened, in one file that is replaced at once."""
    parts = {name: part.state_dict() for name, part in trainee.parts.items()}
    about = {"step": trainee.step, "recipe": json.dumps(asdict(trainee.recipe)), "corpus": trainee.corpus}
    save_snapshot(folder / CHECKPOINT, {**about, "random": random_state(), **parts})


def load_checkpoint(trainee: Trainee, folder: Path) -> None:
    """Continue from the folder's checkpoint, where there is one.

    Raises:
        ConfigError: the checkpoint belongs to another recipe, to other speech or to other models.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return
    saved = load_snapshot(path)
    # settings that are newer than the checkpoint had their defaults then
    recipes = (from_mapping(type(trainee.recipe), json.loads(saved["recipe"]), str(path)), trainee.recipe)
    then, now = (_essentials(json.loads(json.dumps(asdict(recipe)))) for recipe in recipes)
    changed = sorted(name for name in now if now[name] != then.get(name))
    if changed:
        raise ConfigError(f"{path}: was trained with another {', '.join(changed)}; use its recipe or an empty folder")
    if saved.get("corpus", trainee.corpus) != trainee.corpus:  # older checkpoints do not say
        raise ConfigError(
            f"{path}: was trained on other speech, codes of another tokenizer, or from other models; restore"
            " them or use an empty folder"
        )
    for name, part in trainee.parts.items():
        part.load_state_dict(saved[name])
    trainee.step = saved["step"]
    restore_random_state(saved["random"])


def _essentials(recipe: dict[str, Any]) -> dict[str, Any]:
    """The parts of a recipe that decide the weights."""
    kept = {key: value for key, value in recipe.items() if key not in FREE}
    for section, places in PLACES.items():
        if section in kept:
            kept[section] = {key: value for key, value in kept[section].items() if key not in places}
    return kept


Recipe = TypeVar("Recipe", bound=RunRecipe)


def read_command(kind: type[Recipe], path: str | Path, overrides: list[str]) -> tuple[Recipe, Path]:
    """Recipe and folder of ``RECIPE.yaml [name=value ...] [out=FOLDER]``; the folder is ``runs/NAME`` unless given.

    Raises:
        ConfigError: the file cannot be read, or a setting is unknown or of the wrong type.
    """
    settings = [item for item in overrides if not item.startswith("out=")]
    outs = [item.removeprefix("out=") for item in overrides if item.startswith("out=")]
    recipe = from_yaml(kind, path, settings)
    return recipe, Path(outs[-1] if outs else f"runs/{recipe.name}")


def run_command(
    kind: type[Recipe],
    train: Callable[[Recipe, Path], Trainee],
    path: str | Path,
    overrides: list[str],
    plot: bool = False,
) -> None:
    """``speechtok train KIND RECIPE.yaml [name=value ...] [--plot]``: train, and draw the finished run if asked to."""
    recipe, folder = read_command(kind, path, overrides)
    trainee = train(recipe, folder)
    if plot and trainee.devices.main:
        draw(folder)
    trainee.devices.close()
