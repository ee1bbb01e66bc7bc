"""``speechtok decode``: token files to audio files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechtok.cli import live
from speechtok.cli.common import (
    AUDIO_KINDS,
    add_file_options,
    add_model_options,
    plan_outputs,
    read_audio,
    require_output,
    run_all,
)
from speechtok.cli.encode import SHOWN
from speechtok.errors import ConfigError, OutputError, TokenError

if TYPE_CHECKING:
    from speechtok.audio import Audio
    from speechtok.tokenfile import TokenValue

TEXT = "txt"
"""What text tokens are decoded into."""

HELP = "turn token files back into audio files"
NOTE = "Example: speechtok decode tokens/a.tokens.safetensors -o a.wav"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_file_options(parser, output=False)
    parser.add_argument(
        "--stream", action="store_true",
        help="with - for FILE: JSON lines from standard input to 16-bit samples, as they come (or to the file of -o)",
    )  # fmt: skip
    add_model_options(parser)
    parser.add_argument(
        "--format", default="wav", choices=(*AUDIO_KINDS, TEXT),
        help="kind of file written into a folder (default: wav; txt for text tokens); a file's name says it itself",
    )  # fmt: skip
    parser.add_argument(
        "--voice", metavar="REF", type=Path, help="speak in the voice of this recording, where the tokens hold none"
    )
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--levels", type=int, metavar="K", help="from the first K levels (default: all)")
    part.add_argument("--semantic", action="store_true", help="from the semantic levels alone")
    part.add_argument("--acoustic", action="store_true", help="from the acoustic levels alone")


def run(args: argparse.Namespace) -> int:
    """Decode every file, or what standard input brings."""
    if live.STANDARD in args.files:
        return live.decode(args)
    if args.stream:
        raise ConfigError("--stream is for standard input; give - as the only FILE")
    require_output(args)
    plan = plan_outputs(args.files, args.output, f".{args.format}")
    tokenizer = args.load(args.model, device=args.device, precision=args.precision)
    tokenizer.show_progress = True
    if args.voice is not None:
        tokenizer = tokenizer.with_voice(read_audio(args.voice))

    from speechtok.anytokens import load_tokens
    from speechtok.tokens import Tokens

    def work(path: Path, out: Path) -> dict[str, Any]:
        tokens = _chosen(load_tokens(path), args)
        if isinstance(tokens, Tokens):
            tokenizer.decode_file(tokens, out)
        else:
            _write(out, tokenizer.decode(tokens), tokens.tokenizer)
        facts = tokens.describe()
        return {key: facts[key] for key in (*SHOWN, "sample_rate") if key in facts}

    return run_all(plan, work, args.json)


def _chosen(tokens: TokenValue, args: argparse.Namespace) -> TokenValue:
    """The part of ``tokens`` that the options ask for."""
    wanted = "semantic" if args.semantic else "acoustic" if args.acoustic else "take" if args.levels is not None else ""
    if not wanted:
        return tokens
    if "levels" not in tokens.describe():
        raise TokenError(f"tokens of {tokens.tokenizer} have no levels; leave --levels, --semantic and --acoustic out")
    return tokens.take(args.levels) if wanted == "take" else getattr(tokens, wanted)


def _write(out: Path, decoded: Audio | str, tokenizer: str) -> None:
    from speechtok.audio import write
    from speechtok.files import write_text_atomic

    if not isinstance(decoded, str):
        write(out, decoded)
    elif out.suffix.lower() == f".{TEXT}":
        write_text_atomic(out, f"{decoded}\n")
    else:
        raise OutputError(
            f"{out}: tokens of {tokenizer} are text and hold no audio; end the name in .txt (--format txt)"
        )
