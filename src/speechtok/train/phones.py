"""A supervised teacher: the network of ``train ssl`` with a linear head that names phones or characters.

Losses: cross-entropy on every frame of aligned phones, or CTC (Graves et al. 2006) on their sequence or on the
characters of the transcript, as in HuBERT's fine-tuning (Hsu et al. 2021, section IV-C). With a bottleneck in the
network the same losses teach it supervised semantic tokens, see ``nn.bottleneck``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soxr
import torch
import torch.nn.functional as F
from torch import Tensor

from speechtok.errors import ConfigError
from speechtok.guidance.frames import FrameLaw
from speechtok.guidance.phones import SILENCE
from speechtok.nn import hubert
from speechtok.nn.bottleneck import listening
from speechtok.train import masking
from speechtok.train.bottleneck import BottleneckConfig, Codebooks, codes_of, states_of
from speechtok.train.data import Crops, WaveStore, balanced
from speechtok.train.devices import Devices
from speechtok.train.learner import Learner
from speechtok.train.loop import prepare, run, run_command
from speechtok.train.recipe import Alarm
from speechtok.train.teaching import (
    HOP,
    UNKNOWN,
    Batch,
    TeacherRecipe,
    batch_of,
    fit_front_end,
    held_out_crops,
    mean_over_frames,
    stores_of,
    validation_batches,
)
from speechtok.train.transcripts import (
    BLANK,
    CHARACTERS,
    PHONES,
    Spoken,
    characters_of,
    phones_of,
    read_alignments,
    utterances_of,
)

PLACING_BATCHES = 20
"""Batches whose states place the codes of a bottleneck."""


@dataclass
class HeadConfig:
    """What the head learns."""

    loss: Literal["frames", "ctc"] = "frames"
    symbols: Literal["phones", "characters"] = "phones"
    alignments: list[str] = field(default_factory=list)
    """Files of ``speechtok align``, for phones. Utterances that they lack are left out."""
    keep: bool = False
    """Whether to go on with the head of ``encoder``, whose symbols must be these; CTC's blank begins as silence."""

    @property
    def classes(self) -> list[str]:
        """Names in the order of the head's outputs."""
        symbols = PHONES if self.symbols == "phones" else CHARACTERS
        return [SILENCE if self.loss == "frames" else BLANK, *symbols]


@dataclass
class AugmentConfig:
    """SpecAugment (Park et al. 2019) and speed; shares are of what begins a span, and 0 hides nothing."""

    frames: float = 0.03
    frame_span: int = 8
    bands: float = 0.02
    """Of the mel bands, or of the channels of the waveform front end."""
    band_span: int = 10
    speeds: tuple[float, ...] = (1.0,)
    """Every step plays its crops at one of these."""

    def __post_init__(self) -> None:
        if not self.speeds or not all(0.5 <= speed <= 2 for speed in self.speeds):
            raise ConfigError(f"augment.speeds={list(self.speeds)}; give one or more between 0.5 and 2")


@dataclass
class PhonesRecipe(TeacherRecipe):
    """A run of a supervised teacher."""

    name: str = "phones"
    encoder: str = ""
    """Folder of ``train ssl`` or ``train phones`` to go on from, with a new head unless ``head.keep``; of ``network``
    only the dropout counts then. Empty: from scratch."""
    train_front_end: bool = True
    """Whether the convolutions of the waveform front end learn; HuBERT's fine-tuning leaves them alone."""
    head: HeadConfig = field(default_factory=HeadConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    bottleneck: BottleneckConfig | None = None
    """Quantizes the states of a layer, so that codes become supervised tokens; null: nothing is quantized."""
    alarm: Alarm = field(default_factory=Alarm)
    """Of the bottleneck."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.head.symbols == "phones" and not self.head.alignments:
            raise ConfigError("head.alignments is empty; name the phones.tsv that speechtok align makes")
        if self.head.symbols == "characters" and self.head.loss != "ctc":
            raise ConfigError("head.symbols=characters have no times; set head.loss=ctc")
        if self.head.keep and not self.encoder:
            raise ConfigError("head.keep=true needs a trained one; name its folder in encoder")
        if self.bottleneck is not None and self.network.layer_drop:
            raise ConfigError("a dropped layer would take the bottleneck along; set network.layer_drop=0")


class PhonesLearner(Learner):
    """A run of supervised training."""

    def __init__(self, recipe: PhonesRecipe):
        torch.manual_seed(recipe.seed)
        head = recipe.head
        network = network_of(recipe)
        network.hubert.feature_extractor.requires_grad_(recipe.train_front_end)
        weights = recipe.bottleneck.weights if recipe.bottleneck else {}
        super().__init__(recipe, network, {f"phones/{head.loss}": 1.0} | weights)
        self.recipe: PhonesRecipe = recipe
        self.codebooks: Codebooks | None = None
        if recipe.bottleneck:
            self.codebooks = Codebooks(recipe.bottleneck, recipe.alarm, self.model, self.average)
        self.law = FrameLaw.of_convolutions(hubert.RATE, network.config.conv_kernel, network.config.conv_stride)
        speech, held_out = stores_of(recipe.data, self.devices)
        self.corpus = speech.digest
        if not recipe.encoder:
            fit_front_end(network, speech)
            self.average.load_state_dict(network.state_dict())
        self.spoken = self.transcribed("train", recipe.data.manifests, speech)
        self.held_out_spoken = self.transcribed("dev", recipe.data.validation or recipe.data.manifests, held_out)
        odds = odds_of(speech, self.spoken)
        self.crops = {
            speed: Crops(
                speech, round(recipe.samples * speed), recipe.data.batch, recipe.seed, recipe.data.gain_db, odds, HOP
            )
            for speed in recipe.augment.speeds
        }
        self.held_out = held_out_crops(recipe, held_out, odds_of(held_out, self.held_out_spoken))

    def transcribed(self, split: str, manifests: list[str], store: WaveStore) -> list[Spoken | None]:
        """What is said in every utterance of a split; one line says how many are left out.

        Raises:
            ConfigError: nothing is left.
        """
        named, head = utterances_of(manifests, split), self.recipe.head
        if head.symbols == "phones":
            found = phones_of(named, store.lengths, read_alignments(head.alignments))
            reason = "without alignment"
        else:
            # a crop of an utterance has no transcript, so those that do not fit into one are not used
            longest = round(self.recipe.samples * min(1.0, *self.recipe.augment.speeds))  # 1 is the validation's
            found = characters_of(named, store.lengths, longest)
            reason = f"longer than {self.recipe.data.seconds} s or without a transcript in English letters"
        missing = found.count(None)
        if self.devices.main:
            print(f"{split}: {len(found) - missing} utterances; {missing} {reason} are left out", flush=True)
        if missing == len(found):
            raise ConfigError(f"every utterance of split {split!r} is {reason}; correct section head of the recipe")
        return found

    @property
    def parts(self) -> dict[str, Any]:
        """See ``Learner``."""
        return super().parts | ({"watch": self.codebooks.watch} if self.codebooks else {})

    def advance(self) -> dict[str, float]:
        """See ``Learner``; codes are placed when they are due."""
        if self.codebooks and self.codebooks.due(self.step):
            torch.manual_seed(self.noise_seed)  # the same in every process and after every interruption
            self.codebooks.place(self.placing_states())
        return super().advance()

    @torch.no_grad()
    def placing_states(self) -> Iterator[Tensor]:
        """What the bottleneck hears of fresh crops, ``[M, D]`` of each batch, the same in every process."""
        self.model.eval()
        speeds = self.recipe.augment.speeds
        for i in range(PLACING_BATCHES):
            speed = speeds[i % len(speeds)]
            batch = batch_of(self.crops[speed], self.recipe.steps + i, self.devices, alone=True)
            batch = at_speed(batch, speed, self.recipe.samples)
            with listening() as heard:
                self.logits(self.model, batch, hubert.features(self.model, batch.wave))
            yield states_of(heard, batch.valid(self.law))

    def losses(self) -> dict[str, Tensor]:
        """The head's loss on this step's crops, augmented, and those of a bottleneck."""
        augment, devices = self.recipe.augment, self.devices
        draws = np.random.default_rng((self.recipe.seed, self.step, 2))  # another stream than that of the crops
        speed = float(draws.choice(augment.speeds))
        batch = at_speed(batch_of(self.crops[speed], self.step, devices), speed, self.recipe.samples)
        extracted = hubert.features(self.model, batch.wave)
        every = self.recipe.data.batch
        share = devices.share_of(every)
        frames, channels = extracted.shape[1:]
        hidden = masking.spans(draws, [frames] * every, frames, augment.frames, augment.frame_span)[share]
        bands = channels // 2 if self.model.config.front_end == hubert.LOG_MEL else channels
        muted = masking.spans(draws, [bands] * every, bands, augment.bands, augment.band_span)[share]
        silent = torch.from_numpy(np.tile(muted, channels // bands)).to(extracted.device)
        extracted = extracted.masked_fill(silent[:, None], 0.0)
        with listening(batch.valid(self.law)) as heard:
            logits = self.logits(self.model, batch, extracted, torch.from_numpy(hidden).to(extracted.device))
        losses = self.score(logits, batch, self.spoken, speed, devices)
        return losses | (self.codebooks.losses(heard) if self.codebooks else {})

    def logits(self, model: Any, batch: Batch, extracted: Tensor, hidden: Tensor | None = None) -> Tensor:
        """``[B, N, classes]``."""
        states = hubert.encode(model, extracted, hidden, batch.valid(self.law))
        return model.lm_head(model.dropout(states)).float()

    def score(
        self,
        logits: Tensor,
        batch: Batch,
        spoken: list[Spoken | None],
        speed: float = 1.0,
        together: Devices | None = None,
    ) -> dict[str, Tensor]:
        """``phones/frames`` and ``accuracy/frames``; or ``phones/ctc`` and ``impossible/ctc``, the share of crops with
        more symbols than frames can name, whose loss counts 0. ``together`` with all processes."""
        if self.recipe.head.loss == "frames":
            wanted = self.frame_targets(batch, spoken, logits.shape[1], speed).to(logits.device)
            logits, wanted = logits[wanted != UNKNOWN], wanted[wanted != UNKNOWN]
            return {
                "phones/frames": mean_over_frames(F.cross_entropy(logits, wanted, reduction="none"), together),
                "accuracy/frames": mean_over_frames((logits.argmax(-1) == wanted).float(), together),
            }
        targets = [torch.from_numpy(symbols) for symbols in sequences(batch, spoken, speed)]
        lengths = torch.tensor([len(symbols) for symbols in targets])
        probabilities = logits.log_softmax(-1).transpose(0, 1)
        frames = torch.from_numpy(batch.frames(self.law))
        loss = F.ctc_loss(probabilities, torch.cat(targets).to(logits.device), frames, lengths, zero_infinity=True)
        # a repeated symbol needs a blank before it
        needed = lengths + torch.tensor([int((np.diff(symbols) == 0).sum()) for symbols in targets])
        return {"phones/ctc": loss, "impossible/ctc": (needed > frames).float().mean().to(loss.device)}

    def frame_targets(self, batch: Batch, spoken: list[Spoken | None], frames: int, speed: float = 1.0) -> Tensor:
        """Classes ``[B, N]`` in the middle of every frame, ``UNKNOWN`` in padding."""
        middles = (np.arange(frames) + 0.5) * HOP * speed
        rows = [
            spoken[pick].frames((start + middles) / hubert.RATE)
            for pick, start in zip(batch.picks, batch.starts, strict=True)
        ]
        inside = np.arange(frames) < batch.frames(self.law)[:, None]
        return torch.from_numpy(np.where(inside, np.stack(rows), UNKNOWN))

    @torch.inference_mode()
    def validate(self, counted: bool) -> tuple[dict[str, Any], list[str]]:
        """Loss, frame accuracy, symbol error rate (best path) and codes of the averaged model on held-out crops."""
        rows, codes, wrong, total = [], [], 0, 0
        for step in validation_batches(self.recipe):
            batch = batch_of(self.held_out, step, self.devices, alone=True)
            valid = batch.valid(self.law)
            with listening(valid) as quantized:
                logits = self.logits(self.average, batch, hubert.features(self.average, batch.wave))
            codes.append(codes_of(quantized, valid))
            rows.append(self.score(logits, batch, self.held_out_spoken))
            heard = decode(logits, batch.frames(self.law))
            said = sequences(batch, self.held_out_spoken)
            wrong += sum(distance(one, other) for one, other in zip(said, heard, strict=True))
            total += sum(map(len, said))
        means = {name: float(torch.stack([row[name] for row in rows]).mean()) for name in rows[0]}
        impossible = means.get("impossible/ctc", 0.0)
        if impossible == 1:
            del means["phones/ctc"]
        elif impossible:  # the mean of those that have a loss
            means["phones/ctc"] /= 1 - impossible
        means[f"error/{self.recipe.head.symbols}"] = wrong / max(1, total)
        if codes[0] is None:
            return means, []
        health, alarms = self.codebooks.health(codes, counted)
        return means | health, alarms

    def export(self, folder: Path) -> None:
        """The averaged network with its head, for ``load_semantic_teacher``."""
        hubert.save(self.average, folder, {"classes": self.recipe.head.classes, "loss": self.recipe.head.loss})


def network_of(recipe: PhonesRecipe) -> Any:
    """The recipe's network, from scratch or as ``encoder`` left it.

    Raises:
        CheckpointError: ``encoder`` cannot be loaded.
        ConfigError: it has another bottleneck, or its head is to be kept and names other symbols.
    """
    shape = (recipe.network, len(recipe.head.classes), recipe.bottleneck)
    if not recipe.encoder:
        return hubert.build(*shape)
    trained, about = hubert.load(recipe.encoder)
    network = hubert.add_head(trained, *shape)
    if recipe.head.keep:
        if about.get("classes", [])[1:] != recipe.head.classes[1:]:
            raise ConfigError(f"{recipe.encoder}: has no head of the same symbols; set head.keep=false")
        network.lm_head.load_state_dict(trained.lm_head.state_dict())
    return network


def odds_of(store: WaveStore, spoken: list[Spoken | None]) -> np.ndarray:
    """Odds of utterances that leave out those of which nothing is known."""
    return balanced(store.lengths, ["" if one is None else "known" for one in spoken])


def at_speed(batch: Batch, speed: float, samples: int) -> Batch:
    """Crops of about ``samples * speed`` played in ``samples``."""
    if speed == 1:
        return batch
    waves = [soxr.resample(wave, hubert.RATE * speed, hubert.RATE) for wave in batch.wave.cpu().numpy()]
    waves = [np.pad(wave[:samples], (0, max(0, samples - len(wave)))) for wave in waves]
    lengths = np.minimum(samples, np.round(batch.lengths / speed).astype(np.int64))
    return Batch(torch.from_numpy(np.stack(waves)).to(batch.wave.device), batch.picks, batch.starts, lengths)


def sequences(batch: Batch, spoken: list[Spoken | None], speed: float = 1.0) -> list[np.ndarray]:
    """Symbols of every crop."""
    ends = batch.starts + batch.lengths * speed
    places = zip(batch.picks, batch.starts / hubert.RATE, ends / hubert.RATE, strict=True)
    return [spoken[pick].between(start, end) for pick, start, end in places]


def decode(logits: Tensor, frames: np.ndarray) -> list[np.ndarray]:
    """Best path of ``logits[B, N, classes]``: runs of one class are one symbol, and class 0 is none."""
    found = []
    for path, count in zip(logits.argmax(-1).cpu().numpy(), frames, strict=True):
        path = path[:count]
        runs = path[np.diff(path, prepend=-1) != 0]
        found.append(runs[runs > 0])
    return found


def distance(one: np.ndarray, other: np.ndarray) -> int:
    """Insertions, deletions and substitutions between two sequences of symbols."""
    from rapidfuzz.distance import Levenshtein

    return Levenshtein.distance(one.tolist(), other.tolist())


def train(recipe: PhonesRecipe, folder: Path, stop_at: int | None = None) -> PhonesLearner:
    """Train until ``recipe.steps`` (or ``stop_at``), resuming what ``folder`` holds, and export the model there.

    Raises:
        CheckpointError: ``recipe.encoder`` cannot be loaded.
        ConfigError: the recipe does not fit the data, the processes or what ``folder`` holds.
        OutputError: ``folder`` or the cache cannot be written.
        TrainingError: a loss or gradient is not finite; the last checkpoint stays as it is.
    """
    prepare(recipe, folder)
    learner = PhonesLearner(recipe)
    run(learner, folder, stop_at)
    return learner


main = partial(run_command, PhonesRecipe, train)
