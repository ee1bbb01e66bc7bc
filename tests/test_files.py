import os
import stat

import pytest

from speechtok.errors import OutputError, SpeechtokError
from speechtok.files import atomic_path, write_bytes_atomic, write_text_atomic


def only(folder):
    """Names in the folder, hidden ones included: a temporary file left behind would show."""
    return sorted(entry.name for entry in folder.iterdir())


def test_bytes_and_text_arrive_and_replace(tmp_path):
    target = tmp_path / "out.bin"
    write_bytes_atomic(target, b"old")
    write_bytes_atomic(target, b"\x00new\r\n")
    write_text_atomic(tmp_path / "out.txt", "größer\n")
    assert target.read_bytes() == b"\x00new\r\n"
    assert (tmp_path / "out.txt").read_bytes() == "größer\n".encode()
    assert only(tmp_path) == ["out.bin", "out.txt"]


def test_target_keeps_its_old_content_until_the_body_ends(tmp_path):
    target = tmp_path / "out"
    target.write_bytes(b"old")
    with atomic_path(target) as temporary:
        temporary.write_bytes(b"half")
        assert target.read_bytes() == b"old"
        assert temporary.parent == tmp_path
    assert target.read_bytes() == b"half"


@pytest.mark.parametrize("error", [RuntimeError, ValueError, KeyboardInterrupt, SpeechtokError])
def test_failing_body_leaves_nothing_and_keeps_its_own_error(tmp_path, error):
    (tmp_path / "out").write_bytes(b"old")
    with pytest.raises(error, match="mine"), atomic_path(tmp_path / "out") as temporary:
        temporary.write_bytes(b"half")
        raise error("mine")
    assert only(tmp_path) == ["out"]
    assert (tmp_path / "out").read_bytes() == b"old"


def test_full_disk_is_an_output_error_and_leaves_nothing(tmp_path):
    with (
        pytest.raises(OutputError, match=r"out: .*No space left"),
        atomic_path(tmp_path / "out") as temporary,
    ):
        temporary.write_bytes(b"half")
        raise OSError(28, "No space left on device")
    assert only(tmp_path) == []


def test_refused_folder_is_an_output_error(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OutputError, match=r"out: .*Permission denied"):
        write_bytes_atomic(tmp_path / "out", b"x")


@pytest.mark.skipif(os.geteuid() == 0, reason="the administrator may write everywhere")
@pytest.mark.parametrize("what", ["folder", "file"])
def test_read_only_place_is_an_output_error(tmp_path, what):
    target = tmp_path / "out"
    target.write_bytes(b"old")
    (tmp_path if what == "folder" else target).chmod(0o555)
    try:
        with pytest.raises(OutputError, match="out"):
            write_bytes_atomic(target, b"x")
    finally:
        tmp_path.chmod(0o755)
    assert target.read_bytes() == b"old"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        pytest.param("missing/out", "there is no folder", id="no-folder"),
        pytest.param("file/out", "there is no folder", id="folder-is-a-file"),
        pytest.param("folder", "is a folder", id="target-is-a-folder"),
        pytest.param("pipe", "device or pipe", id="target-is-a-pipe"),
        pytest.param("nul\0name", "cannot be written", id="impossible-name"),
        pytest.param("x" * 5000, "cannot be written", id="name-too-long"),
        pytest.param("line\nbreak/out", "there is no folder", id="newline-in-name"),
    ],
)
def test_impossible_targets_are_refused_in_one_line(tmp_path, name, words):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    before = only(tmp_path)
    with pytest.raises(OutputError, match=words) as caught:
        write_bytes_atomic(tmp_path / name, b"x")
    assert "\n" not in str(caught.value)
    assert only(tmp_path) == before
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_link_is_written_through(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_bytes_atomic(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_permissions_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_bytes_atomic(tmp_path / "out", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o640
