"""The codec trainer: state, step, validate, checkpoint, loop."""

from __future__ import annotations

import json
import math
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from speechtok.config import from_yaml
from speechtok.errors import ConfigError
from speechtok.files import write_text_atomic
from speechtok.nn.codec import Codec
from speechtok.nn.discriminators import MultiScaleSTFTDiscriminator
from speechtok.nn.frame import start_from_principal_components
from speechtok.tokenizers.checkpoint import save_codec
from speechtok.train.data import Crops, WaveStore, pooled
from speechtok.train.log import RunLog
from speechtok.train.losses import MultiScaleMel, adversarial_loss, discriminator_loss, feature_loss
from speechtok.train.recipe import CodecRecipe, Optimisation
from speechtok.train.snapshot import load_snapshot, random_state, restore_random_state, save_snapshot

LINEAR_BATCHES = 30
"""Batches whose principal components a frame codec starts from: many more vectors than feature dimensions."""
CODEBOOK_BATCHES = 20
"""Batches whose latents place the codebooks: a dozen vectors per code."""


class State:
    """All that changes while training: generator, its average, discriminator, optimisers, step."""

    def __init__(self, recipe: CodecRecipe):
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.step = 0
        self.codec = Codec(recipe.codec)
        self.average = Codec(recipe.codec).requires_grad_(False).eval()
        self.average.load_state_dict(self.codec.state_dict())
        self.judge = MultiScaleSTFTDiscriminator(recipe.adversary.stft)
        options = recipe.optimisation
        self.optimiser = _adamw(self.codec, options.rate, options)
        self.judge_optimiser = _adamw(self.judge, options.discriminator_rate, options)
        self.mel = MultiScaleMel(recipe.codec.sample_rate, recipe.mel.windows, recipe.mel.bands)

    @property
    def parts(self) -> dict[str, Any]:
        """Everything a checkpoint holds, by name."""
        return {
            "codec": self.codec,
            "average": self.average,
            "judge": self.judge,
            "optimiser": self.optimiser,
            "judge_optimiser": self.judge_optimiser,
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
    """One update of the discriminator (once it plays) and of the generator on ``wave[B, T]``."""
    recipe = state.recipe
    set_rates(state)
    reconstruction, losses, revived = reconstruct(state, wave)
    ramp = adversarial_ramp(recipe, state.step)
    if ramp > 0:
        real, fake = excerpts(state, wave, reconstruction)
        scales = scales_of_step(recipe, state.step)
        losses |= {"discriminator/lsgan": update_judge(state, real, fake.detach(), scales)}
        losses |= judge_losses(state, real, fake, scales)
    weights = weights_of(recipe, ramp)
    total = torch.stack([weights[name] * loss for name, loss in losses.items() if name in weights]).sum()
    state.optimiser.zero_grad(set_to_none=True)
    total.backward()
    norm = nn.utils.clip_grad_norm_(state.codec.parameters(), recipe.optimisation.clip)
    state.optimiser.step()
    state.step += 1
    state.follow()
    return {name: float(loss.detach()) for name, loss in losses.items()} | {
        "gradient/norm": float(norm),
        "codes/revived": sum(revived),
    }


def reconstruct(state: State, wave: Tensor) -> tuple[Tensor, dict[str, Tensor], list[int]]:
    """Reconstruction ``[B, T]`` of whole-frame crops, its losses, and the codes revived per level."""
    weights, codec = state.recipe.weights, state.codec
    latent, revived = codec.encoder(wave), []
    losses = {}
    if state.step >= state.recipe.quantize_from:
        quantized = codec.quantizer(latent)
        losses["commitment/mse"] = quantized.commitment
        latent, revived = quantized.latent, quantized.revived
    if weights.magnitude:
        features, phasor = codec.decoder.predict(latent)
        losses["magnitude/l1"] = (features - codec.decoder.features(wave)).abs().mean()
        output = codec.decoder.render(features, phasor, state.recipe.consistency_iterations)
    else:
        output = codec.decoder(latent)
    if weights.mel:
        losses["mel/l1"] = state.mel(output, wave)
    if weights.time:
        losses["time/l1"] = (output - wave).abs().mean()
    return output, losses, revived


def update_judge(state: State, real: Tensor, fake: Tensor, scales: tuple[int, ...]) -> Tensor:
    """One discriminator update; returns its loss."""
    loss = discriminator_loss(state.judge(real, scales), state.judge(fake, scales))
    state.judge_optimiser.zero_grad(set_to_none=True)
    loss.backward()
    state.judge_optimiser.step()
    return loss.detach()


def judge_losses(state: State, real: Tensor, fake: Tensor, scales: tuple[int, ...]) -> dict[str, Tensor]:
    """What the discriminator says of the reconstruction, with gradients to the generator only."""
    with torch.no_grad():
        judged_real = state.judge(real, scales)
    with frozen(state.judge):
        judged_fake = state.judge(fake, scales)
        return {
            "adversarial/lsgan": adversarial_loss(judged_fake),
            "feature/relative": feature_loss(judged_real, judged_fake),
        }


def excerpts(state: State, wave: Tensor, reconstruction: Tensor) -> tuple[Tensor, Tensor]:
    """The same random part of every target and reconstruction, each ``[B, T']``."""
    recipe = state.recipe
    length = min(round(recipe.adversary.seconds * recipe.codec.sample_rate), wave.shape[1])
    start = int(torch.randint(0, wave.shape[1] - length + 1, ()))
    return wave[:, start : start + length], reconstruction[:, start : start + length]


def weights_of(recipe: CodecRecipe, ramp: float) -> dict[str, float]:
    """Weight of every generator loss at this point of the adversarial ramp."""
    weights = recipe.weights
    return {
        "magnitude/l1": weights.magnitude,
        "mel/l1": weights.mel,
        "time/l1": weights.time,
        "commitment/mse": weights.commitment,
        "adversarial/lsgan": weights.adversarial * ramp,
        "feature/relative": weights.feature * ramp,
    }


def adversarial_ramp(recipe: CodecRecipe, step: int) -> float:
    """0 before the adversary starts, then rising linearly to 1."""
    if recipe.weights.adversarial == 0:
        return 0.0
    return min(1.0, max(0.0, (step - recipe.adversary.start + 1) / max(1, recipe.adversary.ramp)))


def scales_of_step(recipe: CodecRecipe, step: int) -> tuple[int, ...]:
    """Indices of the sub-discriminators whose turn it is."""
    count = len(recipe.adversary.stft.windows)
    turn = min(recipe.adversary.per_step or count, count)
    return tuple((step * turn + i) % count for i in range(turn))


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
    """Mel distance at one and at all levels, and the share of codes in use, of the averaged weights."""
    codec, levels = state.average, state.recipe.codec.n_q
    picks = np.linspace(0, len(store) - 1, min(len(store), state.recipe.data.validation_files)).astype(int)
    codes, distances = [], {1: [], levels: []}
    for index in picks:
        wave = torch.from_numpy(store[index])[None]
        codes.append(codec.encode(wave))
        for k in distances:
            decoded = codec.decode(codes[-1][:, :k])[:, : wave.shape[1]]
            distances[k].append(float(state.mel(decoded, wave)))
    everything = torch.cat(codes, dim=2)[0]
    used = [len(row.unique()) / state.recipe.codec.codebook_size for row in everything]
    return {f"mel/{k}": float(np.mean(values)) for k, values in distances.items()} | {"codes/used": used}


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
    free = {"name", "log_every", "validate_every", "checkpoint_every", "threads"}
    kept = {key: value for key, value in recipe.items() if key not in free}
    places = {"manifests", "validation", "cache", "validation_files"}
    kept["data"] = {key: value for key, value in recipe["data"].items() if key not in places}
    return kept


# -- loop -----------------------------------------------------------------------------------------------------------


def train(recipe: CodecRecipe, folder: Path, stop_at: int | None = None) -> State:
    """Train until ``recipe.steps`` (or ``stop_at``), resuming what ``folder`` holds, and export the model there."""
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    folder.mkdir(parents=True, exist_ok=True)
    rate, data = recipe.codec.sample_rate, recipe.data
    speech = WaveStore.build(pooled(data.manifests, "train"), rate, data.cache)
    held_out = WaveStore.build(pooled(data.validation or data.manifests, "dev"), rate, data.cache)
    crops = Crops(speech, recipe.samples, data.batch, recipe.seed, data.gain_db)
    state = State(recipe)
    load_checkpoint(state, folder)
    log = RunLog(folder, recipe.steps, state.step)
    end = min(recipe.steps, stop_at or recipe.steps)
    try:
        while state.step < end:
            if state.step == 0 and recipe.codec.backbone == "frame":
                start_linear(state, crops)
            if state.step == recipe.quantize_from:
                place_codebooks(state, crops)
            values = train_step(state, torch.from_numpy(crops(state.step)))
            log.step()
            done = state.step
            if done % recipe.log_every == 0 or done == end:
                log.write("train", done, values)
            if done % recipe.validate_every == 0 or done == end:
                log.write("validation", done, validate(state, held_out))
            if done % recipe.checkpoint_every == 0 or done == end:
                save_checkpoint(state, folder)
    finally:
        log.close()
    export(state, folder / "model")
    return state


def start_linear(state: State, crops: Crops) -> None:
    """Principal components of fresh crops into the frame codec and its average."""
    wave = torch.cat([torch.from_numpy(crops(state.recipe.steps + i)) for i in range(LINEAR_BATCHES)])
    start_from_principal_components(state.codec.encoder, state.codec.decoder, wave)
    state.average.load_state_dict(state.codec.state_dict())


@torch.no_grad()
def place_codebooks(state: State, crops: Crops) -> None:
    """K-means of the latents of fresh crops, in the generator and in its average."""
    batches = (torch.from_numpy(crops(state.recipe.steps + i)) for i in range(CODEBOOK_BATCHES))
    state.codec.quantizer.initialise(torch.cat([state.codec.encoder(wave).flatten(0, 1) for wave in batches]))
    state.average.quantizer.load_state_dict(state.codec.quantizer.state_dict())


def export(state: State, folder: Path) -> None:
    """The averaged model as a folder that ``speechtok.load`` reads."""
    write_text_atomic(folder.parent / "recipe.json", json.dumps(asdict(state.recipe), indent=2))
    save_codec(state.average, folder, card={"steps": state.step})


def main(recipe_path: str, overrides: list[str]) -> None:
    """``speechtok train codec RECIPE.yaml [name=value ...]``; ``out=FOLDER`` names the run's folder."""
    settings = [item for item in overrides if not item.startswith("out=")]
    outs = [item.removeprefix("out=") for item in overrides if item.startswith("out=")]
    recipe = from_yaml(CodecRecipe, recipe_path, settings)
    train(recipe, Path(outs[-1] if outs else f"runs/{recipe.name}"))


@contextmanager
def frozen(module: nn.Module):
    """No gradients for the parameters of ``module`` inside the block; they still flow through it."""
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in module.parameters():
            parameter.requires_grad_(True)


def _adamw(module: nn.Module, rate: float, options: Optimisation) -> torch.optim.Optimizer:
    return torch.optim.AdamW(module.parameters(), rate, betas=options.betas, weight_decay=options.weight_decay)
