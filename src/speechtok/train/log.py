"""What a run tells: a bar or plain lines for people, JSON lines and TensorBoard's numbers and samples for tools."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from speechtok.errors import ConfigError
from speechtok.files import write_text_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class RunLog:
    """Writes ``log.jsonl`` (and TensorBoard events where the package is installed) in a run's folder.

    A resumed run repeats the steps since its checkpoint; their rows, and one that a kill cut short, are dropped first.
    """

    def __init__(self, folder: Path, steps: int, done: int):
        path = folder / "log.jsonl"
        kept = [row for row in read_log(path) if row["step"] <= done] if path.exists() else []
        write_text_atomic(path, "".join(json.dumps(row) + "\n" for row in kept))
        self.file = path.open("a", encoding="utf-8")
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
        self._record({"kind": kind, "step": step, **values})
        for name, value in values.items():
            if self.board is not None and isinstance(value, int | float):
                self.board.add_scalar(f"{kind}/{name}", value, step)
        shown = "  ".join(f"{name} {_short(value)}" for name, value in values.items())
        self._say(f"{kind} {step}/{self.steps}  {shown}")

    def audio(self, name: str, step: int, wave: np.ndarray, rate: int) -> None:
        """Put ``wave[T]`` at ``rate`` Hz into TensorBoard, where it is installed; samples beyond 1 are cut."""
        if self.board is not None:
            self.board.add_audio(f"samples/{name}", wave, step, sample_rate=rate)

    def picture(self, name: str, step: int, figure: Figure) -> None:
        """The same for a figure of matplotlib."""
        if self.board is not None:
            self.board.add_figure(f"samples/{name}", figure, step, close=False)

    def alarm(self, step: int, text: str) -> None:
        """Record something that a person should look into."""
        self._record({"kind": "alarm", "step": step, "text": text})
        self._say(f"ALARM {step}/{self.steps}  {text}")

    def _record(self, row: dict[str, Any]) -> None:
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()

    def _say(self, line: str) -> None:
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


def read_log(path: Path) -> list[dict[str, Any]]:
    """Rows of a ``log.jsonl`` in order; a last line that a kill cut short is left out.

    Raises:
        ConfigError: no such log.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); name the folder of a training run") from error
    return [json.loads(line) for line in lines if line.endswith("\n")]


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
