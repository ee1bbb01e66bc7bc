"""ECAPA-TDNN: the published layout, what its levels give, padding, front end, and the head it is trained with."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load_file

from speechtok.errors import CheckpointError, ConfigError
from speechtok.guidance.speaker import SpeakerTeacher, read_ecapa, save_ecapa
from speechtok.nn.ecapa import ECAPA, AAMSoftmax, ECAPAConfig
from speechtok.nn.fbank import SpeakerMel, symmetric_filters

TINY = ECAPAConfig(bands=12, channels=16, aggregate=24, embedding=6, scale=4, squeeze=5, attention=7)

# Layer names of the published embedding_model.ckpt for one SE-Res2 block of scale 4; written out by hand.
PUBLISHED = {
    "blocks.0.conv.conv.weight": (16, 12, 5),
    "blocks.0.norm.norm.running_mean": (16,),
    "blocks.1.tdnn1.conv.conv.weight": (16, 16, 1),
    "blocks.1.tdnn1.norm.norm.weight": (16,),
    "blocks.1.res2net_block.blocks.0.conv.conv.weight": (4, 4, 3),
    "blocks.1.res2net_block.blocks.2.norm.norm.bias": (4,),
    "blocks.3.tdnn2.conv.conv.bias": (16,),
    "blocks.3.se_block.conv1.conv.weight": (5, 16, 1),
    "blocks.3.se_block.conv2.conv.bias": (16,),
    "mfa.conv.conv.weight": (24, 48, 1),
    "mfa.norm.norm.running_var": (24,),
    "asp.tdnn.conv.conv.weight": (7, 72, 1),
    "asp.tdnn.norm.norm.weight": (7,),
    "asp.conv.conv.weight": (24, 7, 1),
    "asp_bn.norm.weight": (48,),
    "fc.conv.weight": (6, 48, 1),
}


@pytest.fixture
def network() -> ECAPA:
    torch.manual_seed(0)
    network = ECAPA(TINY)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return network.eval()


def test_saved_names_are_the_published_ones(network, tmp_path):
    save_ecapa(network, tmp_path / "m.safetensors")
    state = load_file(tmp_path / "m.safetensors")
    assert {key: tuple(state[key].shape) for key in PUBLISHED} == PUBLISHED
    assert len(state) == len(network.state_dict())


@pytest.mark.parametrize("form", ["safetensors", "ckpt", "folder", "ckpt-without-counters"])
def test_round_trip_gives_the_same_embedding(network, tmp_path, form):
    path = tmp_path / "embedding_model.safetensors"
    save_ecapa(network, path)
    if form.startswith("ckpt"):
        state = load_file(path)
        if form.endswith("counters"):
            state = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
        path = tmp_path / "embedding_model.ckpt"
        torch.save(state, path)
    restored = read_ecapa(tmp_path if form == "folder" else path)
    bands = torch.randn(2, 30, 12)
    assert restored.config == TINY
    for ours, theirs in zip(network(bands), restored(bands), strict=True):
        assert torch.equal(ours, theirs)


def test_default_shape_is_that_of_the_published_model():
    with torch.device("meta"):
        network = ECAPA()
    assert sum(p.numel() for p in network.parameters()) == 20767552  # 20.8 million, as published
    assert network.fc.weight.shape == (192, 6144, 1)


@pytest.mark.parametrize("damage", ["missing", "truncated", "foreign", "one-layer-less", "one-layer-more", "code"])
def test_bad_files_cost_one_line(network, tmp_path, damage):
    path = tmp_path / ("m.ckpt" if damage in ("foreign", "code") else "m.safetensors")
    save_ecapa(network, tmp_path / "m.safetensors")
    state = load_file(tmp_path / "m.safetensors")
    if damage == "missing":
        path = tmp_path / "nowhere.ckpt"
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "foreign":
        torch.save({"weight": torch.zeros(3)}, path)
    elif damage == "code":
        torch.save({"weight": SpeakerMel()}, path)
    else:
        state.pop("fc.conv.bias") if damage == "one-layer-less" else state.update(extra=torch.zeros(1))
        torch.save(state, path := tmp_path / "m.ckpt")
    with pytest.raises(CheckpointError, match=path.name) as caught:
        read_ecapa(path)
    assert "\n" not in str(caught.value)


def test_two_levels_of_features_and_no_gradient(network):
    teacher = SpeakerTeacher(network)
    wave = torch.randn(3, 8000)
    embedding, frames = teacher(wave)
    assert embedding.shape == (3, 6)
    assert frames.shape == (3, 8000 // teacher.hop + 1, 24)
    assert not embedding.requires_grad
    assert not teacher.train().network.training


@pytest.mark.parametrize("part", ["asp", "se_block"])
def test_padding_stays_out_of_the_statistics(network, part):
    layer, width = (network.asp, 24) if part == "asp" else (network.blocks[1].se_block, 16)
    x, loud = torch.randn(1, width, 40), torch.full((1, width, 20), 50.0)
    mask = torch.cat([torch.ones(1, 1, 40), torch.zeros(1, 1, 20)], 2)
    alone, padded = layer(x, mask[:, :, :40]), layer(torch.cat([x, loud], 2), mask)
    assert torch.allclose(padded[..., : alone.shape[-1]], alone, atol=1e-5)
    assert not torch.allclose(layer(torch.cat([x, loud], 2), torch.ones(1, 1, 60))[..., : alone.shape[-1]], alone)


def test_lengths_reach_the_pooling(network):
    bands = torch.cat([torch.randn(1, 40, 12), torch.full((1, 20, 12), 50.0)], 1)
    whole, part = network(bands).embedding, network(bands, torch.tensor([40])).embedding
    assert not torch.allclose(whole, part, atol=0.1)
    assert torch.allclose(network(bands, torch.tensor([60])).embedding, whole)


def test_embedding_ignores_level_and_needs_some_frames(network):
    teacher = SpeakerTeacher(network)
    wave = torch.randn(1, 8000)
    assert torch.allclose(teacher(wave).embedding, teacher(0.1 * wave).embedding, atol=1e-4)
    with pytest.raises(ConfigError, match="at least 5 frames"):
        teacher(wave[:, :400])


def test_front_end_hears_a_tone_in_its_band():
    front = SpeakerMel(16000, 80)
    filters = symmetric_filters(16000, 400, 80)
    tone = torch.sin(2 * math.pi * 1000 * torch.arange(16000) / 16000)[None]
    steady = front(torch.cat([tone, 0.5 * tone, tone], 1))[0]
    assert steady.shape == (301, 80)
    assert steady[:, filters[25].argmax()].max() - steady[150, filters[25].argmax()] == pytest.approx(6.02, abs=0.05)
    assert torch.allclose(steady.mean(0), torch.zeros(80), atol=1e-3)


def test_front_end_mean_counts_only_the_signal():
    front = SpeakerMel(16000, 12)
    wave = torch.randn(1, 3200)
    padded = torch.nn.functional.pad(wave, (0, 1600))
    assert torch.allclose(front(padded, torch.tensor([3200]))[:, :21].mean(1), torch.zeros(1, 12), atol=1e-3)


def test_margin_makes_the_right_class_harder():
    torch.manual_seed(1)
    head, plain = AAMSoftmax(4, 3, margin=0.2, scale=30), AAMSoftmax(4, 3, margin=0.0, scale=30)
    plain.load_state_dict(head.state_dict())
    embedding, speaker = torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
    expected = torch.nn.functional.cross_entropy(30 * plain.cosines(embedding), speaker)
    assert torch.allclose(plain(embedding, speaker), expected, atol=1e-4)
    assert head(embedding, speaker) > plain(embedding, speaker)
    # by hand: angle 0 between embedding and its class, 90 degrees to the other
    head = AAMSoftmax(2, 2, margin=0.2, scale=1)
    head.weight.data = torch.eye(2)
    by_hand = math.log(1 + math.exp(-math.cos(0.2)))
    assert head(torch.tensor([[2.0, 0.0]]), torch.tensor([0])).item() == pytest.approx(by_hand, abs=1e-3)


def test_a_head_and_network_learn_two_speakers(network):
    torch.manual_seed(0)
    network.train()
    head = AAMSoftmax(6, 2)
    optimiser = torch.optim.Adam([*network.parameters(), *head.parameters()], 1e-2)
    bands = torch.randn(8, 20, 12)
    bands[4:, :, :6] += 2
    speaker = torch.tensor([0] * 4 + [1] * 4)
    for _ in range(15):
        loss = head(network(bands).embedding, speaker)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert head.cosines(network(bands).embedding).argmax(1).equal(speaker)
