"""Speech to discrete tokens and back: `read` a file, `load` a tokenizer, `encode`, `decode`; `open` a corpus of tokens.

Names are imported when first used, so `import speechtok` costs milliseconds and never loads torch.
"""

import importlib
from typing import TYPE_CHECKING

from speechtok.errors import SpeechtokError

if TYPE_CHECKING:
    from speechtok.audio import Audio, read, write
    from speechtok.corpus.reader import open
    from speechtok.tokenizers.registry import load, models
    from speechtok.tokens import Tokens

__version__ = "0.1.0"
__all__ = ["Audio", "SpeechtokError", "Tokens", "__version__", "load", "models", "open", "read", "write"]

_HOME = {
    "Audio": "speechtok.audio",
    "read": "speechtok.audio",
    "write": "speechtok.audio",
    "Tokens": "speechtok.tokens",
    "load": "speechtok.tokenizers.registry",
    "models": "speechtok.tokenizers.registry",
    "open": "speechtok.corpus.reader",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'speechtok' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
