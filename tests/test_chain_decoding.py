"""Searches for texts, each against all texts and alignments of problems that are small enough to count."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from speechtok.chain.decoding import (
    PrefixScores,
    SearchConfig,
    attention_greedy,
    best_paths,
    ctc_prefix_beam,
    joint_beam,
    recognise,
)
from speechtok.chain.recogniser import EOS
from speechtok.errors import ConfigError
from tiny_chain import tiny_recogniser

SEEDS = st.integers(0, 10_000)


def random_rows(frames: int, classes: int, seed: int) -> torch.Tensor:
    noise = torch.randn(frames, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (2 * noise).log_softmax(-1)


def every_text(rows: torch.Tensor) -> dict[tuple[int, ...], float]:
    """Probability of each text, summed over all alignments."""
    found: dict[tuple[int, ...], float] = {}
    frames, classes = rows.shape
    for path in itertools.product(range(classes), repeat=frames):
        merged = tuple(one for one, _ in itertools.groupby(path) if one)
        chance = math.exp(sum(rows[i, one] for i, one in enumerate(path)))
        found[merged] = found.get(merged, 0.0) + chance
    return found


@given(st.integers(1, 5), st.integers(2, 4), SEEDS)
def test_a_wide_prefix_beam_gives_the_sum_over_alignments(frames, classes, seed):
    rows = random_rows(frames, classes, seed)
    wanted = every_text(rows)
    found = ctc_prefix_beam(rows, 10_000)
    assert {one.ids for one in found} == set(wanted)
    assert all(math.exp(one.score) == pytest.approx(wanted[one.ids], rel=1e-9) for one in found)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)


def test_a_narrow_prefix_beam_finds_what_the_best_path_misses():
    rows = torch.tensor([[0.6, 0.4], [0.6, 0.4]]).double().log()  # blank twice: 0.36; the symbol in any way: 0.64
    assert best_paths(rows[None], torch.tensor([2])) == [[]]
    assert ctc_prefix_beam(rows, 2)[0].ids == (1,)
    assert ctc_prefix_beam(rows, 2, candidates=2)[0].score == pytest.approx(math.log(0.64))


@given(st.integers(1, 5), SEEDS)
def test_prefix_scores_are_sums_over_all_texts_that_begin_so(frames, seed):
    rows = random_rows(frames, 3, seed)
    wanted, scores = every_text(rows), PrefixScores(rows)
    prefixes: list[tuple[int, ...]] = [()]
    for _ in range(min(3, frames)):
        symbols = torch.tensor([[1, 2]]).expand(len(prefixes), -1)
        extended = scores.extended(symbols).exp()
        for row, prefix in enumerate(prefixes):
            assert float(scores.ended()[row].exp()) == pytest.approx(wanted.get(prefix, 0.0), rel=1e-9, abs=1e-12)
            for place in (0, 1):
                longer = (*prefix, place + 1)
                total = sum(chance for text, chance in wanted.items() if text[: len(longer)] == longer)
                assert float(extended[row, place]) == pytest.approx(total, rel=1e-9, abs=1e-12)
        parents = torch.arange(len(prefixes)).repeat_interleave(2)
        scores.select(parents, symbols.flatten())
        prefixes = [(*prefix, one) for prefix in prefixes for one in (1, 2)]


def test_prefix_scores_stay_exact_over_many_frames():
    rows = random_rows(400, 5, 0)
    text = torch.randint(1, 5, (30,), generator=torch.Generator().manual_seed(0))
    scores = PrefixScores(rows)
    for symbol in text:
        scores.select(torch.zeros(1, dtype=torch.int64), symbol[None])
    lengths = torch.tensor([400]), torch.tensor([30])
    nats = torch.nn.functional.ctc_loss(rows[:, None], text[None], *lengths, reduction="none")
    assert float(scores.ended()[0]) == pytest.approx(-float(nats[0]), rel=1e-9)


def heard_by(model, frames: int, seed: int = 0):
    codes = torch.from_numpy(np.random.default_rng(seed).integers(0, 12, (1, 1, frames)))
    with torch.no_grad():
        return codes[0].numpy(), model.hear(codes, torch.tensor([frames]))


@pytest.mark.parametrize("seed", range(3))
def test_ctc_alone_finds_the_likeliest_of_all_texts(seed):
    model = tiny_recogniser(symbols=5, seed=seed)
    _, heard = heard_by(model, 5, seed)
    with torch.no_grad():
        rows = model.ctc_logits(heard)[0].double().log_softmax(-1)
    wanted = {text: chance for text, chance in every_text(rows).items() if EOS not in text}
    best = max(wanted, key=wanted.__getitem__)
    found = joint_beam(model, heard, SearchConfig(beam=400, ctc_weight=1.0))
    assert found[0].ids == best and math.exp(found[0].score) == pytest.approx(wanted[best], rel=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_a_beam_of_one_without_ctc_is_greedy(seed):
    model = tiny_recogniser(seed=seed)
    codes, heard = heard_by(model, 12, seed)
    greedy = attention_greedy(model, heard)[0]
    assert list(recognise(model, codes, SearchConfig(beam=1, ctc_weight=0.0))) == greedy


def score_of(model, heard, ids: list[int], weight: float) -> float:
    """The joint score of one whole text."""
    with torch.no_grad():
        rows = model.spell(heard, torch.tensor([ids], dtype=torch.int64))[0].double().log_softmax(-1)
        ctc = model.ctc_logits(heard)[0].double().log_softmax(-1)
    attention = sum(float(rows[i, one]) for i, one in enumerate([*ids, EOS]))
    text, lengths = torch.tensor([ids], dtype=torch.int64), (torch.tensor([len(ctc)]), torch.tensor([len(ids)]))
    nats = torch.nn.functional.ctc_loss(ctc[:, None], text, *lengths, reduction="none")
    return (1 - weight) * attention - (weight * float(nats[0]) if weight else 0.0)


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.7])
def test_scores_are_those_of_the_whole_texts_and_no_worse_than_the_greedy_ones(weight):
    for seed in range(3):
        model = tiny_recogniser(seed=seed)
        _, heard = heard_by(model, 12, seed)
        found = joint_beam(model, heard, SearchConfig(beam=8, ctc_weight=weight, candidates=6))
        for one in found[:3]:
            assert one.score == pytest.approx(score_of(model, heard, list(one.ids), weight), rel=1e-4)
        greedy = attention_greedy(model, heard)[0]
        assert found[0].score >= score_of(model, heard, greedy, weight) - 1e-6


def test_a_bonus_makes_texts_longer():
    model = tiny_recogniser()
    _, heard = heard_by(model, 16)
    short, long = (joint_beam(model, heard, SearchConfig(beam=4, bonus=bonus))[0].ids for bonus in (-5.0, 20.0))
    assert len(short) < len(long) <= 16


def test_settings_out_of_range_are_refused():
    with pytest.raises(ConfigError, match=r"search\.ctc_weight is 2"):
        SearchConfig(ctc_weight=2)
    with pytest.raises(ConfigError, match=r"search\.beam"):
        SearchConfig(beam=0)
