"""The vocoder trainer: a CTX-vec2wav for the codes of a tokenizer. State, step, validate, start.

Sources: CTX-vec2wav's trainer (prompts from the target's own utterance, auxiliary mel, random segments for the back
end) and HiFi-GAN (Kong et al. 2020) for the adversarial losses.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import speechtok
from speechtok.audio import Audio, read
from speechtok.errors import ConfigError
from speechtok.guidance.teachers import load_semantic_teacher
from speechtok.nn.conv import folded_state, install_folded
from speechtok.nn.ctx_vec2wav import CtxVec2Wav
from speechtok.nn.discriminators import Judges
from speechtok.nn.mel import LogMel
from speechtok.tokenizers.base import Tokenizer
from speechtok.tokenizers.codec import CodecTokenizer
from speechtok.tokenizers.features import Features, MelFeatures, TeacherFeatures
from speechtok.tokenizers.units import Clusters, UnitTokenizer
from speechtok.tokenizers.vocoder import NeuralVocoder, load_vocoder, prompt_of, save_vocoder
from speechtok.tokens import Tokens
from speechtok.train.adversary import adversarial_losses, adversarial_ramp
from speechtok.train.data import Crops, WaveStore, balanced, evenly, pooled
from speechtok.train.learner import Learner
from speechtok.train.loop import prepare, run, run_command
from speechtok.train.losses import MultiScaleMel
from speechtok.train.optimisation import adamw, set_rate
from speechtok.train.prosody import prosody
from speechtok.train.samples import ORIGINAL, SECONDS, Sample
from speechtok.train.tracks import Track
from speechtok.train.vocoder_recipe import PromptConfig, VocoderRecipe

AUXILIARY_WINDOW = 1024
"""Samples of the windows of the spectrogram that the encoders foretell."""


class Speech(NamedTuple):
    """A corpus with what a vocoder needs to know of it."""

    crops: Crops
    codes: Track
    prosody: Track | None


class Batch(NamedTuple):
    """Crops of one step."""

    prompt: Tensor
    """``[B, P, D]``, frames of the reference."""
    wave: Tensor
    """``[B, T]``, the target."""
    codes: Tensor
    """``[B, Q, N]`` of the target."""
    prosody: Tensor | None
    """``[B, M, 3]`` of the target, where the vocoder has that branch."""


class VocoderLearner(Learner):
    """A run of vocoder training: state, step, validate, export; checkpoints and the loop are ``train.loop``."""

    def __init__(self, recipe: VocoderRecipe):
        torch.manual_seed(recipe.seed)
        self.tokenizer = tokenizer_of(recipe)
        self.features = prompt_features(recipe.prompt, self.tokenizer)
        recipe.vocoder.prompt_dimension = self.features.dimension
        model = CtxVec2Wav(recipe.vocoder)
        begin_with_centres(model, self.tokenizer)
        self.codec = begin_with_codec(model, recipe.start) if recipe.start else None
        if recipe.begin:
            begin_with_vocoder(model, recipe.begin)
        super().__init__(recipe, model, {})
        self.recipe: VocoderRecipe = recipe
        device, mel, vocoder, options = self.devices.device, recipe.mel, recipe.vocoder, recipe.optimisation
        self.features.to(str(device))
        self.judge = Judges(recipe.adversary).to(device)
        self.judge_optimiser = adamw(self.judge.parameters(), options.discriminator_rate, options)
        shape = (mel.windows, mel.bands, mel.hops, mel.weights, mel.distance == "l1+l2")
        self.mel = MultiScaleMel(recipe.sample_rate, *shape).to(device)
        self.foretold = LogMel(recipe.sample_rate, AUXILIARY_WINDOW, vocoder.step, vocoder.bands).to(device)
        self.devices.share_of(recipe.data.batch)
        with self.devices.main_first():
            self.speech = self.speech_of(recipe.data.manifests, "train", recipe.seed)
            self.held_out = self.speech_of(recipe.data.validation or recipe.data.manifests, "dev", 0)
        self.corpus = self.speech.crops.store.digest

    @property
    def parts(self) -> dict[str, Any]:
        """Everything a checkpoint holds, by name."""
        return super().parts | {"judge": self.judge, "judge_optimiser": self.judge_optimiser}

    def speech_of(self, manifests: list[str], split: str, seed: int) -> Speech:
        """Crops, codes and prosody of a split.

        Raises:
            ConfigError: no utterance is as long as a crop.
        """
        recipe, vocoder = self.recipe, self.recipe.vocoder
        store = WaveStore.build(pooled(manifests, split), vocoder.sample_rate, recipe.data.cache)
        long = ["long" if length >= recipe.samples else "" for length in store.lengths]
        if not any(long):
            raise ConfigError(
                f"no utterance of split {split!r} lasts prompt.seconds and data.seconds together; make them shorter"
            )
        odds = balanced(store.lengths, long)
        crops = Crops(store, recipe.samples, recipe.data.batch, seed, odds=odds, grid=vocoder.hop)
        made = partial(Track.build, store, hop=vocoder.hop, cache=recipe.data.cache)
        codes = made([self.tokenizer.fingerprint, recipe.levels], rows_of=self.codes_of)
        follow = partial(prosody, rate=vocoder.sample_rate, hop=vocoder.hop)
        return Speech(crops, codes, made("prosody-1", rows_of=follow) if vocoder.prosody else None)

    def codes_of(self, wave: np.ndarray) -> np.ndarray:
        """``[N, Q]`` of one utterance."""
        audio = Audio(wave, self.recipe.sample_rate)
        return self.tokenizer.encode(audio, self.recipe.levels or None).codes.T

    # -- step -------------------------------------------------------------------------------------------------------

    def batch(self, speech: Speech, step: int, alone: bool = False) -> Batch:
        """This process's share of a step's crops; the whole of them where it works ``alone``."""
        recipe, device = self.recipe, self.devices.device
        share = (0, 1) if alone else (self.devices.process, self.devices.processes)
        wave = torch.from_numpy(speech.crops(step, *share)).to(device)
        reference, target = wave.split([recipe.prompt_samples, recipe.samples - recipe.prompt_samples], 1)
        picks, starts = speech.crops.places(step, *share)
        place = (picks, starts + recipe.prompt_samples, recipe.frames)
        with torch.no_grad():
            prompt = torch.stack([self.features.rows(one) for one in reference])
        followed = None
        if speech.prosody is not None:
            followed = speech.prosody.batch(*place).repeat_interleave(recipe.vocoder.repeat, 1).to(device)
        return Batch(prompt, target, speech.codes.batch(*place).transpose(1, 2).to(device), followed)

    def losses(self) -> dict[str, Tensor]:
        """Losses of this step; the discriminators are updated on the way, once they play."""
        recipe, options = self.recipe, self.recipe.optimisation
        set_rate(self.judge_optimiser, options.discriminator_rate, options, self.step, recipe.steps)
        self.weights = weights_of(recipe, self.step)
        batch = self.batch(self.speech, self.step)
        foretold = self.model.foretell(batch.codes, batch.prompt, batch.prosody)
        losses = {"mel/auxiliary": self.auxiliary(foretold.mel, batch.wave)}
        if foretold.prosody is not None:
            losses["prosody/l1"] = (foretold.prosody.float() - batch.prosody).abs().mean()
        states, target, latent = self.segment(foretold.states, batch.wave)
        output, more = self.sound(states, target, latent)
        with self.exact():
            return losses | more | adversarial_losses(self, target, output)

    def exact(self) -> AbstractContextManager:
        """Inside it, everything is float32 again."""
        return torch.autocast(self.devices.device.type, enabled=False)

    def auxiliary(self, mel: Tensor, wave: Tensor) -> Tensor:
        """L1 of a foretold spectrogram ``[B, M, bands]``."""
        with self.exact():
            return (mel.float() - self.foretold(wave)).abs().mean()

    def segment(self, states: Tensor, wave: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """What the back end hears of a crop: states, target, and the codec's latents where they are taught."""
        recipe, frames = self.recipe, self.recipe.segment_frames
        first = int(torch.randint(0, states.shape[1] - frames + 1, ()))
        inside = slice(first, first + frames)
        latent = None
        if recipe.weights.latent:
            with torch.no_grad(), self.exact():
                latent = self.codec.latent(wave)[:, inside]
        step = recipe.vocoder.step
        return states[:, inside], wave[:, first * step : (first + frames) * step], latent

    def sound(self, states: Tensor, target: Tensor, latent: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Waveform of ``states[B, M, C]`` and its losses."""
        weights, backend, losses = self.recipe.weights, self.model.backend, {}
        if self.recipe.vocoder.backend == "hifigan":
            output = backend(states).float()
        else:
            heard = backend.project(states).float()
            features, phasor = backend.decoder.predict(heard)
            with self.exact():
                output = backend.decoder.render(features, phasor, self.recipe.consistency_iterations)
                if latent is not None:
                    losses["latent/l1"] = (heard - latent).abs().mean()
                if weights.magnitude:
                    losses["magnitude/l1"] = (features - backend.decoder.features(target)).abs().mean()
        if weights.mel:
            with self.exact():
                losses[f"mel/{self.recipe.mel.distance}"] = self.mel(output, target)
        return output, losses

    # -- validate, samples, export ----------------------------------------------------------------------------------

    @torch.inference_mode()
    def validate(self, counted: bool) -> tuple[dict[str, Any], list[str]]:
        """Figures of what the averaged weights make of held-out crops, by themselves; see ``train.loop.Trainee``."""
        rows = []
        for step in range(-(-self.recipe.data.validation_files // self.recipe.data.batch)):
            batch = self.batch(self.held_out, step, alone=True)
            foretold = self.average.foretell(batch.codes, batch.prompt)
            row = {"mel/auxiliary": self.auxiliary(foretold.mel, batch.wave)}
            if foretold.prosody is not None:
                row["prosody/l1"] = (foretold.prosody - batch.prosody).abs().mean()
            rows.append(row | {"mel/resynthesis": self.mel(self.average.backend(foretold.states), batch.wave)})
        return {name: float(torch.stack([row[name] for row in rows]).mean()) for name in rows[0]}, []

    def samples(self, count: int) -> Iterator[Sample]:
        """Held-out utterances beside their resynthesis from codes; see ``train.loop.after_step``."""
        store, vocoder = self.held_out.crops.store, self.finished()
        for index in evenly(len(store), count):
            original = store[index][: round(SECONDS * self.recipe.sample_rate)]
            spoken = vocoder.with_voice(Audio(original, self.recipe.sample_rate))
            again = spoken(self.codes_of(original).T)[: len(original)]
            yield Sample(f"utterance-{index}", self.recipe.sample_rate, {ORIGINAL: original, "resynthesis": again})

    def finished(self) -> NeuralVocoder:
        """The averaged weights as a vocoder, in its own voice."""
        recipe, store = self.recipe, self.held_out.crops.store
        first = int(np.flatnonzero(store.lengths >= recipe.samples)[0])
        own = read(recipe.voice) if recipe.voice else Audio(store[first], recipe.sample_rate)
        fingerprint = self.tokenizer.fingerprint
        return NeuralVocoder(self.average, self.features, prompt_of(self.features, own), fingerprint, recipe.name)

    def export(self, folder: Path) -> None:
        """A folder that ``tokenizers.vocoder.load_vocoder`` reads."""
        save_vocoder(self.finished(), folder, card={"steps": self.step, "tokenizer": self.tokenizer.name})


def weights_of(recipe: VocoderRecipe, step: int) -> dict[str, float]:
    """Weight of every loss of the generator at this step."""
    weights, adversary, ramp = recipe.weights, recipe.adversary, adversarial_ramp(recipe, step)
    counts = not recipe.auxiliary_until or step < recipe.auxiliary_until
    return {
        "mel/auxiliary": weights.auxiliary if counts else 0.0,
        "prosody/l1": weights.prosody,
        "latent/l1": weights.latent,
        "magnitude/l1": weights.magnitude,
        f"mel/{recipe.mel.distance}": weights.mel,
        f"adversarial/{adversary.loss}": weights.adversarial * ramp,
        f"feature/{adversary.features}": weights.feature * ramp,
    }


# -- start ----------------------------------------------------------------------------------------------------------


def tokenizer_of(recipe: VocoderRecipe) -> Tokenizer:
    """The tokenizer that a recipe names.

    Raises:
        CheckpointError: it cannot be loaded.
        ConfigError: its tokens are no codes, or it has another rate, hop or other codebooks than the vocoder.
    """
    tokenizer = speechtok.load(recipe.tokenizer)
    if not issubclass(tokenizer.value, Tokens):
        raise ConfigError(f"{recipe.tokenizer} gives {tokenizer.value.__name__}; a vocoder needs codes")
    heard = tokenizer.codebook_sizes[: recipe.levels or None]
    theirs, ours = (tokenizer.sample_rate, tokenizer.hop, heard), recipe.vocoder
    if theirs != (ours.sample_rate, ours.hop, ours.codebook_sizes):
        raise ConfigError(
            f"{recipe.tokenizer} has {theirs[0]} Hz, hop {theirs[1]} and codebooks {list(heard)}; set"
            " vocoder.sample_rate, vocoder.hop and vocoder.codebook_sizes to that"
        )
    return tokenizer


def prompt_features(prompt: PromptConfig, tokenizer: Tokenizer) -> Features:
    """What references are heard as."""
    if prompt.features == "mel":
        return MelFeatures(tokenizer.sample_rate, hop=tokenizer.hop)
    layer = int(prompt.layer) if prompt.layer.isdigit() else prompt.layer
    return TeacherFeatures(load_semantic_teacher(prompt.features, layer), reference=prompt.features)


@torch.no_grad()
def begin_with_centres(model: CtxVec2Wav, tokenizer: Tokenizer) -> None:
    """Let every token's vector begin as its k-means centre, where the tokenizer has these and the widths agree."""
    source = tokenizer.source if isinstance(tokenizer, UnitTokenizer) else None
    if isinstance(source, Clusters) and source.centres.shape == model.codes[0].weight.shape:
        centres = source.centres.cpu()
        model.codes[0].weight.copy_((centres - centres.mean(0)) / centres.std(0).clamp_min(1e-3))


def begin_with_codec(model: CtxVec2Wav, name: str) -> Any:
    """Let a frame backend begin as a codec's decoder; returns that codec, frozen.

    Raises:
        CheckpointError: the codec cannot be loaded.
        ConfigError: its decoder has another shape.
    """
    tokenizer = speechtok.load(name)
    codec = tokenizer.codec.requires_grad_(False) if isinstance(tokenizer, CodecTokenizer) else None
    try:
        model.backend.decoder.load_state_dict(codec.decoder.state_dict())
    except (AttributeError, RuntimeError) as error:
        raise ConfigError(f"start={name}: is no frame codec of vocoder.frame's and vocoder.latent's shape") from error
    return codec


def begin_with_vocoder(model: CtxVec2Wav, folder: str) -> None:
    """Let all weights begin as those of another run's vocoder.

    Raises:
        CheckpointError: it cannot be loaded.
        ConfigError: it has another shape.
    """
    try:
        install_folded(model, folded_state(load_vocoder(folder).model))
    except (KeyError, RuntimeError) as error:
        raise ConfigError(f"begin={folder}: has another shape than this recipe's vocoder; use its recipe") from error


def train(recipe: VocoderRecipe, folder: Path, stop_at: int | None = None) -> VocoderLearner:
    """Train until ``recipe.steps`` (or ``stop_at``), resuming what ``folder`` holds, and export the model there.

    Raises:
        CheckpointError: the tokenizer, the codec or the teacher cannot be loaded.
        ConfigError: the recipe does not fit these, the data, the processes or what ``folder`` holds.
        OutputError: ``folder`` or the cache cannot be written.
        TrainingError: a loss or gradient is not finite; the last checkpoint stays as it is.
    """
    prepare(recipe, folder)
    learner = VocoderLearner(recipe)
    run(learner, folder, stop_at)
    return learner


main = partial(run_command, VocoderRecipe, train)
