"""The sound of recordings, read ahead by a thread while the model works on earlier ones."""

from __future__ import annotations

import os
import queue
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from speechtok.audio import Audio, probe, read
from speechtok.corpus.recording import Recording
from speechtok.corpus.sources import huggingface
from speechtok.errors import AudioError, SpeechtokError

AHEAD = 4
"""Recordings that are read before their turn."""
LONG = 600.0
"""Seconds of a file from which on it is not read here, but by the tokenizer, which need not hold all of it."""


class Heard(NamedTuple):
    """A recording and its sound, or why there is none. A long file is left unread, without either."""

    recording: Recording
    audio: Audio | None
    failure: str | None = None
    notes: tuple[str, ...] = ()
    """Warnings, such as about several channels."""


class Reader:
    """Reads recordings in their order. The last whole file is kept, for the next part is often of the same one.

    Args:
        rate: in Hz, to which everything is resampled.
    """

    def __init__(self, rate: int):
        self.rate = rate
        self._file: tuple[str, Audio] | None = None

    def __call__(self, recording: Recording) -> Heard:
        """A recording's sound at ``rate``; faults of the recording are told, not raised."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            audio = failure = None
            try:
                if not _is_long(recording):
                    audio = self._audio(recording).resample(self.rate)
            except SpeechtokError as error:
                failure = str(error)
        return Heard(recording, audio, failure, tuple(str(one.message) for one in caught))

    def _audio(self, recording: Recording) -> Audio:
        if recording.row is not None:
            return _of_row(recording)
        if recording.start is None and recording.seconds is None:
            return read(recording.path)
        if self._file is None or self._file[0] != recording.path:
            self._file = None  # never two long files at once
            self._file = recording.path, read(recording.path)
        return _part(self._file[1], recording)


def _is_long(recording: Recording) -> bool:
    whole = recording.row is None and recording.start is None and recording.seconds is None
    return whole and probe(recording.path).seconds > LONG


def _part(whole: Audio, recording: Recording) -> Audio:
    first = round((recording.start or 0.0) * whole.rate)
    last = len(whole) if recording.seconds is None else first + round(recording.seconds * whole.rate)
    slack = whole.rate // 20  # manifests round their seconds
    if first >= len(whole) or last > len(whole) + slack or last <= first:
        end = "the end" if recording.seconds is None else f"{last / whole.rate:g} s"
        raise AudioError(
            f"{recording.path}: lasts {whole.seconds:g} s, and a part from {first / whole.rate:g} s to {end} is asked"
            " for; mend the source"
        )
    return Audio(whole.samples[first:last].copy(), whole.rate, whole.source_channels)


def _of_row(recording: Recording) -> Audio:
    dataset, column = huggingface.opened(recording.path)
    held = dataset[recording.row][column]
    if held is None:
        raise AudioError(f"{recording.place}: holds no audio")
    if held["bytes"] is None:
        return read(held["path"])
    suffix = Path(held["path"] or "").suffix
    handle, name = tempfile.mkstemp(suffix=suffix)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(held["bytes"])
        return read(name)
    except AudioError as error:  # the name of the moment means nothing, and would differ on another run
        raise AudioError(str(error).replace(name, recording.place)) from error
    finally:
        os.unlink(name)


def read_ahead(recordings: Sequence[Recording], rate: int, ahead: int = AHEAD) -> Iterator[Heard]:
    """The recordings' sound in their order, read by a thread that is at most ``ahead`` recordings early."""
    heard: queue.Queue[Heard | BaseException | None] = queue.Queue(maxsize=ahead)
    stopped = threading.Event()

    def put(item: Heard | BaseException | None) -> bool:
        while not stopped.is_set():
            try:
                heard.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            reader = Reader(rate)
            for recording in recordings:
                if not put(reader(recording)):
                    return
            put(None)
        except BaseException as error:  # a fault of the program: raised where the sound is used
            put(error)

    thread = threading.Thread(target=work, daemon=True, name="reader")
    thread.start()
    try:
        while (item := heard.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()
