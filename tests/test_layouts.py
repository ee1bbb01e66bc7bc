"""Layouts: decode undoes encode, and what a model may write wrongly is named or cut off."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechtok.errors import ConfigError, TokenError, TokenFileError
from speechtok.layouts import LAYOUTS, Layout, Vocabulary, get, register, run_lengths, train_bpe
from speechtok.tokens import Tokens

HOP = 320
NAMES = sorted(LAYOUTS)


def make(codes, sizes=8, semantic=(0,), missing=0, **changes) -> Tokens:
    """Tokens of these codes, whose last frame lacks ``missing`` samples."""
    codes = np.asarray(codes)
    fields = {
        "codes": codes,
        "codebook_sizes": (sizes,) * len(codes) if isinstance(sizes, int) else sizes,
        "sample_rate": 16000,
        "hop": HOP,
        "num_samples": codes.shape[1] * HOP - missing,
        "semantic_levels": semantic,
        "tokenizer": "test",
        "fingerprint": "abc",
    }
    return Tokens(**(fields | changes))


@st.composite
def any_tokens(draw, least_levels=1) -> Tokens:
    sizes = tuple(draw(st.lists(st.sampled_from([1, 2, 3, 300]), min_size=least_levels, max_size=4)))
    frames, seed = draw(st.integers(1, 30)), draw(st.integers(0, 99))
    random = np.random.default_rng(seed)
    kept = np.maximum.accumulate(np.arange(frames) * (random.random(frames) < draw(st.sampled_from([1.0, 0.3]))))
    codes = np.stack([random.integers(0, size, frames) for size in sizes])[:, kept]
    first = draw(st.integers(0, 2))
    timbre = random.standard_normal(3) if draw(st.booleans()) else None
    return make(codes, sizes, (first,), draw(st.integers(0, HOP - 1)), first_level=first, timbre=timbre)


@st.composite
def any_layout(draw, tokens: Tokens) -> Layout:
    """Every layout and option, with the tokens themselves as what byte pairs are learned from."""
    name = draw(st.sampled_from([name for name in NAMES if name != "split" or tokens.levels > 1]))
    vocabulary = Vocabulary.of(
        tokens, text_size=draw(st.sampled_from([0, 7])), shared=draw(st.booleans()), durations=draw(st.integers(1, 5))
    )
    options = {}
    if name == "bpe":
        vocabulary = train_bpe(vocabulary, [tokens, tokens], vocabulary.code_count + draw(st.integers(1, 20)))
    if name == "delay" and draw(st.booleans()):
        delays = draw(st.permutations([0, *draw(st.lists(st.integers(0, 5), min_size=3, max_size=3))][: tokens.levels]))
        options["delays"] = delays if min(delays) == 0 else None
    if name == "coarse" and draw(st.booleans()):
        levels = draw(st.permutations(range(tokens.first_level, tokens.first_level + tokens.levels)))
        cut = draw(st.integers(0, tokens.levels - 1))
        options["groups"] = [group for group in (levels[:cut], levels[cut:]) if group]
    return get(name, vocabulary, **options)


@given(data=st.data(), tokens=any_tokens(), bos=st.booleans(), eos=st.booleans(), padding=st.integers(0, 3))
def test_decode_undoes_encode(data, tokens, bos, eos, padding):
    layout = data.draw(any_layout(tokens))
    sequence = layout.encode(tokens, bos=bos, eos=eos)
    assert sequence.dtype == np.int64 and sequence.min() >= 0 and sequence.max() < layout.vocabulary.size
    assert sequence.shape[:-1] == ((tokens.levels,) if layout.parallel else ())
    width = [(0, 0)] * (sequence.ndim - 1) + [(0, padding)]
    padded = np.pad(sequence, width, constant_values=layout.vocabulary.pad)
    for strict in (True, False):
        assert layout.decode(padded, num_samples=tokens.num_samples, timbre=tokens.timbre, strict=strict) == tokens
    assert layout.decode(sequence.tolist()).num_samples == tokens.frames * HOP
    again = get(layout.name, layout.vocabulary, **layout.options)
    assert np.array_equal(again.encode(tokens, bos=bos, eos=eos), sequence)


@given(data=st.data(), tokens=any_tokens(least_levels=2), cut=st.integers(0, 200))
def test_a_sequence_cut_anywhere_gives_the_frames_that_are_whole(data, tokens, cut):
    layout = data.draw(any_layout(tokens))
    sequence = layout.encode(tokens)
    cut = min(cut, sequence.shape[-1])
    frames = frames_before(layout, tokens, sequence, cut)
    if not frames:
        with pytest.raises(TokenError):
            layout.decode(sequence[..., :cut], strict=False)
        return
    assert np.array_equal(layout.decode(sequence[..., :cut], strict=False).codes, tokens.codes[:, :frames])


def frames_before(layout: Layout, tokens: Tokens, sequence: np.ndarray, cut: int) -> int:
    """How many frames the first ``cut`` steps hold completely, step by step from each layout's definition."""
    levels, frames = tokens.codes.shape
    if layout.parallel:
        return min(frames, max(0, cut - max(layout.delays)))
    if layout.name == "dedup":
        pairs = sequence[: cut - cut % (levels + 1)].reshape(-1, levels + 1)
        return int((pairs[:, -1] - layout.vocabulary.duration_start + 1).sum())
    if layout.name in ("flat", "bpe"):
        merges, base = layout.vocabulary.merges.merged, layout.vocabulary.merge_start
        merged = [number - base for number in sequence[:cut] if merges and number >= base]
        return (cut - len(merged) + sum(len(merges[unit]) for unit in merged)) // levels
    last = len(layout.groups[-1])  # blocks: the last one decides
    return max(0, cut - (len(sequence) - last * frames)) // last


@given(
    data=st.data(), tokens=any_tokens(), where=st.integers(0, 10**6), wrong=st.sampled_from([-1, 10**6, "sep", "bos"])
)
def test_a_wrong_id_is_named_by_its_position_and_cut_off(data, tokens, where, wrong):
    layout = data.draw(any_layout(tokens))
    sequence = layout.encode(tokens)
    at = where % sequence.shape[-1]
    number = wrong if isinstance(wrong, int) else getattr(layout.vocabulary, wrong)
    sequence[..., at] = np.where(sequence[..., at] == number, -1, number)
    if (at == 0 and (sequence[..., 0] == layout.vocabulary.bos).all()) or (
        wrong == "sep" and layout.name in ("coarse", "split")
    ):
        return  # a bos at the start is none of the content; a sep in a block moves the fault: tested apart
    with pytest.raises(TokenError, match=rf"^position {at}: "):
        layout.decode(sequence)
    frames = frames_before(layout, tokens, layout.encode(tokens), at)
    if frames:
        assert np.array_equal(layout.decode(sequence, strict=False).codes, tokens.codes[:, :frames])
    else:
        with pytest.raises(TokenError, match=rf"^position {at}: "):
            layout.decode(sequence, strict=False)


CODES = [[1, 1, 2], [3, 3, 4]]
# ids: bos 0, eos 1, pad 2, sep 3; level 0 from 4, level 1 from 12; durations 1..2 from 20
SEQUENCES = {
    "flat": [5, 15, 5, 15, 6, 16],
    "coarse": [5, 5, 6, 3, 15, 15, 16],
    "split": [5, 5, 6, 3, 15, 15, 16],
    "dedup": [5, 15, 21, 6, 16, 20],
    "bpe": [5, 15, 5, 15, 6, 16],
    "parallel": [[5, 5, 6], [15, 15, 16]],
    "delay": [[5, 5, 6, 2], [2, 15, 15, 16]],
}


def layout_of(name: str, **options) -> Layout:
    return get(name, Vocabulary.of(make(CODES), durations=2), **options)


@pytest.mark.parametrize("name", NAMES)
def test_sequences_are_as_documented(name):
    assert layout_of(name).encode(make(CODES)).tolist() == SEQUENCES[name]


def test_shared_ids_and_other_delays():
    vocabulary = Vocabulary.of(make(CODES), shared=True)
    assert get("flat", vocabulary).encode(make(CODES)).tolist() == [5, 7, 5, 7, 6, 8]
    late_first = get("delay", vocabulary, delays=(2, 0))
    assert late_first.encode(make(CODES)).tolist() == [[2, 2, 5, 5, 6], [7, 7, 8, 2, 2]]


WRONG = {
    "flat-code-of-another-level": ("flat", [5, 15, 16, 15], r"position 2: 16 \(code 4 of level 1\).*level 0 is due"),
    "flat-half-a-frame": ("flat", [5, 15, 5], "position 3: a code of level 1 is missing"),
    "flat-sep": ("flat", [5, 3], r"position 1: 3 \(sep\) where a code of level 1"),
    "coarse-no-sep": ("coarse", [5, 5], "position 2: .*sep and the next levels are due"),
    "coarse-short-level": ("coarse", [5, 5, 3, 15], "position 4: a code of level 1 is missing"),
    "coarse-long-level": ("coarse", [5, 3, 15, 15], "position 3: this block goes on after 1 frames"),
    "coarse-two-seps": ("coarse", [5, 3, 15, 3, 15], r"position 3: this block goes on"),
    "dedup-no-duration": ("dedup", [5, 15, 21, 6, 16], "position 5: the sequence ends before the duration"),
    "dedup-code-for-duration": ("dedup", [5, 15, 16], r"position 2: 16 .* where a duration is due"),
    "delay-code-in-a-hole": ("delay", [[5, 5, 2], [15, 15, 15]], "position 0: 15 .*level 1, where pad is due"),
    "delay-hole-in-the-middle": ("delay", [[5, 2, 5, 2], [2, 15, 15, 15]], "position 2: 5 .* where pad is due"),
    "delay-no-tail": (
        "delay",
        [[5, 5, 6], [2, 15, 15]],
        "position 3: the sequence ends at step 3, but 3 frames take 4",
    ),
    "delay-long-tail": ("delay", [[5, 2, 2, 1], [2, 15, 2, 1]], "position 2: the sequence goes on"),
    "parallel-eos-in-one-row": ("parallel", [[5, 1], [15, 15]], r"position 1: 1 \(eos\) where a code of level 0"),
    "content-after-eos": ("flat", [5, 15, 1, 2, 5], "position 4: 5 .* follows eos"),
    "bos-counts": ("flat", [0, 15, 5], r"position 1: 15 \(code 3 of level 1\)"),
    "empty": ("flat", [], "position 0: no frame is there"),
    "only-eos": ("delay", [[1], [1]], "position 0: "),
    "only-padding": ("coarse", [0, 2, 2], "position 1: "),
    "float": ("flat", [5.0, 15.0], r"flat reads whole numbers \[T\]"),
    "two-dimensional": ("flat", [[5, 15]], r"\[T\], not int64 of shape \[1, 2\]"),
    "one-dimensional": ("delay", [5, 15], r"\[2, T\], not int64 of shape \[2\]"),
    "rows-missing": ("parallel", [[5, 5]], r"\[2, T\]"),
    "ragged": ("parallel", [[5, 5], [15]], "rows of several lengths"),
    "beyond-int64": ("flat", [2**64, 15], "whole numbers"),
}


@pytest.mark.parametrize(("name", "sequence", "words"), WRONG.values(), ids=WRONG.keys())
def test_wrong_sequences_are_refused_in_one_line(name, sequence, words):
    with pytest.raises(TokenError, match=words) as caught:
        layout_of(name).decode(sequence)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_what_follows_eos_is_cut_off_when_not_strict(name):
    layout = layout_of(name)
    sequence = layout.encode(make(CODES), eos=True)
    longer = np.concatenate([sequence, sequence], axis=-1)
    with pytest.raises(TokenError, match="follows eos"):
        layout.decode(longer)
    assert layout.decode(longer, strict=False) == make(CODES)


@pytest.mark.parametrize(
    ("samples", "frames", "kept"), [(2 * HOP - 7, 2, 2 * HOP - 7), (9 * HOP, 3, 3 * HOP)], ids=["fewer", "more"]
)
def test_samples_that_do_not_fit_are_an_error_or_cut(samples, frames, kept):
    layout = layout_of("flat")
    with pytest.raises(TokenError, match="frames"):
        layout.decode(SEQUENCES["flat"], num_samples=samples)
    tokens = layout.decode(SEQUENCES["flat"], num_samples=samples, strict=False)
    assert (tokens.frames, tokens.num_samples) == (frames, kept)
    with pytest.raises(TokenError, match="num_samples"):
        layout.decode(SEQUENCES["flat"], num_samples=0, strict=False)


@given(tokens=any_tokens(), longest=st.one_of(st.none(), st.integers(1, 4)))
def test_runs_repeat_to_what_they_were(tokens, longest):
    frames, lengths = run_lengths(tokens.codes, longest)
    assert np.array_equal(np.repeat(frames, lengths, axis=1), tokens.codes)
    assert lengths.min() >= 1 and (longest is None or lengths.max() <= longest)
    if longest is None:
        assert (frames[:, 1:] != frames[:, :-1]).any(axis=0).all()


def test_long_runs_are_cut_into_full_pieces_and_a_rest():
    frames, lengths = run_lengths(np.array([[7] * 8 + [1] * 3]), 3)
    assert (frames.tolist(), lengths.tolist()) == ([[7, 7, 7, 1]], [3, 3, 2, 3])


REFUSED = {
    "unknown": ("spiral", {}, "no layout 'spiral'; the layouts are bpe, coarse"),
    "unknown-option": ("flat", {"delays": (0, 1)}, "layout 'flat': .*delays"),
    "too-few-delays": ("delay", {"delays": (0,)}, "one per level"),
    "no-delay-of-zero": ("delay", {"delays": (1, 2)}, "the least of them 0"),
    "delays-no-numbers": ("delay", {"delays": "01"}, "whole numbers"),
    "groups-lack-a-level": ("coarse", {"groups": [[0]]}, "each of the levels"),
    "groups-repeat-a-level": ("coarse", {"groups": [[0, 1], [1]]}, "each of the levels"),
    "empty-group": ("coarse", {"groups": [[0, 1], []]}, "none be empty"),
    "groups-no-lists": ("coarse", {"groups": 3}, "lists of levels"),
}


@pytest.mark.parametrize(("name", "options", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_impossible_layouts_are_refused(name, options, words):
    with pytest.raises(ConfigError, match=words):
        layout_of(name, **options)


def test_layouts_say_what_the_vocabulary_lacks():
    with pytest.raises(ConfigError, match="durations=64"):
        get("dedup", Vocabulary.of(make(CODES)))
    with pytest.raises(ConfigError, match="split needs semantic and acoustic"):
        get("split", Vocabulary.of(make(CODES, semantic=())))


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(make(CODES, fingerprint="other"), id="fingerprint"),
        pytest.param(make(CODES[:1]), id="fewer-levels"),
        pytest.param(make(CODES, semantic=(), first_level=1), id="shifted-levels"),
        pytest.param(make(CODES, sizes=16), id="codebook-sizes"),
    ],
)
@pytest.mark.parametrize("name", ["flat", "bpe"])
def test_tokens_of_something_else_are_refused(name, other):
    with pytest.raises(TokenFileError):
        layout_of(name).encode(other)


def test_a_layout_of_ones_own_is_found_by_name(monkeypatch):
    monkeypatch.setattr("speechtok.layouts.base.LAYOUTS", dict(LAYOUTS))

    @register
    class Reversed(LAYOUTS["flat"]):
        name = "reversed"

        def _lay(self, codes):
            return super()._lay(codes)[:, ::-1]

        def _parse(self, ids):
            return super()._parse(ids[:, ::-1])

    layout = layout_of("reversed")
    assert layout.encode(make(CODES)).tolist() == SEQUENCES["flat"][::-1]
    assert layout.decode(layout.encode(make(CODES))) == make(CODES)
