"""``speechtok layout``: token files to the sequences that language models read, and back."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechtok.cli.common import TOKEN_SUFFIX, Plan, checked_plan, print_fields, print_json, refuse_inputs
from speechtok.errors import ConfigError, OutputError
from speechtok.files import atomic_path, make_folder

if TYPE_CHECKING:
    from speechtok.layouts import Vocabulary
    from speechtok.tokens import Tokens

HELP = "lay token files out for a language model, and read them back"
NOTE = (
    "Examples: speechtok layout tokens/* --as delay -o train.bin; speechtok layout train.bin --as tokens -o tokens/; "
    "speechtok layout train-bpe tokens/* -o bpe.json --size 4096; "
    "speechtok layout tokens/* --as bpe --vocabulary bpe.json -o train.npy"
)
TRAIN, BACK = "train-bpe", "tokens"
DURATIONS = 64
CHOICES = ("levels", "semantic", "acoustic", "text_size", "shared", "durations")
"""What a new vocabulary is made of."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "files", nargs="+", metavar="TOKENS", type=Path,
        help=f"token files; or with --as {BACK} one .bin or .npy file; or the word {TRAIN}, then token files",
    )  # fmt: skip
    parser.add_argument(
        "--as", dest="name", metavar="LAYOUT",
        help=f"flat, delay, parallel, coarse, split, dedup or bpe; {BACK} for the way back",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", required=True, metavar="OUT",
        help=f"NAME.bin or NAME.npy for arrays, NAME/ for a folder of Hugging Face datasets; --as {BACK}: a folder; "
        f"{TRAIN}: a vocabulary file",
    )  # fmt: skip
    parser.add_argument(
        "--vocabulary", metavar="FILE", type=Path,
        help="which id means what; written from the tokens where there is no such file",
    )  # fmt: skip
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--levels", type=int, metavar="K", help=f"the first K levels (default: all; {TRAIN}: 1)")
    part.add_argument("--semantic", action="store_true", help="the semantic levels alone")
    part.add_argument("--acoustic", action="store_true", help="the acoustic levels alone")
    parser.add_argument("--text-size", type=int, metavar="N", help="leave the ids below N to text (default: 0)")
    parser.add_argument("--shared", action="store_true", help="the same ids for all levels")
    parser.add_argument(
        "--durations", type=int, metavar="N", help=f"longest duration of dedup, in frames (default: {DURATIONS})"
    )
    parser.add_argument("--bare", action="store_true", help="no bos and eos around an utterance")
    parser.add_argument("--size", type=int, metavar="N", help=f"{TRAIN}: units wanted, single codes included")
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")


def run(args: argparse.Namespace) -> int:
    """Train, write or read back."""
    if args.files[0] == Path(TRAIN):
        fields = _train(args, args.files[1:])
    elif args.name is None:
        raise ConfigError(f"say which layout with --as, such as flat or delay, or --as {BACK} for the way back")
    else:
        fields = _read_back(args) if args.name == BACK else _write(args)
    print_json(fields) if args.json else print_fields(fields)
    return 0


def _train(args: argparse.Namespace, files: Sequence[Path]) -> dict[str, Any]:
    from speechtok.layouts import train_bpe

    if not files or args.size is None or args.name:
        raise ConfigError(f"write speechtok layout {TRAIN} TOKENS... -o FILE --size N, without --as")
    _refuse_options(args, ("vocabulary", "bare"), f"does not apply to {TRAIN}")
    refuse_inputs(files, [Path(args.output)])
    if args.levels is None and not args.semantic and not args.acoustic:
        args.levels = 1
    vocabulary = _made_from(files[0], args)
    trained = train_bpe(vocabulary, (tokens for _, tokens in _utterances(files, vocabulary)), args.size)
    trained.save(args.output)
    return {
        "output": args.output,
        "files": len(files),
        "levels": trained.levels,
        "units": trained.code_count + len(trained.merges),
        "merged": len(trained.merges),
        "ids": trained.size,
    }


def _write(args: argparse.Namespace) -> dict[str, Any]:
    from speechtok.layouts import arrays, get, huggingface

    out, as_folder = Path(args.output), args.output.endswith(("/", os.sep)) or os.path.isdir(args.output)
    if not as_folder and out.suffix not in arrays.SUFFIXES:
        raise OutputError(f"{out}: end it in {' or '.join(arrays.SUFFIXES)}, or in / for a folder of datasets")
    _refuse_options(args, ("size",), f"belongs to {TRAIN}")
    outputs = [out] if as_folder else [out, arrays.index_path(out)]
    refuse_inputs(args.files, outputs)
    if args.vocabulary is not None:
        _keep_apart(args.vocabulary, outputs)
    is_new = args.vocabulary is None or not os.path.lexists(args.vocabulary)
    vocabulary = _made_from(args.files[0], args) if is_new else _read_vocabulary(args)
    layout = get(args.name, vocabulary)
    write = huggingface.write_dataset if as_folder else arrays.write_arrays
    framing = {"bos": not args.bare, "eos": not args.bare}
    with ExitStack() as both:
        if is_new and args.vocabulary is not None:  # written first, in its place last: neither is left alone
            vocabulary.save(both.enter_context(atomic_path(args.vocabulary)))
        written = write(out, layout, _utterances(args.files, vocabulary), **framing)
    if as_folder:  # counted in Arrow: as Python lists a corpus would not fit
        steps = sum(len(chunk.flatten()) for chunk in written.data.column("input_ids").chunks)
    else:
        steps = int(written.offsets[-1])
    samples = sum(written["num_samples"] if as_folder else written.num_samples)
    seconds = samples / vocabulary.sample_rate
    return {
        "output": args.output,
        "layout": args.name,
        "utterances": len(written),
        "seconds": seconds,
        "levels": vocabulary.levels,
        "streams": layout.streams,
        "steps": steps,
        "steps_per_second": steps / seconds,
        "ids": vocabulary.size,
    }


def _read_back(args: argparse.Namespace) -> dict[str, Any]:
    from speechtok.layouts.arrays import index_path, open_arrays

    if len(args.files) > 1:
        raise ConfigError(f"--as {BACK} reads one file; name one")
    _refuse_options(args, (*CHOICES, "vocabulary", "bare", "size"), f"does not apply to --as {BACK}")
    source, folder = args.files[0], Path(args.output)
    opened = open_arrays(source)
    for name in opened.ids:
        if Path(name).name != name:
            raise ConfigError(f"{source}: the id {name!r} is no plain file name; read it from Python instead")
    pairs = [(Path(name), folder / f"{name}{TOKEN_SUFFIX}") for name in opened.ids]
    plan = checked_plan(Plan(pairs, folder), [source, index_path(source)])
    make_folder(folder)
    for i, (_, out) in enumerate(plan.pairs):
        opened.tokens(i).save(out)
    return {"output": args.output, "layout": opened.layout.name, "utterances": len(opened), "seconds": opened.seconds}


def _read_vocabulary(args: argparse.Namespace) -> Vocabulary:
    """The one of the file, which leaves nothing to be chosen."""
    from speechtok.layouts import Vocabulary

    _refuse_options(args, CHOICES, f"is decided by {args.vocabulary}, which exists; or name a new file")
    return Vocabulary.load(args.vocabulary)


def _made_from(path: Path, args: argparse.Namespace) -> Vocabulary:
    from speechtok.layouts import Vocabulary
    from speechtok.tokens import Tokens

    tokens = Tokens.load(path)
    if args.semantic or args.acoustic:
        tokens = tokens.semantic if args.semantic else tokens.acoustic
    elif args.levels is not None:
        tokens = tokens.take(args.levels)
    durations = args.durations
    if durations is None:
        durations = DURATIONS if args.name == "dedup" else 0
    return Vocabulary.of(tokens, text_size=args.text_size or 0, shared=args.shared, durations=durations)


def _utterances(files: Sequence[Path], vocabulary: Vocabulary) -> Iterator[tuple[str, Tokens]]:
    """Ids and the vocabulary's levels of every file; an error names its file."""
    from speechtok.errors import TokenFileError
    from speechtok.tokens import Tokens

    for path in files:
        tokens = Tokens.load(path)
        try:
            chosen = vocabulary.select(tokens)
        except TokenFileError as error:
            raise TokenFileError(f"{path}: {error}") from error
        yield path.name.removesuffix(TOKEN_SUFFIX), chosen


def _refuse_options(args: argparse.Namespace, names: Sequence[str], why: str) -> None:
    """Raise ConfigError where one of them was given, rather than leave it without effect."""
    for name in names:
        value = getattr(args, name)
        if value is not None and value is not False:  # 0 was given, too
            raise ConfigError(f"leave --{name.replace('_', '-')} out: it {why}")


def _keep_apart(vocabulary: Path, outputs: Sequence[Path]) -> None:
    """Raise OutputError where the vocabulary would be replaced by an output, or lie inside a folder that is one."""
    place = Path(os.path.realpath(vocabulary))
    for out in outputs:
        real = Path(os.path.realpath(out))
        if real == place or real in place.parents:
            raise OutputError(f"{vocabulary}: --vocabulary lies where {out} is written; name another file")
