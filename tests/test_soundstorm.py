"""SoundStorm: what training hides, what the network hears, and how masks are filled."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from speechtok.errors import ConfigError
from speechtok.nn.conformer import Conformer, ConformerConfig, RotaryAttention
from speechtok.nn.sequence import rotate
from speechtok.nn.soundstorm import Hidden, SoundStormConfig, hide
from speechtok.nn.unmasking import UnmaskingConfig, left, unmask
from speechtok.tokenizers.code_vectors import code_vectors
from tiny import tiny_tokenizer
from tiny_speaking import CONFORMER, SIZES, tiny_s2a

LEVELS = len(SIZES)


def codes_of(batch: int, frames: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 32, (batch, LEVELS, frames), generator=torch.Generator().manual_seed(seed))


# -- rotary positions -----------------------------------------------------------------------------------------------


def test_rotary_attention_equals_its_definition():
    torch.manual_seed(0)
    attention, x = RotaryAttention(CONFORMER).eval(), torch.randn(1, 6, 8)
    normed = attention.norm(x)
    query, key, value = (attention.split(part(normed)) for part in (attention.query, attention.key, attention.value))
    scores = rotate(query) @ rotate(key).transpose(2, 3) / 2.0  # the square root of 4 numbers per head
    wanted = attention.out((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))
    assert torch.allclose(attention(x), wanted, atol=1e-5)


def test_a_rotary_conformer_hears_order_and_no_padding():
    torch.manual_seed(0)
    config = ConformerConfig(8, 2, 2, 12, 1, 1, 0.0, positions="rotary")
    model, x = Conformer(config, 4).eval(), torch.randn(1, 7, 4)
    padded = torch.cat([x, 9 * torch.randn(1, 3, 4)], 1)
    assert torch.allclose(model(padded, mask=torch.arange(10)[None] < 7)[:, :7], model(x), atol=1e-5)
    assert not torch.allclose(model(x).flip(1), model(x.flip(1)), atol=1e-4)


# -- masks ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(0, 1000))
def test_only_frames_after_the_prompt_and_inside_are_hidden(lengths, seed):
    frames, lengths = max(lengths) + 3, torch.tensor(lengths)
    hidden = hide(lengths, frames, LEVELS, torch.Generator().manual_seed(seed))
    places = torch.arange(frames)
    allowed = (places >= hidden.prompt[:, None]) & (places < lengths[:, None])
    assert not (hidden.frames & ~allowed).any()
    assert (hidden.frames.sum(1) >= 1).all() and (hidden.prompt < lengths).all()
    assert ((hidden.level >= 1) & (hidden.level < LEVELS)).all()
    masks = hidden.masks(LEVELS)
    assert not masks[:, 0].any()
    for row, level in enumerate(hidden.level.tolist()):
        assert not masks[row, :, : hidden.prompt[row]].any()
        assert not masks[row, :level].any()
        assert torch.equal(masks[row, level], hidden.frames[row])
        assert masks[row, level + 1 :, hidden.prompt[row] :].all()


def test_the_share_that_is_hidden_follows_the_cosine():
    lengths = torch.full((4000,), 200)
    hidden = hide(lengths, 200, LEVELS, torch.Generator().manual_seed(0))
    share = (hidden.frames.sum(1) / (lengths - hidden.prompt))[hidden.prompt < 150]
    # cos(u) with u uniform in [0, pi/2]: mean 2 / pi, P(cos u <= x) = 1 - 2 acos(x) / pi
    assert share.mean().item() == pytest.approx(2 / math.pi, abs=0.02)
    for x in (0.25, 0.5, 0.75, 0.95):
        assert (share <= x).float().mean().item() == pytest.approx(1 - 2 * math.acos(x) / math.pi, abs=0.04)
    assert hidden.prompt.float().mean().item() == pytest.approx(100, abs=4)
    assert torch.bincount(hidden.level)[1:].tolist() == pytest.approx([4000 / 3] * 3, rel=0.1)


@given(st.integers(0, 300), st.integers(1, 20))
def test_fewer_frames_stay_masked_with_every_pass_and_none_after_the_last(count, steps):
    path = [int(left(torch.tensor(count), done, steps)) for done in range(steps + 1)]
    assert path[0] == count and path[-1] == 0 and path == sorted(path, reverse=True)
    assert all(abs(path[i] - count * math.cos(math.pi / 2 * i / steps)) < 1.001 for i in range(steps + 1))


# -- training -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("heads", ["own", "tied"])
def test_the_loss_is_that_of_hidden_frames_of_the_level_alone(heads):
    model, codes, lengths = tiny_s2a(heads=heads), codes_of(2, 9), torch.tensor([9, 6])
    frames = torch.zeros(2, 9, dtype=torch.bool)
    frames[0, [4, 7]], frames[1, 3] = True, True
    hidden = Hidden(torch.tensor([2, 1]), torch.tensor([3, 2]), frames)
    loss, hits = model.score(codes, lengths, hidden)
    inside = torch.arange(9) < lengths[:, None]
    states = model.states(codes, hidden.masks(LEVELS), inside)
    one = F.cross_entropy(model.answers(states[1, 3], 1), codes[1, 1, 3])
    two = F.cross_entropy(model.answers(states[0, [4, 7]], 2), codes[0, 2, [4, 7]], reduction="none")
    assert torch.allclose(loss, torch.cat([one[None], two]), atol=1e-6) and hits.shape == (3,)
    other = codes.clone()
    other[0, 2, [4, 7]] += 1  # what is hidden is not heard: only the targets change
    other[0, 3, 3:] = 5
    again = model.states(other % 32, hidden.masks(LEVELS), inside)
    assert torch.equal(states, again)


def test_padding_changes_no_loss():
    model, codes = tiny_s2a(), codes_of(2, 12)
    lengths = torch.tensor([12, 7])
    hidden = hide(lengths, 12, LEVELS, torch.Generator().manual_seed(3))
    together = model.score(codes, lengths, hidden)[0]
    single = []
    for i, n in enumerate(lengths.tolist()):
        own = Hidden(hidden.level[i : i + 1], hidden.prompt[i : i + 1], hidden.frames[i : i + 1, :n])
        single.append(model.score(codes[i : i + 1, :, :n], lengths[i : i + 1], own)[0])
    # rows come by level
    assert torch.allclose(together.sort().values, torch.cat(single).sort().values, atol=1e-5)


def test_it_learns_levels_that_follow_from_the_first():
    model, codes = tiny_s2a(heads="tied").train(), codes_of(4, 20)
    codes[:, 1:] = (codes[:, :1] + torch.arange(1, LEVELS)[None, :, None]) % 32
    optimiser, draws = torch.optim.AdamW(model.parameters(), 0.03), torch.Generator().manual_seed(0)
    lengths, losses = torch.full((4,), 20), []
    for _ in range(35):
        loss = model.score(codes, lengths, hide(lengths, 20, LEVELS, draws))[0].mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) / 5 < 0.6 * losses[0]


def test_vectors_begin_as_the_codecs():
    tokenizer = tiny_tokenizer("frame")
    codec, vectors, model = tokenizer.codec, code_vectors(tokenizer, LEVELS), tiny_s2a(code_dimension=16)
    codes = torch.tensor([3, 1, 4, 1])[None, :, None]
    wanted = sum(one[code] for one, code in zip(vectors, [3, 1, 4, 1], strict=True))
    assert torch.allclose(codec.quantizer.decode(codes)[0, 0], wanted, atol=1e-5)
    model.begin_with(vectors)
    assert model.tables[2].weight[:32].std().item() == pytest.approx(1, abs=1e-3)
    middle = vectors[2] - vectors[2].mean(0)
    assert torch.allclose(model.tables[2].weight[:32], middle / middle.std(), atol=1e-4)
    with pytest.raises(ConfigError, match=r"network\.code_dimension"):
        tiny_s2a().begin_with(vectors)


# -- filling in -----------------------------------------------------------------------------------------------------

PLANS = [UnmaskingConfig(), UnmaskingConfig(steps=(1,)), UnmaskingConfig(steps=(5, 3), noise=2.0, temperature=0.0)]


@pytest.mark.parametrize("plan", PLANS, ids=["paper", "single", "noise"])
def test_every_mask_is_filled_and_the_prompt_stays(plan):
    model, semantic, prompt = tiny_s2a(), codes_of(2, 11)[:, 0], codes_of(2, 5, seed=1)
    heard = []
    model.conformer.register_forward_pre_hook(lambda *_: heard.append(1))
    codes = unmask(model, semantic, prompt, torch.tensor([11, 6]), plan, seed=2)
    assert len(heard) == sum(plan.passes(level) for level in (1, 2, 3))
    assert codes.shape == (2, LEVELS, 16)
    assert torch.equal(codes[:, :, :5], prompt) and torch.equal(codes[0, 0, 5:], semantic[0])
    assert codes.min() >= 0 and codes.max() < 32  # 32 is the mask
    assert not codes[1, :, 11:].any()
    assert torch.equal(codes, unmask(model, semantic, prompt, torch.tensor([11, 6]), plan, seed=2))


def test_padding_changes_nothing_that_is_filled_in():
    model, semantic, prompt = tiny_s2a(), codes_of(2, 11)[:, 0], codes_of(2, 5, seed=1)
    plan = UnmaskingConfig(steps=(4,), temperature=0.0)
    together = unmask(model, semantic, prompt, torch.tensor([11, 6]), plan)
    alone = unmask(model, semantic[1:, :6], prompt[1:], config=plan)
    assert torch.equal(together[1:, :, :11], alone)


def test_what_is_kept_is_never_asked_again():
    model, semantic, prompt = tiny_s2a(), codes_of(1, 20)[:, 0], codes_of(1, 4, seed=1)
    seen = []
    states = model.states
    model.states = lambda codes, masks, inside: (
        seen.append((codes.clone(), masks.clone())) or states(codes, masks, inside)
    )
    unmask(model, semantic, prompt, config=UnmaskingConfig(steps=(6,)), seed=1)
    for (before, masks), (after, fewer) in pairwise(seen[:6]):
        assert not (fewer & ~masks).any()
        kept = ~masks[:, 1]
        assert torch.equal(before[:, 1][kept], after[:, 1][kept])
    assert [int(masks[:, 1].sum()) for _, masks in seen[:6]] == [int(left(torch.tensor(20), i, 6)) for i in range(6)]


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (SoundStormConfig, {"codebook_sizes": (8,)}),
        (SoundStormConfig, {"code_dimension": 0}),
        (UnmaskingConfig, {"steps": ()}),
        (UnmaskingConfig, {"steps": (0,)}),
        (UnmaskingConfig, {"noise": -1.0}),
    ],
)
def test_settings_that_cannot_be_are_refused(kind, change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        kind(**change)
