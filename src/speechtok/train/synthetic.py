"""Paired speech from a synthesizer: short pieces of the texts of a corpus, to begin a speaker or recogniser on.

    python -m speechtok.train.synthetic --texts data/librispeech.tsv --hours 5 -o data/flite

What a few hours of real speech do not teach a small model is which part of the text it is at. Short, clear sentences of
one pronunciation do, and then real speech is learned from there. The program is flite, of the package of that name.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from speechtok.audio import probe, read, write
from speechtok.errors import AudioError, ConfigError, run_module
from speechtok.files import make_folder, write_text_atomic
from speechtok.processes import usable_cores
from speechtok.train.pairs import texts_of

VOICES = ("kal16", "awb", "rms", "slt")
"""Of flite, all at 16 kHz."""
SECONDS_PER_WORD = 0.36
"""About what these voices take, by which hours become sentences."""
HELD_OUT = 50
"""One of so many sentences is for dev."""


@dataclass(frozen=True)
class Sentence:
    """What is said, by whom, and how slowly."""

    text: str
    voice: str
    stretch: float
    split: str

    def __post_init__(self) -> None:
        if not self.text:
            raise ConfigError("a sentence has no word")


def sentences(
    texts: Sequence[str], hours: float, words: tuple[int, int], voices: Sequence[str], stretch: float, seed: int
) -> list[Sentence]:
    """Pieces of consecutive words, the texts over and over in new orders and cut at new places.

    Args:
        texts: in the plain form.
        words: fewest and most of a piece; the end of a text may be shorter.
        stretch: durations are up to so many times as long or as short.

    Raises:
        ConfigError: there is no text, or a setting makes no sense.
    """
    least, most = words
    if not 1 <= least <= most or hours <= 0 or stretch < 1 or not voices:
        raise ConfigError("give --words LEAST MOST from 1 up, --hours above 0, --stretch from 1 up, and a voice")
    if not any(texts):
        raise ConfigError("no text to speak; name manifests whose train rows have the column text")
    draws, found, left = np.random.default_rng(seed), [], round(hours * 3600 / SECONDS_PER_WORD)
    while left > 0:
        for index in draws.permutation(len(texts)):
            for piece in _cut(texts[index].split(), least, most, draws):
                voice, slow = draws.choice(voices), float(np.round(stretch ** draws.uniform(-1, 1), 3))
                split = "train" if draws.integers(HELD_OUT) else "dev"
                found.append(Sentence(" ".join(piece), str(voice), slow, split))
                left -= len(piece)
            if left <= 0:
                break
    return found


def _cut(words: list[str], least: int, most: int, draws: np.random.Generator) -> Iterator[list[str]]:
    while words:
        size = int(draws.integers(least, most + 1))
        yield words[:size]
        words = words[size:]


def synthesize(wanted: Sequence[Sentence], folder: Path, processes: int) -> Path:
    """Speak all sentences into ``folder/audio`` and name them in ``folder/corpus.tsv``, the path that is returned.

    What an earlier call has spoken stays.

    Raises:
        ConfigError: there is no flite, it refuses a sentence, or the folder holds other sentences.
        OutputError: the folder cannot be written.
    """
    if not shutil.which("flite"):
        raise ConfigError("flite is not installed; get it from your system (apt install flite)")
    if not same_as_before(wanted, folder):
        raise ConfigError(f"{folder}: holds other sentences; name another folder, or delete this one")
    make_folder(folder)
    write_text_atomic(folder / "sentences.tsv", _listed(wanted))  # first, so that no sound is taken for other words
    make_folder(folder / "audio")
    places = [folder / "audio" / f"{index:06d}.flac" for index in range(len(wanted))]
    with ThreadPoolExecutor(processes) as pool:
        work = pool.map(_speak, wanted, places)
        seconds = list(tqdm(work, total=len(wanted), desc="flite", unit="sentence", disable=None))
    lines = [["path", "split", "speaker", "seconds", "text"]]
    for one, place, length in zip(wanted, places, seconds, strict=True):
        lines.append([f"audio/{place.name}", one.split, f"flite-{one.voice}", f"{length:.2f}", one.text])
    write_text_atomic(folder / "corpus.tsv", "".join("\t".join(line) + "\n" for line in lines))
    return folder / "corpus.tsv"


def _speak(sentence: Sentence, place: Path) -> float:
    try:
        return probe(place).seconds
    except AudioError:  # none yet
        pass
    with tempfile.TemporaryDirectory() as scratch:
        spoken = Path(scratch) / "spoken.wav"
        command = ["flite", "-voice", sentence.voice, "--setf", f"duration_stretch={sentence.stretch}"]
        done = subprocess.run([*command, "-t", sentence.text, "-o", spoken], capture_output=True, text=True)
        if done.returncode or not spoken.is_file():
            reason = (done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"])[-1]
            raise ConfigError(f"flite cannot say {sentence.text!r} as {sentence.voice}: {reason}")
        audio = read(spoken)
    write(place, audio)
    return audio.seconds


def _listed(wanted: Sequence[Sentence]) -> str:
    return "".join(f"{one.voice}\t{one.stretch}\t{one.text}\n" for one in wanted)


def same_as_before(wanted: Sequence[Sentence], folder: Path) -> bool:
    """Whether ``folder`` holds nothing yet, or these very sentences."""
    try:
        return (folder / "sentences.tsv").read_text(encoding="utf-8") == _listed(wanted)
    except OSError:
        return not (folder / "audio").exists()


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", nargs="+", required=True, metavar="MANIFEST", help="whose train rows have a text")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of corpus.tsv and audio/")
    parser.add_argument("--hours", type=float, default=5.0)
    parser.add_argument("--words", type=int, nargs=2, default=(3, 9), metavar=("LEAST", "MOST"), help="of a sentence")
    parser.add_argument("--voices", nargs="+", default=VOICES, help=f"of flite (default: {' '.join(VOICES)})")
    parser.add_argument("--stretch", type=float, default=1.25, help="most that durations are changed by (1.25)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=usable_cores())
    options = parser.parse_args(arguments)
    texts = texts_of(options.texts, "train")
    words = tuple(options.words)
    wanted = sentences(texts, options.hours, words, options.voices, options.stretch, options.seed)
    manifest = synthesize(wanted, options.output, options.processes)
    print(f"{manifest}: {len(wanted)} sentences")
    return 0


if __name__ == "__main__":
    run_module(main)
