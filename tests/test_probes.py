"""Probes in miniature: they learn a toy language, resume exactly, count what fails and measure nothing twice."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import ROOT
from speechtok.bench.facts import item_of
from speechtok.bench.probes import __main__ as command
from speechtok.bench.probes import asr, emotion, intent, keyword, measuring, mutual_information, phones, speaker
from speechtok.bench.probes.network import ProbeShape
from speechtok.bench.probes.recipe import TEST, NewBob, ProbeData, ProbeRecipe
from speechtok.bench.probes.tokens import bitrate_of, token_rows
from speechtok.bench.probes.training import Corpus, train
from speechtok.bench.tasks import Options, Speech, rows_path
from speechtok.config import from_yaml
from speechtok.errors import CheckpointError, ConfigError, NotSupportedError
from speechtok.text_tokens import TextTokens
from speechtok.tokenizers.features import MelFeatures
from speechtok.tokenizers.soft import SoftTokenizer
from speechtok.train.data import read_manifest
from speechtok.train.optimisation import Optimisation
from test_train import assert_same, weights
from toy_language import Tones, write_corpus

FAST = Optimisation(rate=1e-2, betas=(0.9, 0.999), weight_decay=0.0, warmup=10, final=0.1, clip=5.0, ema=0.0)
MINIATURE = [
    *("steps=2", "epochs=0", "log_every=1", "validate_every=2", "checkpoint_every=2", "data.batch=4", "data.least=3"),
    *("network.embedding=6", "network.width=5", "network.start=random"),
]


@pytest.fixture
def toy(tmp_path) -> Path:
    """The manifest of a small corpus."""
    return write_corpus(tmp_path, (24, 8, 8))


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """A larger one, and the probes that tests share beside it."""
    return write_corpus(tmp_path_factory.mktemp("toy"))


def make_recipe(manifest: Path, steps: int = 6, **changes) -> ProbeRecipe:
    data = ProbeData(manifests=[str(manifest)], batch=4, least=3, cache=str(manifest.parent / "tokens"))
    every = {
        "log_every": max(1, steps // 4),
        "validate_every": max(1, steps // 2),
        "checkpoint_every": max(1, steps // 2),
    }
    shape = ProbeShape(embedding=16, width=24, dropout=0.1)
    return ProbeRecipe(**({"steps": steps, "data": data, "network": shape, "optimisation": FAST} | every | changes))


def measured(module, tokenizer, manifest: Path, recipe: ProbeRecipe, levels=(1, 0), **adapted) -> dict:
    """Summary rows of a task by measure and role."""
    folder = manifest.parent
    aligned = [str(folder / "phones.tsv")]
    recipe = module.TASK.adapted(recipe, [str(manifest)], aligned, folder / "tokens", **adapted)
    rows = module.TASK.run(tokenizer, recipe, levels, folder / "out" / module.TASK.name)
    return {(row["measure"], row["role"]): row for row in rows}


def speech(manifest: Path, phones: bool = True) -> Speech:
    return Speech(manifest, TEST, (), phones=manifest.parent / "phones.tsv" if phones else None)


# -- learning -------------------------------------------------------------------------------------------------------


def test_tokens_that_hear_the_language_tell_more_of_it_than_noise(large):
    recipe = make_recipe(large, 160, data=ProbeData(manifests=["m"], batch=8))
    cer, told, alike = {}, {}, {}
    for tokenizer in (Tones(), Tones(deaf=True)):
        cer[tokenizer.name] = measured(asr, tokenizer, large, recipe, levels=(1,))["cer", "first"]
        rows = measured(mutual_information, tokenizer, large, recipe, levels=(1,))
        told[tokenizer.name] = rows["mutual_information", "first"]
        alike[tokenizer.name] = rows["mutual_information_alike", "first"]
        by_rate = rows["mutual_information_per_kbps", "first"]
        assert by_rate["mean"] == pytest.approx(told[tokenizer.name]["mean"] / by_rate["kbps"])
        assert by_rate["kbps"] == pytest.approx(25 * np.log2(10) / 1000)
    assert cer["tones"]["mean"] < 0.4 < 0.8 < cer["deaf"]["mean"]
    assert told["tones"]["low"] > 3 * told["deaf"]["high"] and alike["tones"]["low"] > alike["deaf"]["high"]
    assert told["tones"]["unit"] == "nats per character" and told["tones"]["n"] == 12


def test_phones_are_named_frame_by_frame(toy):
    rows = measured(phones, Tones(), toy, make_recipe(toy, 60), levels=(1,))
    found, chance = rows["frame_accuracy", "first"], rows["frame_accuracy", "chance"]
    assert found["mean"] > 0.9 > 0.5 > chance["mean"] > 0.2
    assert (found["levels"], chance["levels"], found["classes"]) == (1, None, 40)


def test_speakers_are_told_by_the_level_that_holds_them(toy):
    rows = measured(speaker, Tones(), toy, make_recipe(toy, 60))
    assert rows["accuracy", "all"]["mean"] == 1 and rows["accuracy", "chance"]["mean"] == 0.5
    assert rows["accuracy", "all"]["n"] == 4  # two of each speaker's twelve training utterances


def test_classes_of_a_json_column(toy):
    rows = measured(intent, Tones(), toy, make_recipe(toy, 60), levels=(1,), label="slots:drink")
    assert rows["accuracy", "first"]["mean"] > 0.8 and rows["accuracy", "first"]["classes"] == 2


def test_soft_tokens_are_probed_too(toy):
    soft = SoftTokenizer(MelFeatures(8000, n_mels=12, hop=160), "soft", pool=2)
    rows = measured(phones, soft, toy, make_recipe(toy, 120))
    assert [*rows] == [("frame_accuracy", "all"), ("frame_accuracy", "chance")]
    assert rows["frame_accuracy", "all"]["mean"] > 0.6 > rows["frame_accuracy", "chance"]["mean"]
    assert rows["frame_accuracy", "all"]["levels"] is None
    assert bitrate_of(soft, None) == soft.bitrate


# -- a run ----------------------------------------------------------------------------------------------------------


def test_stop_and_resume_equals_never_stopping_bit_for_bit(toy):
    recipe = make_recipe(toy, 8, annealing=NewBob())
    corpus, folder = Corpus.read(recipe), toy.parent
    train(recipe, Tones(), corpus, folder / "straight")
    train(recipe, Tones(), corpus, folder / "broken", stop_at=4)
    train(recipe, Tones(), corpus, folder / "broken", stop_at=5)  # not where a validation is due
    whole = train(recipe, Tones(), corpus, folder / "broken")
    assert_same(weights(folder / "straight"), weights(folder / "broken"))
    assert whole.learner.step == 8 and (folder / "broken/model/probe.safetensors").exists()


def test_best_weights_are_tested_or_the_last(toy):
    recipe = make_recipe(toy, 6, validate_every=1)
    corpus = Corpus.read(recipe)
    learner = train(recipe, Tones(), corpus, toy.parent / "best").learner
    rows = [json.loads(line) for line in (toy.parent / "best/log.jsonl").read_text().splitlines()]
    errors = [row["error/characters"] for row in rows if row["kind"] == "validation"]
    assert learner.progress.best_error == min(errors)
    last = train(replace(recipe, keep="last"), Tones(), corpus, toy.parent / "last").learner
    assert_same(last.kept.state_dict(), last.model.state_dict())


def test_bf16_trains(toy):
    learner = train(
        make_recipe(toy, 2, precision="bf16"), Tones(), Corpus.read(make_recipe(toy)), toy.parent / "r"
    ).learner
    assert learner.model.head.weight.dtype == torch.float32
    rows = [json.loads(line) for line in (toy.parent / "r/log.jsonl").read_text().splitlines()]
    assert all(np.isfinite(row["probe/ctc"]) for row in rows)


def test_a_folder_of_another_tokenizer_is_refused(toy):
    recipe, corpus = make_recipe(toy, 2), Corpus.read(make_recipe(toy))
    train(recipe, Tones(), corpus, toy.parent / "run")
    with pytest.raises(ConfigError, match="other speech"):
        train(recipe, Tones(deaf=True), corpus, toy.parent / "run")


# -- what is known and what fails -----------------------------------------------------------------------------------


def test_nothing_is_measured_twice_and_asr_shares_its_probe(toy, monkeypatch):
    recipe = make_recipe(toy, 2)
    first = measured(asr, Tones(), toy, recipe)
    told = measured(mutual_information, Tones(), toy, recipe)
    assert len([*(toy.parent / "out/probes").iterdir()]) == 2  # of one level and of two
    monkeypatch.setattr(measuring, "train", None)
    assert measured(asr, Tones(), toy, recipe) == first
    assert measured(mutual_information, Tones(), toy, recipe) == told
    rows = rows_path(toy.parent / "out/asr", Tones().fingerprint).read_text().splitlines()
    assert len(rows) == 2 * 2 * 8 and {json.loads(row)["role"] for row in rows} == {"first", "all"}


def test_tokens_are_made_once_and_belong_to_the_bytes(toy, monkeypatch):
    utterances = read_manifest(toy, "test")
    items = [item_of(utterance, toy.parent) for utterance in utterances]
    found = token_rows(Tones(), items, toy.parent / "c")
    assert found[0].shape[1] == 2 and found[0].dtype == np.uint8
    monkeypatch.setattr(Tones, "_encode", None)
    assert all((a == b).all() for a, b in zip(found, token_rows(Tones(), items, toy.parent / "c"), strict=True))


def test_a_broken_file_is_counted_and_changes_no_mean(toy):
    recipe = make_recipe(toy, 2)
    whole = measured(keyword, Tones(), toy, recipe, levels=(1,))["accuracy", "first"]
    with toy.open("a") as file:
        file.write("none.wav\ttest\tsoft\t1.0\ta\ta\t\n")
    broken = measured(keyword, Tones(), toy, recipe, levels=(1,))["accuracy", "first"]
    assert (whole["failed"], broken["failed"]) == (0, 1)
    assert broken["reasons"] == {"the file cannot be read": 1}
    assert (broken["mean"], broken["n"]) == (whole["mean"], whole["n"])


def test_classes_that_training_lacks_and_missing_labels_are_counted(toy):
    text = toy.read_text().replace("test-0.wav\ttest\tsoft", "test-0.wav\ttest\tstranger")
    text = text.replace("test-1.wav\ttest\tloud", "test-1.wav\ttest\t")
    toy.write_text(text)
    recipe = measuring.ProbeTask("label", "classes", measuring.accuracies)
    module = type("module", (), {"TASK": recipe})
    row = measured(module, Tones(), toy, make_recipe(toy, 2), levels=(1,), label="speaker")["accuracy", "first"]
    assert row["reasons"] == {"class 'stranger' is not in the training part": 1, "no label": 1} and row["n"] == 6


def test_text_tokens_and_missing_columns_do_not_apply(toy):
    text = type("Text", (Tones,), {"value": TextTokens})()
    text.name = "text"
    with pytest.raises(NotSupportedError, match="text gives text, which has no frames"):
        asr.measure(text, speech(toy), toy.parent / "out/asr", Options(quick=True))
    with pytest.raises(NotSupportedError, match="emotion needs a manifest with the column 'emotion'"):
        emotion.measure(Tones(), speech(toy), toy.parent / "out/emotion", Options(quick=True))
    with pytest.raises(NotSupportedError, match=r"phones\.tsv"):
        phones.measure(Tones(), speech(toy, phones=False), toy.parent / "out/phones", Options(quick=True))
    toy.write_text("\n".join("\t".join(row.split("\t")[:2]) for row in toy.read_text().splitlines()))
    with pytest.raises(NotSupportedError, match="no transcript in any row of split 'train'"):
        asr.measure(Tones(), speech(toy), toy.parent / "out/asr", Options(quick=True))


@pytest.mark.parametrize("module", [asr, mutual_information, phones, keyword, speaker], ids=lambda m: m.TASK.name)
def test_every_task_keeps_the_contract_of_the_bench(toy, module):
    rows = module.measure(Tones(), speech(toy), toy.parent / "out" / module.TASK.name, Options(quick=True))
    needed = {"tokenizer", "fingerprint", "task", "measure", "levels", "role", "mean", "low", "high", "n", "failed"}
    assert all(needed <= set(row) for row in rows) and json.loads(json.dumps(rows)) == rows
    assert {row["measure"] for row in rows} == set(module.MEASURES) and module.HELP
    assert {row["role"] for row in rows} <= {"first", "all", "chance"}


# -- recipes and the command ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("probe-*.yaml")), ids=lambda path: path.stem)
def test_recipe_runs_in_miniature(path, toy):
    recipe = from_yaml(ProbeRecipe, path, MINIATURE)
    module = keyword if "classes" in path.stem or "intent" in path.stem else mutual_information
    rows = measured(module, Tones(), toy, recipe, levels=(0,))
    assert all(row["steps"] == 2 and row["probe"] == path.stem for row in rows.values())


def test_small_recipes_are_the_defaults():
    for name, goal in (("probe-mini", "characters"), ("probe-mini-classes", "classes")):
        assert from_yaml(ProbeRecipe, ROOT / f"recipes/{name}.yaml") == ProbeRecipe.small(goal)


@pytest.mark.parametrize("name", ["dasb-asr", "dasb-intent", "slmtokbench"])
def test_papers_recipes_are_full_size(name):
    shape = from_yaml(ProbeRecipe, ROOT / f"recipes/probe-{name}.yaml").network
    assert (shape.embedding, shape.width, shape.layers) == (1024, 1024, 2)


def test_the_command_writes_a_summary(toy, monkeypatch, capsys):
    monkeypatch.setattr(command.speechtok, "load", lambda name: Tones())
    arguments = ["--recipe", ROOT / "recipes/probe-mini.yaml", "--data", toy, "--levels", 1, "-o", toy.parent / "out"]
    arguments = [*map(str, arguments)]
    assert command.main(["--task", "label", "--label", "slots:drink", *arguments, *MINIATURE]) == 0
    assert "tones accuracy (first, 1 levels)" in capsys.readouterr().out
    summary = json.loads((toy.parent / "out/label/summary-tonestones.json").read_text())
    assert summary["settings"]["data"]["label"] == "slots:drink" and len(summary["summary"]) == 2
    with pytest.raises(ConfigError, match="--label COLUMN"):
        command.main(["--task", "label", *arguments])
    with pytest.raises(ConfigError, match=r"--phones PHONES\.tsv"):
        command.main(["--task", "phones", *arguments])
    with pytest.raises(ConfigError, match="asked for 3"):
        command.main(["--task", "asr", *arguments, "--levels", "3"])


def test_code_vectors_are_asked_for_only_where_there_are_any(toy):
    recipe = make_recipe(toy, 2, network=ProbeShape(embedding=6, width=5, start="codebooks"))
    with pytest.raises((ConfigError, CheckpointError), match=r"network\.start=random"):
        train(recipe, Tones(), Corpus.read(recipe), toy.parent / "run")
