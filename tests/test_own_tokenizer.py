"""The example of a tokenizer of one's own runs, keeps the contract, and is as good as its page says."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

import speechtok
from speechtok.audio import Audio
from speechtok.cli import main
from speechtok.clips import bundled_clips
from speechtok.verify import verify

EXAMPLE = Path(__file__).parents[1] / "examples" / "own_tokenizer.py"
RATE = 16000


@pytest.fixture(scope="module")
def tok():
    return runpy.run_path(str(EXAMPLE))["CosineTokenizer"]()


@pytest.fixture(scope="module")
def clip():
    audio = speechtok.read(bundled_clips()[0].path, RATE)
    return Audio(audio.samples[: 2 * RATE], RATE)


def noise_ratio(original: np.ndarray, decoded: np.ndarray) -> float:
    """Signal to noise in dB."""
    return 10 * np.log10(np.sum(original**2) / np.sum((original - decoded) ** 2))


def test_the_contract_is_kept(tok, clip):
    checks = verify(tok, [clip, Audio(clip.samples[: RATE // 2], RATE)])
    assert len(checks) >= 8
    assert [check.name for check in checks if check.passed is None] == ["half precision"]  # the example has no weights
    assert [f"{check.name}: {check.measured}" for check in checks if check.passed is False] == []


def test_speech_comes_back_and_more_levels_bring_more_of_it(tok, clip):
    tokens = tok.encode(clip)
    ratios = [noise_ratio(clip.samples, tok.decode(tokens.take(k)).samples) for k in (4, 16, 64)]
    assert ratios == sorted(ratios)
    assert ratios[0] > 0 and ratios[-1] > 5


def test_silence_stays_silent(tok):
    silence = Audio(np.zeros(1000, np.float32), RATE)
    assert not tok.decode(tok.encode(silence)).samples.any()


def test_the_parts_of_a_signal_add_up(tok, clip):
    """Each level is one row of the basis, so acoustic remainders decode to what is missing."""
    from dataclasses import replace

    tokens = tok.encode(clip)
    rest = replace(tokens, codes=tokens.codes[8:], codebook_sizes=tokens.codebook_sizes[8:], first_level=8)
    both = tok.decode(tokens.take(8)).samples + tok.decode(rest).samples
    assert np.allclose(both, tok.decode(tokens).samples, atol=1e-5)


def test_the_command_takes_it(tok, clip, tmp_path, capsys):
    speechtok.write(tmp_path / "a.wav", clip)
    words = ["encode", str(tmp_path / "a.wav"), "-o", str(tmp_path / "a.tokens.safetensors")]
    assert main(words, load=lambda *_, **__: tok) == 0
    assert "64 x 200 codes" in capsys.readouterr().out
    assert speechtok.Tokens.load(tmp_path / "a.tokens.safetensors") == tok.encode(clip)


def test_the_page_shows_the_file(tok):
    page = (EXAMPLE.parents[1] / "docs" / "add-your-own.md").read_text(encoding="utf-8")
    assert len(page.splitlines()) < 60
    assert "examples/own_tokenizer.py" in page and f"{tok.bitrate:.0f} bit/s" in page
