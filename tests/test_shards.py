"""Claims and files that several processes share, and that a kill leaves in order."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from speechtok.errors import OutputError, SpeechtokError
from speechtok.shards import claims as claims_module
from speechtok.shards.claims import Claims, identity, remove_stale
from speechtok.shards.durable import create_durably, remove_leftovers, write_durably
from speechtok.shards.runner import work_through


def dead_identity():
    """Of a process that has ended."""
    code = "import json; from speechtok.shards.claims import identity; print(json.dumps(identity()))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    return json.loads(done.stdout)


def test_a_claim_is_held_once_and_given_back(tmp_path):
    claims = Claims(tmp_path)
    with claims.hold("one") as mine, claims.hold("one") as again, claims.hold("two") as other:
        assert (mine, again, other) == (True, False, True)
    assert list(tmp_path.iterdir()) == []
    with claims.hold("one") as mine:
        assert mine


def test_a_full_disk_is_told_in_one_line_and_leaves_no_claim(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(claims_module.json, "dump", full)
        told = pytest.raises(OutputError, match="one: cannot be written: No space left on device; make room")
        with told, Claims(tmp_path).hold("one"):
            pytest.fail("nothing is held")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["dead", "other start"])
def test_the_claim_of_a_dead_process_is_taken_over(tmp_path, content):
    holder = dead_identity() if content == "dead" else {**identity(), "started": "1"}
    (tmp_path / "one").write_text(json.dumps(holder))
    with Claims(tmp_path).hold("one") as mine:
        assert mine
        assert json.loads((tmp_path / "one").read_text()) == identity()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ['{"place": "another machine", "pid": 1, "started": "1"}', "", "[]"])
def test_a_claim_from_elsewhere_counts_until_it_is_no_longer_renewed(tmp_path, content):
    path = tmp_path / "one"
    path.write_text(content)
    with Claims(tmp_path).hold("one") as mine:
        assert not mine
    old = path.stat().st_mtime - 1000
    os.utime(path, (old, old))
    with Claims(tmp_path).hold("one") as mine:
        assert mine


def test_claims_are_renewed(tmp_path, monkeypatch):
    monkeypatch.setattr(claims_module, "RENEWAL", 0.01)
    with Claims(tmp_path).hold("one"):
        os.utime(tmp_path / "one", (1, 1))
        for _ in range(500):
            if (tmp_path / "one").stat().st_mtime > 1:
                break
            threading.Event().wait(0.01)
        else:
            pytest.fail("never renewed")


def test_of_many_that_take_a_stale_claim_over_one_gets_it(tmp_path):
    stale, got = dead_identity(), []
    barrier, end = threading.Barrier(8), threading.Barrier(8)

    def take():
        barrier.wait()
        with Claims(tmp_path).hold("one") as mine:
            got.append(mine)
            end.wait()

    for _ in range(5):
        got.clear()
        (tmp_path / "one").write_text(json.dumps(stale))
        threads = [threading.Thread(target=take) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert got.count(True) == 1


def test_stale_claims_go_and_live_ones_stay(tmp_path):
    folder = tmp_path / "claims"
    folder.mkdir()
    (folder / "dead").write_text(json.dumps(dead_identity()))
    (folder / "alive").write_text(json.dumps(identity()))
    remove_stale(folder)
    assert [path.name for path in folder.iterdir()] == ["alive"]
    (folder / "alive").unlink()
    remove_stale(folder)
    assert not folder.exists()


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.txt"
    with pytest.raises(SpeechtokError):
        write_durably(path, fails)
    assert list(tmp_path.iterdir()) == []
    write_durably(path, lambda temporary: temporary.write_text("one"))
    assert not create_durably(path, lambda temporary: temporary.write_text("two"))
    assert path.read_text() == "one" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(OutputError, match="no/where"):
        write_durably(tmp_path / "no/where", lambda temporary: temporary.write_text("one"))


def fails(*_):
    raise SpeechtokError("on purpose")


def test_leftovers_of_the_killed_are_removed_and_those_of_the_living_stay(tmp_path):
    code = """
import sys, time
from pathlib import Path
from speechtok.shards.durable import write_durably
def make(path):
    path.write_text("half")
    print("writing", flush=True)
    time.sleep(60)
write_durably(Path(sys.argv[1]), make)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, str(tmp_path / "a.txt")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout.readline() == b"writing\n"
        remove_leftovers(tmp_path)
        (leftover,) = tmp_path.iterdir()
        process.send_signal(signal.SIGKILL)
    remove_leftovers(tmp_path)
    assert not leftover.exists()


def test_two_that_work_through_one_list_make_everything_once(tmp_path):
    names, made = [f"{i:02d}" for i in range(30)], []

    def make(name, path):
        made.append(name)
        path.write_text(name)

    def work():
        list(work_through(names, tmp_path / "out", ".txt", make, Claims(tmp_path / "claims"), wait=0.01))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == names
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == [f"{name}.txt" for name in names]


def test_what_failed_is_made_by_the_next_run(tmp_path):
    claims = Claims(tmp_path / "claims")
    with pytest.raises(SpeechtokError, match="on purpose"):
        list(work_through(["a", "b"], tmp_path, ".txt", fails, claims))
    made = work_through(["a", "b"], tmp_path, ".txt", lambda name, path: path.write_text(name), claims)
    assert list(made) == ["a", "b"]
