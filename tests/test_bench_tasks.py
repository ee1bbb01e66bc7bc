"""What the tasks of `speechtok bench` measure, one function at a time."""

from __future__ import annotations

import numpy as np
import pytest

from speechtok.bench.conversion import WHOLE
from speechtok.bench.suite import cost, invariance, robustness
from speechtok.bench.suite.conversion import ranges_of
from speechtok.bench.tasks import Options, Speech
from speechtok.errors import NotSupportedError
from tiny import tiny_tokenizer
from tiny_bench import Silent


def test_unit_edit_distance_is_levenshtein_by_length():
    assert robustness.unit_edit_distance("kitten", "sitting") == pytest.approx(3 / 6)
    assert robustness.unit_edit_distance([1, 2, 3], [1, 2, 3]) == 0
    with pytest.raises(robustness.MetricError, match="no tokens"):
        robustness.unit_edit_distance([], [1])


def test_disturbances_do_what_they_say(speech):
    audio, model = speech(1.0, 8000), tiny_tokenizer()
    random = np.random.default_rng(0)
    found = {name: disturb(audio, model, random) for name, disturb in robustness.DISTURBANCES.items()}
    noise = found["noise, 20 dB SNR"] - audio.samples
    ratio = 10 * np.log10(np.mean(audio.samples**2) / np.mean(noise**2))
    assert ratio == pytest.approx(20, abs=0.2)
    assert found["gain, -6 dB"] == pytest.approx(audio.samples * 0.501, abs=1e-3)
    assert len(found["resampled"]) == len(audio) and np.abs(found["resampled"] - audio.samples).mean() < 0.01
    assert len(found["half a frame later"]) == len(audio) - model.hop // 2


def test_ranges_follow_the_paper_and_voices_are_taken_whole():
    assert ranges_of(tiny_tokenizer()) == [slice(1, 2), slice(1, 4)]
    voiced = tiny_tokenizer()
    voiced.voices = True
    assert ranges_of(voiced) == [None] and WHOLE
    with pytest.raises(NotSupportedError):
        ranges_of(Silent())


def test_tensors_are_counted_once():
    model = tiny_tokenizer()
    model.again = [model.codec, {"same": model.codec}]
    assert cost.tensor_bytes(model) == cost.tensor_bytes(tiny_tokenizer()) > 0


def test_invariance_needs_a_recording(tmp_path):
    with pytest.raises(NotSupportedError, match="none of the recordings"):
        invariance.measure(tiny_tokenizer(), Speech(None, "", ()), tmp_path, Options())
