"""What several commands share: options, names of outputs, the loop over files, tables."""

from __future__ import annotations

import argparse
import json
import os
import sys
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
    """``--model``, ``--device`` and ``--precision``."""
    parser.add_argument("--model", metavar="MODEL", help=MODEL_HELP)
    add_machine_options(parser)


def add_machine_options(parser: argparse.ArgumentParser) -> None:
    """``--device`` and ``--precision``, for commands that name the model in another way."""
    parser.add_argument("--device", default="cpu", help="where the model runs, such as cuda (default: cpu)")
    parser.add_argument(
        "--precision", choices=("fp32", "bf16", "auto"), default="fp32",
        help="bf16 is faster and changes about one code in a hundred of level one; auto takes it where the machine"
        " multiplies matrices in it and the model can (default: fp32)",
    )  # fmt: skip


def add_file_options(parser: argparse.ArgumentParser, output: bool = True) -> None:
    """Inputs, ``-o``, which ``output`` makes a duty, and ``--json``."""
    parser.add_argument("files", nargs="+", metavar="FILE", type=Path)
    parser.add_argument(
        "-o", "--output", required=output, metavar="OUT", help="file, or folder where there are several inputs"
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


def refuse_audio_names(outputs: Iterable[Path]) -> None:
    """Raise OutputError where tokens would be written under the name of an audio file."""
    for out in outputs:
        if out.suffix.lower().removeprefix(".") in AUDIO_KINDS:
            raise OutputError(f"{out}: is a name for audio, and tokens are none; end it in {TOKEN_SUFFIX}")


def require_output(args: argparse.Namespace) -> None:
    """Raise OutputError unless ``-o`` was given."""
    if args.output is None:
        raise OutputError("nothing says where the outputs go; name a file or a folder with -o")


def require_audio_output(out: Path, inputs: Sequence[Path]) -> None:
    """Raise OutputError unless ``out`` is named as an audio file is, and none of ``inputs``."""
    if out.suffix.lower().lstrip(".") not in AUDIO_KINDS:
        raise OutputError(f"{out}: end the name in .{', .'.join(AUDIO_KINDS)}")
    refuse_inputs(inputs, [out])


def run_all(plan: Plan, work: Callable[[Path, Path], dict[str, Any]], as_json: bool) -> int:
    """Do ``work`` on every pair; a bad file is reported in one line and the others go on.

    Returns:
        0, or 2 where any file failed.

    Raises:
        OutputError: the folder cannot be made.
    """
    if plan.folder is not None:
        make_folder(plan.folder)
    return run_each(plan.pairs, lambda path, out: {"output": str(out), **work(path, out)}, _sentence, as_json)


def run_each(
    jobs: Sequence[tuple[Path, ...]],
    work: Callable[..., dict[str, Any]],
    sentence: Callable[[dict[str, Any]], str],
    as_json: bool,
) -> int:
    """Do ``work`` on every job, whose first file is the input, and say what came of it.

    Args:
        sentence: of a row of ``work``, to which ``input`` is added.

    Returns:
        0, or 2 where any input failed; it is reported in one line and the others go on.
    """
    from tqdm import tqdm

    rows, failed = [], 0
    with tqdm(total=len(jobs), unit="file", disable=len(jobs) == 1 or not sys.stderr.isatty()) as bar:
        for job in jobs:
            path = job[0]
            try:
                row = {"input": str(path), **work(*job)}
                if not as_json:
                    bar.write(sentence(row), file=sys.stdout)
            except SpeechtokError as error:
                failed += 1
                named = any(str(one) in str(error) for one in job)
                message = str(error) if named else f"{path}: {error}"
                row = {"input": str(path), "error": message}
                bar.write(f"speechtok: error: {message}", file=sys.stderr)
            rows.append(row)
            bar.update()
    if as_json:
        print_json(rows)
    if failed and len(jobs) > 1:
        print(f"speechtok: {failed} of {len(jobs)} files failed", file=sys.stderr)
    return 2 if failed else 0


def read_audio(path: Path) -> Audio:
    """``speechtok.read`` without what decoders written in C put on standard error."""
    from speechtok.audio import read

    with native_notes_silenced():
        return read(path)


@contextmanager
def native_notes_silenced() -> Iterator[None]:
    """File descriptor 2 leads nowhere meanwhile, where decoders written in C talk (mpg123 on a damaged MP3).

    What is wrong is said by an error or a warning in one line. What Python says takes a way of its own.
    """
    said = sys.stderr
    said.flush()
    try:
        kept = os.dup(2)
    except OSError:  # started without a standard error: nothing to silence
        yield
        return
    own = _is_standard_error(said)
    if own:
        sys.stderr = os.fdopen(os.dup(kept), "w", buffering=1, encoding=said.encoding, errors="backslashreplace")
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        if own:
            sys.stderr.close()
            sys.stderr = said


def _is_standard_error(stream: Any) -> bool:
    try:
        return stream.fileno() == 2
    except (AttributeError, OSError, ValueError):  # something in its place, without a descriptor
        return False


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
