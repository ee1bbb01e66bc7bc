"""What tokens, or clustered features, know about phones: PNMI and purities over a transcribed corpus.

python -m speechtok.bench.phones --data MANIFEST.tsv --phones PHONES.tsv --split dev --model M --level 0 -o result.json
python -m speechtok.bench.phones --data MANIFEST.tsv --phones PHONES.tsv --split dev --features mfcc -o result.json
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

import speechtok
from speechtok.audio import Audio, read
from speechtok.bench.metrics import UNREADABLE, MetricError
from speechtok.bench.phonetics import SCORES, UtteranceCounts, phonetic_scores
from speechtok.bench.reconstruction import estimate_text, versions
from speechtok.errors import AudioError, ConfigError, run_module
from speechtok.files import write_text_atomic
from speechtok.guidance.clusters import fit_centres
from speechtok.guidance.naming import describe, layer_of
from speechtok.guidance.phones import Segment, frame_labels, read_segments, utterance_name
from speechtok.guidance.semantic import AVERAGE
from speechtok.guidance.targets import Teacher, assign_units
from speechtok.guidance.teachers import load_semantic_teacher
from speechtok.tokenizers.base import Tokenizer
from speechtok.train.data import Utterance, read_manifest
from speechtok.train.pseudo import MfccTeacher

FORMAT, VERSION = "speechtok.phones", 1
MFCC = "mfcc"
BATCH = 4096
"""Vectors per batch of k-means."""


@dataclass
class Streams:
    """Phones and codes of the utterances that have both, and why the others have not."""

    phones: list[list[str]] = field(default_factory=list)
    codes: list[np.ndarray] = field(default_factory=list)
    """``[Q, N]`` each."""
    failures: Counter[str] = field(default_factory=Counter)

    def scores(self, row: int) -> dict[str, Any]:
        """Estimates of one row of the codes, with frames, phones and codes that occur; plain types.

        Raises:
            MetricError: no utterance has phones and codes.
        """
        if not self.codes:
            raise MetricError(f"no utterance could be measured: {dict(self.failures)}")
        counts = UtteranceCounts(self.phones, [codes[row] for codes in self.codes])
        whole, estimates = phonetic_scores(counts.table()), counts.estimates()
        sizes = {"frames": whole.frames, "phones": whole.phones, "codes": whole.codes}
        failed = {"failed": self.failures.total(), "reasons": dict(self.failures)}
        return {"n": counts.n} | failed | sizes | {name: one.to_dict() | failed for name, one in estimates.items()}


def load_features(name: str, layer: int | str = AVERAGE) -> tuple[Teacher, str]:
    """Frame features and their full name: ``mfcc`` (50 Hz, ``train.pseudo``), or a layer of a semantic teacher.

    Raises:
        CheckpointError, ConfigError: as ``load_semantic_teacher`` does.
    """
    return (MfccTeacher(), MFCC) if name == MFCC else (load_semantic_teacher(name, layer), describe(name, layer))


def frames_of(features: Teacher, audio: Audio) -> torch.Tensor:
    """``[N, D]`` of one recording.

    Raises:
        MetricError: it is shorter than one frame.
    """
    wave = torch.from_numpy(audio.resample(features.law.rate).samples.copy())
    if not features.law.frames(len(wave)):
        raise MetricError("it is shorter than one frame of the features")
    return features(wave[None])[0][0]


def fit_units(features: Teacher, utterances: Sequence[Utterance], clusters: int, seed: int = 0) -> torch.Tensor:
    """Centres ``[K, D]`` of k-means over the shuffled frames of the utterances.

    Raises:
        AudioError: a file that cannot be read.
        ConfigError: fewer frames than clusters.
        MetricError: an utterance shorter than one frame.
    """
    reading = tqdm(utterances, desc="features", unit="file", disable=None)
    vectors = torch.cat([frames_of(features, read(u.path)) for u in reading])
    mixed = vectors[np.random.default_rng(seed).permutation(len(vectors))]
    return fit_centres(mixed.split(BATCH), clusters, seed)


def level_streams(
    tokenizer: Tokenizer, utterances: Sequence[Utterance], segments: dict[str, list[Segment]], folder: Path
) -> Streams:
    """Phones and all levels of codes; arguments as for ``streams``."""
    return streams(lambda audio: tokenizer.encode(audio).codes, tokenizer.frame_rate, utterances, segments, folder)


def unit_streams(
    features: Teacher,
    centres: torch.Tensor,
    utterances: Sequence[Utterance],
    segments: dict[str, list[Segment]],
    folder: Path,
) -> Streams:
    """Phones and nearest centres, as one row; arguments as for ``streams``."""

    def units(audio: Audio) -> np.ndarray:
        return assign_units(frames_of(features, audio)[None], centres).numpy()

    return streams(units, features.law.frame_rate, utterances, segments, folder)


def streams(
    encode: Callable[[Audio], np.ndarray],
    frame_rate: float,
    utterances: Sequence[Utterance],
    segments: dict[str, list[Segment]],
    folder: Path,
) -> Streams:
    """Phones and codes, frame by frame.

    Args:
        encode: audio to codes ``[Q, N]``.
        segments: by the names that ``utterance_name`` gives.
        folder: that of the manifest.
    """
    found = Streams()
    for utterance in tqdm(utterances, desc="phones and codes", unit="file", disable=None):
        aligned = segments.get(utterance_name(utterance.path, folder))
        if not aligned:
            found.failures["no alignment"] += 1
            continue
        try:
            codes = encode(read(utterance.path))
        except AudioError:
            found.failures[UNREADABLE] += 1
        except MetricError as error:
            found.failures[str(error)] += 1
        else:
            found.phones.append(frame_labels(aligned, codes.shape[1], frame_rate))
            found.codes.append(codes)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; prints one line per stream and writes the JSON."""
    options = _parser().parse_args(arguments)
    utterances = read_manifest(options.data, options.split)[: options.limit]
    rows = list(_measured(options, utterances, read_segments(options.phones)))
    for row in rows:
        shown = "  ".join(f"{name} {estimate_text(row[name], 3)}" for name in SCORES)
        print(f"{row['tokenizer']} {row['stream']}: {shown}  ({row['n']} utterances, {row['frames']} frames)")
    if options.output:
        settings = {"data": options.data.name, "split": options.split, "limit": options.limit, "confidence": 0.95}
        document = {"format": FORMAT, "version": VERSION, "settings": settings, "versions": versions(), "summary": rows}
        write_text_atomic(options.output, json.dumps(document, indent=1) + "\n")
    return 0


def _measured(
    options: argparse.Namespace, utterances: Sequence[Utterance], segments: dict[str, list[Segment]]
) -> Iterator[dict[str, Any]]:
    folder = options.data.parent
    if options.features:
        features, name = load_features(options.features, options.layer)
        learn = read_manifest(options.data, options.fit_split)[: options.fit_limit]
        centres = fit_units(features, learn, options.clusters, options.seed)
        found = unit_streams(features, centres, utterances, segments, folder)
        yield {"tokenizer": name, "stream": f"k-means {len(centres)}"} | found.scores(0)
        return
    tokenizer = speechtok.load(options.model)
    wrong = [level for level in options.level if not 0 <= level < tokenizer.levels]
    if wrong:
        raise ConfigError(f"--level {wrong[0]}: {tokenizer.name} has levels 0 to {tokenizer.levels - 1}")
    found = level_streams(tokenizer, utterances, segments, folder)
    for level in options.level:
        about = {"tokenizer": tokenizer.name, "fingerprint": tokenizer.fingerprint, "stream": f"level {level}"}
        yield about | found.scores(level)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m speechtok.bench.phones", description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, type=Path, help="manifest: tab-separated, columns path and split")
    parser.add_argument("--phones", required=True, type=Path, help="phones.tsv of speechtok align")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--limit", type=int, help="only the first so many utterances")
    parser.add_argument("--model", help="a name of `speechtok models`, a folder or a Hub id; bundled model")
    parser.add_argument("--level", type=int, nargs="+", default=[0], help="levels of the tokenizer, 0 the coarsest")
    parser.add_argument("--features", help="measure k-means units instead: mfcc, or a HuBERT (folder or Hub id)")
    parser.add_argument("--layer", type=layer_of, default=AVERAGE, help="of the HuBERT: a number, or average")
    parser.add_argument("--clusters", type=int, default=100, help="units of k-means")
    parser.add_argument("--fit-split", default="train", help="where k-means learns")
    parser.add_argument("--fit-limit", type=int, default=200, help="how many utterances it learns from")
    parser.add_argument("--seed", type=int, default=0, help="of k-means")
    parser.add_argument("-o", "--output", type=Path, help="JSON with scores, settings and versions")
    return parser


if __name__ == "__main__":
    run_module(main)
