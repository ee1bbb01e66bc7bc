"""What several commands share: options, names of outputs, the loop over files, tables."""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from speechtok.errors import OutputError, SpeechtokError
from speechtok.files import make_folder

if TYPE_CHECKING:
    from speechtok.audio import Audio

TOKEN_SUFFIX = ".tokens.safetensors"
AUDIO_KINDS = ("wav", "flac", "ogg", "opus", "mp3")
"""What ``decode`` writes and ``encode`` must not: names of audio files hold audio."""
MODEL_HELP = "a name from 'speechtok models', a folder, or a Hub id (default: the bundled model)"


class Plan(NamedTuple):
    """What is read and written; nothing exists yet."""

    pairs: list[tuple[Path, Path]]
    folder: Path | None
    """Made before the first output, where outputs go into a folder."""


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """``--model`` and ``--device``."""
    parser.add_argument("--model", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("--device", default="cpu", help="where the model runs, such as cuda (default: cpu)")


def add_file_options(parser: argparse.ArgumentParser) -> None:
    """Inputs, ``-o`` and ``--json``."""
    parser.add_argument("files", nargs="+", metavar="FILE", type=Path)
    parser.add_argument(
        "-o", "--output", required=True, metavar="OUT", help="file, or folder where there are several inputs"
    )
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")


def plan_outputs(files: Sequence[Path], output: str, suffix: str) -> Plan:
    """Outputs of the inputs, refused before any work as ``checked_plan`` says."""
    target = Path(output)
    if len(files) == 1 and not os.path.isdir(target) and not output.endswith(("/", os.sep)):
        return checked_plan(Plan([(files[0], target)], None), files)
    return checked_plan(Plan([(path, target / f"{_stem(path)}{suffix}") for path in files], target), files)


def checked_plan(plan: Plan, inputs: Sequence[Path]) -> Plan:
    """The plan itself.

    Raises:
        OutputError: two outputs have one name, one is also among ``inputs``, or a file has the folder's name.
    """
    if plan.folder is not None and os.path.lexists(plan.folder) and not os.path.isdir(plan.folder):
        raise OutputError(f"{plan.folder}: several outputs need a folder, and this is none; choose another -o")
    taken: dict[str, Path] = {}
    for path, out in plan.pairs:
        key = os.path.realpath(out)
        if key in taken:
            raise OutputError(f"{taken[key]} and {path} would both be written to {out}; rename one or run them apart")
        taken[key] = path
    refuse_inputs(inputs, [out for _, out in plan.pairs])
    return plan


def refuse_inputs(inputs: Sequence[Path], outputs: Sequence[Path]) -> None:
    """Raise OutputError where a file would be both read and written."""
    sources = {os.path.realpath(path) for path in inputs}
    for out in outputs:
        if os.path.realpath(out) in sources:
            raise OutputError(f"{out} is also an input; choose another output")


def run_all(plan: Plan, work: Callable[[Path, Path], dict[str, Any]], as_json: bool) -> int:
    """Do ``work`` on every pair; a bad file is reported in one line and the others go on.

    Returns:
        0, or 2 where any file failed.

    Raises:
        OutputError: the folder cannot be made.
    """
    from tqdm import tqdm

    if plan.folder is not None:
        make_folder(plan.folder)
    pairs, rows, failed = plan.pairs, [], 0
    with tqdm(total=len(pairs), unit="file", disable=len(pairs) == 1 or not sys.stderr.isatty()) as bar:
        for path, out in pairs:
            try:
                row = {"input": str(path), "output": str(out), **work(path, out)}
                if not as_json:
                    bar.write(_sentence(row), file=sys.stdout)
            except SpeechtokError as error:
                failed += 1
                named = str(path) in str(error) or str(out) in str(error)
                message = str(error) if named else f"{path}: {error}"
                row = {"input": str(path), "error": message}
                bar.write(f"speechtok: error: {message}", file=sys.stderr)
            rows.append(row)
            bar.update()
    if as_json:
        print_json(rows)
    if failed and len(pairs) > 1:
        print(f"speechtok: {failed} of {len(pairs)} files failed", file=sys.stderr)
    return 2 if failed else 0


def read_audio(path: Path) -> Audio:
    """``speechtok.read`` without what decoders written in C put on standard error (mpg123 on a damaged MP3).

    What is wrong is said by the error or warning that follows, in one line.
    """
    from speechtok.audio import read

    with warnings.catch_warnings(record=True) as caught, _native_notes_silenced():
        audio = read(path)
    for warning in caught:
        warnings.warn(warning.message, stacklevel=2)
    return audio


@contextmanager
def _native_notes_silenced() -> Iterator[None]:
    """File descriptor 2 leads nowhere meanwhile; Python's own messages must wait outside."""
    sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # started without a standard error: nothing to silence
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns padded to their widest cell."""
    lines = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def print_fields(fields: dict[str, Any]) -> None:
    """``name  value`` lines."""
    width = max(len(name) for name in fields)
    for name, value in fields.items():
        shown = ", ".join(map(str, value)) or "none" if isinstance(value, list | tuple) else value
        print(f"{name.replace('_', ' '):<{width}}  {shown}")


def _sentence(row: dict[str, Any]) -> str:
    return f"{row['input']} -> {row['output']}  {row['seconds']:.2f} s, {row['content']}, {row['bitrate']:.0f} bit/s"


def _stem(path: Path) -> str:
    """The name without its suffix; earlier dots belong to the name."""
    return path.name.removesuffix(TOKEN_SUFFIX) if path.name.endswith(TOKEN_SUFFIX) else path.stem
