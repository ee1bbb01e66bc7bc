"""Whose voice it is: cosines of speaker embeddings, and how well such embeddings tell speakers apart.

python -m speechtok.bench.voice --data MANIFEST.tsv --split test -o result.json
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from tqdm import tqdm

from speechtok.audio import Audio, read
from speechtok.bench.metrics import UNREADABLE, MetricError, Score
from speechtok.bench.statistics import Estimate
from speechtok.errors import AudioError, ConfigError, run_module
from speechtok.files import write_text_atomic
from speechtok.guidance.speaker import SpeakerTeacher
from speechtok.guidance.teachers import load_speaker_teacher
from speechtok.guidance.verification import UNNAMED, all_pairs, equal_error_rate, error_rate_interval
from speechtok.train.data import Utterance, read_manifest

RESEMBLYZER = "resemblyzer"
INSTALL = "pip install 'speechtok[voice]' && pip install --no-deps resemblyzer"


class VoiceEncoder(Protocol):
    """A speaker network."""

    name: str
    """With the release or file, for cosines of different encoders do not compare."""

    def embed(self, audio: Audio) -> np.ndarray:
        """Embedding ``[E]`` of length one. Raises MetricError where there is no voice to hear."""


class ResemblyzerEncoder:
    """Resemblyzer (GE2E, Wan et al. 2018; 256 dimensions) with its own preprocessing: level, and silences cut out.

    Its cosines lie between about 0.5 and 1.

    Raises:
        ConfigError: it is not installed.
    """

    def __init__(self, device: str = "cpu"):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # it names a scipy module by its old name
                import resemblyzer
        except ImportError as error:
            raise ConfigError(f"speaker similarity needs resemblyzer ({error}); run: {INSTALL}") from error
        self.name = f"{RESEMBLYZER} {importlib.metadata.version('resemblyzer')}"
        self._package: Any = resemblyzer
        self._network: Any = resemblyzer.VoiceEncoder(device, verbose=False)

    def embed(self, audio: Audio) -> np.ndarray:
        """See ``VoiceEncoder``."""
        wave = audio.resample(self._package.sampling_rate).samples
        if not np.any(wave):
            raise MetricError("there is no voice in silence")
        voiced = self._package.preprocess_wav(wave)
        if not len(voiced):
            raise MetricError("its voice detector hears no voice")
        return _unit(self._network.embed_utterance(voiced))


class TeacherEncoder:
    """The embedding of an ECAPA-TDNN (``SpeakerTeacher``); cosines lie between about -0.2 and 1.

    Args:
        name: of the file or repository, for the record.
    """

    def __init__(self, teacher: SpeakerTeacher, name: str):
        self.teacher, self.name = teacher, name

    def embed(self, audio: Audio) -> np.ndarray:
        """See ``VoiceEncoder``."""
        wave = torch.from_numpy(audio.resample(self.teacher.rate).samples.copy())
        if not bool(wave.any()):
            raise MetricError("there is no voice in silence")
        if len(wave) < self.teacher.least_samples:
            raise MetricError("it is too short for the speaker network")
        return _unit(self.teacher(wave[None]).embedding[0].numpy())


class Remembered:
    """An encoder that listens to the same recording only once."""

    def __init__(self, encoder: VoiceEncoder):
        self.encoder, self.name = encoder, encoder.name
        self._known: dict[tuple[int, bytes], np.ndarray] = {}

    def embed(self, audio: Audio) -> np.ndarray:
        """See ``VoiceEncoder``."""
        key = audio.rate, hashlib.sha256(audio.samples.tobytes()).digest()
        if key not in self._known:
            self._known[key] = self.encoder.embed(audio)
        return self._known[key]


def load_encoder(name: str) -> VoiceEncoder:
    """``resemblyzer``, or the file, folder or Hub id of an ECAPA-TDNN.

    Raises:
        ConfigError: Resemblyzer is not installed.
        CheckpointError: no such speaker model.
    """
    return ResemblyzerEncoder() if name == RESEMBLYZER else TeacherEncoder(load_speaker_teacher(name), name)


def voice_cosine(encoder: VoiceEncoder, first: Audio, second: Audio) -> Score:
    """Cosine of the two voices, from -1 to 1, or the reason why one of them has none."""
    try:
        return Score("voice_cosine", float(encoder.embed(first) @ encoder.embed(second)))
    except MetricError as error:
        return Score("voice_cosine", None, str(error))


def speaker_eer(encoder: VoiceEncoder, utterances: Sequence[Utterance]) -> dict[str, Any]:
    """Equal error rate over all pairs of utterances, as plain types: the estimate, ``pairs`` and ``speakers``.

    The interval is that of other speakers. Utterances that cannot be read, hold no voice or name no speaker are
    counted as failed.

    Raises:
        ConfigError: what is left has no pair of one speaker, or none of two.
    """
    embeddings, speakers, failures = [], [], Counter[str]()
    for utterance in tqdm(utterances, desc="voices", unit="file", disable=None):
        try:
            if utterance.speaker.lower() in UNNAMED:
                raise MetricError("the manifest names no speaker")
            embeddings.append(encoder.embed(read(utterance.path)))
            speakers.append(utterance.speaker)
        except AudioError:
            failures[UNREADABLE] += 1
        except MetricError as error:
            failures[str(error)] += 1
    count = len(set(speakers))
    if count < 2:
        raise ConfigError(f"an equal error rate needs two speakers, {count} could be heard; failures: {dict(failures)}")
    cosines, pairs = all_pairs(np.stack(embeddings), speakers)
    rate = equal_error_rate(cosines, pairs[:, 0] == pairs[:, 1])
    low, high = error_rate_interval(cosines, pairs)
    estimate = Estimate(rate, low, high, len(speakers), failures.total(), tuple(failures.most_common()))
    return estimate.to_dict() | {"pairs": len(pairs), "speakers": count}


def _unit(embedding: np.ndarray) -> np.ndarray:
    length = float(np.linalg.norm(embedding))
    if not np.isfinite(length) or length == 0:
        raise MetricError("the speaker network gives no embedding for it")
    return embedding / length


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: equal error rate of an encoder over a split."""
    parser = argparse.ArgumentParser(prog="python -m speechtok.bench.voice", description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, type=Path, help="manifest with the columns path, split and speaker")
    parser.add_argument("--split", default="test")
    parser.add_argument("--encoder", default=RESEMBLYZER, help="resemblyzer, or an ECAPA-TDNN: file, folder or Hub id")
    parser.add_argument("--limit", type=int, help="only the first so many utterances")
    parser.add_argument("-o", "--output", type=Path, help="JSON with the rate and its settings")
    options = parser.parse_args(arguments)
    utterances = read_manifest(options.data, options.split)[: options.limit]
    encoder = load_encoder(options.encoder)
    found = speaker_eer(encoder, utterances)
    print(
        f"{encoder.name}: EER {found['mean']:.2%} [{found['low']:.2%}, {found['high']:.2%}], {found['n']} utterances"
        f" of {found['speakers']} speakers, {found['pairs']} pairs, {found['failed']} failed"
    )
    if options.output:
        settings = {"data": options.data.name, "split": options.split, "limit": options.limit, "encoder": encoder.name}
        write_text_atomic(options.output, json.dumps({"settings": settings, "speaker_eer": found}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    run_module(main)
