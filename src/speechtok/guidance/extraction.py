"""Features of a whole corpus, made in parts, so that an interruption costs one part and not all."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from speechtok.errors import CheckpointError, ConfigError, OutputError
from speechtok.files import StrPath, make_folder
from speechtok.guidance.frames import FrameLaw
from speechtok.guidance.store import FeatureStore, write_features
from speechtok.guidance.targets import Teacher, extract, weights_digest
from speechtok.shards.claims import Claims
from speechtok.shards.runner import WAIT, work_through

PART = 200
"""Utterances of a part, where nothing else is said."""
PARTS, SUFFIX = ".parts", ".safetensors"


class Parts:
    """The parts of a feature store in the making, in the folder ``path`` + ``.parts`` until all are joined.

    Started again with the same teacher and speech, those that are whole are used; several processes on one ``path``
    share the work.

    Args:
        path: of the store.
        name: of the teacher, see ``naming.describe``.
        waves: ``[T_i]`` each, at the teacher's rate.
        samples: lengths of the waves.
        sources: what messages call the utterances, such as their files.
        size: utterances of a part.
    """

    def __init__(
        self,
        path: StrPath,
        teacher: Teacher,
        name: str,
        waves: Sequence[np.ndarray],
        samples: Sequence[int],
        device: str = "cpu",
        sources: Sequence[str] | None = None,
        size: int = PART,
    ):
        self.path, self.teacher, self.waves, self.device = Path(path), teacher, waves, device
        self.samples = [int(length) for length in samples]
        self.sources = sources or [f"utterance {i}" for i in range(len(self.samples))]
        self.about = (teacher.dimension, teacher.law, name, weights_digest(teacher))
        self.folder = make_folder(f"{self.path}{PARTS}")
        starts = range(0, len(self.samples), size)
        self.rows = {f"{start:08d}": range(start, min(start + size, len(self.samples))) for start in starts}
        self.claims = Claims(self.folder / "claims")
        if isinstance(teacher, nn.Module):
            teacher.to(device)

    def keep(self) -> int:
        """Remove parts of another teacher or of other speech; returns how many utterances are there already."""
        kept = 0
        for part, row in self.rows.items():
            if not self._place(part).exists():
                continue
            if _whole(self._place(part), [self.samples[i] for i in row], self.about):
                kept += len(row)
            else:
                self._place(part).unlink(missing_ok=True)
        return kept

    def missing(self) -> list[str]:
        """Names of the parts that are to be made."""
        return [part for part in self.rows if not self._place(part).exists()]

    def make(self, done: Callable[[int], object] = lambda utterance: None) -> None:
        """Make what is missing and not claimed by others, and wait for what they make.

        Raises:
            ConfigError: features that are not finite in float16; names the utterance.
            OutputError: a part cannot be written.
        """
        for _ in work_through(list(self.rows), self.folder, SUFFIX, partial(self._write, done), self.claims):
            pass

    def finish(self, done: Callable[[int], object] = lambda utterance: None) -> None:
        """``make``, and join the parts to the store.

        Raises:
            ConfigError, OutputError: as ``make``.
        """
        parts = [self._place(part) for part in self.rows]

        def join() -> None:
            self._store(self.path, _joined(parts), self.samples)

        joined = False
        while not joined:
            try:
                self.make(done)
                joined = _join(self.folder, parts, self.claims, join)
            except (OutputError, CheckpointError):
                # Another process may have joined the parts and removed them, just when this one looked for more work.
                if not _whole(self.path, self.samples, self.about):
                    raise
                joined = True
        shutil.rmtree(self.folder, ignore_errors=True)

    def _place(self, part: str) -> Path:
        return self.folder / f"{part}{SUFFIX}"

    def _write(self, done: Callable[[int], object], part: str, temporary: Path) -> None:
        row = self.rows[part]
        try:
            self._store(temporary, self._features(row, done), [self.samples[i] for i in row])
        except ConfigError as error:  # the name of the moment says nothing
            raise ConfigError(str(error).replace(str(temporary), str(self._place(part)))) from error

    def _store(self, path: Path, features: Iterator[np.ndarray | Tensor], samples: Sequence[int]) -> None:
        write_features(path, features, samples, *self.about)

    def _features(self, row: range, done: Callable[[int], object]) -> Iterator[np.ndarray]:
        heard = (torch.from_numpy(self.waves[i]).to(self.device) for i in row)
        for i, found in zip(row, extract(self.teacher, heard), strict=True):
            with np.errstate(over="ignore"):
                finite = np.isfinite(found.astype(np.float16)).all()
            if not finite:
                raise ConfigError(
                    f"{self.sources[i]}: its features are not finite in float16; mend the recording or take it out of"
                    " the manifest"
                )
            yield found
            done(i)


def _join(folder: Path, parts: Sequence[Path], claims: Claims, write: Callable[[], None]) -> bool:
    """Write the store and remove the parts, once; of several processes that share the work, the others wait for it.

    Returns:
        False where a part is missing, because another process found it to be none of its own.
    """
    while folder.exists():
        with claims.hold("joined") as mine:
            present = [part.exists() for part in parts] if mine else []
            if mine and all(present):
                write()
        if mine:
            if any(present) and not all(present):
                return False
            shutil.rmtree(folder, ignore_errors=True)
            return True
        time.sleep(WAIT)
    return True


def _whole(part: Path, lengths: Sequence[int], about: tuple[int, FrameLaw, str, str]) -> bool:
    """Whether an earlier call left this part, of the same speech and teacher; old parts do not know its weights."""
    *kind, weights = about
    try:
        store = FeatureStore(part)
        store.check(lengths, kind[1].rate)
    except (CheckpointError, ConfigError):
        return False
    return [store.dimension, store.law, store.teacher] == kind and store.weights in ("", weights)


def _joined(parts: Sequence[Path]) -> Iterator[np.ndarray | Tensor]:
    for part in parts:
        store = FeatureStore(part)
        yield from (store[i] for i in range(len(store)))
