"""Workers on this machine: this process and others that share the missing shards through their claims.

The others are programs, ``python -m MODULE JOB``, that end with this one and write events to standard output, one line
of JSON each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import IO, Any

from speechtok.errors import SpeechtokError
from speechtok.processes import ONE_THREAD, child_environment, end_with_parent

Tell = Callable[[dict[str, Any]], object]
"""Is told what happens, in plain types."""


def run_workers(module: str, job: str, workers: int, here: Callable[[Tell], object], tell: Tell) -> None:
    """Work here, as worker 0, and in ``workers - 1`` processes beside; passes on what all tell, with their numbers.

    A worker that is killed leaves its shard to the others.

    Args:
        module: whose program the processes run; it calls ``serve``.
        job: what that program is given.
        here: the same work in this process; it ends when nothing is missing.
        tell: called by one thread at a time.

    Raises:
        SpeechtokError: a worker said why it cannot go on.
    """
    told = _Told(tell)
    processes = [_start(module, job) for _ in range(1, workers)]
    listeners = [
        threading.Thread(target=_listen, args=(number, process.stdout, told), daemon=True)
        for number, process in enumerate(processes, 1)
    ]
    try:
        for listener in listeners:
            listener.start()
        here(lambda event: told.own({**event, "worker": 0}))
        for listener in listeners:
            listener.join()
        told.raise_fault()
        for process in processes:
            code = process.wait()
            if code:
                tell({"event": "lost", "code": code})
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stdin.close()


class _Told:
    """Passes on what several threads tell, one at a time; a fault is raised where this process works."""

    def __init__(self, tell: Tell):
        self._tell, self._lock, self._fault = tell, threading.Lock(), None

    def own(self, event: dict[str, Any]) -> None:
        """What this process tells."""
        self.raise_fault()
        with self._lock:
            self._tell(event)

    def others(self, event: dict[str, Any]) -> None:
        """What another process told."""
        with self._lock:
            try:
                if event["event"] == "error":
                    raise SpeechtokError(event["message"])
                self._tell(event)
            except BaseException as fault:  # the pipe is emptied all the same, so that its writer does not wait
                self._fault = self._fault or fault

    def raise_fault(self) -> None:
        """Raise the first fault of another process, or in telling what it told."""
        if self._fault is not None:
            raise self._fault


def serve(work: Callable[[str, Tell], object]) -> None:
    """The program of a worker: ``work(job, tell)``, then the end of the process."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints must not come between the events
    end_with_parent(sys.stdin.buffer)

    def tell(event: dict[str, Any]) -> None:
        events.write(json.dumps(event, ensure_ascii=False) + "\n")
        events.flush()

    code = 0
    try:
        work(sys.argv[1], tell)
    except SpeechtokError as error:
        tell({"event": "error", "message": str(error)})
        code = 2
    except KeyboardInterrupt:
        code = 130
    sys.stdout.flush()
    os._exit(code)  # the thread that watches the parent sits in a read


def _start(module: str, job: str) -> subprocess.Popen:
    environment = child_environment() | ONE_THREAD
    command = [sys.executable, "-m", module, job]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)


def _listen(number: int, stream: IO[bytes], told: _Told) -> None:
    for line in stream:
        if line.endswith(b"\n"):  # a kill may cut the last one short
            told.others({**json.loads(line), "worker": number})
