"""Semantic guidance: losses against their definitions, alignment against a ramp, teachers against transformers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from speechtok.errors import CheckpointError, ConfigError
from speechtok.guidance import losses
from speechtok.guidance.frames import CodecGrid, FrameLaw, align, matching_frames, pool
from speechtok.guidance.losses import SemanticConfig, semantic_losses
from speechtok.guidance.semantic import SemanticTeacher
from speechtok.guidance.store import FeatureStore, write_features
from speechtok.guidance.targets import crop_targets, extract

KERNELS, STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
HUBERT = FrameLaw.of_convolutions(16000, KERNELS, STRIDES)
SAME = CodecGrid(16000, 320)


class Ramp:
    """A teacher whose only feature is the time of its frame, read off a waveform that holds its own times."""

    law, dimension = HUBERT, 1

    def __call__(self, wave, lengths=None):
        frames = self.law.frames(wave.shape[1])
        features = wave[:, ::320][:, :frames, None]
        ends = torch.full((len(wave),), wave.shape[1]) if lengths is None else lengths
        counts = torch.tensor([self.law.frames(int(n)) for n in ends])
        return features, torch.arange(frames) < counts[:, None]


def clock(samples: int) -> torch.Tensor:
    """A waveform whose value is its time in seconds."""
    return torch.arange(samples) / 16000


# -- losses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factor", "expected"), [pytest.param(3.0, 0.3133, id="same"), pytest.param(-1.0, 1.3133, id="opposite")]
)
def test_d_axis_range(factor, expected):
    teacher = torch.randn(2, 50, 8)
    assert losses.d_axis_loss(factor * teacher, teacher).item() == pytest.approx(expected, abs=1e-4)


def test_d_axis_of_orthogonal_tracks_is_log_two():
    student, teacher = torch.zeros(1, 4, 2), torch.zeros(1, 4, 2)
    student[:, :2], teacher[:, 2:] = 1, 1
    assert losses.d_axis_loss(student, teacher).item() == pytest.approx(math.log(2), abs=1e-6)


def test_d_axis_by_hand():
    # dimension 0: tracks (3, 4) and (4, 3), cosine 24/25; dimension 1: (1, 0) and (1, 1), cosine 1/sqrt(2)
    student = torch.tensor([[[3.0, 1.0], [4.0, 0.0]]])
    teacher = torch.tensor([[[4.0, 1.0], [3.0, 1.0]]])
    cosines = (24 / 25, 1 / math.sqrt(2))
    expected = sum(math.log(1 + math.exp(-c)) for c in cosines) / 2
    assert losses.d_axis_loss(student, teacher).item() == pytest.approx(expected, abs=1e-6)
    assert losses.cosine_over_time(student, teacher).item() == pytest.approx(sum(cosines) / 2, abs=1e-6)


def test_d_axis_differs_from_t_axis():
    teacher = torch.randn(1, 40, 6)
    student = teacher * torch.rand(1, 1, 6).add(0.1)  # each track scaled: tracks agree in direction, frames do not
    assert losses.cosine_over_time(student, teacher).item() == pytest.approx(1, abs=1e-5)
    assert losses.cosine_per_frame(student, teacher).item() < 0.99


def test_t_axis_by_hand():
    student, teacher = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, 2.0]]])
    expected = 1.5 + 0.5 * math.log(2)
    assert losses.t_axis_loss(student, teacher, similarity_weight=0.5).item() == pytest.approx(expected, abs=1e-6)
    assert losses.cosine_loss(student, teacher).item() == pytest.approx(1, abs=1e-6)


def test_unit_loss_by_hand():
    logits = torch.tensor([[[math.log(3.0), 0.0], [0.0, 0.0]]])
    units = torch.tensor([[0, 1]])
    assert losses.unit_loss(logits, units).item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2, abs=1e-6)
    assert losses.unit_loss(logits, units, torch.tensor([[True, False]])).item() == pytest.approx(math.log(4 / 3))


@pytest.mark.parametrize("name", sorted(losses.LOSSES))
def test_masked_frames_and_surplus_frames_do_not_count(name):
    student, teacher = torch.randn(2, 9, 5), torch.randn(2, 8, 5)
    target = torch.randint(0, 5, (2, 8)) if name == "units" else teacher
    mask = torch.ones(2, 8, dtype=torch.bool)
    mask[1, 5:] = False
    loss = losses.LOSSES[name](student, target, mask)
    changed = student.clone()
    changed[1, 5:], changed[:, 8:] = 100.0, -100.0
    assert torch.allclose(losses.LOSSES[name](changed, target, mask), loss)
    changed[0, 0, 0] += 1
    assert not torch.allclose(losses.LOSSES[name](changed, target, mask), loss)


@pytest.mark.parametrize("name", sorted(losses.LOSSES))
def test_nothing_counted_is_a_finite_loss_with_a_finite_gradient(name):
    student = torch.randn(1, 4, 3, requires_grad=True)
    target = torch.zeros(1, 4, dtype=torch.long) if name == "units" else torch.zeros(1, 4, 3)
    loss = losses.LOSSES[name](student, target, torch.zeros(1, 4, dtype=torch.bool))
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()


def test_losses_carry_names_and_watched_cosines_carry_no_gradient():
    student, teacher = torch.randn(1, 6, 4, requires_grad=True), torch.randn(1, 6, 4)
    values = semantic_losses(SemanticConfig("t_axis", similarity_weight=2.0), student, teacher)
    assert set(values) == {"semantic/t_axis", "semantic/cosine_time", "semantic/cosine_frame"}
    assert [name for name, value in values.items() if value.requires_grad] == ["semantic/t_axis"]
    assert torch.equal(values["semantic/t_axis"], losses.t_axis_loss(student, teacher, None, 2.0))
    assert "semantic/units" in semantic_losses(SemanticConfig("units"), student, torch.zeros(1, 6, dtype=torch.long))


def test_settings_and_widths_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="d_axis, t_axis"):
        SemanticConfig("l2")
    with pytest.raises(ConfigError, match="semantic_dimension"):
        losses.d_axis_loss(torch.zeros(1, 2, 3), torch.zeros(1, 2, 4))


# -- frames ---------------------------------------------------------------------------------------------------------


@given(st.integers(0, 5000))
def test_frame_law_is_that_of_the_convolutions(samples):
    length = samples
    for kernel, stride in zip(KERNELS, STRIDES, strict=True):
        length = max(0, (length - kernel) // stride + 1)
    assert HUBERT.frames(samples) == length


def test_hubert_law():
    assert (HUBERT.hop, HUBERT.window, HUBERT.frames(48000)) == (320, 400, 149)


def test_equal_grids_match_frame_by_frame():
    assert matching_frames(SAME, HUBERT, 5).tolist() == [0, 1, 2, 3, 4]
    assert matching_frames(SAME, HUBERT, 3, start=640).tolist() == [2, 3, 4]


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        pytest.param(CodecGrid(24000, 480), [0, 1, 2, 3], id="24 kHz, 50 Hz"),
        pytest.param(CodecGrid(24000, 240), [0, 0, 1, 1], id="24 kHz, 100 Hz"),
        pytest.param(CodecGrid(16000, 640), [1, 3, 5, 7], id="16 kHz, 25 Hz"),
    ],
)
def test_other_grids_match_in_time(grid, expected):
    assert matching_frames(grid, HUBERT, 4).tolist() == expected


@given(st.integers(0, 30000))
def test_ramp_of_a_whole_utterance_aligns_with_the_crop(start):
    frames = 40
    heard = Ramp()(clock(48000)[None])[0][0]
    features, mask = align(heard, SAME, HUBERT, frames, start)
    times = (start + 320 * torch.arange(frames)) / 16000
    limit = 1e-5 if start % 320 == 0 else 0.01 + 1e-5
    assert ((features[:, 0] - times).abs()[mask] <= limit).all()
    assert mask.sum() >= min(frames, (48000 - start) // 320 - 2)
    assert (features[~mask] == 0).all()


def test_ramp_of_the_same_crop_is_cut_to_the_teacher():
    wave = torch.stack([clock(48000), clock(48000) + 7])
    features, mask = crop_targets(Ramp(), wave, SAME, 150)
    assert mask.sum(1).tolist() == [149, 149]
    expected = torch.stack([torch.arange(149) * 0.02, 7 + torch.arange(149) * 0.02])
    assert torch.allclose(features[:, :149, 0], expected, atol=1e-5)
    _, mask = crop_targets(Ramp(), wave, SAME, 150, torch.tensor([48000, 16000]))
    assert mask.sum(1).tolist() == [149, 49]


def test_ramp_through_a_store_aligns_like_the_whole_utterance(tmp_path):
    waves = [clock(16000), clock(48000), clock(300)]
    lengths = [len(wave) for wave in waves]
    write_features(tmp_path / "f.safetensors", extract(Ramp(), waves), lengths, 1, HUBERT, "ramp")
    store = FeatureStore(tmp_path / "f.safetensors")
    store.check(lengths, 16000)
    assert [len(store[i]) for i in range(len(store))] == [49, 149, 0]
    stored, stored_mask = store.batch([1, 0, 2], [6400, 14000, 0], 30, SAME)
    places = zip([waves[1], waves[0], waves[2]], [6400, 14000, 0], strict=True)
    pairs = [align(Ramp()(wave[None])[0][0], SAME, HUBERT, 30, start) for wave, start in places]
    heard, mask = (torch.stack(parts) for parts in zip(*pairs, strict=True))
    assert torch.equal(stored_mask, mask)
    assert torch.allclose(stored, heard, atol=1e-3)
    assert mask.sum(1).tolist() == [30, 5, 0]


def test_rates_that_differ_are_refused_on_the_fly():
    with pytest.raises(ConfigError, match="beforehand"):
        crop_targets(Ramp(), torch.zeros(1, 24000), CodecGrid(24000, 480), 50)


def test_store_refuses_other_speech_and_wrong_features(tmp_path):
    path = tmp_path / "f.safetensors"
    good = [np.zeros((49, 2)), np.zeros((24, 2))]
    write_features(path, good, [16000, 8000], 2, HUBERT, "zeros")
    with pytest.raises(ConfigError, match="other lengths"):
        FeatureStore(path).check([16000, 8001], 16000)
    for features in (good[:1], [*good, good[0]], [good[0], good[0]], [good[0], np.full((24, 2), 1e6)]):
        with pytest.raises(ConfigError):
            write_features(path, features, [16000, 8000], 2, HUBERT, "bad")
    assert len(FeatureStore(path)) == 2  # the old file stands
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(CheckpointError, match="extract the features again"):
        FeatureStore(path)


def test_pooling_to_a_slower_and_a_faster_grid():
    ramp = torch.arange(10.0)[None, :, None]
    assert pool(ramp, 100, 50, 5)[0, :, 0].tolist() == [0.5, 2.5, 4.5, 6.5, 8.5]
    assert pool(ramp, 100, 200, 4)[0, :, 0].tolist() == [0, 0, 1, 1]
    assert pool(ramp, 100, 50, 7)[0, :, 0].tolist()[5:] == [9, 9]
    assert pool(ramp, 100, 75, 3)[0, :, 0].tolist() == [0.5, 2.0, 3.0]


# -- teachers -------------------------------------------------------------------------------------------------------

SHAPE = {
    "hidden_size": 12, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 16,
    "conv_dim": (6, 6), "conv_kernel": (10, 3), "conv_stride": (5, 2),
    "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip


@pytest.fixture(scope="module", params=["Hubert", "WavLM", "Wav2Vec2"])
def folder(request, tmp_path_factory):
    """A tiny random model on disk, with a preprocessor that normalises."""
    transformers = pytest.importorskip("transformers", reason="teachers need transformers")
    path = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    config = getattr(transformers, f"{request.param}Config")(**SHAPE)
    getattr(transformers, f"{request.param}Model")(config).save_pretrained(path)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(path)
    return path


def test_teacher_is_transformers_with_its_preprocessor(folder):
    import transformers

    wave = 0.3 * torch.randn(2, 800) + 0.1
    model = transformers.AutoModel.from_pretrained(folder).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    inputs = extractor([w.numpy() for w in wave], sampling_rate=16000, return_tensors="pt").input_values
    with torch.no_grad():
        states = model(inputs, output_hidden_states=True).hidden_states
    assert len(states) == 4
    for layer, expected in [("average", torch.stack(states).mean(0)), (0, states[0]), (2, states[2])]:
        teacher = SemanticTeacher.load(folder, layer)
        features, mask = teacher(wave)
        assert torch.allclose(features, expected, atol=1e-5)
        assert mask.all()
        assert features.shape == (2, teacher.frames(800), teacher.dimension)
        assert not features.requires_grad


def test_padded_batch_gives_what_single_utterances_give(folder):
    teacher = SemanticTeacher.load(folder).train()
    wave = torch.randn(3, 800)
    lengths = torch.tensor([800, 500, 10])
    features, mask = teacher(wave, lengths)
    assert mask.sum(1).tolist() == [teacher.frames(n) for n in (800, 500, 10)]
    single, _ = teacher(wave[1:2, :500])
    assert torch.allclose(features[1][mask[1]], single[0], atol=1e-6)
    assert (features[~mask] == 0).all()


def test_teachers_that_cannot_be_cost_one_line(folder, tmp_path):
    with pytest.raises(ConfigError, match="0 to 3"):
        SemanticTeacher.load(folder, 4)
    with pytest.raises(CheckpointError, match="nowhere") as caught:
        SemanticTeacher.load(tmp_path / "nowhere")
    assert "\n" not in str(caught.value)
