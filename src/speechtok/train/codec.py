"""The codec trainer: state, step, validate, start, export; checkpoints and the loop are ``train.loop``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from speechtok.errors import ConfigError
from speechtok.nn.codec import Codec, real_frames
from speechtok.nn.discriminators import Judges
from speechtok.nn.frame import start_from_principal_components
from speechtok.nn.quantizers import Quantized
from speechtok.tokenizers.checkpoint import load_codec, save_codec
from speechtok.train.adversary import adversarial_losses, adversarial_ramp
from speechtok.train.data import Crops, WaveStore, evenly, pooled
from speechtok.train.devices import Devices
from speechtok.train.guides import guides_of
from speechtok.train.health import Watch, codebook_health
from speechtok.train.loop import prepare, run, run_command
from speechtok.train.losses import MultiScaleMel
from speechtok.train.optimisation import adamw, follow, set_rate, update
from speechtok.train.recipe import CodecRecipe
from speechtok.train.samples import Sample, reconstructions
from speechtok.train.views import Hearing, Views

LINEAR_BATCHES = 30
"""Batches whose principal components a frame codec starts from: many more vectors than feature dimensions."""
NEW = ("encoder.own.", "transform.", "quantizer.", "timbre_encoder.", "film.")
"""What a run that starts from another codec may have beyond it."""
CODEBOOK_BATCHES = 20
"""Batches whose latents place the codebooks: a dozen vectors per code."""


class Guide(Protocol):
    """A teacher: a module whose losses join the others, named ``group/name`` and weighed by the recipe.

    A loss without a weight there is logged and counts nothing, so a teacher can report what should be watched. Its own
    parameters (projections, attention) are trained and saved with the generator's.
    """

    def __call__(self, codec: Codec, wave: Tensor, quantized: Quantized, step: int) -> dict[str, Tensor]:
        """Called as soon as there is a level one to be taught; ``quantized`` may be without codes then.

        Losses of the crops ``wave[B, T]``; ``Crops.places(step)`` says where these were cut."""
        ...


class State:
    """All that changes while training: generator, its average, guides, discriminators, optimisers, step.

    Args:
        speech: training crops and held-out utterances; without them it takes single steps only (``train_step``).
    """

    def __init__(
        self, recipe: CodecRecipe, guides: Sequence[nn.Module] = (), speech: tuple[Crops, WaveStore] | None = None
    ):
        torch.manual_seed(recipe.seed)
        self.recipe, self.devices = recipe, Devices(recipe.precision)
        self.step = 0
        if speech is not None:
            self.crops, self.held_out = speech
            self.corpus = self.crops.store.digest
            codec = recipe.codec
            self.hearing = Hearing(recipe.views, self.crops, codec.sample_rate, codec.timbre is not None)
        self.guides_checked = not guides  # their losses are known when they have been heard once
        device = self.devices.device
        self.codec = Codec(recipe.codec).to(device)
        self.average = Codec(recipe.codec).requires_grad_(False).eval().to(device)
        self.average.load_state_dict(self.codec.state_dict())
        self.guides = nn.ModuleList(guides).to(device)
        self.devices.share(self.guides)  # whoever built them may have drawn other weights in every process
        self.judge = Judges(recipe.adversary).to(device)
        options, mel = recipe.optimisation, recipe.mel
        self.optimiser = adamw(self.parameters, options.rate, options)
        self.judge_optimiser = adamw(self.judge.parameters(), options.discriminator_rate, options)
        self.watch = Watch(recipe.codec.codebook_sizes, recipe.alarm)
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

    def advance(self) -> dict[str, float]:
        """One update, see ``train.loop.Trainee``; linear maps and codebooks get their start when they are due."""
        devices, recipe = self.devices, self.recipe
        if self.step == 0 and recipe.start:
            start_from(self, recipe.start)
        elif self.step == 0 and recipe.codec.backbone == "frame":
            start_linear(self)
        # codes that another codec brought along fit only as long as they are in use from the first step on
        if self.step == recipe.quantize_from and (self.step > 0 or not self.codec.quantizer.ready):
            place_codebooks(self)
        share = (self.step, devices.process, devices.processes)
        picks, starts = self.crops.places(*share)
        lengths = torch.from_numpy(np.minimum(self.crops.store.lengths[picks] - starts, recipe.samples))
        wave = self.crops(*share)
        values = train_step(self, torch.from_numpy(wave), lengths, self.hearing(wave, *share))
        if not self.guides_checked and self.step > recipe.quantize_from:  # all that they return has been seen
            require_guides(recipe, values)
            self.guides_checked = True
        return values

    def validate(self, counted: bool) -> tuple[dict[str, Any], list[str]]:
        """Figures and alarms, see ``train.loop.Trainee``."""
        if self.step <= self.recipe.quantize_from:  # nothing has placed the codebooks yet
            return validate_continuous(self, self.held_out), []
        row = validate(self, self.held_out)
        if not counted:
            return row, []
        health, alarms = self.watch.validation({name: row[name] for name in row if name.startswith("codes/")})
        return row | health, alarms

    def samples(self, count: int) -> Iterator[Sample]:
        """See ``train.loop.after_step``."""
        return reconstructions(self.average, self.held_out, count)

    def export(self, folder: Path) -> None:
        """The averaged model as a folder that ``speechtok.load`` reads."""
        save_codec(self.average, folder, card={"steps": self.step})


# -- step -----------------------------------------------------------------------------------------------------------


def train_step(
    state: State, wave: Tensor, lengths: Tensor | None = None, views: Views | None = None
) -> dict[str, float]:
    """One update of the discriminators (once they play) and of the generator on this process's ``wave[B, T]``.

    Returns the losses, as means over processes. What lies beyond ``lengths[B]`` samples is padding and teaches no
    codebook. ``views`` is what encoder and timbre encoder hear of the crops; without them, the crops themselves.

    Raises:
        TrainingError: a loss or the gradient is not finite; the generator has not been updated then.
    """
    recipe, devices, options = state.recipe, state.devices, state.recipe.optimisation
    for optimiser, peak in ((state.optimiser, options.rate), (state.judge_optimiser, options.discriminator_rate)):
        set_rate(optimiser, peak, options, state.step, recipe.steps)
    wave = wave.to(devices.device)
    mask = None
    if lengths is not None and bool((lengths < wave.shape[1]).any()):
        mask = real_frames(lengths.to(devices.device), wave.shape[1] // recipe.codec.hop, recipe.codec.hop)
    reconstruction, losses, revived = reconstruct(state, wave, mask, views)
    losses |= adversarial_losses(state, wave, reconstruction)
    weights = weights_of(recipe, adversarial_ramp(recipe, state.step))
    values = update(devices, state.optimiser, state.parameters, losses, weights, options.clip, state.step)
    state.step += 1
    follow(state.average, state.codec, options.ema, state.step)
    state.watch.step(revived)
    return values | {"codes/revived": sum(revived)}


def reconstruct(
    state: State, wave: Tensor, mask: Tensor | None = None, views: Views | None = None
) -> tuple[Tensor, dict[str, Tensor], list[int]]:
    """Reconstruction ``[B, T]`` of whole-frame crops, its losses, and the codes revived per level.

    ``mask[B, N]`` is True on frames that are no padding.
    """
    weights, codec, autocast = state.recipe.weights, state.codec, state.devices.autocast
    heard, *reference = Views(wave, wave) if views is None else views.to(wave.device)
    with autocast():
        latent = codec.encoder(heard)
    latent, losses = latent.float(), {}
    if state.step < state.recipe.quantize_from:
        quantized = codec.quantizer.passed(latent)
    else:
        quantized = codec.quantizer(latent, mask)
        losses |= {"commitment/mse": quantized.commitment, **quantized.losses}
    if quantized.first is not None:
        for guide in state.guides:
            losses |= guide(codec, wave, quantized, state.step)
    latent = codec.voiced(quantized.latent, codec.timbre(*reference))
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
    return output, losses, quantized.revived


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
        **recipe.codec.quantizer.weights,
        **recipe.guides.weights,
        **weights.guides,
    }


# -- validate -------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def validate(state: State, store: WaveStore) -> dict[str, Any]:
    """Mel distance at one and at all levels, and the health of the codebooks, of the averaged weights."""
    codec, levels = state.average, state.recipe.codec.n_q
    codes, distances = [], {1: [], levels: []}
    for wave in held_out_waves(state, store):
        codes.append(codec.encode(wave))
        timbre = codec.timbre(wave)
        for k in distances:
            decoded = codec.decode(codes[-1][:, :k], timbre=timbre)[:, : wave.shape[1]]
            distances[k].append(float(state.mel(decoded, wave)))
    everything = torch.cat(codes, dim=2)[0]
    means = {f"mel/{k}": float(np.mean(values)) for k, values in distances.items()}
    return means | codebook_health(everything, state.recipe.codec.codebook_sizes)


@torch.inference_mode()
def validate_continuous(state: State, store: WaveStore) -> dict[str, float]:
    """Mel distance of the averaged weights while nothing is quantized."""
    codec, distances = state.average, []
    for wave in held_out_waves(state, store):
        decoded = codec.decoder(codec.voiced(codec.latent(wave), codec.timbre(wave)))[:, : wave.shape[1]]
        distances.append(float(state.mel(decoded, wave)))
    return {"mel/continuous": float(np.mean(distances))}


def held_out_waves(state: State, store: WaveStore) -> Iterator[Tensor]:
    """``[1, T]`` of the utterances that every validation decodes."""
    for index in evenly(len(store), state.recipe.data.validation_files):
        yield torch.from_numpy(store[index])[None].to(state.devices.device)


# -- start ----------------------------------------------------------------------------------------------------------


def train(recipe: CodecRecipe, folder: Path, stop_at: int | None = None, guides: Sequence[nn.Module] = ()) -> State:
    """Train until ``recipe.steps`` (or ``stop_at``), resuming what ``folder`` holds, and export the model there.

    Args:
        guides: more of them than the recipe names.

    Raises:
        ConfigError: the recipe does not fit the data, the guides, the processes or what ``folder`` holds.
        OutputError: ``folder`` or the cache cannot be written.
        TrainingError: a loss or gradient is not finite; the last checkpoint stays as it is.
    """
    if not guides:
        require_guides(recipe, ())
    prepare(recipe, folder)
    devices = Devices(recipe.precision)
    devices.share_of(recipe.data.batch)
    with devices.main_first():
        speech = speech_of(recipe)
    state = State(recipe, [*guides_of(recipe, speech[0], devices), *guides], speech)
    run(state, folder, stop_at)
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


def start_from(state: State, folder: str) -> None:
    """Begin with the weights of another codec; only what is taught by guides, and then the codebooks, start anew.

    Raises:
        CheckpointError: ``folder`` holds no codec.
        ConfigError: its encoder or decoder has another shape.
    """
    given, wanted = load_codec(folder, fold=False).state_dict(), state.codec.state_dict()
    fitting = {key: value for key, value in given.items() if key in wanted and value.shape == wanted[key].shape}
    codebooks = [key for key in wanted if key.startswith("quantizer.")]
    if not all(key in fitting for key in codebooks):
        fitting = {key: value for key, value in fitting.items() if key not in codebooks}
    missing = [key for key in wanted if key not in fitting and not key.startswith(NEW)]
    if missing:
        raise ConfigError(f"start={folder}: has no {missing[0]} of the recipe's shape; give a codec of the same sizes")
    state.codec.load_state_dict(fitting, strict=False)
    state.average.load_state_dict(state.codec.state_dict())


def start_linear(state: State) -> None:
    """Principal components of fresh crops into the frame codec and its average."""
    wave = torch.cat([torch.from_numpy(state.crops(state.recipe.steps + i)) for i in range(LINEAR_BATCHES)])
    wave = wave.to(state.devices.device)
    start_from_principal_components(state.codec.encoder, state.codec.decoder, wave)
    state.devices.share(state.codec)
    state.average.load_state_dict(state.codec.state_dict())


@torch.no_grad()
def place_codebooks(state: State) -> None:
    """K-means of the latents of fresh crops, in the generator and in its average."""
    steps = range(state.recipe.steps, state.recipe.steps + CODEBOOK_BATCHES)
    batches = (torch.from_numpy(state.hearing.heard(state.crops(step), step)) for step in steps)
    batches = (wave.to(state.devices.device) for wave in batches)
    state.codec.quantizer.initialise(torch.cat([state.codec.encoder(wave).flatten(0, 1) for wave in batches]))
    state.average.quantizer.load_state_dict(state.codec.quantizer.state_dict())


main = partial(run_command, CodecRecipe, train)
