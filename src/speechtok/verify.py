"""Checks of what the tokenizer contract promises, with the numbers measured on this machine.

``verify(tokenizer)`` works on any ``Tokenizer``, so a model of your own can be held to the same promises.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from speechtok.audio import Audio, read
from speechtok.clips import bundled_clips
from speechtok.errors import ConfigError, NotSupportedError, TokenError
from speechtok.tokenfile import TokenValue
from speechtok.tokenizers.base import Tokenizer
from speechtok.tokenizers.codec import CodecTokenizer
from speechtok.tokens import Tokens

CLIP_SECONDS = 6.0
"""Longer clips are cut to this length: the promises do not depend on it, the waiting time does."""
NEAR_TIES = 0.01
"""Share of codes that may differ between two ways of computing the same thing. Rounding flips a few near
ties; a window that misses context, the fault looked for, changes several times as many."""
ROUNDING = 1e-3
"""Difference between numbers of soft tokens that counts as rounding, against the largest: one step of float16."""
SEAM = 1e-4
"""Largest difference between samples decoded in windows and in one piece, against a full scale of 1."""


@dataclass(frozen=True)
class Check:
    """One promise and what was found."""

    name: str
    promise: str
    passed: bool | None
    """None where the number is reported and nothing is promised."""
    measured: str
    numbers: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return asdict(self)


def verify(tokenizer: Tokenizer, audios: Sequence[Audio] | None = None) -> list[Check]:
    """Hold ``tokenizer`` to the contract.

    Args:
        tokenizer: any tokenizer.
        audios: recordings to use; by default four of the clips that come with the package.

    Returns:
        one ``Check`` per promise, in a fixed order. A promise whose check itself fails, with any exception, counts
        as broken.
    """
    clips = [_clip(audio.resample(tokenizer.sample_rate)) for audio in audios or default_audio()]
    return [_timed(check, tokenizer, clips) for check in CHECKS]


def default_audio() -> list[Audio]:
    """The first four bundled clips by file name, in two languages."""
    return [read(path) for path in sorted(clip.path for clip in bundled_clips())[:4]]


def length_law(tokenizer: Tokenizer, clips: list[Audio]) -> Check:
    """frames == ceil(samples / hop)"""
    lengths, coarsest = _lengths(tokenizer), 1 if tokenizer.levels else None
    wrong = [
        length
        for length in lengths
        if tokenizer.encode(_cut(clips[0], length), coarsest).frames != -(-length // tokenizer.hop)
    ]
    return Check(
        "length law",
        "frames == ceil(samples / hop), from one sample up",
        not wrong,
        f"{len(wrong)} of {len(lengths)} lengths wrong" + (f", first {wrong[0]}" if wrong else ""),
        {"lengths": len(lengths), "wrong": len(wrong)},
    )


def round_trip_length(tokenizer: Tokenizer, clips: list[Audio]) -> Check:
    """decode gives back as many samples as encode took, from all levels and from some"""
    lengths = _lengths(tokenizer)[:8]
    wrong = []
    for length in lengths:
        tokens = tokenizer.encode(_cut(clips[0], length))
        lengths_of_parts = [len(_sound(tokenizer, tokens)), *_sounds_of_parts(tokenizer, tokens)]
        wrong += [length] * any(found != length for found in lengths_of_parts)  # a length counts once
    return Check(
        "round-trip length",
        "decode gives exactly the samples that were encoded",
        not wrong,
        f"{len(wrong)} of {len(lengths)} lengths wrong" + (f", first {wrong[0]}" if wrong else ""),
        {"lengths": len(lengths), "wrong": len(wrong)},
    )


def same_twice(tokenizer: Tokenizer, clips: list[Audio]) -> Check:
    """a second run gives the same codes"""
    codes = [tokenizer.encode(clip).payload for clip in clips]
    again = [tokenizer.encode(clip).payload for clip in clips]
    return _equal("same codes twice", "a second run gives the same codes", codes, again)


def batch_equals_single(tokenizer: Tokenizer, clips: list[Audio]) -> Check:
    """encode_batch gives the codes of encode"""
    clips = _uneven(clips)
    together = [tokens.payload for tokens in tokenizer.encode_batch(clips)]
    alone = [tokenizer.encode(clip).payload for clip in clips]
    return _equal("batch == single", "a list gives the codes of one by one, bit for bit", alone, together)


def padded_batch(tokenizer: Tokenizer, clips: list[Audio]) -> Check:
    """codes that change when recordings share a forward pass"""
    clips = _uneven(clips)
    together = [tokens.payload for tokens in tokenizer.encode_batch(clips, exact=False, batch_size=len(clips))]
    alone = [tokenizer.encode(clip).payload for clip in clips]
    return _near("shared passes", "encode_batch(exact=False) changes near ties only", alone, together)


def long_audio(tokenizer: Tokenizer, clips: list[Audio]) -> Check:
    """codes of long audio, which is taken in windows, against one piece"""
    clip = max(clips, key=len)
    seconds = clip.seconds / 6
    whole = tokenizer.encode(clip).payload
    cut = _quietly(tokenizer.in_windows(seconds).encode, clip).payload
    check = _near("long audio", "windows give the codes of one piece, but for near ties", [whole], [cut])
    return _windowed(check, seconds, tokenizer.exact_windows[0])


def long_decode(tokenizer: Tokenizer, clips: list[Audio]) -> Check:
    """samples decoded in windows against one piece"""
    tokens = tokenizer.encode(max(clips, key=len))
    seconds = tokens.seconds / 6
    whole = _sound(tokenizer, tokens).samples
    cut = _quietly(tokenizer.in_windows(seconds).decode, tokens).samples
    worst = float(np.abs(whole - cut).max())
    measured, promise = f"largest difference {worst:.1e}", f"windows change no sample by more than {SEAM:g}"
    check = Check("long decode", promise, worst <= SEAM, measured, {"largest": worst})
    return _windowed(check, seconds, tokenizer.exact_windows[1])


def token_file(tokenizer: Tokenizer, clips: list[Audio]) -> Check:
    """a saved file comes back equal, and foreign tokens are refused"""
    tokens = tokenizer.encode(clips[0])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.tokens.safetensors"
        tokens.save(path)
        equal = type(tokens).load(path) == tokens
        size = path.stat().st_size
    refused = False
    try:
        tokenizer.decode(replace(tokens, fingerprint="0" * len(tokens.fingerprint)))
    except TokenError:
        refused = True
    return Check(
        "token file",
        "a saved file loads equal; tokens of another model are refused",
        equal and refused,
        f"{'equal' if equal else 'differs'}, foreign {'refused' if refused else 'accepted'}, {size} bytes",
        {"bytes": size},
    )


def half_precision(tokenizer: Tokenizer, clips: list[Audio]) -> Check:
    """codes and sound in bf16 against fp32"""
    if not isinstance(tokenizer, CodecTokenizer):
        raise NotSupportedError(f"{tokenizer.name} has no path in bf16")
    try:
        full, half = tokenizer.in_precision("fp32"), tokenizer.in_precision("bf16")
    except ConfigError as error:
        raise NotSupportedError(str(error)) from None
    tokens, others = [full.encode(clip) for clip in clips], [half.encode(clip) for clip in clips]
    first = _flips([one.codes[:1] for one in tokens], [one.codes[:1] for one in others])
    every = _flips([one.codes for one in tokens], [one.codes for one in others])
    wave, error = (np.concatenate(part) for part in zip(*(_two_sounds(full, half, one) for one in tokens), strict=True))
    snr = 10 * float(np.log10(np.square(wave).sum() / max(np.square(error).sum(), 1e-20)))
    numbers = {"first_level_flips": first[0] / first[1], "flips": every[0] / every[1], "decode_snr_db": snr}
    return Check(
        "bf16 against fp32",
        "measured, nothing is promised: rounding decides near ties",
        None,
        f"{numbers['first_level_flips']:.2%} of the codes of level 1 differ, {numbers['flips']:.2%} of all;"
        f" the same codes decode at {snr:.1f} dB",
        numbers,
    )


def _two_sounds(full: Tokenizer, half: Tokenizer, tokens: Tokens) -> tuple[np.ndarray, np.ndarray]:
    """Sound of the same tokens in full precision, and how the other one differs."""
    wave = _sound(full, tokens).samples
    return wave, wave - _sound(half, tokens).samples


CHECKS: tuple[Callable[[Tokenizer, list[Audio]], Check], ...] = (
    length_law, round_trip_length, same_twice, batch_equals_single,
    padded_batch, long_audio, long_decode, token_file, half_precision,
)  # fmt: skip


def _quietly(call: Callable[[Any], Any], argument: Any) -> Any:
    """Without the warning that windows may be approximate: that is what gets measured here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call(argument)


def _timed(check: Callable[[Tokenizer, list[Audio]], Check], tokenizer: Tokenizer, clips: list[Audio]) -> Check:
    begin = time.perf_counter()
    try:
        result = check(tokenizer, clips)
    except NotSupportedError as error:  # nothing that this kind of tokenizer promises
        result = Check(check.__name__.replace("_", " "), f"does not apply: {error}", None, "not measured")
    except Exception as error:  # a tokenizer of somebody's own may raise anything, and the other checks still count
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        result = Check(check.__name__.replace("_", " "), check.__doc__ or "", False, f"failed: {reason}")
    return replace(result, seconds=round(time.perf_counter() - begin, 3))


def _sound(tokenizer: Tokenizer, tokens: TokenValue) -> Audio:
    """Decoded audio; raises NotSupportedError where decoding gives something else."""
    decoded = tokenizer.decode(tokens)
    if not isinstance(decoded, Audio):
        raise NotSupportedError(f"{tokenizer.name} decodes to {type(decoded).__name__}, not to audio")
    return decoded


def _sounds_of_parts(tokenizer: Tokenizer, tokens: TokenValue) -> list[int]:
    """Samples decoded from the coarsest level and from the acoustic ones, of those that have a waveform alone."""
    if not isinstance(tokens, Tokens):
        return []
    parts = [tokens.take(1)] + ([tokens.acoustic] if 0 < len(tokens.semantic_levels) < tokens.levels else [])
    found = []
    for part in parts:
        with contextlib.suppress(NotSupportedError):
            found.append(len(_sound(tokenizer, part)))
    return found


def _lengths(tokenizer: Tokenizer) -> list[int]:
    """Sample counts around the frame borders, then random ones."""
    hop = tokenizer.hop
    if hop is None:
        raise NotSupportedError(f"{tokenizer.name} has no frames")
    drawn = np.random.default_rng(0).integers(1, 20 * hop, 16)
    return [1, max(1, hop - 1), hop, hop + 1, 2 * hop - 1, 2 * hop, 3 * hop + 1, *(int(length) for length in drawn)]


def _clip(audio: Audio) -> Audio:
    return _cut(audio, min(len(audio), round(CLIP_SECONDS * audio.rate)))


def _cut(audio: Audio, length: int) -> Audio:
    """The first ``length`` samples, repeating the recording where it is shorter."""
    return Audio(np.resize(audio.samples, length), audio.rate)


def _uneven(clips: list[Audio]) -> list[Audio]:
    """At least three recordings of different lengths."""
    return [_cut(clips[i % len(clips)], max(1, len(clips[i % len(clips)]) * (10 - 3 * i) // 10)) for i in range(3)]


def _flips(expected: list[np.ndarray], found: list[np.ndarray], tolerance: float = 0.0) -> tuple[int, int]:
    """Codes that differ, and codes in all; a different shape counts as all of them.

    The numbers of soft tokens may differ by ``tolerance`` times the largest of them.
    """
    total = sum(codes.size for codes in expected)
    if [codes.shape for codes in expected] != [codes.shape for codes in found]:
        return total, total
    pairs = list(zip(expected, found, strict=True))
    if tolerance and all(a.dtype.kind == "f" for a in expected):
        return sum(int((np.abs(a - b) > tolerance * np.abs(a).max()).sum()) for a, b in pairs), total
    return sum(int((a != b).sum()) for a, b in pairs), total


def _equal(name: str, promise: str, expected: list[np.ndarray], found: list[np.ndarray]) -> Check:
    wrong, total = _flips(expected, found)
    return Check(name, promise, wrong == 0, f"{wrong} of {total} codes differ", {"codes": total, "differ": wrong})


def _near(name: str, promise: str, expected: list[np.ndarray], found: list[np.ndarray]) -> Check:
    wrong, total = _flips(expected, found, ROUNDING)
    return Check(
        name, f"{promise} (at most {NEAR_TIES:.0%})", wrong <= NEAR_TIES * total,
        f"{wrong} of {total} codes differ ({wrong / max(total, 1):.2%})", {"codes": total, "differ": wrong},
    )  # fmt: skip


def _windowed(check: Check, seconds: float, exact: bool) -> Check:
    """The check with the windows it used; nothing is promised where windows are an approximation."""
    check = replace(check, measured=f"{check.measured}, windows of {seconds:.1f} s")
    if exact:
        return check
    return replace(check, passed=None, promise="approximate: this model sees its whole input at once")
