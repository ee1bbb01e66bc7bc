"""The comparison that says whether a killed benchmark gave the same summary."""

import math
from pathlib import Path

import pytest


@pytest.fixture
def kill_bench(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[1] / "benchmarks")
    import kill_bench

    return kill_bench


def test_only_rounding_is_forgiven(kill_bench):
    row = {"measure": "wer", "mean": 0.5, "n": 3, "reasons": {}}
    assert kill_bench.compare([row], [dict(row)]) == 0
    assert 0 < kill_bench.compare([row], [row | {"mean": 0.5 * (1 + 1e-14)}]) < kill_bench.TOLERANCE
    assert kill_bench.compare([row], [row | {"mean": 0.501}]) > kill_bench.TOLERANCE
    for other in ([row | {"n": 4}], [row, row], [row | {"more": 1}], [row | {"mean": None}], [row | {"n": 3.0}]):
        assert kill_bench.compare([row], other) == math.inf


def test_what_a_clock_decides_is_left_out(kill_bench, tmp_path):
    rows = '[{"measure": "encode_speed", "mean": 1.0}, {"measure": "wer", "mean": 0.5}]'
    text = f'{{"summary": {rows}, "differences": [], "not_applicable": [], "failures": [], "tokenizers": []}}'
    (tmp_path / "summary.json").write_text(text)
    assert [row["measure"] for row in kill_bench.results(tmp_path)["summary"]] == ["wer"]
