"""The codec trainer: state, step, validate, checkpoint, loop."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from speechtok.config import from_yaml
from speechtok.errors import ConfigError, TrainingError
from speechtok.files import make_folder, write_text_atomic
from speechtok.nn.codec import Codec
from speechtok.nn.discriminators import Judges
from speechtok.nn.frame import start_from_principal_components
from speechtok.nn.quantizers import Quantized
from speechtok.tokenizers.checkpoint import save_codec
from speechtok.train.adversary import adversarial_losses, adversarial_ramp
from speechtok.train.data import Crops, WaveStore, pooled
from speechtok.train.devices import Devices
from speechtok.train.health import Watch, codebook_health
from speechtok.train.log import RunLog
from speechtok.train.losses import MultiScaleMel
from speechtok.train.plot import draw
from speechtok.train.recipe import CodecRecipe, Optimisation
from speechtok.train.snapshot import load_snapshot, random_state, restore_random_state, save_snapshot

LINEAR_BATCHES = 30
"""Batches whose principal components a frame codec starts from: many more vectors than feature dimensions."""
CODEBOOK_BATCHES = 20
"""Batches whose latents place the codebooks: a dozen vectors per code."""


class Guide(Protocol):
    """A teacher: a module whose losses join the others, named ``group/name`` and weighed by ``weights.guides``.

    A loss without a weight there is logged and counts nothing, so a teacher can report what should be watched. Its own
    parameters (projections, attention) are trained and saved with the generator's.
    """

    def __call__(self, codec: Codec, wave: Tensor, quantized: Quantized, step: int) -> dict[str, Tensor]:
        """Losses of the crops ``wave[B, T]``; ``Crops.places(step)`` says where these were cut."""
        ...


class State:
    """All that changes while training: generator, its average, guides, discriminators, optimisers, step."""

    def __init__(self, recipe: CodecRecipe, guides: Sequence[nn.Module] = ()):
        torch.manual_seed(recipe.seed)
        self.recipe, self.devices = recipe, Devices(recipe.precision)
        self.step = 0
        device = self.devices.device
        self.codec = Codec(recipe.codec).to(device)
        self.average = Codec(recipe.codec).requires_grad_(False).eval().to(device)
        self.average.load_state_dict(self.codec.state_dict())
        self.guides = nn.ModuleList(guides).to(device)
        self.judge = Judges(recipe.adversary).to(device)
        options, mel = recipe.optimisation, recipe.mel
        self.optimiser = _adamw(self.parameters, options.rate, options)
        self.judge_optimiser = _adamw(self.judge.parameters(), options.discriminator_rate, options)
        self.watch = Watch(recipe.codec.n_q, recipe.codec.codebook_size, recipe.alarm)
        shape = (mel.windows, mel.bands, mel.hops, mel.weights, mel.distance == "l1+l2")
        self.mel = MultiScaleMel(recipe.codec.sample_rate, *shape).to(device)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What the generator's optimiser trains."""
        return [*self.codec.parameters(), *self.guides.parameters()]

    @property
    def parts(self) -> dict[str, Any]:
        """Everything a checkpoint holds, by name."""
        return {
            "codec": self.codec,
            "average": self.average,
            "guides": self.guides,
            "judge": self.judge,
            "optimiser": self.optimiser,
            "judge_optimiser": self.judge_optimiser,
            "watch": self.watch,
        }

    @torch.no_grad()
    def follow(self) -> None:
        """Move the average towards the generator; faster at first, so that it forgets the initial weights."""
        decay = min(self.recipe.optimisation.ema, (1 + self.step) / (10 + self.step))
        for averaged, current in zip(
            self.average.state_dict().values(), self.codec.state_dict().values(), strict=True
        ):
            averaged.lerp_(current, 1 - decay)


# -- step -----------------------------------------------------------------------------------------------------------


def train_step(state: State, wave: Tensor) -> dict[str, float]:
    """One update of the discriminators (once they play) and of the generator on this process's ``wave[B, T]``.

    Returns the losses, as means over processes.

    Raises:
        TrainingError: a loss or the gradient is not finite; the generator has not been updated then.
    """
    recipe, devices = state.recipe, state.devices
    set_rates(state)
    wave = wave.to(devices.device)
    reconstruction, losses, revived = reconstruct(state, wave)
    losses |= adversarial_losses(state, wave, reconstruction)
    weights = weights_of(recipe, adversarial_ramp(recipe, state.step))
    total = torch.stack([weights[name] * loss for name, loss in losses.items() if name in weights]).sum()
    state.optimiser.zero_grad(set_to_none=True)
    total.backward()
    devices.average_gradients(state.parameters)
    norm = nn.utils.clip_grad_norm_(state.parameters, recipe.optimisation.clip or math.inf)
    means = devices.mean(torch.stack([*(loss.detach() for loss in losses.values()), norm]))
    values = dict(zip([*losses, "gradient/norm"], means.tolist(), strict=True))
    require_finite(state.step, values)
    state.optimiser.step()
    state.step += 1
    state.follow()
    state.watch.step(revived)
    return values | {"codes/revived": sum(revived)}


def require_finite(step: int, values: dict[str, float]) -> None:
    """Refuse to go on with a loss or gradient that is not a number; every process sees the same means.

    Raises:
        TrainingError: names the step and the first such value.
    """
    for name, value in values.items():
        if not math.isfinite(value):
            raise TrainingError(
                f"step {step}: {name} is {value}; lower optimisation.rate and go on from the last checkpoint"
            )


def reconstruct(state: State, wave: Tensor) -> tuple[Tensor, dict[str, Tensor], list[int]]:
    """Reconstruction ``[B, T]`` of whole-frame crops, its losses, and the codes revived per level."""
    weights, codec, autocast = state.recipe.weights, state.codec, state.devices.autocast
    with autocast():
        latent = codec.encoder(wave)
    latent, revived = latent.float(), []
    losses = {}
    if state.step >= state.recipe.quantize_from:
        quantized = codec.quantizer(latent)
        losses["commitment/mse"] = quantized.commitment
        for guide in state.guides:
            losses |= guide(codec, wave, quantized, state.step)
        latent, revived = quantized.latent, quantized.revived
    if weights.magnitude:
        with autocast():
            features, phasor = codec.decoder.predict(latent)
        losses["magnitude/l1"] = (features - codec.decoder.features(wave)).abs().mean()
        output = codec.decoder.render(features, phasor, state.recipe.consistency_iterations)
    else:
        with autocast():
            output = codec.decoder(latent)
        output = output.float()
    if weights.mel:
        losses[f"mel/{state.recipe.mel.distance}"] = state.mel(output, wave)
    if weights.time:
        losses["time/l1"] = (output - wave).abs().mean()
    return output, losses, revived


def weights_of(recipe: CodecRecipe, ramp: float) -> dict[str, float]:
    """Weight of every generator loss at this point of the adversarial ramp."""
    weights, adversary = recipe.weights, recipe.adversary
    return {
        "magnitude/l1": weights.magnitude,
        f"mel/{recipe.mel.distance}": weights.mel,
        "time/l1": weights.time,
        "commitment/mse": weights.commitment,
        f"adversarial/{adversary.loss}": weights.adversarial * ramp,
        f"feature/{adversary.features}": weights.feature * ramp,
        **weights.guides,
    }


def set_rates(state: State) -> None:
    """Learning rates of this step: linear warm-up, then a cosine down to ``final``."""
    options, steps = state.recipe.optimisation, state.recipe.steps
    warm = min(1.0, (state.step + 1) / max(1, options.warmup))
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, state.step / steps)))
    factor = warm * (options.final + (1 - options.final) * cosine)
    for optimiser, peak in (
        (state.optimiser, options.rate),
        (state.judge_optimiser, options.discriminator_rate),
    ):
        for group in optimiser.param_groups:
            group["lr"] = peak * factor


# -- validate -------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def validate(state: State, store: WaveStore) -> dict[str, Any]:
    """Mel distance at one and at all levels, and the health of the codebooks, of the averaged weights."""
    codec, levels = state.average, state.recipe.codec.n_q
    picks = np.linspace(0, len(store) - 1, min(len(store), state.recipe.data.validation_files)).astype(int)
    codes, distances = [], {1: [], levels: []}
    for index in picks:
        wave = torch.from_numpy(store[index])[None].to(state.devices.device)
        codes.append(codec.encode(wave))
        for k in distances:
            decoded = codec.decode(codes[-1][:, :k])[:, : wave.shape[1]]
            distances[k].append(float(state.mel(decoded, wave)))
    everything = torch.cat(codes, dim=2)[0]
    means = {f"mel/{k}": float(np.mean(values)) for k, values in distances.items()}
    return means | codebook_health(everything, state.recipe.codec.codebook_size)


# -- checkpoint -----------------------------------------------------------------------------------------------------


def save_checkpoint(state: State, folder: Path) -> None:
    """Everything needed to go on as if nothing had happened, in one file that is replaced at once."""
    parts = {name: part.state_dict() for name, part in state.parts.items()}
    save_snapshot(
        folder / "checkpoint.safetensors",
        {"step": state.step, "recipe": json.dumps(asdict(state.recipe)), "random": random_state(), **parts},
    )


def load_checkpoint(state: State, folder: Path) -> None:
    """Continue from the folder's checkpoint, where there is one.

    Raises:
        ConfigError: the checkpoint belongs to another recipe.
    """
    path = folder / "checkpoint.safetensors"
    if not path.exists():
        return
    saved = load_snapshot(path)
    then, now = _essentials(json.loads(saved["recipe"])), _essentials(json.loads(json.dumps(asdict(state.recipe))))
    changed = sorted(name for name in now if now[name] != then.get(name))
    if changed:
        raise ConfigError(f"{path}: was trained with another {', '.join(changed)}; use its recipe or an empty folder")
    for name, part in state.parts.items():
        part.load_state_dict(saved[name])
    state.step = saved["step"]
    restore_random_state(saved["random"])


def _essentials(recipe: dict[str, Any]) -> dict[str, Any]:
    """The parts of a recipe that decide the weights; logging, paths and threads may change between runs."""
    free = {"name", "log_every", "validate_every", "checkpoint_every", "threads", "alarm"}
    kept = {key: value for key, value in recipe.items() if key not in free}
    places = {"manifests", "validation", "cache", "validation_files"}
    kept["data"] = {key: value for key, value in recipe["data"].items() if key not in places}
    return kept


# -- loop -----------------------------------------------------------------------------------------------------------


def train(
    recipe: CodecRecipe, folder: Path, stop_at: int | None = None, guides: Sequence[nn.Module] = ()
) -> State:
    """Train until ``recipe.steps`` (or ``stop_at``), resuming what ``folder`` holds, and export the model there.

    Raises:
        ConfigError: the recipe does not fit the data, the guides, the processes or what ``folder`` holds.
        OutputError: ``folder`` or the cache cannot be written.
        TrainingError: a loss or gradient is not finite; the last checkpoint stays as it is.
    """
    if not guides:
        require_guides(recipe, ())
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    make_folder(folder)
    state = State(recipe, guides)
    devices = state.devices
    if recipe.data.batch % devices.processes:
        raise ConfigError(f"data.batch={recipe.data.batch} cannot be shared by {devices.processes} processes evenly")
    with devices.main_first():
        crops, held_out = speech_of(recipe)
    load_checkpoint(state, folder)
    end = min(recipe.steps, stop_at or recipe.steps)
    first_guided = max(state.step, recipe.quantize_from)
    with closing(RunLog(folder, recipe.steps, state.step)) if devices.main else nullcontext() as log:
        while state.step < end:
            if state.step == 0 and recipe.codec.backbone == "frame":
                start_linear(state, crops)
            if state.step == recipe.quantize_from:
                place_codebooks(state, crops)
            values = train_step(state, torch.from_numpy(crops(state.step, devices.process, devices.processes)))
            if state.step == first_guided + 1:
                require_guides(recipe, values)
            if devices.main:
                after_step(state, log, folder, held_out, values, state.step == end)
    if devices.main:
        export(state, folder / "model")
    devices.wait()
    return state


def require_guides(recipe: CodecRecipe, returned: Iterable[str]) -> None:
    """Refuse weights of guides' losses that are not among those ``returned``.

    Raises:
        ConfigError: names them.
    """
    missing = sorted(set(recipe.weights.guides) - set(returned))
    if missing:
        raise ConfigError(
            f"weights.guides names {', '.join(missing)}, which no guide returns; correct it or train with that guide"
        )


def speech_of(recipe: CodecRecipe) -> tuple[Crops, WaveStore]:
    """Training crops and held-out utterances."""
    rate, data = recipe.codec.sample_rate, recipe.data
    speech = WaveStore.build(pooled(data.manifests, "train"), rate, data.cache)
    held_out = WaveStore.build(pooled(data.validation or data.manifests, "dev"), rate, data.cache)
    return Crops(speech, recipe.samples, data.batch, recipe.seed, data.gain_db), held_out


def after_step(
    state: State, log: RunLog, folder: Path, held_out: WaveStore, values: dict[str, Any], last: bool
) -> None:
    """Log, validate and save where it is due."""
    recipe, done = state.recipe, state.step
    log.step()
    if done % recipe.log_every == 0 or last:
        log.write("train", done, values)
    if done % recipe.validate_every == 0 or last:
        row = validate(state, held_out)
        # not at an early stop, which must leave no trace, nor while nothing has placed the codebooks
        if done > recipe.quantize_from and (done % recipe.validate_every == 0 or done == recipe.steps):
            health, alarms = state.watch.validation({name: row[name] for name in row if name.startswith("codes/")})
            row |= health
            for line in alarms:
                log.alarm(done, line)
        log.write("validation", done, row)
    if done % recipe.checkpoint_every == 0 or last:
        save_checkpoint(state, folder)


def start_linear(state: State, crops: Crops) -> None:
    """Principal components of fresh crops into the frame codec and its average."""
    wave = torch.cat([torch.from_numpy(crops(state.recipe.steps + i)) for i in range(LINEAR_BATCHES)])
    wave = wave.to(state.devices.device)
    start_from_principal_components(state.codec.encoder, state.codec.decoder, wave)
    state.devices.share(state.codec)
    state.average.load_state_dict(state.codec.state_dict())


@torch.no_grad()
def place_codebooks(state: State, crops: Crops) -> None:
    """K-means of the latents of fresh crops, in the generator and in its average."""
    batches = (torch.from_numpy(crops(state.recipe.steps + i)) for i in range(CODEBOOK_BATCHES))
    batches = (wave.to(state.devices.device) for wave in batches)
    state.codec.quantizer.initialise(torch.cat([state.codec.encoder(wave).flatten(0, 1) for wave in batches]))
    state.average.quantizer.load_state_dict(state.codec.quantizer.state_dict())


def export(state: State, folder: Path) -> None:
    """The averaged model as a folder that ``speechtok.load`` reads."""
    write_text_atomic(folder.parent / "recipe.json", json.dumps(asdict(state.recipe), indent=2))
    save_codec(state.average, folder, card={"steps": state.step})


def main(recipe_path: str | Path, overrides: list[str], plot: bool = False) -> None:
    """``speechtok train codec RECIPE.yaml [name=value ...] [--plot]``; ``out=FOLDER`` names the run's folder."""
    settings = [item for item in overrides if not item.startswith("out=")]
    outs = [item.removeprefix("out=") for item in overrides if item.startswith("out=")]
    recipe = from_yaml(CodecRecipe, recipe_path, settings)
    folder = Path(outs[-1] if outs else f"runs/{recipe.name}")
    devices = train(recipe, folder).devices
    if plot and devices.main:
        draw(folder)
    devices.close()


def _adamw(parameters: Iterable[nn.Parameter], rate: float, options: Optimisation) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, rate, betas=options.betas, weight_decay=options.weight_decay)
