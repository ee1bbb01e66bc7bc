"""A neural codec (``nn.Codec``) as a tokenizer: schemes A and E.

Audio of any length runs in bounded memory. Where the receptive field is finite the windows overlap by exactly
that field, and in exact arithmetic the codes are those of one pass; rounding depends on the shape of a window,
so a code whose two best candidates are equally near may still differ (``speechtok verify`` counts them). A
recurrent layer sees everything: such a model takes up to ``exact_seconds`` in one piece and longer audio in
windows with a generous overlap, which is an approximation and is announced as one.
"""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from speechtok.audio import write_blocks
from speechtok.checks import smallest_type
from speechtok.errors import ConfigError
from speechtok.files import StrPath
from speechtok.nn.codec import BACKBONES, Codec
from speechtok.nn.precision import prepared, settled
from speechtok.recording import Recording
from speechtok.tokenizers.base import Tokenizer
from speechtok.tokenizers.checkpoint import is_statistic
from speechtok.tokenizers.chunking import Window, overlapping, windows
from speechtok.tokenizers.fingerprint import RESAMPLER, fingerprint_of, settings_facts
from speechtok.tokenizers.streaming import CodecStream
from speechtok.tokens import Tokens

Sound = Callable[[Window], torch.Tensor]
"""Decodes a window of frames, ``[1, n * hop]``."""

CODE_VERSION = 1
"""Raised whenever a change of this package changes the codes that the same weights give."""


class CodecTokenizer(Tokenizer):
    """A ``Codec`` in evaluation mode and float32."""

    def __init__(
        self,
        codec: Codec,
        name: str,
        *,
        scheme: str = "E",
        semantic_levels: tuple[int, ...] = (0,),
        licence: str = "not stated",
        note: str = "",
        device: str = "cpu",
        chunk_seconds: float = 30.0,
        exact_seconds: float = 120.0,
        overlap_seconds: float = 10.0,
        precision: str = "fp32",
    ):
        """
        Args:
            codec: the model; it is moved to ``device`` and put into evaluation mode.
            name: what messages and token files call it.
            scheme: ``E`` where the first level was taught content, ``A`` for a plain codec.
            semantic_levels: the levels that were taught.
            licence: of the weights.
            note: what a user of this very model must know.
            device: anything torch understands. Codes from another device may differ in near ties.
            chunk_seconds: new audio per window where the receptive field is finite.
            exact_seconds: longest audio taken in one piece where it is not.
            overlap_seconds: overlap on each side of such a window beyond that length.
            precision: ``fp32``, ``bf16`` or ``auto`` (see ``nn.precision``). The fingerprint names the model, so both
                read each other's tokens; in bf16 about one code in a hundred of the first level, and more of the last
                ones, is another near one.
        """
        config = codec.config
        self.codec = codec.eval().float().to(torch_device(device))
        self.precision = settled(precision, self.codec, torch_device(device), name)
        self.name = name
        self.scheme = scheme
        self.sample_rate = config.sample_rate
        self.hop = config.hop
        self.codebook_sizes = codec.quantizer.codebook_sizes
        self.semantic_levels = semantic_levels
        self.licence = licence
        self.note = note
        self.causal = config.causal
        self.chunk_seconds = chunk_seconds
        self.exact_seconds = exact_seconds
        self.overlap_seconds = overlap_seconds

    @cached_property
    def runner(self) -> nn.Module:
        """The codec as it is computed in this precision, with its methods; ``codec`` is the reference."""
        return prepared(self.codec, self.precision)

    def in_precision(self, precision: str) -> CodecTokenizer:
        """The same model in ``fp32``, ``bf16`` or ``auto``. Raises ConfigError where it has no such path."""
        other = copy.copy(self)
        other.precision = settled(precision, self.codec, next(self.codec.buffers()).device, self.name)
        other.__dict__.pop("runner", None)
        return other

    def describe(self) -> dict[str, Any]:
        """See ``Tokenizer.describe``; with the precision."""
        return {**super().describe(), "precision": self.precision}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over weights, configuration, resampler and code version, cut to 16 digits."""
        weights = {key: tensor for key, tensor in self.codec.state_dict().items() if not is_statistic(key)}
        return fingerprint_of([CODE_VERSION, RESAMPLER, self._config_facts()], weights)

    def _config_facts(self) -> dict[str, Any]:
        """What the configuration decides of the codes, as JSON values."""
        config = self.codec.config
        facts = settings_facts(config, "codec", without=("quantizer", "timbre", *BACKBONES))
        facts[config.backbone] = settings_facts(config.section, config.backbone)
        if config.timbre is not None:
            facts["timbre"] = settings_facts(config.timbre, "timbre")
        settled = config.quantizer.settled()
        return facts | ({"quantizer": settled} if settled else {})

    @property
    def bitrate(self) -> float:
        """Bits per second of all levels, were every code equally likely; codes of coarser frames count once."""
        return self.codec.quantizer.bitrate(self.frame_rate)

    @property
    def exact_windows(self) -> tuple[bool, bool]:  # type: ignore[override]
        """True for (encoder, decoder) where the receptive field is finite."""
        return self.codec.encoder_context() is not None, self.codec.decoder_context() is not None

    def in_windows(self, seconds: float) -> CodecTokenizer:
        """The same model with windows of about ``seconds``, for less memory or to test the seams."""
        other = copy.copy(self)
        other.chunk_seconds = other.exact_seconds = seconds
        return other

    def stream(self, rate: int | None = None, levels: int | None = None, frames: int = 1) -> CodecStream:
        """See ``Tokenizer.stream``."""
        if not self.causal:
            return super().stream(rate, levels, frames)
        return CodecStream(self, rate, levels, frames)

    def encode_file(self, path: StrPath, levels: int | None = None) -> Tokens:
        """See ``Tokenizer.encode_file``."""
        levels, recording = self.checked_levels(levels), Recording(path, self.sample_rate)
        # the type that Tokens hold, so that they take it over
        codes = np.empty((levels, self._count(recording)), smallest_type(max(self.codebook_sizes[:levels]) - 1))
        done = 0
        for piece in self._encoded(recording, levels):
            codes[:, done : done + piece.shape[1]] = piece
            done += piece.shape[1]
        codes.flags.writeable = False  # nobody else holds it, so Tokens need not copy it
        return self._tokens(codes, len(recording))

    def decode_file(self, tokens: Tokens, path: StrPath) -> None:
        """See ``Tokenizer.decode_file``."""
        self._check_own(tokens)
        write_blocks(path, self._sounds(tokens.frames, self._sound_of(tokens), tokens.num_samples), self.sample_rate)

    def _encode(self, samples: np.ndarray, levels: int) -> np.ndarray:
        return np.concatenate(list(self._encoded(samples, levels)), axis=1)

    def _encoded(self, samples: np.ndarray | Recording, levels: int) -> Iterator[np.ndarray]:
        """Codes ``[levels, n]`` window by window."""
        unit = math.lcm(*self.codec.quantizer.strides)
        for window in self._shown(self._plan(self._count(samples), self.codec.encoder_context(), unit)):
            wave = self._tensor(samples[window.start * self.hop : window.stop * self.hop])
            with torch.inference_mode():
                codes = self.runner.encode(wave[None], levels)
            yield codes[0, :, window.kept].cpu().numpy()

    def _decode(self, codes: np.ndarray, first_level: int) -> np.ndarray:
        def sound(window: Window) -> torch.Tensor:
            return self.runner.decode(self._tensor(codes[:, window.start : window.stop])[None], first_level)

        return self._over_windows(codes.shape[1], sound)

    def decode_latents(self, rows: np.ndarray) -> np.ndarray:
        """Sound of the encoder's ``rows[N, D]``, not quantised: ``samples[N * hop]``."""

        def sound(window: Window) -> torch.Tensor:
            return self.runner.decoder(self._tensor(rows[window.start : window.stop])[None])

        return self._over_windows(len(rows), sound)

    def _sound_of(self, tokens: Tokens) -> Sound:
        """What decodes a window of ``tokens``."""

        def sound(window: Window) -> torch.Tensor:
            codes = self._tensor(tokens.between(window.start, window.stop))[None]
            return self.runner.decode(codes, tokens.first_level)

        return sound

    def _sounds(self, frames: int, sound: Sound, until: int | None = None) -> Iterator[np.ndarray]:
        """Samples window by window, cut off at ``until``."""
        until = frames * self.hop if until is None else until
        for window in self._shown(self._plan(frames, self.codec.decoder_context())):
            with torch.inference_mode():
                wave = sound(window)[0].cpu().numpy()
            start, stop = (edge * self.hop for edge in (window.keep_start, window.keep_stop))
            first = window.kept.start * self.hop
            yield wave[first : first + min(stop, until) - start]

    def _over_windows(self, frames: int, sound: Sound) -> np.ndarray:
        samples, done = np.empty(frames * self.hop, dtype=np.float32), 0
        for piece in self._sounds(frames, sound):
            samples[done : done + len(piece)] = piece
            done += len(piece)
        return samples

    @torch.inference_mode()
    def _encode_padded(self, samples: list[np.ndarray], levels: int, batch_size: int) -> list[np.ndarray]:
        codes: dict[int, np.ndarray] = {}
        for batch in self._batches([self._count(wave) for wave in samples], batch_size):
            if len(batch) == 1:
                codes[batch[0]] = self._encode(samples[batch[0]], levels)
                continue
            lengths = np.array([len(samples[i]) for i in batch])
            padded = np.zeros((len(batch), lengths.max()), dtype=np.float32)
            for row, i in zip(padded, batch, strict=True):
                row[: len(samples[i])] = samples[i]
            together = self.runner.encode(self._tensor(padded), levels, self._tensor(lengths)).cpu().numpy()
            codes.update({i: row[:, : self._count(samples[i])] for i, row in zip(batch, together, strict=True)})
        return [codes[i] for i in range(len(samples))]

    def _batches(self, frames: list[int], batch_size: int) -> Iterator[list[int]]:
        """Indices that share a forward pass, neighbours in length; audio that needs windows goes alone."""
        longest = self._longest_piece(self.codec.encoder_context())
        order = sorted(range(len(frames)), key=frames.__getitem__)
        short = [i for i in order if frames[i] <= longest]
        yield from (short[start : start + batch_size] for start in range(0, len(short), batch_size))
        yield from ([i] for i in order[len(short) :])

    def _longest_piece(self, context: tuple[int, int] | None) -> int:
        """Frames that are taken in one piece."""
        if context is None:
            return self._frames(self.exact_seconds)
        return self._frames(self.chunk_seconds) + sum(context)

    def _plan(self, frames: int, context: tuple[int, int] | None, unit: int = 1) -> Iterator[Window]:
        """Windows that begin at whole units of frames, where codes of coarser frames do."""
        longest = -(-self._longest_piece(context) // unit)
        if context is None:
            overlap = -(-self._frames(self.overlap_seconds) // unit)
            plan = overlapping(-(-frames // unit), longest, overlap, self.name, self.frame_rate / unit)
        else:
            left, right = (-(-side // unit) for side in context)
            plan = windows(-(-frames // unit), max(1, longest - left - right), left, right)
        return (Window(*(min(unit * edge, frames) for edge in astuple(window))) for window in plan)

    def _shown(self, plan: Iterator[Window]) -> Iterable[Window]:
        """The windows of long audio behind a bar, where that is wanted and somebody looks."""
        plan = list(plan)
        hidden = not self.show_progress or len(plan) == 1 or not sys.stderr.isatty()
        return tqdm(plan, unit="window", leave=False, disable=hidden)

    def _count(self, samples: np.ndarray | Recording) -> int:
        """Frames of a signal."""
        return -(-len(samples) // self.hop)

    def _frames(self, seconds: float) -> int:
        return max(1, round(seconds * self.frame_rate))

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        # a copy: tokens and audio are read-only arrays, which torch must not share
        return torch.tensor(array, device=next(self.codec.buffers()).device)


def torch_device(name: str) -> torch.device:
    """The device of that name. Raises ConfigError where it cannot be used here."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {name!r} cannot be used here: {reason}; use cpu") from None
    if device.type == "meta":
        raise ConfigError(f"device {name!r} cannot be used here: it computes nothing; use cpu")
    return device
