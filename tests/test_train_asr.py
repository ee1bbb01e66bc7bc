"""Training of the token recogniser: exact resuming, two processes, what is exported, and transcription with it."""

import json
import os

import pytest
import torch
import yaml

from conftest import ROOT
from speechtok.chain.decoding import SearchConfig
from speechtok.chain.recogniser import load_recogniser
from speechtok.chain.transcriber import LONGEST, Transcriber
from speechtok.cli import main
from speechtok.cli.train import KINDS
from speechtok.config import from_mapping, from_yaml
from speechtok.errors import CheckpointError, ConfigError
from speechtok.train.asr import AsrRecipe, edits_of, train
from speechtok.train.best import Best
from speechtok.train.snapshot import load_snapshot, save_snapshot
from test_train import assert_same
from test_train_processes import finish, start_two
from tiny import signal, tiny_tokenizer
from tiny_chain import DECODER, ENCODER

pytest.importorskip("tokenizers", reason="text vocabularies are made by tokenizers")

TEXTS = ["the cat sat", "that hat", "the cat", "a cat sat"]


@pytest.fixture
def spoken(corpus):
    """The corpus with four texts."""
    rows = (corpus / "corpus.tsv").read_text().splitlines()
    rows = [rows[0], *(row.removesuffix("text") + said for row, said in zip(rows[1:], TEXTS, strict=True))]
    (corpus / "corpus.tsv").write_text("\n".join(rows) + "\n")
    return corpus


def make_recipe(spoken, folder, **changes) -> AsrRecipe:
    network = {"embedding": 8, "subsampling": 2, "encoder": ENCODER, "decoder": DECODER, "time_masks": 2}
    data = {"manifests": [str(spoken / "corpus.tsv")], "cache": str(spoken / "cache"), "batch": 2}
    settings = {
        "steps": 6, "log_every": 1, "validate_every": 2, "checkpoint_every": 2, "tokenizer": str(folder), "levels": 2,
        "vocabulary_size": 34, "start": "codebooks", "network": network | changes.pop("network", {}),
        "data": data | changes.pop("data", {}), "optimisation": {"rate": 1e-2, "warmup": 2, "ema": 0.5},
    }  # fmt: skip
    return from_mapping(AsrRecipe, settings | changes, "the test")


def rows_of(folder) -> list[dict]:
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in ("steps/s", "eta/min")} for line in lines]


def test_a_stopped_run_ends_as_if_undisturbed_and_exports_its_best(spoken, folder):
    straight, stopped = spoken / "straight", spoken / "stopped"
    learner = train(make_recipe(spoken, folder), straight)
    train(make_recipe(spoken, folder), stopped, stop_at=3)
    train(make_recipe(spoken, folder), stopped)
    one, other = (load_snapshot(place / "checkpoint.safetensors") for place in (straight, stopped))
    assert_same(one, other)
    rows = rows_of(straight)
    assert [row for row in rows if row["kind"] == "train"] == [
        row for row in rows_of(stopped) if row["kind"] == "train"
    ]
    final = rows[-1]
    names = {f"{rate}/{kind}" for rate in ("cer", "wer") for kind in ("ctc", "attention")}
    assert names | {"asr/attention", "asr/ctc", "impossible/ctc", "accuracy/attention"} <= set(final)
    model, vocabulary, header = load_recogniser(straight / "model")
    lowest = min(row["cer/attention"] for row in rows if row["kind"] == "validation")
    assert header["card"]["dev_cer"] == round(lowest, 4) and header["card"]["steps"] == 6
    assert vocabulary.digest == learner.vocabulary.digest and model.config.sizes == (32, 32)
    for name, tensor in model.state_dict().items():
        assert tensor.equal(learner.best.model.state_dict()[name]), name


def test_a_run_goes_on_from_a_trained_model_with_its_vocabulary(spoken, folder):
    train(make_recipe(spoken, folder, steps=2), spoken / "first")
    first = str(spoken / "first/model")
    learner = train(make_recipe(spoken, folder, steps=1, begin=first, vocabulary=first), spoken / "second")
    assert learner.vocabulary.digest == load_recogniser(first)[1].digest
    with pytest.raises(ConfigError, match="has another text vocabulary; set vocabulary="):
        train(make_recipe(spoken, folder, begin=first, vocabulary_size=30), spoken / "third")
    with pytest.raises(CheckpointError, match="was trained on codes of"):
        Transcriber.load(first, tokenizer=tiny_tokenizer(seed=5))


def train_apart(recipe, folder, rank=0, world=1, port=0, train=train) -> None:
    torch.set_num_threads(1)
    if world > 1:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world))
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    learner = train(recipe, folder)
    save_snapshot(folder / f"rank-{rank}", {"model": learner.model.state_dict()})
    learner.devices.close()


def test_two_processes_do_what_one_does_with_the_whole_batch(spoken, folder):
    encoder, decoder = ENCODER | {"dropout": 0.0, "attention_dropout": 0.0}, DECODER | {"dropout": 0.0}
    quiet = {"encoder": encoder, "decoder": decoder, "time_masks": 0}
    recipe = make_recipe(spoken, folder, network=quiet, steps=3, data={"batch": 3})
    recipe.optimisation.rate = 1e-4
    train(recipe, spoken / "one")
    (spoken / "two").mkdir()
    finish(*start_two(recipe, spoken / "two", target=train_apart))
    first, second = (load_snapshot(spoken / "two" / f"rank-{rank}")["model"] for rank in range(2))
    assert_same(first, second)
    alone = load_snapshot(spoken / "one" / "checkpoint.safetensors")["model"]
    for name, tensor in alone.items():
        # attention does not depend on the bias of its keys: their gradient is rounding, and Adam blind to its size
        if not name.endswith("key.bias"):
            assert torch.allclose(first[name], tensor, atol=2e-5), name


def test_best_keeps_the_weights_of_the_lowest_error():
    model = torch.nn.Linear(1, 1)
    best = Best(model)
    assert best.see(0.5, model)
    kept = model.weight.detach().clone()
    torch.nn.init.constant_(model.weight, 7.0)
    assert not best.see(0.5, model) and best.model.weight.equal(kept)
    other = Best(model)
    other.load_state_dict(best.state_dict())
    assert other.error == 0.5 and other.model.weight.equal(kept) and other.see(0.1, model)


def test_edits_count_characters_and_words():
    assert edits_of("the cat sat", "the hat") == (5, 11, 2, 3)


# -- the command ----------------------------------------------------------------------------------------------------


def test_files_are_transcribed_one_line_each_and_bad_ones_are_named(spoken, folder, capsys):
    train(make_recipe(spoken, folder, steps=2), spoken / "run")
    (spoken / "bad.wav").write_bytes(b"no audio")
    capsys.readouterr()
    files = [str(spoken / name) for name in ("0.wav", "bad.wav", "1.wav")]
    options = ["--model", str(spoken / "run/model"), "--tokenizer", str(folder), "--beam", "3"]
    assert main(["transcribe", *files, *options]) == 2
    out, err = capsys.readouterr()
    assert [line.split("\t")[0] for line in out.splitlines()] == [files[0], files[2]]
    assert err.splitlines()[0].startswith("speechtok: error: ") and "bad.wav" in err.splitlines()[0]
    assert main(["transcribe", files[0], *options, "--json"]) == 0
    row = json.loads(capsys.readouterr().out)[0]
    assert row["input"] == files[0] and row["seconds"] == 0.5 and row["text"] == out.splitlines()[0].split("\t")[1]


def test_long_audio_is_heard_in_pieces(spoken, folder, monkeypatch):
    train(make_recipe(spoken, folder, steps=1), spoken / "run")
    transcriber = Transcriber.load(spoken / "run/model", SearchConfig(beam=1), str(folder))
    heard = []

    def recognised(model, codes, search):
        heard.append(codes.shape[1] / transcriber.tokenizer.frame_rate)
        return transcriber.vocabulary.encode("cat")

    monkeypatch.setattr("speechtok.chain.transcriber.recognise", recognised)
    text = transcriber.transcribe(signal(2.2 * LONGEST))
    assert len(heard) >= 3 and max(heard) <= LONGEST + 0.1 and sum(heard) == pytest.approx(2.2 * LONGEST, abs=0.1)
    assert len(text.split()) == len(heard)


def test_without_a_bundled_recogniser_one_line_says_what_to_do(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("speechtok.chain.transcriber.DEFAULT", tmp_path / "none")
    assert main(["transcribe", "a.wav"]) == 2
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 1 and "no recogniser is bundled; train one with 'speechtok train asr" in err[0]
    assert KINDS["asr"] == "speechtok.train.asr"


# -- recipes --------------------------------------------------------------------------------------------------------

MINIATURE = {
    **{"steps": 2, "log_every": 1, "validate_every": 2, "checkpoint_every": 2, "vocabulary_size": 34},
    "optimisation.warmup": 1, "network.embedding": 8, "data.batch": 2, "precision": "fp32",
}  # fmt: skip


@pytest.mark.parametrize("name", ["asr-mini", "asr-paper"])
def test_recipes_run_in_miniature(name, spoken, folder):
    path = ROOT / "recipes" / f"{name}.yaml"
    places = {"tokenizer": folder, "data.manifests": f"[{spoken}/corpus.tsv]", "data.cache": spoken / "cache"}
    sizes = {f"network.encoder.{key}": value for key, value in ENCODER.items()}
    sizes |= {f"network.decoder.{key}": value for key, value in DECODER.items()}
    recipe = from_yaml(AsrRecipe, path, [f"{key}={value}" for key, value in (MINIATURE | places | sizes).items()])
    train(recipe, spoken / "run")
    assert (spoken / "run/model/config.json").is_file()
    assert set(yaml.safe_load(path.read_text())["network"]) >= {"eta", "smoothing", "subsampling"}


def test_the_papers_recipe_is_full_size():
    shape = from_yaml(AsrRecipe, ROOT / "recipes/asr-paper.yaml").network
    assert (shape.encoder.blocks, shape.encoder.width, shape.encoder.gated, shape.encoder.kernel) == (12, 256, 1024, 31)
    assert (shape.decoder.blocks, shape.decoder.feed_forward, shape.eta, shape.smoothing) == (6, 2048, 0.3, 0.1)
