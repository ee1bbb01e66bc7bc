"""``speechtok align``: phones of transcribed speech in time."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from speechtok.cli.common import read_audio
from speechtok.files import make_folder

if TYPE_CHECKING:
    from speechtok.guidance.phones import PhoneAligner
    from speechtok.train.data import Utterance

HELP = "find the phones of transcribed English speech in time"
NOTE = "Example: speechtok align corpus.tsv -o phones/ --split dev; started again it does only what is missing."
PHONES, FAILURES, PARTS = "phones.tsv", "failures.tsv", "parts"


class Job(NamedTuple):
    """One utterance."""

    name: str
    utterance: Utterance
    part: Path
    """Where its segments go until all are joined, and stay so that another run finds them.

    Its name has a digest of what they depend on: another transcript, recording or option is another part.
    """


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("manifest", metavar="MANIFEST", type=Path, help="tab-separated, columns path, split and text")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", type=Path, help=f"folder of {PHONES}")
    parser.add_argument("--split", action="append", metavar="NAME", help="only this split; may be given several times")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N utterances of each split, from 1 up")
    parser.add_argument("--dictionary-only", action="store_true", help="do not build words that the dictionary lacks")


def run(args: argparse.Namespace) -> int:
    """Align what was not aligned yet, join it, and list what could not be aligned, and why."""
    from speechtok.errors import ConfigError
    from speechtok.files import write_text_atomic
    from speechtok.guidance.phones import AlignmentError, PhoneAligner, read_segments, write_segments

    if args.limit is not None and args.limit < 1:
        raise ConfigError(f"--limit {args.limit} leaves nothing to align; give at least 1")
    jobs = _jobs(args)
    make_folder(args.output)
    waiting = [job for job in jobs if not job.part.exists()]
    failures = _align(PhoneAligner(build_unknown=not args.dictionary_only), waiting)
    rows = [f"{name}\t{reason}\n" for name, reason in failures.items()]
    write_text_atomic(args.output / FAILURES, "id\treason\n" + "".join(rows))
    done = [job for job in jobs if job.name not in failures]
    if not done:
        raise AlignmentError(f"{args.output / FAILURES}: says why none of {len(jobs)} utterances could be aligned")
    write_segments(args.output / PHONES, {job.name: read_segments(job.part)[job.name] for job in done})
    print(f"{args.output / PHONES}: {len(done)} of {len(jobs)} utterances ({len(jobs) - len(waiting)} from before)")
    for kind, count in Counter(_kind(reason) for reason in failures.values()).most_common():
        print(f"  {count} left out: {kind}")
    return 0


def _jobs(args: argparse.Namespace) -> list[Job]:
    from speechtok.errors import ConfigError
    from speechtok.guidance.phones import utterance_name
    from speechtok.train.data import read_manifest

    manifest, splits = args.manifest, args.split or _splits(args.manifest)
    utterances = [u for split in splits for u in read_manifest(manifest, split)[: args.limit]]
    named = {utterance_name(utterance.path, manifest.parent): utterance for utterance in utterances}
    if len(named) < len(utterances):
        raise ConfigError(f"{manifest}: two rows name one file, or files that differ only in their suffix; keep one")
    parts, options = args.output / PARTS, [args.dictionary_only]
    return [Job(name, one, parts / f"{name}.{_digest(one, options)}.tsv") for name, one in named.items()]


def _digest(utterance: Utterance, options: Sequence[bool]) -> str:
    """Of what the segments depend on. Of the recording it is the size, which a copied corpus keeps."""
    path = utterance.path
    size = path.stat().st_size if path.is_file() else None
    return hashlib.sha256(json.dumps([utterance.text, size, *options]).encode()).hexdigest()[:16]


def _splits(manifest: Path) -> list[str]:
    """Every split of a manifest, or one that ``read_manifest`` will miss and then say what the file lacks."""
    try:
        header, *rows = manifest.read_text(encoding="utf-8").splitlines()
        column = header.split("\t").index("split")
        return sorted({row.split("\t")[column] for row in rows if row})
    except (OSError, ValueError, IndexError):
        return ["train"]


def _align(aligner: PhoneAligner, jobs: Sequence[Job]) -> dict[str, str]:
    """Write the part of every job; returns the reasons of those without one, by name."""
    from tqdm import tqdm

    from speechtok.errors import AudioError
    from speechtok.guidance.phones import AlignmentError, write_segments

    failures = {}
    for job in tqdm(jobs, unit="file", disable=not sys.stderr.isatty()):
        try:
            segments = aligner.align(read_audio(job.utterance.path), job.utterance.text)
        except (AlignmentError, AudioError) as error:
            failures[job.name] = str(error).replace("\t", " ")
        else:
            make_folder(job.part.parent)
            write_segments(job.part, {job.name: segments})
    return failures


def _kind(reason: str) -> str:
    """Reasons without their particulars, to be counted."""
    return reason.partition(":")[0].partition(" (")[0]
