"""HuBERT pre-training in miniature: masks, targets, the two front ends, learning, resuming, two processes."""

import json
import os
import socket
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from scipy.fft import dct
from scipy.signal import savgol_filter

from conftest import ROOT
from speechtok.config import from_yaml
from speechtok.errors import CheckpointError, ConfigError
from speechtok.guidance.semantic import SemanticTeacher
from speechtok.guidance.teachers import load_semantic_teacher
from speechtok.nn import hubert
from speechtok.nn.mfcc import MFCC
from speechtok.train.masking import spans
from speechtok.train.pseudo import UNKNOWN, MfccTeacher
from speechtok.train.snapshot import load_snapshot, save_snapshot
from speechtok.train.ssl import SslLearner, SslRecipe, train
from speechtok.train.teaching import Batch, batch_of
from test_train import assert_same, weights
from test_train_processes import SERVER, finish

pytest.importorskip("transformers", reason="the network is that of transformers")

TINY = {"layers": 2, "width": 16, "heads": 2, "feed_forward": 24, "position_kernel": 4, "position_groups": 2}
QUIET = {"dropout": 0.0, "attention_dropout": 0.0, "input_dropout": 0.0, "layer_drop": 0.0}
LOG_MEL = hubert.HubertShape(bands=20, **TINY)
WAVEFORM = hubert.HubertShape(front_end="waveform", channels=8, kernels=(10, 8, 4), strides=(8, 8, 5), **TINY)
RECIPE = f"""
steps: 8
log_every: 4
validate_every: 4
checkpoint_every: 4
data: {{seconds: 0.4, batch: 4, validation_files: 2, gain_db: [0, 0]}}
network: {json.dumps({"bands": 20, **TINY, **QUIET})}
targets: {{clusters: 5, passes: 2}}
mask: {{share: 0.1, span: 3}}
prediction: {{dimension: 8}}
optimisation: {{rate: 0.005, warmup: 4}}
"""


def make_recipe(corpus, *overrides: str) -> SslRecipe:
    (corpus / "ssl.yaml").write_text(RECIPE)
    places = [f"data.manifests=[{corpus}/corpus.tsv]", f"data.cache={corpus}/cache"]
    return from_yaml(SslRecipe, corpus / "ssl.yaml", [*places, *overrides])


# -- masks ----------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=4),
    st.floats(0.01, 1.0),
    st.integers(1, 12),
    st.integers(0, 99),
)
def test_spans_stay_inside_their_row_and_are_whole(lengths, share, span, seed):
    mask = spans(np.random.default_rng(seed), lengths, 60, share, span)
    for row, length in zip(mask, lengths, strict=True):
        assert not row[length:].any()
        edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(int), [0]])))
        assert all(end - start >= span for start, end in edges.reshape(-1, 2))
        assert row.any() == (length >= span)
        assert row.sum() <= span * max(1, int(share * length) + 1)


def test_share_of_hidden_frames_is_that_of_the_paper():
    mask = spans(np.random.default_rng(0), [300] * 400, 300, 0.08, 10)
    # a frame stays visible where none of the ten starts that would hide it was drawn
    assert mask.mean() == pytest.approx(1 - 0.92**10, abs=0.02)


# -- front ends -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def log_mel_teacher():
    """A random one that never was on disk."""
    torch.manual_seed(0)
    return SemanticTeacher(hubert.build(LOG_MEL), 2)


@given(samples=st.integers(0, 4000))
def test_log_mel_network_has_a_frame_for_every_320_samples(log_mel_teacher, samples):
    features, mask = log_mel_teacher(torch.zeros(1, samples))
    assert features.shape == (1, samples // 320, 16)
    assert log_mel_teacher.frames(samples) == samples // 320 and mask.all()


def test_log_mel_frame_is_centred_on_its_samples():
    front = hubert.LogMelFrontEnd(20)
    for n in (2, 5):
        wave = torch.zeros(1, 3200)
        wave[0, 320 * n + 160] = 1.0
        frames = front(wave)[0]
        halves = frames.unflatten(0, (2, 20)).mean(1)
        assert frames.mean(0).argmax() == n
        assert torch.allclose(halves[0, n], halves[1, n], atol=1e-4)  # as far from either 10 ms frame


def test_log_mel_statistics_are_fitted_once():
    front = hubert.LogMelFrontEnd(20)
    waves = [0.1 * torch.randn(4000), 0.01 * torch.randn(3200)]
    front.fit(waves)
    levels = torch.cat([front(wave[None])[0].unflatten(0, (2, 20)).permute(2, 0, 1).flatten(0, 1) for wave in waves])
    assert levels.mean(0).abs().max() < 0.2 and (levels.std(0) - 1).abs().max() < 0.2


SHAPES = {"log-mel": LOG_MEL, "log-mel-blocks": replace(LOG_MEL, local_blocks=2), "waveform": WAVEFORM}


@pytest.fixture(scope="module", params=list(SHAPES))
def saved(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("hubert")
    torch.manual_seed(0)
    network = hubert.build(SHAPES[request.param]).eval()
    hubert.save(network, path)
    return request.param, path, network


def test_saved_network_hears_what_it_heard_before(saved):
    _, path, network = saved
    wave = torch.randn(1, 4000)
    with torch.no_grad():
        expected = network(wave).last_hidden_state
    assert torch.equal(load_semantic_teacher(path, 2)(wave)[0], expected)


def test_waveform_folder_is_one_of_transformers(saved):
    import transformers

    kind, path, network = saved
    if kind != "waveform":
        with pytest.raises(ValueError, match="hubert-log-mel"):  # not a network with invented convolutions
            transformers.AutoModel.from_pretrained(path)
        return
    wave = torch.randn(2, 4000)
    theirs = transformers.HubertModel.from_pretrained(path).eval()
    with torch.no_grad():
        expected = theirs(wave, output_hidden_states=True).hidden_states
        ours = network(wave, output_hidden_states=True).hidden_states
    assert len(ours) == 3
    for one, other in zip(ours, expected, strict=True):
        assert torch.equal(one, other)
    assert torch.allclose(load_semantic_teacher(path, 1)(wave)[0], expected[1], atol=1e-6)


def test_teacher_hears_an_utterance_alone_as_in_a_padded_batch(saved):
    _, path, _ = saved
    wave = torch.randn(3, 4000)
    for layer in (0, 2, "average"):
        teacher = load_semantic_teacher(path, layer)
        assert (teacher.rate, teacher.law.hop, teacher.dimension) == (16000, 320, 16)
        features, mask = teacher(wave, torch.tensor([4000, 2500, 100]))
        assert mask.sum(1).tolist() == [teacher.frames(n) for n in (4000, 2500, 100)]
        alone, _ = teacher(wave[1:2, :2500])
        assert torch.equal(features[1][mask[1]], alone[0])


def test_folders_that_are_no_teachers_cost_one_line(saved, tmp_path):
    _, path, _ = saved
    with pytest.raises(ConfigError, match="0 to 2"):
        load_semantic_teacher(path, 3)
    with pytest.raises(ConfigError, match="has no head"):
        load_semantic_teacher(path, "logits")
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((path / name).read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"short")
    with pytest.raises(CheckpointError, match="damaged"):
        load_semantic_teacher(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match="no configuration"):
        load_semantic_teacher(tmp_path)


# -- targets --------------------------------------------------------------------------------------------------------


def test_mfcc_is_scipys_transform_of_log_mel_and_slope(speech):
    wave = torch.from_numpy(speech(0.5).samples.copy())[None]
    mfcc = MFCC()
    ours = mfcc(wave)[0].numpy()
    flat = np.concatenate([wave[0, :1], wave[0, 1:] - 0.97 * wave[0, :-1]])
    levels = 2 * mfcc.mel(torch.from_numpy(flat)[None])[0].numpy()
    cepstra = dct(levels, norm="ortho")[:, :13] * (1 + 11 * np.sin(np.pi * np.arange(13) / 22))
    first = savgol_filter(cepstra, 5, 1, deriv=1, axis=0, mode="nearest")
    second = savgol_filter(first, 5, 1, deriv=1, axis=0, mode="nearest")
    assert ours.shape == (50, 39)
    assert np.abs(ours - np.concatenate([cepstra, first, second], 1)).max() < 1e-3
    assert MfccTeacher()(wave)[0].shape == (1, 25, 39)


def test_labels_follow_the_crops_and_end_with_the_utterance(corpus):
    learner = SslLearner(make_recipe(corpus), corpus)
    whole = learner.labels.labels[: learner.labels.offsets[1]]
    assert len(whole) == 25 and len(np.unique(whole)) > 1
    crop = learner.labels.crops(np.array([0]), np.array([5 * 320]), learner.law, 22)[0].tolist()
    assert crop == [*whole[5:25].tolist(), UNKNOWN, UNKNOWN]
    picks, starts = learner.crops.places(0)
    assert (starts % 320 == 0).all() and len(set(starts)) > 1
    assert len(set(picks)) > 1


def test_targets_are_made_once_and_belong_to_their_speech(corpus):
    train(make_recipe(corpus), corpus / "run", stop_at=4)
    before = (corpus / "run/targets.safetensors").stat().st_mtime_ns
    train(make_recipe(corpus), corpus / "run")
    assert (corpus / "run/targets.safetensors").stat().st_mtime_ns == before
    rows = (corpus / "corpus.tsv").read_text().splitlines()
    (corpus / "corpus.tsv").write_text("\n".join(row for row in rows if not row.startswith("0.wav")) + "\n")
    with pytest.raises(CheckpointError, match="other speech"):
        train(make_recipe(corpus), corpus / "run")


@pytest.mark.parametrize(
    "changed", ["targets.clusters=4", "seed=1", "targets.passes=3"], ids=["clusters", "seed", "passes"]
)
def test_targets_of_another_recipe_are_refused(corpus, changed):
    SslLearner(make_recipe(corpus), corpus)  # leaves them, and no checkpoint
    with pytest.raises(CheckpointError, match="other targets, seed or teacher") as caught:
        SslLearner(make_recipe(corpus, changed), corpus)
    assert "\n" not in str(caught.value)


def test_targets_of_a_teacher_that_was_trained_again_are_refused_and_older_files_are_not(corpus):
    torch.manual_seed(0)
    network = hubert.build(LOG_MEL)
    hubert.save(network, corpus / "teacher")
    recipe = make_recipe(corpus, "targets.kind=features", f"targets.model={corpus}/teacher", "targets.layer=1")
    SslLearner(recipe, corpus)
    SslLearner(recipe, corpus)
    with torch.no_grad():
        network.encoder.layers[0].feed_forward.output_dense.bias += 1
    hubert.save(network, corpus / "teacher")
    with pytest.raises(CheckpointError, match="other targets, seed or teacher"):
        SslLearner(recipe, corpus)
    save_file(load_file_of(corpus), corpus / "targets.safetensors")  # as before they said how they were made
    SslLearner(recipe, corpus)


def test_second_iteration_predicts_units_of_the_first(corpus):
    train(make_recipe(corpus), corpus / "first")
    again = ["targets.kind=features", f"targets.model={corpus}/first/model", "targets.layer=1", "targets.clusters=3"]
    learner = train(make_recipe(corpus, *again), corpus / "second")
    teacher = load_semantic_teacher(corpus / "first/model", 1)
    centres = load_file_of(corpus / "second")["centres"]
    wave = torch.from_numpy(learner.crops.store[1])[None]
    nearest = torch.cdist(teacher(wave)[0][0], centres).argmin(1)
    offsets = learner.labels.offsets
    assert centres.shape == (3, 16)
    assert nearest.tolist() == learner.labels.labels[offsets[1] : offsets[2]].tolist()


def load_file_of(folder):
    return load_file(folder / "targets.safetensors")


# -- learning -------------------------------------------------------------------------------------------------------


def test_masked_prediction_gets_better(corpus):
    train(make_recipe(corpus, "steps=60", "log_every=5", "validate_every=60"), corpus / "run")
    rows = [json.loads(line) for line in (corpus / "run/log.jsonl").read_text().splitlines()]
    losses = [row["ssl/masked"] for row in rows if row["kind"] == "train"]
    assert np.mean(losses[-3:]) < 0.8 * losses[0]
    assert rows[-1]["kind"] == "validation" and 0 <= rows[-1]["accuracy/masked"] <= 1
    assert load_semantic_teacher(corpus / "run/model", 1)(torch.zeros(1, 3200))[0].shape == (1, 10, 16)


def test_only_hidden_frames_count_unless_asked(corpus):
    learner = SslLearner(make_recipe(corpus), corpus)
    assert set(learner.losses()) == {"ssl/masked", "accuracy/masked"}
    batch, mask = batch_of(learner.crops, 0, learner.devices), learner.hidden(learner.crops, 0)
    learner.model.eval()
    loss = learner.predict(learner.model, batch, mask, learner.labels)["ssl/masked"].detach()
    wanted = learner.labels.crops(batch.picks, batch.starts, learner.law, mask.shape[1])
    states = hubert.encode(
        learner.model.network, hubert.features(learner.model.network, batch.wave), torch.from_numpy(mask)
    )
    projected = learner.model.projection(states)
    similar = torch.cosine_similarity(projected[:, :, None], learner.model.units[None, None], dim=-1) / 0.1
    by_hand = -torch.log_softmax(similar, -1).gather(-1, wanted[..., None])[..., 0][torch.from_numpy(mask)].mean()
    assert float(loss) == pytest.approx(float(by_hand.detach()), rel=1e-4)
    both = SslLearner(make_recipe(corpus, "weights.unmasked=0.5"), corpus)
    assert {"ssl/masked", "ssl/unmasked"} <= set(both.losses())


@pytest.mark.parametrize("blocks", [0, 2])
def test_padding_of_a_short_crop_is_neither_heard_nor_predicted(corpus, blocks):
    learner = SslLearner(make_recipe(corpus, "mask.share=0.2", f"network.local_blocks={blocks}"), corpus)
    learner.model.eval()
    wave = torch.from_numpy(learner.crops.store[0])
    places = (np.array([0]), np.array([0]), np.array([8000]))
    mask = spans(np.random.default_rng(0), [25], 40, 0.2, 3)
    padded = Batch(torch.nn.functional.pad(wave[None], (0, 4800)), *places)
    # the last frame's window reaches 120 samples into the padding, which stay as they are
    noisy = Batch(torch.cat([wave, torch.zeros(120), torch.randn(4680)])[None], *places)
    one, other = (learner.predict(learner.model, batch, mask, learner.labels) for batch in (padded, noisy))
    assert float(one["ssl/masked"].detach()) == pytest.approx(float(other["ssl/masked"].detach()), rel=1e-5)
    states = [
        hubert.encode(learner.model.network, hubert.features(learner.model.network, b.wave), None, b.valid(learner.law))
        for b in (padded, noisy)
    ]
    assert torch.allclose(states[0][0, :25], states[1][0, :25], atol=1e-5)


def test_waveform_front_end_learns_with_a_penalty(corpus):
    shape = {"front_end": "waveform", "channels": 8, "kernels": [10, 8, 4], "strides": [8, 8, 5], **TINY}
    learner = train(make_recipe(corpus, f"network={json.dumps(shape)}", "weights.penalty=10"), corpus / "run")
    assert "ssl/penalty" in learner.losses()
    learner.losses()["ssl/masked"].backward()
    assert learner.model.network.feature_extractor.conv_layers[0].conv.weight.grad.abs().sum() > 0


def test_stop_and_resume_equals_never_stopping_bit_for_bit(corpus):
    recipe = make_recipe(corpus, "network.dropout=0.1", "network.layer_drop=0.2")
    train(recipe, corpus / "straight")
    train(recipe, corpus / "broken", stop_at=4)
    train(recipe, corpus / "broken")
    assert_same(weights(corpus / "straight"), weights(corpus / "broken"))


@pytest.mark.parametrize(
    "override, message",
    [
        ("targets.kind=features", "targets.model"),
        ("targets.clusters=1", "targets.clusters"),
        ("mask.share=0", "mask.share"),
        ("network.width=15", "multiple"),
        ("network={front_end: waveform, local_blocks: 1}", "local_blocks"),
        ("data.seconds=0.1", "data.seconds"),
        ("data.manifests=[]", "data.manifests"),
    ],
)
def test_recipes_that_cannot_work_are_refused(corpus, override, message):
    with pytest.raises(ConfigError, match=message):
        make_recipe(corpus, override)


def train_apart(recipe: SslRecipe, folder, rank: int, world: int, port: int) -> None:
    torch.set_num_threads(1)
    if world > 1:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world))
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    learner = train(recipe, folder)
    save_snapshot(folder / f"rank-{rank}", learner.model.state_dict())
    learner.devices.close()


def test_two_processes_do_what_one_does_with_the_whole_batch(corpus):
    recipe = make_recipe(corpus, "steps=4")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    jobs = [("two", 0, 2), ("two", 1, 2), ("one", 0, 1)]
    processes = []
    for name, rank, world in jobs:
        (corpus / name).mkdir(exist_ok=True)
        arguments = (recipe, corpus / name, rank, world, port)
        processes.append(SERVER.Process(target=train_apart, args=arguments, daemon=True))
        processes[-1].start()
        if name == "two" and rank == 1:
            finish(*processes)
    finish(processes[-1])
    first, second = (load_snapshot(corpus / "two" / f"rank-{rank}") for rank in range(2))
    assert_same(first, second)
    for name, tensor in load_snapshot(corpus / "one/rank-0").items():
        # Adam turns the rounding of a gradient near zero into a step of some size
        assert (first[name] - tensor).abs().max() <= 2e-4 * max(1, tensor.abs().max()), name


def test_two_processes_drop_what_they_like_and_stay_the_same(corpus):
    (corpus / "two").mkdir()
    recipe = make_recipe(corpus, "steps=4", "network.dropout=0.2", "network.layer_drop=0.5")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = [(recipe, corpus / "two", rank, 2, port) for rank in range(2)]
    processes = [SERVER.Process(target=train_apart, args=one, daemon=True) for one in arguments]
    for process in processes:
        process.start()
    finish(*processes)
    assert_same(*(load_snapshot(corpus / "two" / f"rank-{rank}") for rank in range(2)))


def test_masks_of_dropout_differ_between_processes_and_not_between_runs(corpus):
    def drawn(process: int, processes: int) -> float:
        learner = SslLearner(make_recipe(corpus), corpus)
        learner.devices.process, learner.devices.processes = process, processes
        learner.devices.mean = learner.devices.average_gradients = lambda values: values
        learner.losses = lambda: {"ssl/masked": learner.model.units.sum(), "noise": torch.rand(())}
        return learner.advance()["noise"]

    torch.manual_seed(0)
    assert drawn(0, 2) == drawn(0, 2) != drawn(1, 2)
    assert drawn(0, 1) == float(torch.rand((), generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("name", ["ssl-mini", "hubert-base"])
def test_recipes_that_ship_run_in_miniature(corpus, name):
    small = [f"network.{key}={value}" for key, value in TINY.items()]
    small += ["network.channels=8", "prediction.dimension=8", "targets.clusters=5", "precision=fp32", "steps=2"]
    small += ["data.seconds=0.4", "data.batch=2", "data.validation_files=1"]
    places = [f"data.manifests=[{corpus}/corpus.tsv]", f"data.cache={corpus}/cache"]
    recipe = from_yaml(SslRecipe, ROOT / "recipes" / f"{name}.yaml", [*small, *places])
    train(recipe, corpus / "run")
    rows = [json.loads(line) for line in (corpus / "run/log.jsonl").read_text().splitlines()]
    assert all(np.isfinite(row[loss]) for row in rows for loss in row if loss.startswith("ssl/"))
    assert ("ssl/penalty" in rows[0]) == (name == "hubert-base")


def test_papers_recipe_is_hubert_base():
    import transformers

    recipe = from_yaml(SslRecipe, ROOT / "recipes/hubert-base.yaml")
    ours, theirs = hubert.build(recipe.network).config, transformers.HubertConfig()
    for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "conv_dim"):
        assert list(np.ravel(getattr(ours, name))) == list(np.ravel(getattr(theirs, name))), name
    for name in ("conv_kernel", "conv_stride", "num_conv_pos_embeddings", "feat_extract_norm", "do_stable_layer_norm"):
        assert np.all(np.array(getattr(ours, name)) == np.array(getattr(theirs, name))), name
