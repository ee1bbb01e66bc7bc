"""``speechtok encode -`` and ``decode -``: raw samples from standard input, and tokens as lines while they come."""

from __future__ import annotations

import json
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechtok.cli.common import refuse_audio_names
from speechtok.errors import AudioError, ConfigError, OutputError, TokenError

if TYPE_CHECKING:
    import argparse

    import numpy as np

    from speechtok.tokenizers.base import Tokenizer
    from speechtok.tokenizers.streaming import CodecStream

STANDARD = Path("-")
NAME = "standard input"
FULL_SCALE = 32768
_AT_ONCE = 1 << 16  # bytes


def encode(args: argparse.Namespace) -> int:
    """Tokens of 16-bit samples from standard input, into a file, or as lines, or both."""
    out = _only_output(args, needed=not args.stream)
    if out is not None:
        refuse_audio_names([out])
    tokenizer = _loaded(args)
    levels = tokenizer.checked_levels(args.levels)
    if args.stream:
        with tokenizer.stream(args.rate, levels) as stream:
            return _encode_live(tokenizer, stream, out)
    tokens = tokenizer.encode(_whole(args.rate or tokenizer.sample_rate), args.levels)
    tokens.save(out)
    print(f"{NAME} -> {out}  {tokens.seconds:.2f} s, {tokens.content}, {tokens.bitrate:.0f} bit/s")
    return 0


def decode(args: argparse.Namespace) -> int:
    """16-bit samples of the lines that ``encode`` writes, to standard output or into an audio file."""
    if not args.stream:
        raise ConfigError(f"tokens from {NAME} come as lines; add --stream, or name token files")
    if args.voice or args.semantic or args.acoustic or args.levels is not None:
        raise ConfigError("--voice, --levels, --semantic and --acoustic choose from whole files; leave them out")
    out = _only_output(args, needed=sys.stdout.isatty())
    tokenizer = _loaded(args)
    with tokenizer.stream() as stream:
        sounds = _sounds(tokenizer, stream)
        if out is not None:
            from speechtok.audio import write_blocks

            write_blocks(out, sounds, tokenizer.sample_rate)
            return 0
        for samples in sounds:
            sys.stdout.buffer.write(_pcm(samples))
            sys.stdout.buffer.flush()
    return 0


def until_interrupted(read: Callable[[], bytes]) -> Iterator[bytes]:
    """What ``read`` gives until it gives nothing. Ctrl-C ends it as well, but never amid what is done with a piece."""
    reading = stopped = False

    def interrupt(*_: Any) -> None:
        nonlocal stopped
        stopped = True
        if reading:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        while not stopped:
            reading = True
            piece = read()
            reading = False
            if not piece:
                return
            yield piece
    except KeyboardInterrupt:
        return
    finally:
        signal.signal(signal.SIGINT, before)


def _encode_live(tokenizer: Tokenizer, stream: CodecStream, out: Path | None) -> int:
    """Lines until the input ends or nobody reads them; what was heard then is saved where a file was named."""
    pieces: list[np.ndarray] = []
    frame, broken = 0, None
    about = {"tokenizer": tokenizer.name, "fingerprint": tokenizer.fingerprint}
    about |= {"sample_rate": tokenizer.sample_rate, "hop": tokenizer.hop, "levels": stream.levels}
    try:
        _say([about])
        for samples in _heard():
            codes = stream.encode(samples)
            pieces += [codes] if out is not None else []
            _say(_lines(codes, frame))
            frame += codes.shape[1]
    except BrokenPipeError as error:
        broken = error
    last = stream.finish()
    if not stream.heard:
        raise AudioError(f"{NAME}: holds no samples; record, or check what writes to it")
    if out is not None:
        stream.tokens([*pieces, last]).save(out)
    if broken is not None:
        raise broken
    lines = _lines(last, frame) or [{}]
    lines[-1]["samples"] = stream.heard  # with the last frame, so that a decoder can cut it at once
    _say(lines)
    return 0


def _lines(codes: np.ndarray, frame: int) -> list[dict[str, Any]]:
    return [{"frame": number, "codes": row} for number, row in enumerate(codes.T.tolist(), frame)]


def _say(lines: list[dict[str, Any]]) -> None:
    for line in lines:
        print(json.dumps(line))
    sys.stdout.flush()


def _heard() -> Iterator[np.ndarray]:
    """Samples as they come."""
    import numpy as np

    half = b""
    for data in until_interrupted(lambda: sys.stdin.buffer.read1(_AT_ONCE)):
        data = half + data
        whole = len(data) // 2 * 2
        half = data[whole:]
        yield np.frombuffer(data[:whole], "<i2").astype(np.float32) / FULL_SCALE
    if half:
        warnings.warn(f"{NAME}: ended within a 16-bit sample, of which half is left out", stacklevel=2)


def _loaded(args: argparse.Namespace) -> Any:
    if args.stream and args.precision == "bf16":
        raise ConfigError("--stream computes in fp32; leave --precision bf16 out")
    return args.load(args.model, device=args.device, precision=args.precision)


def _whole(rate: int) -> Any:
    import numpy as np

    from speechtok.audio import Audio

    samples = np.concatenate([np.empty(0, np.float32), *_heard()])
    if not len(samples):
        raise AudioError(f"{NAME}: holds no samples; record, or check what writes to it")
    return Audio(samples, rate)


def _sounds(tokenizer: Tokenizer, stream: CodecStream) -> Iterator[np.ndarray]:
    """Samples line by line."""
    import numpy as np

    lines = map(_parsed, until_interrupted(sys.stdin.buffer.readline))
    _require_own(tokenizer, next(lines, {}))
    due = 0
    for line in lines:
        if "frame" in line:
            if line["frame"] != due:
                raise TokenError(f"{NAME}: frame {line['frame']!r} comes where {due} is due; lines are missing")
            codes = np.array([[code] for code in line["codes"]])
            yield stream.decode(codes, until=line.get("samples"))
            due += 1
    if not due:
        raise TokenError(f"{NAME}: holds no frames; give it what `speechtok encode - --stream` writes")


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    if not isinstance(value, dict) or not _is_line(value):
        said = line[:40].decode("utf-8", "replace").strip()
        raise TokenError(f"{NAME}: {said!r} is no line of tokens; give it what `speechtok encode - --stream` writes")
    return value


def _is_line(value: dict[str, Any]) -> bool:
    codes = value.get("codes")
    rows = "frame" not in value or (isinstance(codes, list) and all(type(code) is int for code in codes))
    samples = value.get("samples", 1)
    return rows and type(samples) is int and samples > 0


def _require_own(tokenizer: Tokenizer, about: dict[str, Any]) -> None:
    made = about.get("fingerprint")
    if made is None:
        raise TokenError(f"{NAME}: does not say which tokenizer made it; give it the first line of `encode`, too")
    if made != tokenizer.fingerprint:
        raise TokenError(
            f"{NAME}: tokens of {about.get('tokenizer')} ({made}), not of {tokenizer.name} "
            f"({tokenizer.fingerprint}); decode them with the model that made them"
        )


def _pcm(samples: np.ndarray) -> bytes:
    """16-bit samples, little-endian; what lies outside of full scale is clipped."""
    import numpy as np

    return np.clip(np.rint(samples * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype("<i2").tobytes()


def _only_output(args: argparse.Namespace, needed: bool) -> Path | None:
    """The file that is named with ``-o``, where one is.

    Raises:
        ConfigError: standard input beside files.
        OutputError: none is named though there must be one, or a folder.
    """
    if len(args.files) > 1:
        raise ConfigError(f"{NAME} (-) stands alone; take the files apart from it")
    if args.output is None:
        if needed:
            raise OutputError(f"nothing says where what comes from {NAME} goes; name a file with -o")
        return None
    if Path(args.output).is_dir() or args.output.endswith("/"):
        raise OutputError(f"{args.output}: is a folder, and {NAME} has no name; name a file inside it")
    return Path(args.output)
