"""A token file of whatever kind."""

from speechtok.files import StrPath
from speechtok.soft_tokens import SoftTokens
from speechtok.text_tokens import TextTokens
from speechtok.tokenfile import load_any
from speechtok.tokens import Tokens

KINDS = (Tokens, SoftTokens, TextTokens)


def load_tokens(path: StrPath) -> Tokens | SoftTokens | TextTokens:
    """Discrete, soft or text tokens, as the file says. Raises TokenFileError as `Tokens.load` does."""
    return load_any(path, KINDS)
