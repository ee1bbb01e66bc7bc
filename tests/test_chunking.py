"""The window plan keeps every frame once, gives each its context, and never grows with the signal."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechtok.tokenizers.chunking import windows
from tiny import signal, tiny_tokenizer

sizes = st.tuples(st.integers(1, 400), st.integers(1, 40), st.integers(0, 30), st.integers(0, 30))


@given(sizes)
@settings(deadline=None, max_examples=200)
def test_every_frame_is_kept_once_in_order(size):
    kept = [frame for window in windows(*size) for frame in range(window.keep_start, window.keep_stop)]
    assert kept == list(range(size[0]))


@given(sizes)
@settings(deadline=None, max_examples=200)
def test_every_kept_frame_has_its_context_or_the_end_of_the_signal(size):
    frames, _, left, right = size
    for window in windows(*size):
        assert window.start == 0 or window.keep_start - window.start >= left
        assert window.stop == frames or window.stop - window.keep_stop >= right


@given(sizes)
@settings(deadline=None, max_examples=200)
def test_windows_of_long_signals_have_one_size(size):
    frames, core, left, right = size
    lengths = {window.stop - window.start for window in windows(*size)}
    assert lengths == {min(frames, left + core + right)}


@pytest.mark.parametrize("hours", [1, 3], ids=["one-hour", "three-hours"])
def test_number_of_windows_is_what_the_new_audio_needs(hours):
    frames, core = hours * 3600 * 50, 1500
    count = sum(1 for _ in windows(frames, core, 20, 20))
    assert count <= frames // core + 1


def test_kept_counts_from_the_start_of_the_window():
    second = list(windows(100, 30, 5, 7))[1]
    assert (second.keep_start, second.start, second.kept.start) == (35, 30, 5)


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "log"])
def test_long_audio_draws_a_bar_on_a_terminal_alone(terminal, monkeypatch, capsys):
    tokenizer = tiny_tokenizer("seanet").in_windows(0.2)
    tokenizer.show_progress = True
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    tokenizer.decode(tokenizer.encode(signal(2.0)))
    assert ("window" in capsys.readouterr().err) is terminal
