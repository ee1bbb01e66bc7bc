"""Metrics in processes of their own, fed through pipes, so that they run beside a model.

PESQ holds the interpreter lock, so threads do not help, and ``multiprocessing`` would either fork a process that
already runs torch or start the caller's script again. A worker here is plain ``python -m speechtok.bench.scoring``:
it reads one JSON line and two float32 signals per pair, and answers one JSON line.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from queue import SimpleQueue
from types import TracebackType
from typing import BinaryIO

import numpy as np

from speechtok.bench.metrics import METRICS, MetricError, Score, score
from speechtok.errors import ConfigError
from speechtok.processes import child_environment

Scores = dict[str, Score]


class Scorer:
    """Context manager that rates pairs of signals by several metrics, in ``processes`` workers (0: right here)."""

    def __init__(self, metrics: Sequence[str], processes: int = 0):
        """
        Raises:
            ConfigError: a metric that does not exist.
        """
        unknown = sorted(set(metrics) - set(METRICS))
        if unknown:
            raise ConfigError(f"no metric {', '.join(unknown)}; there are {', '.join(METRICS)}")
        self.metrics = tuple(metrics)
        self.idle: SimpleQueue[subprocess.Popen] = SimpleQueue()
        self.workers = [_start() for _ in range(processes)]
        for worker in self.workers:
            self.idle.put(worker)
        self.threads = ThreadPoolExecutor(max(1, processes))

    def submit(self, reference: np.ndarray, degraded: np.ndarray, rate: int) -> Future[Scores]:
        """Scores by metric name, later. Arguments as for the metrics."""
        return self.threads.submit(self._remote if self.workers else self._here, reference, degraded, rate)

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.threads.shutdown(wait=error is None, cancel_futures=True)
        for worker in self.workers:
            with suppress(BrokenPipeError):  # a worker that died has been reported by the job it had
                worker.stdin.close()
            if error is not None:
                worker.kill()
            worker.wait()
            worker.stdout.close()

    def _here(self, reference: np.ndarray, degraded: np.ndarray, rate: int) -> Scores:
        return {name: score(name, reference, degraded, rate) for name in self.metrics}

    def _remote(self, reference: np.ndarray, degraded: np.ndarray, rate: int) -> Scores:
        signals = [np.ascontiguousarray(signal, dtype=np.float32) for signal in (reference, degraded)]
        job = {"metrics": self.metrics, "rate": rate, "samples": [len(signal) for signal in signals]}
        worker = self.idle.get()
        try:
            worker.stdin.write(json.dumps(job).encode() + b"\n" + b"".join(signal.tobytes() for signal in signals))
            worker.stdin.flush()
            answer = worker.stdout.readline()
        except BrokenPipeError:
            answer = b""
        finally:
            self.idle.put(worker)
        if not answer:
            raise MetricError(f"a metrics process ended unexpectedly (exit code {worker.poll()}); run with 0 processes")
        return {name: Score(name, **result) for name, result in json.loads(answer).items()}


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """The worker: answer pairs until ``source`` ends."""
    while line := source.readline():
        job = json.loads(line)
        reference, degraded = (np.frombuffer(source.read(4 * count), dtype=np.float32) for count in job["samples"])
        scores = (score(name, reference, degraded, job["rate"]) for name in job["metrics"])
        answer = {result.metric: {"value": result.value, "failure": result.failure} for result in scores}
        sink.write(json.dumps(answer).encode() + b"\n")
        sink.flush()


def score_row(scores: Scores) -> dict[str, float | dict[str, str] | None]:
    """Flat record of one pair: a value or None per metric, and why the missing ones are missing."""
    failures = {name: result.failure for name, result in scores.items() if result.failure is not None}
    return {name: result.value for name, result in scores.items()} | {"failures": failures}


def _start() -> subprocess.Popen:
    environment = child_environment() | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "speechtok.bench.scoring"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
