"""How far a run is: hours done, hours per hour, what is left, what failed."""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import IO, Any

from tqdm import tqdm

EVERY = 30.0
"""Seconds between lines where nobody sees a bar."""
SHOWN = 5
"""Failures and notes that are shown one by one; the rest are counted."""


class Progress:
    """Listens to a run: a bar on a terminal, else a line now and then.

    Args:
        recordings: how many are to be done.
        before: how many were done by earlier runs.
    """

    def __init__(self, recordings: int, before: int, stream: IO[str] | None = None):
        self.stream = stream or sys.stderr
        self.total, self.before = recordings, before
        self.done = self.failed = 0
        self.seconds = 0.0
        self.started = self.said = time.monotonic()
        self.counts: Counter[str] = Counter()
        self.bar = tqdm(
            total=recordings + before, initial=before, unit="file", file=self.stream, disable=not self.stream.isatty()
        )

    def __call__(self, event: dict[str, Any]) -> None:
        """Take note of what a worker tells."""
        kind = event["event"]
        if kind == "recording":
            self.done += 1
            self.seconds += event["seconds"]
            for note in event.get("notes", ()):
                self._say("warning", note)
            if "failure" in event:
                self.failed += 1
                self._say("error", event["failure"])
            self.bar.update()
            self.bar.set_postfix_str(self._figures(), refresh=False)
        elif kind == "lost":
            self._say("warning", f"a worker ended unexpectedly (code {event['code']}); others take over its shard")
        if self.bar.disable and time.monotonic() - self.said >= EVERY:
            self.said = time.monotonic()
            print(f"speechtok: {self.line()}", file=self.stream, flush=True)

    def line(self) -> str:
        """Where the run stands."""
        spent = time.monotonic() - self.started
        # a recording is told of twice where the worker that did it was killed before its shard was whole
        left = spent / self.done * max(0, self.total - self.done) if self.done else 0.0
        done, total = self.before + self.done, self.before + self.total
        return f"{done} of {total} recordings, {self._figures()}, {_clock(left)} left"

    def close(self) -> None:
        """The end: says how often more happened than was shown."""
        self.bar.close()
        for kind, count in self.counts.items():
            if count > SHOWN:
                print(f"speechtok: {kind}: {count - SHOWN} more", file=self.stream)

    def _figures(self) -> str:
        spent = max(time.monotonic() - self.started, 1e-9)
        return f"{self.seconds / 3600:.2f} h done, {self.seconds / spent:.1f} h per hour, {self.failed} failed"

    def _say(self, kind: str, message: str) -> None:
        self.counts[kind] += 1
        if self.counts[kind] <= SHOWN:
            self.bar.write(f"speechtok: {kind}: {message}", file=self.stream)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
