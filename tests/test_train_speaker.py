"""The speaker teacher's training in miniature, and the figures of speaker verification."""

import json
import math
from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import speechtok
from conftest import ROOT, synthetic_speech
from speechtok.audio import write
from speechtok.config import from_yaml
from speechtok.errors import ConfigError
from speechtok.guidance.speaker import SpeakerTeacher
from speechtok.guidance.verification import all_pairs, detection_cost, equal_error_rate, error_rate_interval
from speechtok.nn.quantizers import QuantizerConfig
from speechtok.nn.quantizers import processes as shared
from speechtok.nn.quantizers.gumbel import GumbelCodebook
from speechtok.train.data import Crops, WaveStore, balanced, read_manifest
from speechtok.train.snapshot import load_snapshot
from speechtok.train.speaker import SpeakerLearner, SpeakerRecipe, masked, noisy, train, voices_of
from test_train import assert_same

MINIATURE = [
    *("steps=4", "log_every=2", "validate_every=2", "checkpoint_every=2", "precision=fp32"),
    *("data.seconds=0.5", "data.least_seconds=0.3", "data.batch=4", "data.hold_out=2", "data.validation_files=2"),
    *("network.bands=12", "network.channels=16", "network.aggregate=24", "network.embedding=6"),
    *("network.scale=4", "network.squeeze=4", "network.attention=4", "head.margin_warmup=3"),
]


@pytest.fixture
def voices(tmp_path):
    """Five speakers with three utterances each, one of the first also without a name, and two speakers apart."""
    rows = ["path\tsplit\tspeaker"]
    for speaker in range(7):
        for take in range(3):
            name = f"{speaker}-{take}.wav"
            write(tmp_path / name, synthetic_speech(0.6 + 0.1 * take, seed=speaker))
            rows.append(f"{name}\t{'dev' if speaker > 4 else 'train'}\tspeaker{speaker}")
    rows.append("0-0.wav\ttrain\tUnknown")
    (tmp_path / "voices.tsv").write_text("\n".join(rows) + "\n")
    return tmp_path


def make_recipe(folder, *overrides, name="ecapa-mini"):
    places = [f"data.manifests=[{folder}/voices.tsv]", f"data.cache={folder}/cache"]
    return from_yaml(SpeakerRecipe, ROOT / "recipes" / f"{name}.yaml", [*MINIATURE, *places, *overrides])


@pytest.mark.parametrize("name", ["ecapa-mini", "ecapa"])
def test_recipe_runs_in_miniature_and_its_teacher_loads(voices, name):
    recipe = make_recipe(voices, name=name)
    learner = train(recipe, voices / "run")
    rows = [json.loads(line) for line in (voices / "run/log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["kind"] == "validation"] == [2, 4]
    assert math.isfinite(rows[-2]["speaker/aam"]) and 0 <= rows[-2]["speaker/error"] <= 1
    assert 0 <= rows[-1]["eer/low"] <= rows[-1]["eer/high"] <= 1 and rows[-1]["trials"] == 6
    teacher = SpeakerTeacher.load(voices / "run/model")
    wave = torch.from_numpy(synthetic_speech(1.0).samples.copy())[None]
    assert teacher.network.config == recipe.network
    expected = SpeakerTeacher(learner.average.network.cpu())(wave).embedding
    assert torch.equal(teacher(wave).embedding, expected)
    card = json.loads((voices / "run/model/config.json").read_text())
    assert card["data"]["left_out"] == 1 and card["data"]["utterances"] == 9 and len(card["data"]["held_out"]) == 2
    assert card["validation"]["eer"] == rows[-1]["eer"]


def test_published_size():
    recipe = from_yaml(SpeakerRecipe, ROOT / "recipes/ecapa.yaml")
    assert recipe.network == type(recipe.network)() and (recipe.head.margin, recipe.head.scale) == (0.2, 30)


def test_stop_and_resume_equals_never_stopping_bit_for_bit(voices):
    train(make_recipe(voices), voices / "straight")
    train(make_recipe(voices), voices / "broken", stop_at=3)
    train(make_recipe(voices), voices / "broken")
    one, other = (load_snapshot(voices / name / "checkpoint.safetensors") for name in ("straight", "broken"))
    assert_same(one, other)


def test_it_learns_whom_it_hears_and_telling_apart_whom_it_does_not(voices):
    options = ("steps=60", "head.margin_warmup=0", "optimisation.rate=0.01", "optimisation.warmup=1", "data.noise=0")
    recipe = make_recipe(voices, *options, "data.frame_mask=0", "data.band_mask=0", "data.batch=6")
    learner = SpeakerLearner(recipe, *voices_of(recipe))
    history = [learner.advance() for _ in range(60)]
    first, last = (np.mean([row["speaker/aam"] for row in part]) for part in (history[:10], history[-10:]))
    assert last < 0.3 * first
    assert learner.validate(True)[0]["eer"] <= 0.25


def test_validation_leaves_no_trace(voices):
    recipe = make_recipe(voices)
    learner = SpeakerLearner(recipe, *voices_of(recipe))
    learner.advance()
    before = deepcopy({name: part.state_dict() for name, part in learner.parts.items()})
    random = torch.get_rng_state()
    learner.validate(True)
    assert_same(before, {name: part.state_dict() for name, part in learner.parts.items()})
    assert torch.equal(random, torch.get_rng_state())


def test_the_margin_rises_with_the_step(voices):
    recipe = make_recipe(voices)
    learner = SpeakerLearner(recipe, *voices_of(recipe))
    margins = [(learner.advance(), learner.model.head.margin)[1] for _ in range(4)]
    assert margins == pytest.approx([0, 0.2 / 3, 0.4 / 3, 0.2])


def test_held_out_speakers_are_a_function_of_the_seed_and_never_heard(voices):
    def held(seed):
        recipe = make_recipe(voices, f"seed={seed}")
        heard, held_out = voices_of(recipe)
        crops = SpeakerLearner(recipe, heard, held_out).crops
        drawn = {heard.names[index] for step in range(40) for index in crops.places(step)[0]}
        assert drawn == set(heard.speakers)  # all of them, nobody held out, nobody unnamed
        assert not drawn & set(held_out.speakers)
        return held_out.speakers

    assert held(1) == held(1)
    assert len({tuple(held(seed)) for seed in range(5)}) > 1


def test_dev_speakers_are_the_validation_without_hold_out(voices):
    heard, held_out = voices_of(make_recipe(voices, "data.hold_out=0"))
    assert (len(heard.speakers), held_out.speakers) == (5, ["speaker5", "speaker6"])


@pytest.mark.parametrize(
    "override, message",
    [
        ("data.hold_out=4", "to train on"),
        ("data.hold_out=1", "two held-out speakers"),
        ("data.validation_files=1", "validation_files"),
        ("data.least_seconds=0.7", "least_seconds"),
        ("network.dilations=[1,2,3]", "dilations"),
        ("network.channels=18", "multiple of scale"),
        ("data.manifests=[]", "manifests"),
        ("head.angle=2", "angle"),
    ],
)
def test_mistakes_in_a_recipe_are_named_in_one_line(voices, override, message):
    with pytest.raises(ConfigError, match=message) as caught:
        train(make_recipe(voices, override), voices / "run", stop_at=1)
    assert "\n" not in str(caught.value)


def test_a_speaker_of_both_splits_is_refused(voices):
    table = voices / "voices.tsv"
    table.write_text(table.read_text() + "0-1.wav\tdev\tspeaker0\n")
    with pytest.raises(ConfigError, match="speaker0 is in the train and dev splits"):
        voices_of(make_recipe(voices, "data.hold_out=0"))


def test_a_held_out_utterance_without_an_embedding_is_refused(voices):
    write(voices / "6-1.wav", synthetic_speech(0.03))
    with pytest.raises(ConfigError, match="speaker6 is too short"):
        voices_of(make_recipe(voices, "data.hold_out=0", "data.validation_files=3"))


def test_other_speakers_than_before_are_refused(voices):
    train(make_recipe(voices), voices / "run", stop_at=2)
    table = voices / "voices.tsv"
    table.write_text(table.read_text().replace("speaker0", "somebody"))
    with pytest.raises(ConfigError, match="other speakers"):
        train(make_recipe(voices), voices / "run")


def test_unnamed_rows_are_told_in_one_line(voices, capsys):
    train(make_recipe(voices), voices / "run", stop_at=1)
    assert "3 speakers to train on, 2 held out; 1 of 16 rows name none" in capsys.readouterr().out


def test_command_trains_a_speaker_teacher(voices, cli):
    places = [f"data.manifests=[{voices}/voices.tsv]", f"data.cache={voices}/cache", f"out={voices}/run"]
    code, _, _ = cli("train", "speaker", ROOT / "recipes/ecapa-mini.yaml", *MINIATURE, *places, "steps=1")
    assert code == 0 and (voices / "run/model/model.safetensors").exists()


# -- data -----------------------------------------------------------------------------------------------------------


def test_balanced_odds_make_groups_equal_and_seconds_within_them():
    odds = balanced(np.array([10, 30, 5, 100]), ["a", "a", "b", ""])
    assert odds.tolist() == [0.125, 0.375, 0.5, 0]


def test_odds_decide_what_is_cropped(corpus):
    store = WaveStore.build(read_manifest(corpus / "corpus.tsv", "train"), 16000, corpus / "cache")
    assert set(Crops(store, 100, 8, 0, odds=np.array([0, 1.0, 0])).places(3)[0]) == {1}
    assert set(Crops(store, 100, 64, 0).places(3)[0]) == {0, 1, 2}


# -- augmentation ---------------------------------------------------------------------------------------------------


def test_noise_has_its_level_and_stays_within_the_speech():
    wave = torch.cat([torch.full((2, 8000), 0.1), torch.zeros(2, 8000)], 1)
    noise = noisy(wave, torch.tensor([8000, 8000]), 1.0, (20.0, 20.0)) - wave
    assert noise[:, 8000:].abs().max() == 0
    assert noise[:, :8000].std(1).tolist() == pytest.approx([0.01, 0.01], rel=0.05)
    assert torch.equal(noisy(wave, torch.tensor([8000, 8000]), 0.0, (20.0, 20.0)), wave)


@pytest.mark.parametrize("axis, widest", [(1, 5), (2, 10)], ids=["frames", "bands"])
def test_masks_hide_neighbours_along_one_axis(axis, widest):
    levels = torch.ones(64, 40, 20)
    hidden = (masked(levels, axis, widest) == 0).transpose(1, axis)  # the axis first
    assert torch.equal(hidden.all(2), hidden.any(2))  # whole frames, or whole bands
    widths = hidden.any(2).sum(1)
    edges = torch.diff(hidden.any(2).int(), dim=1).abs().sum(1)
    assert int(widths.max()) == widest and int(widths.min()) == 0 and int(edges.max()) <= 2
    assert torch.equal(masked(levels, axis, 0), levels)


# -- verification ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target, other, expected",
    [
        ([3, 4], [1, 2], 0.0),
        ([1, 2], [3, 4], 1.0),
        ([1, 3], [0, 2], 0.5),
        ([5, 5], [5, 5], 0.5),
        ([2, 4, 6, 8], [1, 2.5, 2.7, 3], 0.25),
        ([1, 9, 9], [0, 2], 1 / 3),
        ([1, 1, 9], [0, 1], 2 / 7),
    ],
    ids=["perfect", "reversed", "crossed", "no-difference", "one-of-four", "fewer-misses", "tie-between-thresholds"],
)
def test_equal_error_rate_by_hand(target, other, expected):
    same = np.array([True] * len(target) + [False] * len(other))
    assert equal_error_rate(np.array([*target, *other], float), same) == pytest.approx(expected)


@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans(), st.integers(1, 3)), min_size=2, max_size=30))
def test_weights_are_repetitions_and_order_and_scale_do_not_matter(trials):
    scores, same, times = (np.array(column) for column in zip(*trials, strict=True))
    if same.all() or not same.any():
        with pytest.raises(ConfigError, match="trials of one speaker and of two"):
            equal_error_rate(scores, same)
        return
    rate = equal_error_rate(scores, same, times)
    repeated = np.repeat(np.arange(len(scores)), times)
    assert rate == pytest.approx(equal_error_rate(scores[repeated], same[repeated]))
    assert rate == pytest.approx(equal_error_rate(scores[::-1] * 3.0 + 1, same[::-1], times[::-1]))
    assert equal_error_rate(-scores, same, times) == pytest.approx(1 - rate)
    assert 0 <= detection_cost(scores, same) <= 1


def test_detection_cost_by_hand():
    scores, same = np.array([1.0, 9, 9, 0, 2, 2, 2]), np.array([True] * 3 + [False] * 4)
    assert detection_cost(scores, same, 0.05) == pytest.approx(1 / 3)  # one of three is missed, no false alarm
    assert detection_cost(-scores, same, 0.05) == 1.0


def test_pairs_are_all_of_them_and_cosines_ignore_length():
    scores, pairs = all_pairs(np.array([[1.0, 0], [3, 0], [0, 2]]), ["b", "b", "a"])
    assert scores.tolist() == [1, 0, 0] and pairs.tolist() == [[1, 1], [1, 0], [1, 0]]


def test_interval_is_over_speakers_and_covers_the_rate():
    random = np.random.default_rng(0)
    centres = random.standard_normal((12, 4))
    names = np.repeat(np.arange(12), 5)
    scores, pairs = all_pairs(centres[names] + random.standard_normal((60, 4)), names.astype(str).tolist())
    rate = equal_error_rate(scores, pairs[:, 0] == pairs[:, 1])
    low, high = error_rate_interval(scores, pairs)
    assert 0 < low < rate < high < 0.5 and high - low > 0.01
    assert error_rate_interval(scores, pairs) == (low, high)


def test_a_score_that_is_no_number_is_refused():
    with pytest.raises(ConfigError, match="not finite"):
        equal_error_rate(np.array([1.0, np.nan]), np.array([True, False]))


def test_processes_together_draw_the_noise_of_one(monkeypatch):
    wave, lengths, levels = torch.randn(4, 900), torch.full((4,), 900), torch.ones(4, 30, 12)

    def drawn(process, processes):
        monkeypatch.setattr(shared, "process", lambda: process)
        monkeypatch.setattr(shared, "processes", lambda: processes)
        rows = slice(process * 4 // processes, (process + 1) * 4 // processes)
        torch.manual_seed(3)
        codebook = GumbelCodebook(6, 5, QuantizerConfig()).train()
        heard = noisy(wave[rows], lengths[rows], 0.5, (0.0, 9.0))
        return heard, masked(levels[rows], 1, 9), codebook(levels[rows][..., :6]).quantized

    whole, halves = drawn(0, 1), [drawn(process, 2) for process in range(2)]
    for one, *parts in zip(whole, *halves, strict=True):
        assert torch.allclose(one, torch.cat(parts), atol=1e-6)
        assert not torch.equal(*parts)


def test_the_export_is_no_tokenizer(voices):
    train(make_recipe(voices), voices / "run", stop_at=1)
    with pytest.raises(speechtok.SpeechtokError):
        speechtok.load(voices / "run/model")
