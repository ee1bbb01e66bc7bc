"""Q parallel streams, each level behind by its own delay (MusicGen, Copet et al. 2023, section 2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from speechtok.checks import wholes
from speechtok.errors import ConfigError, TokenError
from speechtok.layouts.base import Fault, Layout, Parsed, codes_of, register, wrong_code
from speechtok.layouts.vocabulary import Vocabulary


class Streams(Layout):
    """Row q holds level q from step ``delays[q]`` on; every hole before and behind it holds the vocabulary's pad."""

    parallel: ClassVar[bool] = True

    def __init__(self, vocabulary: Vocabulary, delays: Sequence[int]) -> None:
        super().__init__(vocabulary)
        try:
            self.delays = wholes("delays", delays, 0)
        except TokenError as error:
            raise ConfigError(str(error)) from error
        if len(self.delays) != vocabulary.levels or min(self.delays):
            raise ConfigError(f"delays {self.delays} must be one per level ({vocabulary.levels}), the least of them 0")
        self._places = np.array(self.delays)[:, None]

    def _lay(self, codes: np.ndarray) -> np.ndarray:
        frames = codes.shape[1]
        ids = np.full((len(codes), frames + max(self.delays)), self.vocabulary.pad, np.int64)
        starts = np.array(self.vocabulary.level_starts)[:, None]
        np.put_along_axis(ids, self._places + np.arange(frames), codes + starts, axis=1)
        return ids

    def _parse(self, ids: np.ndarray) -> Parsed:
        steps, longest = ids.shape[1], max(self.delays)
        ends = np.flatnonzero(ids[self.delays.index(0)] == self.vocabulary.pad)
        frames = int(ends[0]) if len(ends) else steps  # begun: the row without delay has them before its first pad
        frame = np.arange(steps) - self._places
        inside = (frame >= 0) & (frame < frames)
        codes, fine = codes_of(self.vocabulary, ids, np.arange(len(ids))[:, None])
        fault = self._fault(ids, np.where(inside, fine, ids == self.vocabulary.pad), inside)
        if fault is None and steps != frames + longest:
            ending = "the sequence ends" if steps < frames + longest else "the sequence goes on"
            why = f"{ending} at step {steps}, but {frames} frames take {frames + longest} steps"
            fault = Fault(min(steps, frames + longest), why)
        # A fault ends all levels at its step: a model writes step by step.
        whole = min(frames, max(0, (fault.at if fault else steps) - longest))
        return Parsed(np.take_along_axis(codes, self._places + np.arange(whole), axis=1), fault)

    def _fault(self, ids: np.ndarray, right: np.ndarray, inside: np.ndarray) -> Fault | None:
        steps = np.flatnonzero(~right.all(axis=0))
        if not len(steps):
            return None
        at = int(steps[0])
        row = int(np.flatnonzero(~right[:, at])[0])
        number = int(ids[row, at])
        if inside[row, at]:
            return Fault(at, wrong_code(self.vocabulary, number, row))
        level = self.vocabulary.first_level + row
        return Fault(at, f"{number} ({self.vocabulary.meaning(number)}) in the row of level {level}, where pad is due")


@register
class Parallel(Streams):
    """The Q rows as they are: N steps."""

    name: ClassVar[str] = "parallel"

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__(vocabulary, (0,) * vocabulary.levels)


@register
class Delay(Streams):
    """Level q behind by q steps, or by ``delays[q]``: N + Q - 1 steps."""

    name: ClassVar[str] = "delay"

    def __init__(self, vocabulary: Vocabulary, delays: Sequence[int] | None = None) -> None:
        super().__init__(vocabulary, range(vocabulary.levels) if delays is None else delays)

    @property
    def options(self) -> dict[str, Any]:
        """``delays``, by row."""
        return {"delays": list(self.delays)}
