"""Adaptation by the chain: what is trained and measured, going on, recipes in miniature, refusals."""

import json

import pytest
import yaml

from conftest import ROOT
from speechtok.bench import adaptation, repeats
from speechtok.bench.adaptation import DEFAULTS, Job, adapt, recipe_of
from speechtok.chain.decoding import SearchConfig
from speechtok.chain.saved import digest_of
from speechtok.cli import main
from speechtok.config import from_yaml
from speechtok.errors import ConfigError
from speechtok.train.chain import train
from speechtok.train.chain_recipe import ChainRecipe
from test_train_asr import spoken  # noqa: F401 - a fixture
from test_train_chain import trained  # noqa: F401 - a fixture

pytest.importorskip("tokenizers", reason="text vocabularies are made by tokenizers")
pytest.importorskip("transformers", reason="the speaker is transformers' Llama")
pytest.importorskip("jiwer", reason="error rates are counted by jiwer")
pytest.importorskip("scipy", reason="intervals over seeds need scipy")

GREEDY = SearchConfig(beam=1, ctc_weight=0.0)


@pytest.fixture
def domains(trained, folder):  # noqa: F811
    """Two corpora with tests, and small settings; the recogniser is of the first."""
    rows = (trained / "corpus.tsv").read_text().splitlines()
    for name, shown in (("source", rows[1:]), ("target", rows[:0:-1])):
        test = [row.replace("\ttrain\t", "\ttest\t").replace("\tdev\t", "\ttest\t") for row in shown[:2]]
        (trained / f"{name}.tsv").write_text("\n".join([*rows, *test]) + "\n")
    settings = (f"tokenizer={folder}", f"data.cache={trained}/cache", "data.batch=2", "epochs=1", "precision=fp32")
    return trained, settings


def job_of(place, settings, **changes) -> Job:
    job = Job(place / "asr/model", place / "t2s/model", place / "target.tsv", overrides=settings)
    return job._replace(**changes)


def test_both_domains_are_measured_before_and_after(domains):
    place, settings = domains
    job = job_of(place, settings, source=place / "source.tsv", replay=0.5)
    document = adapt(job, place / "run", GREEDY)
    assert json.loads(json.dumps(document)) == json.loads((place / "run/adaptation.json").read_text())
    assert set(document["domains"]) == {"target", "source"} and document["settings"]["replay"] == 0.5
    for found in document["domains"].values():
        assert found["before"]["model"]["weights"] == digest_of(place / "asr/model")
        assert found["after"]["model"]["weights"] == digest_of(place / "run/model/asr")
        for rate in ("wer", "cer"):
            after, before = (found[when]["summary"][rate] for when in ("after", "before"))
            assert found["change"][rate]["mean"] == pytest.approx(after["mean"] - before["mean"])
            assert found["relative"][rate]["mean"] == pytest.approx(after["mean"] / before["mean"] - 1)
    assert document["forgetting"] == document["domains"]["source"]["change"]
    assert "what was forgotten" in (place / "run/adaptation.md").read_text()
    assert "replay-cer/ctc" in (place / "run/log.jsonl").read_text()


def test_the_command_goes_on_where_it_was(domains, capsys):
    place, settings = domains
    recipe = recipe_of(job_of(place, settings))
    train(recipe, place / "run", stop_at=1)
    capsys.readouterr()
    options = ["--asr", place / "asr/model", "--t2s", place / "t2s/model", "--target", place / "target.tsv"]
    assert main([*map(str, ["adapt", *options, "--beam", 1, "-o", place / "run", *settings])]) == 0
    out = capsys.readouterr().out
    assert "| target, CER |" in out and "forgotten" not in out
    steps = [json.loads(row)["step"] for row in (place / "run/log.jsonl").read_text().splitlines()]
    assert steps == sorted(steps) and steps[-1] == 2  # three utterances in pairs
    assert json.loads((place / "run/adaptation.json").read_text())["forgetting"] is None


REFUSED = [
    (["--replay", "0.5"], "replay needs speech of the source; name its manifest with --source"),
    (["--source", "{place}/corpus.tsv"], "corpus.tsv: no row has split 'test'"),
    (["--target", "{place}/silent.tsv"], "silent.tsv: no utterance of split 'test' has a text"),
    (["--target", "{place}/nowhere.tsv"], "nowhere.tsv: cannot read this manifest"),
    (["--target", "{place}/short.tsv"], "short.tsv: row 2 has too few columns"),
    (["--t2s", "{place}/asr/model"], "is no configuration of a speechtok.t2s model"),
    (["no.such=1"], "adapt: "),
]


def test_what_cannot_be_is_said_in_one_line(domains, capsys):
    place, settings = domains
    (place / "silent.tsv").write_text("path\tsplit\n0.wav\ttrain\n1.wav\ttest\n")
    (place / "short.tsv").write_text("path\tsplit\n0.wav\ttrain\n1.wav\n")
    given = ["--asr", place / "asr/model", "--t2s", place / "t2s/model", "--target", place / "target.tsv"]
    for changes, message in REFUSED:
        changes = [change.format(place=place) for change in changes]
        overrides = [*settings, *(one for one in changes if "=" in one)]
        options = [*given, *(one for one in changes if "=" not in one)]
        capsys.readouterr()
        assert main([*map(str, ["adapt", *options, "-o", place / "run", *overrides])]) == 2
        err = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
        assert len(err) == 1 and message in err[0], (err, message)


def test_built_in_settings_are_those_of_the_recipe_but_for_the_temperature(domains):
    place, _ = domains
    recipe = yaml.safe_load((ROOT / "recipes/chain-mini.yaml").read_text())
    recipe["data"].pop("manifests")
    differ = {"interface", "name", "asr", "t2s", "tokenizer"}
    assert {k: recipe[k] for k in recipe.keys() - differ} == {k: DEFAULTS[k] for k in DEFAULTS.keys() - differ}
    temperature = recipe_of(job_of(place, ())).interface.temperature
    assert temperature.schedule == "fixed" and {temperature.at(epoch, 5) for epoch in range(5)} == {0.75}


@pytest.mark.parametrize("name", ["chain-mini", "chain-paper"])
def test_recipes_run_in_miniature(name, domains, folder):
    place, _ = domains
    miniature = {
        "tokenizer": folder, "asr": place / "asr/model", "t2s": place / "t2s/model", "data.batch": 2, "epochs": 2,
        "data.manifests": f"[{place}/corpus.tsv]", "data.cache": place / "cache", "precision": "fp32",
    }  # fmt: skip
    path = ROOT / "recipes" / f"{name}.yaml"
    learner = train(from_yaml(ChainRecipe, path, [f"{key}={value}" for key, value in miniature.items()]), place / "run")
    assert learner.recipe.interface.temperature.at(1, 2) == pytest.approx(0.1)
    assert {"asr", "t2s"} == {one.name for one in (place / "run/model").iterdir()}
    # and adaptation takes it as it is
    job = job_of(place, (f"tokenizer={folder}",), recipe=path, source=place / "source.tsv", replay=0.25)
    recipe = recipe_of(job)
    assert recipe.data.manifests == [str(place / "target.tsv")] and recipe.replay.share == 0.25
    assert recipe.interface.temperature.schedule == "linear" and recipe.asr == str(place / "asr/model")


def test_a_recipes_share_of_replay_stays_where_none_is_asked_for(domains):
    place, settings = domains
    source = str(place / "source.tsv")
    (place / "own.yaml").write_text(yaml.safe_dump({"replay": {"manifests": [source], "share": 0.3}}))
    job = job_of(place, settings, recipe=place / "own.yaml", source=place / "source.tsv")
    assert recipe_of(job).replay.share == 0.3 and recipe_of(job._replace(replay=0.0)).replay.share == 0.0
    assert recipe_of(job_of(place, settings, source=place / "source.tsv")).replay.share == 0.0


def test_relative_changes_are_of_rates_and_their_intervals_of_utterances():
    first, second, weights = [0.1, 0.3, 0.2, None], [0.2, 0.3, 0.4, 0.5], [10, 20, 10, 7]
    found = repeats.relative_change(first, second, weights)
    assert found.mean == pytest.approx((1 + 6 + 2) / (2 + 6 + 4) - 1) and (found.n, found.failed) == (3, 1)
    assert -0.51 < found.low < found.mean < found.high <= 0
    none = repeats.relative_change([0.0, 0.1], [0.0, 0.0], [1, 1])
    assert none.mean is None and dict(none.reasons) == {repeats.BASE_ZERO: 2}


def test_intervals_over_seeds_are_students():
    found = repeats.over_seeds([1.0, 2.0, 3.0, None])
    assert found.mean == 2 and found.high - 2 == pytest.approx(4.302653 / 3**0.5, rel=1e-5) and found.failed == 1
    assert repeats.over_seeds([1.0]).low is None and repeats.over_seeds([None]).mean is None


def test_a_missing_package_is_said_before_any_work(domains, monkeypatch):
    place, settings = domains

    def missing(*_):
        raise ConfigError("error rates need jiwer")

    monkeypatch.setattr(adaptation, "error_scores", missing)
    with pytest.raises(ConfigError, match="need jiwer"):
        adapt(job_of(place, settings), place / "run")
    assert not (place / "run").exists()
