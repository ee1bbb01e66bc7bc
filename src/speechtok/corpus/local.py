"""Workers on this machine: processes that share the missing shards through their claims."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from typing import IO, Any

from speechtok.corpus.encoding import Tell
from speechtok.corpus.worker import Job, job_argument
from speechtok.errors import SpeechtokError
from speechtok.processes import ONE_THREAD, child_environment


def run_workers(job: Job, workers: int, tell: Tell) -> None:
    """Start ``workers`` processes and pass on what they tell, until none is left.

    A worker that is killed leaves its shard to the others; whether anything is missing afterwards is the caller's
    question.

    Raises:
        SpeechtokError: a worker said why it cannot go on.
    """
    processes = [_start(job) for _ in range(workers)]
    events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    listeners = [threading.Thread(target=_listen, args=(process.stdout, events), daemon=True) for process in processes]
    try:
        for listener in listeners:
            listener.start()
        left = workers
        while left:
            event = events.get()
            if event is None:
                left -= 1
            elif event["event"] == "error":
                raise SpeechtokError(event["message"])
            else:
                tell(event)
        for process in processes:
            code = process.wait()
            if code:
                tell({"event": "lost", "code": code})
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stdin.close()


def _start(job: Job) -> subprocess.Popen:
    command = [sys.executable, "-m", "speechtok.corpus.worker", job_argument(job)]
    environment = child_environment() | ONE_THREAD
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)


def _listen(stream: IO[bytes], events: queue.SimpleQueue) -> None:
    for line in stream:
        if line.endswith(b"\n"):  # a kill may cut the last one short
            events.put(json.loads(line))
    events.put(None)
