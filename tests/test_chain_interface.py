"""The chain's text interface and its weights: values, gradients, schedules, balance."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from speechtok.chain.balance import DynamicWeights, UncertaintyWeights
from speechtok.chain.interface import Temperature, st_argmax, st_gumbel
from speechtok.errors import ConfigError
from speechtok.nn.noise import gumbel


def test_rows_are_one_hot_whatever_the_temperature():
    logits = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0))
    for rows in (st_argmax(logits, 0.1), st_argmax(logits, 5.0), st_gumbel(logits, 0.5), st_gumbel(logits, 2.0)):
        assert rows.sum(-1).equal(torch.ones(3, 5)) and rows.amax(-1).equal(torch.ones(3, 5))
    assert torch.equal(st_argmax(logits).argmax(-1), logits.argmax(-1))


def test_the_gradient_is_that_of_the_soft_path():
    torch.manual_seed(0)
    logits = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    table, target = torch.randn(6, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    # a loss that is linear in the rows, so that its derivative is the same at the hard rows and at the soft ones
    (st_argmax(logits, 0.7) @ table * target).sum().backward()

    def soft(values):
        return ((values / 0.7).softmax(-1) @ table * target).sum()

    step, wanted = 1e-6, torch.zeros_like(logits)
    for i in range(4):
        for j in range(6):
            shift = torch.zeros_like(logits)
            shift[i, j] = step
            wanted[i, j] = (soft(logits.detach() + shift) - soft(logits.detach() - shift)) / (2 * step)
    assert torch.allclose(logits.grad, wanted, atol=1e-6)


def test_a_chain_of_two_gets_the_gradient_at_the_drawn_symbols_through_the_soft_path():
    """A recogniser's weights, the interface, and a speaker that is not linear in the symbol."""
    torch.manual_seed(1)
    weights = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    heard, table = torch.randn(3, 5, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)
    generator = torch.Generator().manual_seed(7)
    state = generator.get_state()
    rows = st_gumbel(heard @ weights, 0.9, generator)
    rows.retain_grad()
    torch.tanh(rows @ table).square().sum().backward()
    generator.set_state(state)
    noise = gumbel(torch.empty(3, 4), generator)

    def soft(w):
        return (((heard @ w + noise) / 0.9).softmax(-1) * rows.grad).sum()

    step = 1e-6
    for i, j in [(0, 0), (2, 3), (4, 1)]:
        shift = torch.zeros_like(weights)
        shift[i, j] = step
        found = (soft(weights.detach() + shift) - soft(weights.detach() - shift)) / (2 * step)
        assert weights.grad[i, j] == pytest.approx(float(found), abs=1e-6)
    assert weights.grad.abs().max() > 1e-3


@pytest.mark.parametrize("temperature", [0.1, 0.75, 2.0])
def test_what_is_drawn_follows_the_softmax_at_any_temperature(temperature):
    logits = torch.tensor([1.0, 0.0, -1.0, 0.5])
    generator = torch.Generator().manual_seed(0)
    drawn = st_gumbel(logits.expand(40000, 4), temperature, generator).mean(0)
    assert torch.allclose(drawn, logits.softmax(0), atol=0.01)


def test_a_low_temperature_from_the_start_lets_gradients_vanish():
    torch.manual_seed(0)
    sizes = []
    for temperature in (1.0, 0.02):
        logits = (3 * torch.randn(200, 10)).requires_grad_()
        (st_argmax(logits, temperature) * torch.randn(200, 10)).sum().backward()
        sizes.append(float(logits.grad.abs().median()))
    assert sizes[1] < 0.01 * sizes[0]


@given(
    st.sampled_from(["fixed", "linear", "exponential", "cosine"]),
    st.floats(0.1, 4),
    st.floats(0.05, 4),
    st.integers(1, 40),
)
def test_temperatures_go_from_first_to_last_without_turning(schedule, first, last, epochs):
    temperature = Temperature(schedule, first, last)
    values = [temperature.at(epoch, epochs) for epoch in range(epochs)]
    assert values[0] == pytest.approx(first)
    if schedule == "fixed" or epochs == 1:
        assert set(values) == {first}
    else:
        assert values[-1] == pytest.approx(last)
        steps = [b - a for a, b in pairwise(values)]
        assert all(step <= 1e-9 for step in steps) or all(step >= -1e-9 for step in steps)


def test_temperatures_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="above 0"):
        Temperature("linear", 2.0, 0.0)


def epochs(weights, *losses):
    for each in losses:
        weights.observe(each)
        weights.end_epoch()
    return weights.weights


def test_dynamic_weights_are_those_of_the_formula():
    weights = DynamicWeights(("asr", "t2s"))
    assert epochs(weights, {"asr": 4.0, "t2s": 2.0}) == {"asr": 1.0, "t2s": 1.0}
    found = epochs(weights, {"asr": 2.0, "t2s": 1.8})
    powers = [math.exp(0.5 / 2), math.exp(0.9 / 2)]
    assert found == pytest.approx({"asr": 2 * powers[0] / sum(powers), "t2s": 2 * powers[1] / sum(powers)})
    assert found["t2s"] > found["asr"]  # whose loss falls more slowly


@given(st.lists(st.tuples(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3)), min_size=2, max_size=5), st.floats(0.1, 10))
def test_dynamic_weights_sum_to_the_number_of_tasks(history, temperature):
    weights = DynamicWeights(("a", "b"), temperature)
    found = epochs(weights, *({"a": a, "b": b} for a, b in history))
    assert sum(found.values()) == pytest.approx(2) and min(found.values()) >= 0


def test_dynamic_weights_take_the_mean_of_an_epoch_and_survive_a_checkpoint():
    weights = DynamicWeights(("a",))
    weights.observe({"a": 1.0})
    kept = DynamicWeights(("a",))
    kept.load_state_dict(weights.state_dict())
    for one in (weights, kept):
        one.observe({"a": 3.0})
        one.end_epoch()
    assert kept.history == weights.history == [{"a": 2.0}]
    with pytest.raises(ConfigError, match="without a step"):
        kept.end_epoch()


def test_uncertain_tasks_count_less():
    weights = UncertaintyWeights(("a", "b"))
    losses = {"a": torch.tensor(4.0), "b": torch.tensor(0.5)}
    assert weights(losses).item() == pytest.approx(4.5)
    optimiser = torch.optim.SGD(weights.parameters(), 0.1 / weights.PACE**2)
    for _ in range(500):
        optimiser.zero_grad()
        weights(losses).backward()
        optimiser.step()
    # the minimum of exp(-s) L + s is at s = log L
    assert weights.log_variance.tolist() == pytest.approx([math.log(4.0), math.log(0.5)], abs=1e-3)
    assert weights.weights == pytest.approx({"a": 1 / 4, "b": 2}, abs=1e-2)
