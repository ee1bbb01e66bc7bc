"""The LSTM at inference: steps in integers against float32."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speechtok.nn import fixedpoint, recurrent
from speechtok.nn.fixedpoint import FixedPoint, multiplies_integers
from speechtok.nn.recurrent import TOLERANCE, Plain, Recurrent, Steps, direction
from speechtok.nn.sequence import SkipLSTM

needs_integers = pytest.mark.skipif(not multiplies_integers(), reason="no exact products of bytes on this processor")
WIDTH = 48


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Size of the difference against the size of what is expected."""
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def product(fixed: FixedPoint, x: torch.Tensor) -> torch.Tensor:
    out = fixed.offset.expand(len(x), -1).clone()
    fixed.add_to(out, x, fixed.room(len(x)), out)
    return out


def layer(bidirectional: bool = True, width: int = WIDTH) -> SkipLSTM:
    torch.manual_seed(0)
    return SkipLSTM(width, 2, bidirectional).eval()


@needs_integers
@settings(max_examples=20, deadline=None)
@given(
    rows=st.integers(1, 5),
    inputs=st.integers(1, 70),
    outputs=st.integers(1, 40),
    tolerance=st.sampled_from(tuple(TOLERANCE.values())),
    seed=st.integers(0, 99),
)
@torch.inference_mode()
def test_a_product_in_integers_keeps_its_tolerance_and_heeds_no_company(rows, inputs, outputs, tolerance, seed):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, inputs, generator=generator)
    x = torch.rand(rows, inputs, generator=generator) * 2 - 1
    x[0] = x[0].sign()  # both ends of the range
    fixed = FixedPoint(weight, tolerance)
    found, expected = product(fixed, x), x.double() @ weight.double().t()
    bound = (tolerance * weight.norm() + weight.abs().sum(1).norm() / fixedpoint.ZERO) * x.norm()
    assert float((found - expected).norm()) <= float(bound)
    for i in range(rows):
        assert torch.equal(product(fixed, x[i : i + 1]), found[i : i + 1])


@torch.inference_mode()
def test_a_matrix_with_a_far_outlier_takes_another_term():
    weight = torch.randn(32, 64, generator=torch.Generator().manual_seed(0)).double()
    assert len(fixedpoint.integer_terms(weight, TOLERANCE[torch.bfloat16])[0]) == 1
    weight[:, 0] = 100
    matrices, scales = fixedpoint.integer_terms(weight, 1e-3 * float(weight[:, 1:].norm() / weight.norm()))
    assert len(matrices) == 2
    rebuilt = sum(matrix * scale[:, None] for matrix, scale in zip(matrices, scales, strict=True))
    assert relative(rebuilt[:, 1:], weight[:, 1:]) < 1e-2


@needs_integers
@pytest.mark.parametrize("dtype, bound", [(torch.float32, 1e-4), (torch.bfloat16, 1e-2)])
@torch.inference_mode()
def test_steps_in_integers_are_those_of_the_lstm(dtype, bound):
    lstm = layer(bidirectional=False).lstm
    x = torch.randn(3, 40, WIDTH, generator=torch.Generator().manual_seed(1))
    weights = {name: getattr(lstm, f"{name}_l0").detach() for name in recurrent.LSTM_WEIGHTS}
    expected = Plain(weights, torch.float32)(x)
    found = Steps(weights, dtype)(x)
    assert found.dtype == torch.float32 and found.shape == expected.shape
    assert relative(found, expected) < bound


@needs_integers
@pytest.mark.parametrize("bidirectional", [True, False])
@torch.inference_mode()
def test_a_large_lstm_gives_each_signal_what_it_gets_alone(bidirectional, monkeypatch):
    monkeypatch.setattr(recurrent, "LARGE", 1)
    skip = layer(bidirectional)
    fast = Recurrent(skip, torch.float32)
    assert isinstance(fast.layers[0][0], Steps)
    lengths = torch.tensor([30, 7, 1])
    x = torch.randn(3, 30, WIDTH, generator=torch.Generator().manual_seed(2))
    together = fast(x, lengths)
    for i, length in enumerate(lengths.tolist()):
        one = x[i : i + 1, :length]
        assert relative(together[i : i + 1, :length], fast(one)) < 1e-6
        assert relative(fast(one), skip(one.transpose(1, 2)).transpose(1, 2)) < 1e-4


def test_the_library_computes_small_lstms_and_all_on_other_processors(monkeypatch):
    lstm = layer(width=16).lstm
    assert isinstance(direction(lstm, "_l0", torch.bfloat16), Plain)
    monkeypatch.setattr(recurrent, "LARGE", 1)
    assert isinstance(direction(lstm, "_l0", torch.bfloat16), Steps if multiplies_integers() else Plain)
    multiplies_integers.cache_clear()
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    try:
        assert isinstance(direction(lstm, "_l0", torch.bfloat16), Plain)
    finally:
        multiplies_integers.cache_clear()
