"""The benchmark of kills, in miniature: a few kills, a dozen files, a tiny model."""

import json
import sys
from pathlib import Path

import pytest

from tiny_corpus import make_sounds

pytest.importorskip("pyarrow", reason="pip install 'speechtok[corpus]'")


def test_the_bytes_survive_kills(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[1] / "benchmarks")
    import kill

    sounds = make_sounds(tmp_path / "sounds", 12, bad=False)
    rows = "".join(f"{path.relative_to(sounds)}\tdev\n" for path in sorted(sounds.rglob("*.wav")))
    (sounds / "all.tsv").write_text(f"path\tsplit\n{rows}")
    words = ["--data", sounds / "all.tsv", "--files", 12, "--kills", 3, "--model", folder, "--shard-size", 1]
    assert kill.main([str(word) for word in [*words, "-o", tmp_path / "kill.json"]]) == 0
    found = json.loads((tmp_path / "kill.json").read_text())
    assert found["identical"] and found["recordings"] == 12 and not found["missing_or_twice"]
    assert found["kills"] >= 1 and found["redone"] < 1
    sys.modules.pop("kill")
