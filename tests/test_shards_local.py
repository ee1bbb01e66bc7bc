"""Workers on one machine: this process and others; what all of them tell, and how each of them can end."""

import pytest

from speechtok.errors import SpeechtokError
from speechtok.shards.local import run_workers

PROGRAM = """
import os, signal, sys
from speechtok.errors import ConfigError
from speechtok.shards.local import serve

def work(job, tell):
    print("whatever a library prints")
    tell({"event": "done", "job": job})
    if job == "fault":
        raise ConfigError("cannot go on; mend it")
    if job == "killed":
        os.kill(os.getpid(), signal.SIGKILL)

serve(work)
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    (tmp_path / "program_of_a_worker.py").write_text(PROGRAM)
    monkeypatch.syspath_prepend(tmp_path)
    return "program_of_a_worker"


def here(tell):
    tell({"event": "done", "job": "here"})


@pytest.mark.parametrize("workers", [1, 3])
def test_all_tell_what_they_do_by_their_number(program, workers):
    events = []
    run_workers(program, "job", workers, here, events.append)
    told = sorted((event["worker"], event["job"]) for event in events)
    assert told == [(0, "here"), *((number, "job") for number in range(1, workers))]


def test_a_killed_worker_is_told_of_and_the_others_go_on(program):
    events = []
    run_workers(program, "killed", 2, here, events.append)
    assert {event["event"] for event in events[:-1]} == {"done"} and events[-1] == {"event": "lost", "code": -9}


def test_a_worker_that_cannot_go_on_says_why_and_ends_the_work_here(program):
    def endless(tell):
        while True:
            here(tell)

    with pytest.raises(SpeechtokError, match="cannot go on; mend it"):
        run_workers(program, "fault", 2, endless, lambda event: None)


def test_a_listener_that_fails_ends_the_work(program):
    def tell(event):
        if event["worker"]:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run_workers(program, "job", 2, here, tell)
