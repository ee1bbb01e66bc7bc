"""One stream: levels in blocks, each block frame by frame, blocks apart by sep.

All levels in one block is the flat (interleaved) layout; one block per level is coarse to fine; two blocks are the
semantic and the acoustic tokens, as AudioLM (Borsos et al. 2022, section III) puts one before the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from speechtok.checks import wholes
from speechtok.errors import ConfigError, TokenError
from speechtok.layouts.base import Fault, Layout, Parsed, codes_of, register, wrong_code
from speechtok.layouts.vocabulary import Vocabulary


class Blocks(Layout):
    """``groups`` are the rows of each block, which together are every row once."""

    def __init__(self, vocabulary: Vocabulary, groups: Sequence[Sequence[int]]) -> None:
        super().__init__(vocabulary)
        self.groups = [np.array(group, int) for group in groups]

    def _lay(self, codes: np.ndarray) -> np.ndarray:
        ids = codes + np.array(self.vocabulary.level_starts)[:, None]
        parts = [ids[group].T.reshape(-1) for group in self.groups]
        between = np.full(1, self.vocabulary.sep)
        return np.concatenate([part for block in parts for part in (between, block)][1:])[None]

    def _parse(self, ids: np.ndarray) -> Parsed:
        ids, at, frames = ids[0], 0, None
        codes = np.zeros((self.vocabulary.levels, 0), np.int64)
        for group in self.groups:
            last = group is self.groups[-1]
            stops = [] if last else np.flatnonzero(ids[at:] == self.vocabulary.sep)
            stop = at + int(stops[0]) if len(stops) else len(ids)
            block, fault = self._block(ids[at:stop], group, frames)
            if fault is None and not last and not len(stops):
                fault = Fault(stop - at, "the sequence ends where sep and the next levels are due")
            if frames is None:
                frames = block.shape[1]
                codes = np.zeros((self.vocabulary.levels, frames), np.int64)
            if fault:  # a frame is whole when all levels are there, so a fault before the last block leaves none
                codes = codes[:, : block.shape[1] if last else 0]
                codes[group] = block[:, : codes.shape[1]]
                return Parsed(codes, Fault(at + fault.at, fault.why))
            codes[group] = block
            at = stop + 1
        return Parsed(codes, None)

    def _block(self, ids: np.ndarray, group: np.ndarray, frames: int | None) -> tuple[np.ndarray, Fault | None]:
        """Codes ``[rows of the group, M]`` of a block that must have ``frames`` frames, if that is known."""
        rows = np.resize(group, len(ids))
        due = len(ids) - len(ids) % -len(group) if frames is None else frames * len(group)
        codes, fine = codes_of(self.vocabulary, ids[:due], rows[:due])
        wrong = np.flatnonzero(~fine)
        fault = None
        if len(wrong):
            fault = Fault(int(wrong[0]), wrong_code(self.vocabulary, int(ids[wrong[0]]), int(rows[wrong[0]])))
        elif len(ids) < due:
            level = self.vocabulary.first_level + int(group[len(ids) % len(group)])
            fault = Fault(len(ids), f"a code of level {level} is missing")
        elif len(ids) > due:
            fault = Fault(due, f"this block goes on after {frames} frames, which the first one has")
        whole = (fault.at if fault else due) // len(group)
        return codes[: whole * len(group)].reshape(whole, len(group)).T, fault


@register
class Flat(Blocks):
    """All levels of frame 0, all levels of frame 1, ...: N * Q steps."""

    name: ClassVar[str] = "flat"

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__(vocabulary, [range(vocabulary.levels)])


@register
class Coarse(Blocks):
    """Coarse to fine: all of the first level, sep, all of the second, ...: N * Q + Q - 1 steps.

    ``groups`` puts several levels into one block: ``((0,), (1, 2, 3), (4, 5, 6, 7))`` are AudioLM's three stages.
    """

    name: ClassVar[str] = "coarse"

    def __init__(self, vocabulary: Vocabulary, groups: Sequence[Sequence[int]] | None = None) -> None:
        present = list(range(vocabulary.first_level, vocabulary.first_level + vocabulary.levels))
        try:
            self._levels = tuple(wholes("a group", group, 0) for group in groups or [[level] for level in present])
        except (TokenError, TypeError) as error:
            raise ConfigError(f"groups must be lists of levels ({error})") from error
        if sorted(sum(self._levels, ())) != present or not all(self._levels):
            raise ConfigError(f"groups {self._levels} must hold each of the levels {present} once, and none be empty")
        super().__init__(vocabulary, [[level - vocabulary.first_level for level in group] for group in self._levels])

    @property
    def options(self) -> dict[str, Any]:
        """``groups``, by level."""
        return {"groups": [list(group) for group in self._levels]}


@register
class Split(Blocks):
    """Semantic levels, sep, acoustic levels, each frame by frame: N * Q + 1 steps."""

    name: ClassVar[str] = "split"

    def __init__(self, vocabulary: Vocabulary) -> None:
        semantic = [level - vocabulary.first_level for level in vocabulary.semantic_levels]
        acoustic = [row for row in range(vocabulary.levels) if row not in semantic]
        if not semantic or not acoustic:
            raise ConfigError(f"split needs semantic and acoustic levels of {vocabulary.tokenizer}; use flat or coarse")
        super().__init__(vocabulary, [semantic, acoustic])
