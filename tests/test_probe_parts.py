"""Parts of the probes: network, batches, labels, CTC and the estimator of mutual information, each against its law."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from speechtok.bench.probes.goals import CharactersGoal, ClassGoal, PhonesGoal
from speechtok.bench.probes.information import (
    by_length,
    club,
    mutual_information,
    pair_log_likelihoods,
    random_orders,
)
from speechtok.bench.probes.learner import Progress
from speechtok.bench.probes.network import CodeInput, FeatureInput, Probe, ProbeShape, TwoWays, mirrored
from speechtok.bench.probes.questions import Label, Question, labels_of, within_classes
from speechtok.bench.probes.recipe import NewBob, ProbeData, ProbeRecipe
from speechtok.errors import ConfigError, NotSupportedError
from speechtok.nn.ctc import ctc_nats, possible
from speechtok.nn.vectors import unit_scale
from speechtok.tokenizers.code_vectors import code_vectors
from speechtok.tokenizers.features import MelFeatures
from speechtok.tokenizers.units import Clusters, UnitTokenizer
from speechtok.train.batches import POOL, EndlessBatches
from tiny import tiny_tokenizer

SHAPE = ProbeShape(embedding=6, width=5)
LENGTHS = torch.tensor([3, 7, 1, 5])


def probe(kind: str, pooled: bool = False, **changes) -> tuple[Probe, torch.Tensor]:
    """A small probe and tokens ``[4, 7, ...]`` for it."""
    torch.manual_seed(0)
    shape = ProbeShape(**{"embedding": 6, "width": 5} | changes)
    if kind == "soft":
        return Probe(shape, FeatureInput(shape, 3), 4, pooled, 2), torch.randn(4, 7, 3)
    return Probe(shape, CodeInput(shape, (9, 5)), 4, pooled, 2), torch.randint(0, 5, (4, 7, 2))


# -- network --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooled", [False, True], ids=["per-frame", "pooled"])
@pytest.mark.parametrize("kind", ["codes", "soft"])
def test_a_batch_gives_what_single_utterances_give(kind, pooled):
    network, rows = probe(kind, pooled)
    network.eval()
    for row, length, answer in zip(rows, LENGTHS, network(rows, LENGTHS), strict=True):
        alone = network(row[None, :length], length[None])[0]
        assert torch.allclose(answer if pooled else answer[: 2 * length], alone, atol=1e-6)


@pytest.mark.parametrize("combine", ["attention", "sum"])
@pytest.mark.parametrize("kind", ["codes", "soft"])
def test_every_weight_learns(kind, combine):
    network, rows = probe(kind, combine=combine)
    network(rows, LENGTHS).square().sum().backward()
    assert [name for name, weight in network.named_parameters() if not weight.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("pooled", [False, True], ids=["per-frame", "pooled"])
def test_padding_gets_no_gradient(pooled):
    network, rows = probe("soft", pooled)
    rows.requires_grad_()
    answers = network(rows, LENGTHS)
    frames = torch.arange(7)
    valid = torch.ones(4, 14, dtype=torch.bool) if pooled else (frames < LENGTHS[:, None]).repeat_interleave(2, 1)
    (answers if pooled else answers[valid]).square().sum().backward()
    heard = rows.grad.abs().sum(-1) > 0
    assert heard.equal(frames < LENGTHS[:, None])


def test_both_directions_are_those_of_torch_on_packed_sequences():
    torch.manual_seed(0)
    ours, theirs = TwoWays(6, 5), torch.nn.LSTM(6, 5, batch_first=True, bidirectional=True)
    for name, weight in ours.ahead.named_parameters():
        getattr(theirs, name).data.copy_(weight)
    for name, weight in ours.back.named_parameters():
        getattr(theirs, f"{name}_reverse").data.copy_(weight)
    x = torch.randn(4, 7, 6)
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)
    wanted, _ = torch.nn.utils.rnn.pad_packed_sequence(theirs(packed)[0], batch_first=True)
    found = ours(x, mirrored(LENGTHS[:, None], torch.arange(7)))
    inside = torch.arange(7) < LENGTHS[:, None]
    assert torch.allclose(found[inside], wanted[inside], atol=1e-6)


def test_levels_are_summed_or_weighed():
    codes = torch.randint(0, 5, (2, 3, 2))
    summed = CodeInput(ProbeShape(embedding=6, combine="sum"), (9, 5))
    tables = [table(code) for table, code in zip(summed.tables, codes.unbind(-1), strict=True)]
    assert summed(codes).equal(sum(tables))
    weighed = CodeInput(SHAPE, (9, 5))
    torch.nn.init.zeros_(weighed.scores[2].weight)  # equal scores: the mean
    tables = [table(code) for table, code in zip(weighed.tables, codes.unbind(-1), strict=True)]
    assert torch.allclose(weighed(codes), sum(tables) / 2, atol=1e-6)


def test_tables_begin_at_code_vectors():
    codec = tiny_tokenizer("frame")
    found = code_vectors(codec, 3)
    codes = torch.randint(0, 32, (1, 3, 5))
    wanted = codec.codec.quantizer.vectors(codes)[:, 0]
    assert all(one[code].equal(row) for one, code, row in zip(found, codes[0], wanted, strict=True))
    source = CodeInput(SHAPE, (32,) * 3, found)  # of 16 dimensions, hence mapped
    assert source.tables[1].weight.equal(unit_scale(found[1])) and source(codes.mT).shape == (1, 5, 6)
    units = UnitTokenizer(Clusters(MelFeatures(n_mels=20), torch.randn(7, 20)), "units")
    assert code_vectors(units, 1)[0].equal(units.source.centres)


def test_a_tokenizer_without_code_vectors_is_told_so():
    from toy_language import Tones

    with pytest.raises(ConfigError, match=r"network\.start=random"):
        code_vectors(Tones(), 1)


# -- batches --------------------------------------------------------------------------------------------------------


@given(st.integers(1, 60), st.integers(1, 7), st.integers(0, 99))
def test_every_utterance_comes_once_per_pass(count, batch, seed):
    lengths = np.random.default_rng(seed).integers(1, 50, count)
    batches = EndlessBatches(lengths, batch, seed)
    drawn = np.concatenate([batches(step) for step in range(2 * POOL)])
    times = np.bincount(drawn, minlength=count)
    assert times.max() - times.min() <= 2  # a pool may end within a pass
    assert batches(POOL + 3).tolist() == EndlessBatches(lengths, batch, seed)(POOL + 3).tolist()


def test_lengths_are_alike_in_a_batch():
    lengths = np.random.default_rng(0).integers(1, 1000, 500)
    batches = EndlessBatches(lengths, 8, 0)
    spread = np.mean([np.ptp(lengths[batches(step)]) for step in range(POOL)])
    assert spread < 100 and EndlessBatches(lengths, 8, 1)(0).tolist() != batches(0).tolist()


# -- labels ---------------------------------------------------------------------------------------------------------


def test_labels_of_columns_and_of_json(tmp_path):
    (tmp_path / "m.tsv").write_text(
        'path\tsplit\tmood\tslots\na\tdev\tglad\t{"drink": " tea", "size": 2}\nb\ttrain\tsad\t\nc\tdev\t\t{"size": 1}\n'
    )
    assert labels_of(tmp_path / "m.tsv", "dev", Label.parse("mood")) == ["glad", ""]
    assert labels_of(tmp_path / "m.tsv", "dev", Label.parse("slots:drink")) == ["tea", ""]
    assert labels_of(tmp_path / "m.tsv", "dev", Label.parse("slots:size")) == ["2", "1"]
    with pytest.raises(NotSupportedError, match="no column 'tone', only path, split, mood, slots"):
        labels_of(tmp_path / "m.tsv", "dev", Label.parse("tone"))
    with pytest.raises(ConfigError, match=r"m\.tsv line 2: column mood holds no JSON"):
        labels_of(tmp_path / "m.tsv", "dev", Label.parse("mood:drink"))
    with pytest.raises(ConfigError, match="cannot read this manifest"):
        labels_of(tmp_path / "none.tsv", "dev", Label.parse("mood"))


def test_json_that_is_no_mapping_is_refused(tmp_path):
    (tmp_path / "m.tsv").write_text("path\tsplit\tslots\na\tdev\t[1]\n")
    with pytest.raises(ConfigError, match="line 2: column slots holds no mapping, so it has no key 'drink'"):
        labels_of(tmp_path / "m.tsv", "dev", Label.parse("slots:drink"))


@pytest.mark.parametrize("text", ["", ":key", "column:"])
def test_a_label_names_a_column(text):
    with pytest.raises(ConfigError, match="names no column"):
        Label.parse(text)


@given(st.integers(3, 30), st.integers(0, 9))
def test_parts_within_classes_share_no_utterance_and_all_classes(count, seed):
    questions = [Question(f"{name}{i}", name) for name in ("a", "b") for i in range(count)] + [Question("x", "c")]
    parts = within_classes(questions, 3, seed)
    items = [question.item for part in parts.values() for question in part]
    assert len(items) == len(set(items)) == 2 * count
    assert all({question.answer for question in part} == {"a", "b"} for part in parts.values())
    with pytest.raises(NotSupportedError, match=r"lower data\.least"):
        within_classes(questions, 31, seed)


def test_targets_say_why_they_are_missing():
    assert CharactersGoal(50, 25).target("naïve", 9) == "its transcript has other letters than English ones"
    assert ClassGoal(["a"]).target("b", 9) == "class 'b' is not in the training part"
    assert PhonesGoal(50, {}).target("x", 9) == "no alignment"
    assert [CharactersGoal(rate, 25).per_frame for rate in (75, 25, 12.5, 10)] == [1, 1, 2, 3]


# -- recipes and annealing ------------------------------------------------------------------------------------------


def test_epochs_decide_the_steps():
    recipe = ProbeRecipe(epochs=3, data=ProbeData(manifests=["m"], batch=4)).with_steps(10)
    assert (recipe.steps, recipe.validate_every) == (9, 3)


def test_recipes_that_cannot_work_are_refused():
    with pytest.raises(ConfigError, match=r"data\.label"):
        ProbeRecipe(goal="classes")
    with pytest.raises(ConfigError, match=r"data\.alignments"):
        ProbeRecipe(goal="phones")
    with pytest.raises(ConfigError, match="goal=classes"):
        ProbeRecipe(data=ProbeData(manifests=["m"], within=True))
    with pytest.raises(ConfigError, match=r"network\.dropout"):
        ProbeShape(dropout=1.0)


def test_newbob_lowers_the_rate_where_the_loss_stays():
    progress = Progress(NewBob(0.5, 0.01))
    seen = [(1.0, 0.9), (0.995, 0.8), (0.9, 0.85), (0.95, 0.7)]
    assert [progress.see(loss, error) for loss, error in seen] == [True, True, False, True]
    assert progress.factor == 0.25
    again = Progress(NewBob(0.5, 0.01))
    again.load_state_dict(progress.state_dict())
    assert again.see(0.95, 0.7) is False and again.factor == 0.125


# -- CTC ------------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 2), min_size=1, max_size=3), st.integers(1, 5), st.integers(0, 9))
def test_ctc_sums_over_all_ways_to_spell(target, outputs, seed):
    logits = torch.randn(1, outputs, 3, generator=torch.Generator().manual_seed(seed))
    probabilities = logits[0].softmax(-1)
    total = 0.0
    for path in itertools.product(range(3), repeat=outputs):
        merged = [k for i, k in enumerate(path) if k and (i == 0 or path[i - 1] != k)]
        if merged == target:
            total += float(torch.stack([probabilities[i, k] for i, k in enumerate(path)]).prod())
    said, count = [torch.tensor(target)], torch.tensor([outputs])
    nats = float(ctc_nats(logits, count, said))
    assert possible(count, said).item() == (total > 0) == np.isfinite(nats)
    assert not total or nats == pytest.approx(-np.log(total), rel=1e-4, abs=1e-5)


def test_a_batch_without_any_possible_text_still_has_a_gradient():
    logits = torch.randn(2, 3, 29, requires_grad=True)
    losses = CharactersGoal(50, 0).losses(logits, torch.tensor([3, 3]), [torch.tensor([1, 1, 1])] * 2)
    assert losses["impossible/ctc"] == 1 and losses["probe/ctc"] == 0
    losses["probe/ctc"].backward()


# -- mutual information ---------------------------------------------------------------------------------------------


@given(st.integers(1, 20), st.integers(0, 9))
def test_a_q_that_ignores_the_tokens_knows_nothing(count, seed):
    log_q = np.random.default_rng(seed).normal(size=count)[None].repeat(count, 0)
    assert club(log_q).mean() == pytest.approx(0, abs=1e-12)


def test_a_noisy_copy_has_the_known_value():
    """y is x, one of K, and is told wrongly with probability e: the bound has a closed form."""
    draws, count, values, wrong = np.random.default_rng(0), 4000, 5, 0.2
    x = draws.integers(values, size=count)
    flipped = (x + draws.integers(1, values, size=count)) % values
    y = np.where(draws.random(count) < wrong, flipped, x)
    log_q = np.where(y[None] == x[:, None], np.log(1 - wrong), np.log(wrong / (values - 1)))
    gap = np.log((1 - wrong) / (wrong / (values - 1)))
    bound = (1 - wrong - 1 / values) * gap  # E log q(y|x) - E log q(y'|x)
    assert club(log_q).mean() == pytest.approx(bound, abs=0.03)
    information = np.log(values) + (1 - wrong) * np.log(1 - wrong) + wrong * np.log(wrong / (values - 1))
    assert club(log_q).mean() > information  # it is an upper bound


def test_an_exact_copy_has_the_entropy_gap():
    count, small = 8, 1e-3
    log_q = np.where(np.eye(count) > 0, np.log(1 - small), np.log(small / (count - 1)))
    wanted = (count - 1) / count * (np.log(1 - small) - np.log(small / (count - 1)))
    assert club(log_q) == pytest.approx(np.full(count, wanted))


def test_impossible_pairs_are_left_out():
    log_q = np.array([[-1.0, -3.0, -np.inf], [-4.0, -2.0, -6.0], [-1.0, -1.0, -np.inf]])
    found = club(log_q)
    assert found[:2] == pytest.approx([-1 - (-1 - 3) / 2, -2 - (-4 - 2 - 6) / 3]) and np.isnan(found[2])


def test_pairs_are_scored_per_character_and_counted():
    answers = [torch.randn(4, 29), torch.randn(2, 29)]
    targets = [np.array([3, 3]), np.array([5])]
    log_q = pair_log_likelihoods(answers, targets)
    wanted = -ctc_nats(answers[0][None], torch.tensor([4]), [torch.tensor([3, 3])]) / 2
    assert log_q[0, 0] == pytest.approx(float(wanted))
    assert np.isneginf(log_q[1, 0])  # a letter twice takes three outputs
    found = mutual_information(answers, targets, random_orders(2, 3))
    assert (found.pairs, found.skipped) == (12, 3)
    assert found.values == pytest.approx(club(log_q), abs=1e-5)


def test_every_utterance_is_rated_whatever_the_batch():
    answers, targets = [torch.randn(9, 29) for _ in range(7)], [np.array([1, 2, 3 + i]) for i in range(7)]
    orders = random_orders(7, 2, seed=3)
    found = mutual_information(answers, targets, orders, batch=3)
    assert np.isfinite(found.values).all() and found.pairs == 2 * (9 + 4 + 4)
    again = mutual_information(answers, targets, random_orders(7, 2, seed=3), batch=3)
    assert found.values.tolist() == again.values.tolist()


def test_length_tells_nothing_among_texts_of_like_length():
    """q prefers texts as long as the tokens and knows nothing else."""
    lengths = np.repeat([4, 8], 4)
    answers = [torch.zeros(2 * length, 29) for length in lengths]
    targets = [np.full(length, 1 + i % 2) + np.arange(length) % 3 for i, length in enumerate(lengths)]
    alike = mutual_information(answers, targets, by_length(answers), batch=4)
    anyhow = mutual_information(answers, targets, random_orders(8), batch=4)
    assert alike.values == pytest.approx(np.zeros(8), abs=1e-5) and anyhow.values.mean() > 0.05
