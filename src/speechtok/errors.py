"""Errors meant for people: one line that names the file or value at fault and the fix.

The command line prints the line and exits with status 2. Anything that is not a `SpeechtokError` is a fault
in the program and keeps its traceback.
"""

import sys
from collections.abc import Callable
from typing import NoReturn


class SpeechtokError(Exception):
    """Base of every error a user can cause and mend; its text is always a single line."""

    def __init__(self, message: object) -> None:
        super().__init__(" ".join(str(message).split("\n")).replace("\r", " ").strip())


class AudioError(SpeechtokError):
    """Audio that cannot be read or is no signal: missing, damaged, empty, not finite, of a wrong shape."""


class TokenError(SpeechtokError):
    """Tokens that contradict themselves, or a view that the tokens do not hold."""


class TokenFileError(TokenError):
    """A token file that is missing, damaged, altered, foreign, or written by a newer release."""


class NotSupportedError(SpeechtokError):
    """Something that this kind of tokenizer cannot do by its nature, such as audio from text."""


class CheckpointError(SpeechtokError):
    """A model that cannot be found or loaded."""


class ConfigError(SpeechtokError):
    """A setting that is unknown, out of range, or contradicts another."""


class TrainingError(SpeechtokError):
    """A training run that cannot go on, because its losses or gradients stopped being numbers."""


class OutputError(SpeechtokError):
    """A result that cannot be written where it was asked for."""


def run_module(main: Callable[[], int | None]) -> NoReturn:
    """End the process as the command would: with what `main` returns, or with one line and status 2."""
    try:
        sys.exit(main())
    except SpeechtokError as error:
        print(f"speechtok: error: {error}", file=sys.stderr)
        sys.exit(2)
