"""What a run tells: a bar or plain lines for people, JSON lines and TensorBoard scalars for tools."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm


class RunLog:
    """Writes ``log.jsonl`` (and TensorBoard events where the package is installed) in a run's folder."""

    def __init__(self, folder: Path, steps: int, done: int):
        self.file = (folder / "log.jsonl").open("a", encoding="utf-8")
        self.bar = tqdm(total=steps, initial=done, unit="step", disable=None, file=sys.stderr)
        self.steps, self.done, self.clock = steps, done, time.monotonic()
        self.board = _tensorboard(folder)

    def step(self) -> None:
        """One more step is done."""
        self.bar.update(1)

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Record ``values``; training rows get their speed and the time left."""
        if kind == "train":
            now = time.monotonic()
            rate = (step - self.done) / max(now - self.clock, 1e-9)
            values = {**values, "steps/s": rate, "eta/min": (self.steps - step) / rate / 60}
            self.done, self.clock = step, now
        self.file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        self.file.flush()
        for name, value in values.items():
            if self.board is not None and isinstance(value, int | float):
                self.board.add_scalar(f"{kind}/{name}", value, step)
        shown = "  ".join(f"{name} {_short(value)}" for name, value in values.items())
        line = f"{kind} {step}/{self.steps}  {shown}"
        if self.bar.disable:
            print(line, flush=True)
        else:
            self.bar.write(line)

    def close(self) -> None:
        """Flush and close everything."""
        self.bar.close()
        self.file.close()
        if self.board is not None:
            self.board.close()


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:  # an optional extra; log.jsonl has the same numbers
        return None
    return SummaryWriter(str(folder / "tensorboard"))


def _short(value: Any) -> str:
    if isinstance(value, list):
        return "[" + " ".join(_short(item) for item in value) + "]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
