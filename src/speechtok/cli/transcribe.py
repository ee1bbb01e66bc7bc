"""``speechtok transcribe``: audio files to text, through tokens."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from speechtok.cli.common import read_audio, run_each

HELP = "write down what is said in audio files, heard through their tokens"
NOTE = "Example: speechtok transcribe a.wav b.flac --model runs/asr-mini/model"
BEAM = 10


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("files", nargs="+", metavar="AUDIO", type=Path)
    parser.add_argument("--model", metavar="FOLDER", type=Path, help="of 'speechtok train asr' (default: bundled)")
    parser.add_argument("--tokenizer", metavar="MODEL", help="name or folder (default: the one the recogniser knows)")
    parser.add_argument("--beam", type=int, default=BEAM, metavar="N", help=f"texts kept at every step ({BEAM})")
    parser.add_argument("--device", default="cpu", help="where the models run, such as cuda (default: cpu)")
    parser.add_argument("--json", action="store_true", help="print what was heard as JSON")


def run(args: argparse.Namespace) -> int:
    """Transcribe every file."""
    from speechtok.chain.decoding import SearchConfig
    from speechtok.chain.transcriber import Transcriber

    search = SearchConfig(beam=args.beam)
    transcriber = Transcriber.load(args.model, search, args.tokenizer, args.device)

    def work(path: Path) -> dict[str, Any]:
        audio = read_audio(path)
        return {"seconds": round(audio.seconds, 3), "text": transcriber.transcribe(audio)}

    def sentence(row: dict[str, Any]) -> str:
        return f"{row['input']}\t{row['text']}"

    return run_each([(path,) for path in args.files], work, sentence, args.json)
