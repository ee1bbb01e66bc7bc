"""Codebook health in numbers, alarms and a picture."""

import csv
import json
import math

import pytest
import torch

from speechtok.errors import ConfigError
from speechtok.train.codec import main
from speechtok.train.health import Watch, codebook_health
from speechtok.train.log import RunLog
from speechtok.train.plot import draw, write_table
from speechtok.train.recipe import Alarm
from test_train import make_recipe


def test_health_by_hand():
    codes = torch.tensor([[0, 0, 1, 1], [2, 2, 2, 2], [0, 1, 1, 1]])
    health = codebook_health(codes, (4, 4, 4))
    assert health["codes/used"] == [0.5, 0.25, 0.5]
    assert health["codes/dead"] == [2, 3, 2]
    uneven = math.exp(-(0.25 * math.log(0.25) + 0.75 * math.log(0.75)))
    assert health["codes/perplexity"] == pytest.approx([2, 1, uneven])


def test_alarm_needs_its_number_of_validations_in_a_row():
    watch = Watch((10, 10), Alarm(perplexity=0.3, validations=2))

    def validate(*perplexities: float) -> list[str]:
        return watch.validation({"codes/perplexity": list(perplexities)})[1]

    assert validate(2, 5) == [] and validate(4, 2) == []
    assert validate(2, 4) == []
    (line,) = validate(2.9, 3)
    assert line.startswith("level 0 has collapsed") and "2.9" in line and "\n" not in line


def test_revived_codes_are_counted_between_validations():
    watch = Watch((10, 10), Alarm())
    for revived in ([1, 2], [], [0, 3]):
        watch.step(revived)
    again = Watch((10, 10), Alarm())
    again.load_state_dict(watch.state_dict())
    assert again.validation({"codes/perplexity": [9, 9]})[0]["codes/revived"] == [1, 5]
    assert again.validation({"codes/perplexity": [9, 9]})[0]["codes/revived"] == [0, 0]


def test_a_run_logs_health_and_alarms_and_draws_itself(corpus):
    make_recipe(corpus)  # writes the recipe file
    settings = [f"data.manifests=[{corpus}/corpus.tsv]", f"data.cache={corpus}/cache", f"out={corpus}/run"]
    pytest.importorskip("matplotlib")
    main(corpus / "recipe.yaml", [*settings, "alarm={perplexity: 1.1, validations: 2}"], plot=True)
    rows = [json.loads(line) for line in (corpus / "run/log.jsonl").read_text().splitlines()]
    health = [row for row in rows if row["kind"] == "validation"][-1]
    assert all(len(health[f"codes/{name}"]) == 2 for name in ("used", "dead", "perplexity", "revived"))
    alarms = [row for row in rows if row["kind"] == "alarm"]
    assert [row["step"] for row in alarms] == [8, 8] and "level 1" in alarms[1]["text"]
    picture = (corpus / "run/curves.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 10_000
    with write_table(corpus / "run", corpus / "curves.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["kind"] for row in table] == ["train", "validation", "train", "validation"]
    assert float(table[-1]["codes/used/1"]) == pytest.approx(health["codes/used"][1], rel=1e-4)
    assert table[0]["codes/used/1"] == "" != table[0]["mel/l1"]


def test_log_of_a_killed_run_goes_on_from_its_checkpoint(tmp_path):
    log = RunLog(tmp_path, 9, 0)
    for step in (1, 2, 3):
        log.write("validation", step, {"x": step})
    log.close()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"kind": "validation", "st')
    log = RunLog(tmp_path, 9, 2)
    log.write("validation", 3, {"x": 30})
    log.close()
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["x"] for row in rows] == [1, 2, 30]


def test_drawing_where_there_is_no_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"log\.jsonl"):
        draw(tmp_path)
