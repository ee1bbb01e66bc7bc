"""A study of the chain in miniature: runs that are trained and tested once, and rows that add up."""

import json

import pytest
import yaml

from conftest import ROOT
from speechtok.bench.chain_study.__main__ import main, run_study
from speechtok.bench.chain_study.curves import Curves, read_curves
from speechtok.bench.chain_study.results import (
    CHANGE,
    DEV_CHANGE,
    FINAL,
    FORGETTING,
    REACHED,
    first_at_most,
    summarise,
)
from speechtok.bench.chain_study.study import START, ChainStudy, Rating, Run
from speechtok.bench.chain_study.tables import markdown
from speechtok.chain.decoding import SearchConfig
from speechtok.config import from_yaml
from speechtok.errors import ConfigError, TrainingError
from speechtok.train.chain import train
from test_adapt import domains  # noqa: F401 - a fixture
from test_train_asr import spoken  # noqa: F401 - a fixture
from test_train_chain import trained  # noqa: F401 - a fixture

pytest.importorskip("tokenizers", reason="text vocabularies are made by tokenizers")
pytest.importorskip("transformers", reason="the speaker is transformers' Llama")
pytest.importorskip("jiwer", reason="error rates are counted by jiwer")
pytest.importorskip("scipy", reason="intervals over seeds need scipy")
pytest.importorskip("matplotlib", reason="curves are drawn by matplotlib")

STUDIES = ["chain-study", "chain-adaptation"]


@pytest.fixture
def study_file(domains, folder):  # noqa: F811
    """Two variants, two seeds, both domains, and trainings in this process."""
    place, _ = domains
    recipe = {
        "epochs": 2, "log_every": 1, "tokenizer": str(folder), "asr": str(place / "asr/model"),
        "t2s": str(place / "t2s/model"), "data": {"manifests": [str(place / "target.tsv")], "batch": 2},
        "replay": {"manifests": [str(place / "source.tsv")]},
    }  # fmt: skip
    recipe["data"]["cache"] = str(place / "cache")
    (place / "chain.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    study = {
        "recipe": str(place / "chain.yaml"), "seeds": [1, 2], "overrides": ["optimisation.warmup=1"],
        "variants": {"supervised": ["loop=false"], "chain": ["interface.estimator=argmax"]}, "quick": ["epochs=1"],
        "testing": {
            "target": str(place / "target.tsv"), "source": str(place / "source.tsv"),
            "search": {"beam": 1, "ctc_weight": 0.0},
        },
    }  # fmt: skip
    (place / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    return place / "study.yaml"


@pytest.fixture
def here(monkeypatch):
    """Trainings run in this process; returns the names of those that ran, and fails where asked to."""
    ran, broken = [], set()

    class Finished:
        returncode = 0

    def run(command, env):
        from speechtok.train.chain_recipe import ChainRecipe
        from speechtok.train.loop import read_command

        recipe, place = read_command(ChainRecipe, command[5], command[6:])
        finished = Finished()
        finished.returncode = int(recipe.name in broken)
        if not finished.returncode:
            train(recipe, place)
            ran.append(recipe.name)
        return finished

    monkeypatch.setattr("speechtok.bench.variants.subprocess.run", run)
    return ran, broken


def test_a_study_trains_resumes_and_says_what_it_lacks(study_file, here, tmp_path, capsys):
    (ran, broken), out = here, tmp_path / "study"
    broken.add("chain-2")
    with pytest.raises(TrainingError, match="not trained: chain-2"):
        main([str(study_file), "-o", str(out)])
    assert ran == ["supervised-1", "chain-1", "supervised-2"]  # seed by seed
    broken.clear()
    assert main([str(study_file), "-o", str(out), "--only", "chain"]) == 0
    assert ran[3:] == ["chain-2"]
    document = json.loads((out / "summary.json").read_text())
    rows = {(row["kind"], row["variant"], row["measure"], row["domain"]): row for row in document["summary"]}
    for domain in ("target", "source"):
        assert rows[FINAL, START, "cer", domain]["over_utterances"]["n"] == 2
        found = rows[CHANGE, "chain", "cer", domain]
        assert found["seeds"] == [1, 2] and found["over_seeds"]["n"] == 2 and found["equal_epochs"]
    assert rows[DEV_CHANGE, "chain", "cer/ctc", "dev"]["epoch"] == 2
    assert rows[FORGETTING, "supervised", "wer", "source"]["over_utterances"]["n"] == 2
    assert rows[REACHED, "supervised", "epochs sooner", "cer/ctc"]["each"] == [0, 0]
    assert {"replay-cer/ctc", "t2s/semantic"} <= set(document["curves"][0]["measures"])
    page = (out / "summary.md").read_text()
    assert page.count("| supervised") == 3 and page.count("| chain") == 4 and "Forgetting" in page
    assert (out / "summary.png").stat().st_size > 10_000
    kept = out / "variants/chain/seed-1/test-target.json"
    stamp = kept.stat().st_mtime_ns
    assert main([str(study_file), "-o", str(out)]) == 0
    assert len(ran) == 4 and kept.stat().st_mtime_ns == stamp  # nothing is trained or tested twice
    assert json.loads((out / "summary.json").read_text())["summary"] == document["summary"]


def test_the_trial_run_is_short_and_has_a_folder_of_its_own(study_file, here, tmp_path):
    ran, _ = here
    assert main([str(study_file), "-o", str(tmp_path / "study"), "--quick", "--only", "supervised"]) == 0
    assert ran == ["supervised-1"]
    assert read_curves(tmp_path / "study/quick/variants/supervised/seed-1").epochs == 1


def made(variant: str, seed: int, curve: list[float], rates: list[float], weights=(2, 3)) -> Run:
    rows = [
        {"wer": rate, "cer": rate, "weight/wer": weight, "weight/cer": weight}
        for rate, weight in zip(rates, weights, strict=True)
    ]
    return Run(variant, seed, Curves(10, {"cer/ctc": curve}), {"source": rows, "target": rows})


def test_rows_say_what_the_runs_say():
    runs = [
        made("start", 0, [], [0.5, 0.5])._replace(curves=None),
        made("base", 1, [0.5, 0.4, 0.45], [0.4, 0.4]), made("base", 2, [0.5, 0.3, 0.2], [0.2, 0.2]),
        made("chain", 1, [0.4, 0.35, 0.3], [0.2, 0.4]), made("chain", 2, [0.4, 0.35, 0.3], [0.1, 0.2]),
    ]  # fmt: skip
    rows = {(r["kind"], r["variant"], r["measure"], r["domain"]): r for r in summarise(runs, "base", "ctc")}
    final = rows[FINAL, "chain", "wer", "target"]
    assert final["each"] == pytest.approx([0.32, 0.16]) and final["over_seeds"]["mean"] == pytest.approx(0.24)
    assert final["over_utterances"]["mean"] == pytest.approx(0.24)
    change = rows[CHANGE, "chain", "wer", "target"]
    assert change["each"] == pytest.approx([-0.2, -0.2]) and change["over_seeds"]["low"] == pytest.approx(-0.2)
    assert rows[DEV_CHANGE, "chain", "cer/ctc", "dev"]["each"] == pytest.approx([0.3 / 0.45 - 1, 0.5])
    reached = rows[REACHED, "chain", "epochs sooner", "cer/ctc"]
    assert reached["each"] == [1, None] and reached["over_seeds"]["failed"] == 1
    forgotten = rows[FORGETTING, "chain", "wer", "source"]
    assert forgotten["each"] == pytest.approx([-0.18, -0.34])
    assert forgotten["over_utterances"]["mean"] == pytest.approx(-0.26)
    testing = Rating("t.tsv", "s.tsv", search=SearchConfig())
    page = markdown(list(rows.values()), ChainStudy(testing, variants={"base": [], "chain": []}, baseline="base"))
    assert "| chain | -20.0 % [-20.0, -20.0]" in page and "| in 1 of 2 seeds: 1 | in 1 of 2 seeds: 1 |" in page


def test_the_first_epoch_may_never_come():
    assert first_at_most([3, 2, 1], 2) == 2 and first_at_most([3], 2) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variants": {"start": []}, "baseline": "start"}, "'start' cannot name a variant"),
        ({"variants": {"a": []}}, "baseline is 'supervised'; it must be one of a"),
        ({"variants": {"supervised": ["seed=3"]}}, "seeds are those of the study"),
        ({"variants": {"supervised": []}, "seeds": [1, 1]}, "each once"),
    ],
)
def test_studies_that_contradict_themselves_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        ChainStudy(Rating("t.tsv"), **settings)


def test_studies_that_cannot_begin_are_refused(study_file, tmp_path):
    study = from_yaml(ChainStudy, study_file)
    with pytest.raises(ConfigError, match="there is no variant c; the study has supervised, chain"):
        run_study(study, tmp_path, ["c"])
    with pytest.raises(ConfigError, match=r"testing\.target is empty"):
        Rating()
    study.testing.source = str(tmp_path / "nowhere.tsv")
    with pytest.raises(ConfigError, match=r"nowhere\.tsv: cannot read this manifest"):
        run_study(study, tmp_path)


@pytest.mark.parametrize("name", STUDIES)
def test_shipped_studies_change_their_recipe_in_ways_it_knows(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    study = from_yaml(ChainStudy, f"recipes/{name}.yaml")
    assert len(study.seeds) == 3 and list(study.variants)[:1] == ["supervised"]
    assert study.in_brief().recipe_of("supervised").epochs == 2
    recipes = {variant: study.recipe_of(variant) for variant in study.variants}
    plain, chain = recipes["supervised"], recipes["gumbel-annealed"]
    assert not plain.loop and not recipes["stopped"].interface.gradient
    first, last = (chain.interface.temperature.at(epoch, chain.epochs) for epoch in (0, chain.epochs - 1))
    assert first == 2.0 and last == pytest.approx(0.1)
    epochs = {variant: recipe.epochs for variant, recipe in recipes.items()}
    assert epochs.pop("supervised-compute") == round(1.73 * plain.epochs) and set(epochs.values()) == {plain.epochs}
    assert len({json.dumps(sorted(own)) for own in study.variants.values()}) == len(study.variants)
