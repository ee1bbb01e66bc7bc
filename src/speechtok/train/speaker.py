"""Training of a speaker teacher: ECAPA-TDNN with additive angular margin softmax over the speakers of a corpus.

Source: Desplanques, Thienpondt and Demuynck 2020 (arXiv 2005.07143), sections 3 and 4. Augmentation is gain, white
noise and their masking of bands and frames; recorded noises and rooms are not used.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from speechtok.config import require_whole
from speechtok.errors import ConfigError
from speechtok.files import make_folder, write_text_atomic
from speechtok.guidance.speaker import SpeakerTeacher, save_ecapa
from speechtok.guidance.verification import UNNAMED, all_pairs, detection_cost, equal_error_rate, error_rate_interval
from speechtok.nn.ecapa import ECAPA, MIN_FRAMES, AAMSoftmax, ECAPAConfig
from speechtok.nn.fbank import SpeakerMel
from speechtok.nn.quantizers.processes import rows_of_all
from speechtok.train.data import Crops, WaveStore, balanced, evenly, pooled
from speechtok.train.devices import Devices
from speechtok.train.learner import Learner, LearnerRecipe
from speechtok.train.loop import prepare, run, run_command
from speechtok.train.recipe import DataConfig


@dataclass
class SpeakerData(DataConfig):
    """Speech with named speakers and how it is cut."""

    seconds: float = 3.0
    """Longest training crop."""
    least_seconds: float = 2.0
    """Shortest; every step draws one length for its whole batch. A shorter utterance is used whole."""
    hold_out: int = 0
    """So many speakers of the train split, chosen by the seed, are never trained on and make the validation; 0 takes
    the speakers of the dev split, which must not be in the train split then."""
    validation_files: int = 10
    """Most utterances of each speaker in the validation, whose trials are all pairs."""
    trial_seconds: float = 6.0
    """How much of an utterance the validation hears, from its start."""
    noise: float = 0.0
    """Share of the crops that get white noise."""
    noise_db: tuple[float, float] = (10.0, 30.0)
    """Ratio of speech to noise, uniform in this range."""
    frame_mask: int = 0
    """Most frames that are masked in each crop (SpecAugment); the paper masks up to 5."""
    band_mask: int = 0
    """Most bands; the paper masks up to 10."""


@dataclass
class Head:
    """Additive angular margin softmax."""

    margin: float = 0.2
    """Radians."""
    scale: float = 30.0
    margin_warmup: int = 0
    """Steps over which the margin rises from 0."""


@dataclass
class SpeakerRecipe(LearnerRecipe):
    """A speaker teacher's training run."""

    name: str = "speaker"
    sample_rate: int = 16000
    data: SpeakerData = field(default_factory=SpeakerData)
    network: ECAPAConfig = field(default_factory=ECAPAConfig)
    head: Head = field(default_factory=Head)

    def __post_init__(self) -> None:
        super().__post_init__()
        data, blocks = self.data, self.network.dilations
        require_whole(data, 2, "validation_files", section="data.")
        require_whole(data, 0, "hold_out", "frame_mask", "band_mask", section="data.")
        data.require_manifests()
        if not 0.1 <= data.least_seconds <= data.seconds:
            raise ConfigError("data.least_seconds must lie between 0.1 and data.seconds")
        if data.trial_seconds < 0.1:
            raise ConfigError("data.trial_seconds must be at least 0.1")
        if blocks != tuple(range(2, 2 + len(blocks))):
            raise ConfigError("network.dilations must be 2, 3, 4 and so on; the file's layout tells no others")


@dataclass(frozen=True)
class Voices:
    """Utterances with the names of their speakers; an empty name is not used."""

    store: WaveStore
    names: tuple[str, ...]
    unnamed: int
    """How many utterances name no speaker."""

    @property
    def speakers(self) -> list[str]:
        """Sorted."""
        return sorted(set(self.names) - {""})

    def only(self, speakers: set[str]) -> Voices:
        """The same utterances, of which only those of ``speakers`` are used."""
        return replace(self, names=tuple(name if name in speakers else "" for name in self.names))

    def spread(self, most: int) -> list[int]:
        """At most so many utterances of every speaker, evenly over each one's."""
        places = [np.flatnonzero(np.asarray(self.names) == speaker) for speaker in self.speakers]
        return [int(own[i]) for own in places for i in evenly(len(own), most)]


class Classes:
    """The speakers' order, which a resumed run must find again."""

    def __init__(self, speakers: list[str]):
        self.speakers = speakers

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"speakers": self.speakers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Compare.

        Raises:
            ConfigError: the corpus has other speakers now.
        """
        if state["speakers"] != self.speakers:
            raise ConfigError(
                "data.manifests: other speakers than when this run began; restore them or use another out="
            )


class Classifier(nn.Module):
    """Band levels to speakers: the network that is kept and the head that is not."""

    def __init__(self, recipe: SpeakerRecipe, speakers: int):
        super().__init__()
        self.network = ECAPA(recipe.network)
        self.head = AAMSoftmax(recipe.network.embedding, speakers, recipe.head.margin, recipe.head.scale)


class SpeakerLearner(Learner):
    """See the module; ``heard`` are the voices to train on, ``held_out`` those of the validation."""

    model: Classifier

    def __init__(self, recipe: SpeakerRecipe, heard: Voices, held_out: Voices):
        torch.manual_seed(recipe.seed)
        data, speakers = recipe.data, heard.speakers
        super().__init__(recipe, Classifier(recipe, len(speakers)), {"speaker/aam": 1.0})
        self.heard, self.held_out, self.classes = heard, held_out, Classes(speakers)
        self.corpus = heard.store.digest
        self.labels = np.searchsorted(speakers, heard.names)
        odds = balanced(heard.store.lengths, heard.names)
        longest = round(data.seconds * recipe.sample_rate)
        self.crops = Crops(heard.store, longest, data.batch, recipe.seed, data.gain_db, odds)
        self.front = SpeakerMel(recipe.sample_rate, recipe.network.bands).to(self.devices.device)
        self.figures: dict[str, Any] = {}

    @property
    def parts(self) -> dict[str, Any]:
        """See ``train.loop.Trainee``."""
        return {"classes": self.classes, **super().parts}

    def losses(self) -> dict[str, Tensor]:
        """The softmax's loss, and the share of crops whose nearest class is another speaker's."""
        devices, data, recipe = self.devices, self.recipe.data, self.recipe
        torch.manual_seed(self.noise_seed)  # the network has no dropout: all that is drawn is of the whole batch
        share = (self.step, devices.process, devices.processes)
        chosen, _ = self.crops.places(*share)
        least, most = (round(seconds * recipe.sample_rate) for seconds in (data.least_seconds, data.seconds))
        wave = torch.from_numpy(self.crops(*share))[:, : int(torch.randint(least, most + 1, ()))].to(devices.device)
        lengths = torch.from_numpy(np.minimum(self.heard.store.lengths[chosen], wave.shape[1])).to(devices.device)
        speaker = torch.from_numpy(self.labels[chosen]).to(devices.device)
        with torch.autocast(devices.device.type, enabled=False):  # decibels of small powers
            levels = self.front(noisy(wave, lengths, data.noise, data.noise_db), lengths)
        levels = masked(masked(levels, 1, data.frame_mask), 2, data.band_mask)
        embedding = self.model.network(levels, self.front.frames(lengths)).embedding
        head = self.model.head
        head.margin = recipe.head.margin * min(1.0, self.step / max(1, recipe.head.margin_warmup))
        with torch.autocast(devices.device.type, enabled=False):  # the angle's gradient is steep near 0
            loss = head(embedding.float(), speaker)
            with torch.no_grad():
                wrong = head.cosines(embedding.float()).argmax(1) != speaker
        return {"speaker/aam": loss, "speaker/error": wrong.float().mean()}

    @torch.no_grad()
    def validate(self, counted: bool) -> tuple[dict[str, Any], list[str]]:
        """Equal error rate of speakers never heard, its interval over speakers, and the detection cost."""
        scores, pairs = all_pairs(*self.embeddings())
        same = pairs[:, 0] == pairs[:, 1]
        low, high = error_rate_interval(scores, pairs)
        rates = {"eer": equal_error_rate(scores, same), "eer/low": low, "eer/high": high}
        counts = {"speakers": int(pairs.max()) + 1, "trials": len(scores)}
        self.figures = rates | {"min_dcf": detection_cost(scores, same)} | counts
        return self.figures, []

    def embeddings(self) -> tuple[np.ndarray, list[str]]:
        """``[N, E]`` of the validation's utterances under the averaged weights, and their speakers."""
        data, voices = self.recipe.data, self.held_out
        teacher = SpeakerTeacher(self.average.network, self.recipe.sample_rate).to(self.devices.device)
        picks = voices.spread(data.validation_files)
        waves = (voices.store[pick][: round(data.trial_seconds * teacher.rate)] for pick in picks)
        heard = [teacher(torch.from_numpy(wave)[None].to(self.devices.device)).embedding[0] for wave in waves]
        return torch.stack(heard).double().cpu().numpy(), [voices.names[pick] for pick in picks]

    def export(self, folder: Path) -> None:
        """A folder that ``SpeakerTeacher.load`` reads: the averaged network, and what it learned from."""
        make_folder(folder)
        save_ecapa(self.average.network, folder / "model.safetensors")
        used = np.asarray(self.heard.names) != ""
        config = {
            "kind": "ecapa-tdnn",
            "sample_rate": self.recipe.sample_rate,
            "network": asdict(self.recipe.network),
            "steps": self.step,
            "data": {
                "speakers": len(self.classes.speakers),
                "utterances": int(used.sum()),
                "hours": float(self.heard.store.lengths[used].sum() / self.recipe.sample_rate / 3600),
                "held_out": self.held_out.speakers,
                "left_out": self.heard.unnamed,
            },
            "validation": self.figures or self.validate(False)[0],
        }
        write_text_atomic(folder / "config.json", json.dumps(config, indent=2) + "\n")


# -- augmentation ---------------------------------------------------------------------------------------------------


def noisy(wave: Tensor, lengths: Tensor, share: float, decibels: tuple[float, float]) -> Tensor:
    """White noise on a share of ``wave[B, T]``, within ``lengths[B]``, so many decibels below the speech."""
    if not share:
        return wave
    inside = torch.arange(wave.shape[1], device=wave.device) < lengths[:, None]
    ratio = 10 ** (rows_of_all(lambda rows: wave.new_empty(rows, 1).uniform_(*decibels), len(wave)) / 10)
    level = ((wave.square().sum(1, keepdim=True) / lengths[:, None].clamp_min(1)) / ratio).sqrt()
    chosen = rows_of_all(lambda rows: wave.new_empty(rows, 1).uniform_(), len(wave)) < share
    noise = rows_of_all(lambda rows: wave.new_empty(rows, wave.shape[1]).normal_(), len(wave))
    return wave + level * chosen * inside * noise


def masked(levels: Tensor, axis: int, widest: int) -> Tensor:
    """``levels[B, M, bands]`` with up to ``widest`` neighbours along an axis set to 0, the mean over time."""
    if not widest:
        return levels
    size = levels.shape[axis]
    device, most = levels.device, min(widest, size)
    width = rows_of_all(lambda rows: torch.randint(0, most + 1, (rows, 1), device=device), len(levels))
    start = (rows_of_all(lambda rows: torch.rand(rows, 1, device=device), len(levels)) * (size - width + 1)).long()
    place = torch.arange(size, device=device)
    hidden = (place >= start) & (place < start + width)
    return levels.masked_fill(hidden.unsqueeze(3 - axis), 0.0)


# -- start ----------------------------------------------------------------------------------------------------------


def voices_of(recipe: SpeakerRecipe) -> tuple[Voices, Voices]:
    """Voices to train on and voices of the validation, none in common.

    Raises:
        ConfigError: too few speakers are named, the dev split shares some with the train split, or an utterance of the
            validation is too short to be heard.
    """
    data = recipe.data
    everyone = read_voices(recipe, data.manifests, "train")
    if data.hold_out:
        random = np.random.default_rng(recipe.seed)
        count = min(data.hold_out, len(everyone.speakers))
        chosen = set(random.choice(everyone.speakers, count, replace=False).tolist())
        heard, held_out = everyone.only(set(everyone.speakers) - chosen), everyone.only(chosen)
    else:
        heard, held_out = everyone, read_voices(recipe, data.validation or data.manifests, "dev")
    if len(heard.speakers) < 2:
        raise ConfigError(f"data: {len(heard.speakers)} speakers to train on; name more, or lower data.hold_out")
    shared = sorted(set(heard.speakers) & set(held_out.speakers))
    if shared:
        raise ConfigError(f"data: speaker {shared[0]} is in the train and dev splits; set data.hold_out instead")
    picks, least = held_out.spread(data.validation_files), SpeakerMel(recipe.sample_rate).samples(MIN_FRAMES)
    short = [held_out.names[pick] for pick in picks if held_out.store.lengths[pick] < least]
    if short:
        raise ConfigError(f"data: an utterance of held-out speaker {short[0]} is too short to be heard; take it out")
    picked = [held_out.names[pick] for pick in picks]
    if len(set(picked)) < 2 or len(set(picked)) == len(picked):
        raise ConfigError("data: validation needs two held-out speakers with two utterances; raise data.hold_out")
    return heard, held_out


def read_voices(recipe: SpeakerRecipe, manifests: list[str], split: str) -> Voices:
    """The rows of a split, of which those without a named speaker stay unused."""
    rows = pooled(manifests, split)
    names = tuple("" if row.speaker.lower() in UNNAMED else row.speaker for row in rows)
    return Voices(WaveStore.build(rows, recipe.sample_rate, recipe.data.cache), names, names.count(""))


def train(recipe: SpeakerRecipe, folder: Path, stop_at: int | None = None) -> SpeakerLearner:
    """Train until ``recipe.steps`` (or ``stop_at``), resuming what ``folder`` holds, and export the teacher there.

    Raises:
        ConfigError: the recipe does not fit the data, the processes or what ``folder`` holds.
        OutputError: ``folder`` or the cache cannot be written.
        TrainingError: a loss or gradient is not finite; the last checkpoint stays as it is.
    """
    prepare(recipe, folder)
    devices = Devices(recipe.precision)
    devices.share_of(recipe.data.batch)
    with devices.main_first():
        heard, held_out = voices_of(recipe)
    if devices.main:
        counts = f"{heard.unnamed} of {len(heard.names)} rows name none and are left out"
        print(f"{len(heard.speakers)} speakers to train on, {len(held_out.speakers)} held out; {counts}", flush=True)
    learner = SpeakerLearner(recipe, heard, held_out)
    run(learner, folder, stop_at)
    return learner


main = partial(run_command, SpeakerRecipe, train)
