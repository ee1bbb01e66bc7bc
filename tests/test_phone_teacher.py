"""The supervised teacher in miniature: labels, augmentation, both losses, learning, resuming, the head as features."""

import json
import os
import socket

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import ROOT
from speechtok.config import from_yaml
from speechtok.errors import ConfigError
from speechtok.guidance.phones import Segment
from speechtok.guidance.teachers import load_semantic_teacher
from speechtok.nn import hubert
from speechtok.train.phones import PhonesLearner, PhonesRecipe, at_speed, decode, distance, sequences, train
from speechtok.train.snapshot import load_snapshot, save_snapshot
from speechtok.train.teaching import Batch, batch_of
from speechtok.train.transcripts import CHARACTERS, PHONES, spoken_characters, spoken_phones
from test_train import assert_same, weights
from test_train_processes import SERVER, finish

transformers = pytest.importorskip("transformers", reason="the network is that of transformers")

NETWORK = {
    "bands": 20, "layers": 1, "width": 16, "heads": 2, "feed_forward": 24, "position_kernel": 4, "position_groups": 2,
    "dropout": 0.0, "attention_dropout": 0.0, "input_dropout": 0.0, "layer_drop": 0.0,
}  # fmt: skip
RECIPE = f"""
steps: 8
log_every: 4
validate_every: 4
checkpoint_every: 4
data: {{seconds: 0.4, batch: 2, validation_files: 2, gain_db: [0, 0]}}
network: {json.dumps(NETWORK)}
augment: {{frames: 0, bands: 0}}
optimisation: {{rate: 0.01, warmup: 4, ema: 0.9}}
"""


def make_recipe(folder, *overrides: str) -> PhonesRecipe:
    (folder / "phones.yaml").write_text(RECIPE)
    places = [f"data.manifests=[{folder}/corpus.tsv]", f"data.cache={folder}/cache"]
    return from_yaml(
        PhonesRecipe, folder / "phones.yaml", [*places, f"head.alignments=[{folder}/phones.tsv]", *overrides]
    )


def logged(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


# -- labels ---------------------------------------------------------------------------------------------------------


def test_phones_in_a_span_and_at_a_time():
    spoken = spoken_phones([Segment(0, 0.1, "SIL"), Segment(0.1, 0.3, "AA"), Segment(0.3, 0.4, "ZH")], 6400)
    aa, zh = PHONES.index("AA") + 1, PHONES.index("ZH") + 1
    assert spoken.between(0, 1).tolist() == [aa, zh]
    assert spoken.between(0.21, 1).tolist() == [zh]  # the middle of AA is past
    times = np.array([0.0, 0.099, 0.1, 0.299, 0.3, 0.39, 0.41, 9.0])
    assert spoken.frames(times).tolist() == [0, 0, aa, aa, zh, zh, 0, 0]
    with pytest.raises(ConfigError, match="'XX'"):
        spoken_phones([Segment(0, 1, "XX")], 16000)


def test_characters_of_a_transcript():
    spoken = spoken_characters("It's  A dog!")
    assert "".join(CHARACTERS[i - 1] for i in spoken.symbols) == "it's|a|dog"
    assert spoken_characters("") is None and spoken_characters("naïve 3") is None


def test_frame_labels_of_crops_are_the_tones_heard_there(speech_folder):
    learner = PhonesLearner(make_recipe(speech_folder))
    seen = set()
    for step in range(6):
        batch = batch_of(learner.crops[1.0], step, learner.devices)
        wanted = learner.frame_targets(batch, learner.spoken, 20)
        for wave, labels in zip(batch.wave.numpy(), wanted.tolist(), strict=True):
            spectrum = np.abs(np.fft.rfft(wave.reshape(20, 320), axis=1))
            for frame, label in zip(spectrum, labels, strict=True):
                phone = ("SIL", *PHONES)[label]
                assert phone == ("SIL" if frame.max() < 1 else "AA" if frame.argmax() < 20 else "S")
                seen.add(phone)
    assert seen == {"SIL", "AA", "S"}


def test_utterances_without_alignment_are_never_drawn_and_counted(speech_folder, capsys):
    learner = PhonesLearner(make_recipe(speech_folder))
    assert "train: 3 utterances; 1 without alignment are left out" in capsys.readouterr().out
    assert 3 not in {int(pick) for step in range(50) for pick in learner.crops[1.0].places(step)[0]}
    (speech_folder / "phones.tsv").write_text("id\tstart\tend\tphone\n")
    with pytest.raises(ConfigError, match="every utterance"):
        PhonesLearner(make_recipe(speech_folder))


def test_speed_changes_time_and_labels_together():
    wave = torch.sin(2 * torch.pi * 400 * torch.arange(7680) / 16000)[None]
    fast = at_speed(Batch(wave, np.array([0]), np.array([0]), np.array([3840])), 1.2, 6400)
    assert fast.wave.shape == (1, 6400) and fast.lengths.tolist() == [3200]
    peak = torch.fft.rfft(fast.wave[0]).abs().argmax() * 16000 / 6400
    assert peak == pytest.approx(480, abs=3)


def test_labels_of_a_played_up_crop(speech_folder):
    learner = PhonesLearner(make_recipe(speech_folder, "augment.speeds=[2.0]"))
    batch = at_speed(batch_of(learner.crops[2.0], 0, learner.devices), 2.0, learner.recipe.samples)
    assert batch.lengths.tolist() == [6400, 6400] and batch.starts.tolist() == [0, 0]  # 0.8 s in 0.4 s
    labels = learner.frame_targets(batch, learner.spoken, 20, 2.0)
    assert labels[0].reshape(4, 5).float().std(1).eq(0).all()  # every phone of 0.2 s lasts five frames
    assert [len(said) for said in sequences(batch, learner.spoken, 2.0)] == [
        len(learner.spoken[pick].symbols) for pick in batch.picks
    ]


def test_time_and_bands_are_hidden_in_training(speech_folder, monkeypatch):
    learner = PhonesLearner(
        make_recipe(speech_folder, "augment={frames: 0.1, frame_span: 3, bands: 0.1, band_span: 4}")
    )
    heard = {}
    encode = hubert.encode

    def listen(network, extracted, hidden=None, valid=None):
        heard.update(extracted=extracted, hidden=hidden)
        return encode(network, extracted, hidden, valid)

    monkeypatch.setattr(hubert, "encode", listen)
    learner.losses()
    first, second = heard["extracted"].unflatten(-1, (2, 20)).eq(0).all(1).unbind(1)
    assert first.equal(second) and (first.sum(1) >= 4).all() and (first.sum(1) < 20).all()
    assert (heard["hidden"].sum(1) >= 3).all() and not heard["hidden"].all()


# -- decoding -------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 4), max_size=30), st.integers(0, 3))
def test_best_path_merges_runs_and_drops_class_zero(path, padding):
    logits = torch.nn.functional.one_hot(torch.tensor([*path, *[4] * padding, 4]), 5).float()[None]
    found = decode(logits, np.array([len(path)]))[0].tolist()
    expected = [k for i, k in enumerate(path) if k and (i == 0 or path[i - 1] != k)]
    assert found == expected


def test_distance_counts_edits():
    assert distance(np.array([1, 2, 3]), np.array([1, 3, 4, 5])) == 3
    assert distance(np.array([], int), np.array([7])) == 1


# -- learning -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss, steps", [("frames", 120), ("ctc", 240)], ids=["frames", "ctc"])
def test_it_learns_the_phones_of_a_toy_language(speech_folder, loss, steps):
    lengths = [f"steps={steps}", "log_every=10", f"validate_every={steps}", "optimisation.final=1"]
    train(make_recipe(speech_folder, f"head.loss={loss}", *lengths), speech_folder / "run")
    rows = logged(speech_folder / "run")
    losses = [row[f"phones/{loss}"] for row in rows if row["kind"] == "train"]
    assert losses[-1] < 0.3 * losses[0]
    assert rows[-1]["error/phones"] < 0.5
    if loss == "frames":
        assert rows[-1]["accuracy/frames"] > 0.8


def test_characters_are_learned_from_whole_utterances_only(speech_folder, capsys):
    recipe = make_recipe(speech_folder, "head={loss: ctc, symbols: characters}", "data.seconds=0.8", "steps=2")
    learner = train(recipe, speech_folder / "run")
    batch = batch_of(learner.crops[1.0], 0, learner.devices)
    assert {len(said) for said in sequences(batch, learner.spoken)} == {len("it's|a|text")}
    assert np.isfinite(logged(speech_folder / "run")[-1]["error/characters"])
    with pytest.raises(ConfigError, match="longer than"):
        PhonesLearner(make_recipe(speech_folder, "head={loss: ctc, symbols: characters}", "data.seconds=0.4"))


def test_characters_fit_the_validations_crops_too_where_all_play_faster(speech_folder):
    head = ("head={loss: ctc, symbols: characters}", "augment.speeds=[1.25]")
    with pytest.raises(ConfigError, match="longer than"):  # 0.8 s, which would fit only played at 1.25
        PhonesLearner(make_recipe(speech_folder, *head, "data.seconds=0.7"))
    PhonesLearner(make_recipe(speech_folder, *head, "data.seconds=0.8"))


def test_utterances_without_a_path_are_counted_and_score_nothing(speech_folder):
    def learner_of(*texts):
        rows = [row.split("\t") for row in (speech_folder / "corpus.tsv").read_text().splitlines()]
        held_out = "\n".join("\t".join(["3.wav", "dev", "s", text]) for text in texts)
        table = ["\t".join(row) for row in rows if row[1] != "dev"]
        (speech_folder / "corpus.tsv").write_text("\n".join([*table, held_out]) + "\n")
        options = ("head={loss: ctc, symbols: characters}", "data.seconds=0.8", "data.validation_files=32")
        return PhonesLearner(make_recipe(speech_folder, *options, "data.batch=4"))

    said = learner_of("a text").validate(True)[0]
    assert said["impossible/ctc"] == 0
    both = learner_of("a text", "ll" * 14).validate(True)[0]  # 28 symbols and 27 blanks between them, in 40 frames
    assert 0 < both["impossible/ctc"] < 1
    assert both["phones/ctc"] == pytest.approx(said["phones/ctc"], rel=1e-4)
    none = learner_of("ll" * 14).validate(True)[0]
    assert none["impossible/ctc"] == 1 and "phones/ctc" not in none
    assert learner_of("a text").losses()["impossible/ctc"] == 0


def test_head_and_layers_are_features(speech_folder):
    learner = train(make_recipe(speech_folder), speech_folder / "run")
    folder = speech_folder / "run/model"
    wave = torch.from_numpy(learner.crops[1.0].store[0])[None]
    logits, mask = load_semantic_teacher(folder, "logits")(wave)
    assert logits.shape == (1, 40, 40) and mask.all()
    assert torch.allclose(logits.exp().sum(-1), torch.ones(1, 40), atol=1e-5)
    states = load_semantic_teacher(folder, 1)(wave)[0]
    expected = learner.average.lm_head(states).log_softmax(-1)
    assert torch.allclose(logits, expected, atol=1e-5)
    assert json.loads((folder / "config.json").read_text())["classes"] == ["SIL", *PHONES]
    assert load_semantic_teacher(folder, "logits").dimension == 40


def test_it_goes_on_from_a_pre_trained_network(speech_folder):
    torch.manual_seed(1)
    shape = hubert.HubertShape(**(NETWORK | {"width": 12, "layers": 2}))
    encoder = hubert.build(shape)
    encoder.feature_extractor.mean += 1.0
    hubert.save(encoder, speech_folder / "encoder")
    learner = PhonesLearner(make_recipe(speech_folder, f"encoder={speech_folder}/encoder", "network.dropout=0.3"))
    assert_same(encoder.state_dict(), learner.model.hubert.state_dict())
    assert learner.model.config.hidden_dropout == 0.3 and learner.model.lm_head.in_features == 12


def test_waveform_teacher_is_a_folder_of_transformers(speech_folder):
    shape = NETWORK | {"front_end": "waveform", "channels": 8, "kernels": [10, 8, 4], "strides": [8, 8, 5]}
    recipe = make_recipe(speech_folder, f"network={json.dumps(shape)}", "train_front_end=false", "steps=2")
    learner = train(recipe, speech_folder / "run")
    network = transformers.HubertForCTC.from_pretrained(speech_folder / "run/model").eval()
    wave = torch.randn(1, 4000)
    with torch.no_grad():
        expected = network(wave).logits.log_softmax(-1)
    assert torch.allclose(load_semantic_teacher(speech_folder / "run/model", "logits")(wave)[0], expected, atol=1e-5)
    frozen = learner.model.hubert.feature_extractor.state_dict()
    assert_same(frozen, learner.average.hubert.feature_extractor.state_dict())
    assert not any(p.requires_grad for p in learner.model.hubert.feature_extractor.parameters())


def test_stop_and_resume_equals_never_stopping_bit_for_bit(speech_folder):
    augment = "augment={frames: 0.05, frame_span: 3, bands: 0.1, band_span: 4, speeds: [0.9, 1.0, 1.1]}"
    recipe = make_recipe(speech_folder, augment, "network.dropout=0.1")
    train(recipe, speech_folder / "straight")
    train(recipe, speech_folder / "broken", stop_at=4)
    train(recipe, speech_folder / "broken")
    assert_same(weights(speech_folder / "straight"), weights(speech_folder / "broken"))


@pytest.mark.parametrize(
    "override, message",
    [
        ("head={alignments: []}", "head.alignments"),
        ("head={symbols: characters}", "head.loss=ctc"),
        ("augment.speeds=[3.0]", "augment.speeds"),
    ],
)
def test_recipes_that_cannot_work_are_refused(speech_folder, override, message):
    with pytest.raises(ConfigError, match=message):
        make_recipe(speech_folder, override)


def train_apart(recipe: PhonesRecipe, folder, rank: int, port: int) -> None:
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    learner = train(recipe, folder)
    save_snapshot(folder / f"rank-{rank}", learner.model.state_dict())
    learner.devices.close()


def test_two_processes_do_what_one_does_with_the_whole_batch(speech_folder):
    recipe = make_recipe(speech_folder, "steps=4", "augment={frames: 0.05, frame_span: 3}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (speech_folder / "two").mkdir()
    arguments = [(recipe, speech_folder / "two", rank, port) for rank in range(2)]
    processes = [SERVER.Process(target=train_apart, args=one, daemon=True) for one in arguments]
    for process in processes:
        process.start()
    finish(*processes)
    first, second = (load_snapshot(speech_folder / "two" / f"rank-{rank}") for rank in range(2))
    assert_same(first, second)
    for name, tensor in train(recipe, speech_folder / "one").model.state_dict().items():
        # Adam turns the rounding of a gradient near zero into a step of some size
        assert (first[name] - tensor).abs().max() <= 2e-4 * max(1, tensor.abs().max()), name


def test_recipe_that_ships_runs_in_miniature(speech_folder):
    small = [f"network.{key}={value}" for key, value in NETWORK.items()]
    small += ["steps=2", "data.seconds=0.4", "data.batch=2", "data.validation_files=1", "data.gain_db=[-3, 3]"]
    places = [f"data.manifests=[{speech_folder}/corpus.tsv]", f"data.cache={speech_folder}/cache"]
    places += [f"head.alignments=[{speech_folder}/phones.tsv]"]
    recipe = from_yaml(PhonesRecipe, ROOT / "recipes/phones-mini.yaml", [*small, *places])
    train(recipe, speech_folder / "run")
    assert np.isfinite(logged(speech_folder / "run")[0]["phones/frames"])
