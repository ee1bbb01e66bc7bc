"""The ``speechtok`` command: one file per command, nothing heavy imported before a command runs."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from speechtok.cli import (
    adapt,
    align,
    bench,
    choose,
    convert,
    decode,
    demo,
    encode,
    export,
    export_corpus,
    features,
    info,
    layout,
    models,
    speak,
    tokenize,
    train,
    transcribe,
    vc,
    verify,
)
from speechtok.errors import SpeechtokError

COMMANDS = {
    "encode": encode,
    "decode": decode,
    "info": info,
    "models": models,
    "verify": verify,
    "demo": demo,
    "convert": convert,
    "tokenize": tokenize,
    "export": export,
    "export-corpus": export_corpus,
    "train": train,
    "align": align,
    "features": features,
    "layout": layout,
    "vc": vc,
    "transcribe": transcribe,
    "speak": speak,
    "adapt": adapt,
    "choose": choose,
    "bench": bench,
}
INTERRUPTED = 130
BROKEN_PIPE = 141


def main(argv: Sequence[str] | None = None, load: Callable[..., Any] | None = None) -> int:
    """Run one command.

    Args:
        argv: arguments without the program's name; those of the process when None.
        load: stands in for ``speechtok.load``, for callers that keep a model in memory.

    Returns:
        exit code: 0 done, 1 a promise is broken (``verify``), 2 bad input or usage, 130 interrupted.
    """
    _open_missing_streams()
    try:
        code = _run(argv, load or _load)
        sys.stdout.flush()
        return code
    except SpeechtokError as error:
        _say("error", error)
        return 2
    except KeyboardInterrupt:
        _say("error", "interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        _silence_stdout()
        return BROKEN_PIPE
    except OSError as error:
        _say("error", _system_error(error))
        _give_up_on_stdout()
        return 2


def _run(argv: Sequence[str] | None, load: Callable[..., Any]) -> int:
    try:
        args = _parser().parse_args(argv)
    except SystemExit as stop:  # argparse has already said why
        return int(stop.code or 0)
    args.load = load
    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = _show_warning
        return args.run(args)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="speechtok", description="Turn speech into discrete tokens and back.", allow_abbrev=False
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and stop")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        command = commands.add_parser(
            name, help=module.HELP, description=f"{module.HELP}.", epilog=module.NOTE, allow_abbrev=False
        )
        module.configure(command)
        command.set_defaults(run=module.run)
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        from speechtok import __version__

        print(f"speechtok {__version__}")
        parser.exit()


def _load(name: Any = None, **options: Any) -> Any:
    from speechtok.tokenizers.registry import load

    return load(name, **options)


def _open_missing_streams() -> None:
    """A process may be started without standard output or error (``2>&-``); Python then has None in their place."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - open until the process ends


def _say(kind: str, message: object) -> None:
    print(f"speechtok: {kind}: {message}", file=sys.stderr)


def _system_error(error: OSError) -> str:
    """What the system refused, in one line; without a file's name it was the output of this process."""
    reason = " ".join((error.strerror or str(error) or type(error).__name__).split())
    if error.filename is None:
        return f"cannot go on: {reason}; check where the output goes"
    return f"{error.filename}: {reason}; check the name and its permissions"


def _give_up_on_stdout() -> None:
    try:
        sys.stdout.flush()
    except OSError:
        _silence_stdout()


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    _say("warning", message)


def _silence_stdout() -> None:
    """Our output goes nowhere; keep the interpreter from complaining about it once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
