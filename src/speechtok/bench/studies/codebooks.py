"""How evenly the codes of every level are used: all codes by their frequency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from speechtok.bench.codebooks import CodebookUsage, codebook_usage
from speechtok.bench.facts import Facts
from speechtok.bench.statistics import Estimate, draw_items, tails
from speechtok.bench.studies.drawing import new_figure
from speechtok.bench.studies.results import BenchResults
from speechtok.bench.studies.settings import Settings
from speechtok.bench.studies.study import Study, Table, cell
from speechtok.bench.suite.codes import NAME, TOKENS
from speechtok.bench.tasks import level_role

RESAMPLES = 200
DRAWS = 20
ACROSS = 3
METHOD = (
    "The codes of each level, sorted by how often they occur; 1 is the frequency of a code in a uniform codebook. Usage"
    " is the share of codes that occur at all, normalised perplexity is 2 to the entropy over the size of the codebook."
    " Both grow with the number of frames, so codebooks of fewer frames look worse: `uniform` is what as many frames of"
    " a perfectly uniform codebook would show (mean of 20 draws), and the last column is the perplexity over that."
    " Resampled utterances have fewer different codes, so an interval is the spread of 200 resamples around the figure"
    " itself."
)


@dataclass(frozen=True)
class Level:
    """One level of a tokenizer."""

    usage: CodebookUsage
    counts: np.ndarray
    """``[U, K]``: how often each code occurs in each utterance."""

    @cached_property
    def evenness(self) -> Estimate:
        """Normalised perplexity with its interval."""
        value = _evenness(self.counts.sum(axis=0))
        if len(self.counts) < 2:
            return Estimate(value, None, None, len(self.counts))
        draws = draw_items(len(self.counts), RESAMPLES)
        found = np.array([_evenness(self.counts[draw].sum(axis=0)) for draw in draws])
        low, high = np.quantile(value + found - found.mean(), tails(0.95))
        return Estimate(value, float(low), float(high), len(self.counts))

    @property
    def frequencies(self) -> np.ndarray:
        """``[K]`` falling, 1 for a code that occurs as often as in a uniform codebook."""
        return relative_frequencies(self.counts.sum(axis=0))

    @cached_property
    def uniform(self) -> np.ndarray:
        """``[DRAWS, K]``: counts of as many frames of a uniform codebook."""
        codes = np.random.default_rng(0).integers(self.usage.size, size=(DRAWS, self.usage.frames))
        return np.stack([np.bincount(draw, minlength=self.usage.size) for draw in codes])


def codebooks(results: BenchResults, settings: Settings) -> Study:
    """The study; a tokenizer whose codes are not there is listed."""
    study, found = Study("codebooks", "How the codebooks are used", METHOD), {}
    for name, about in results.tokenizers.items():
        if not about["codebook_sizes"]:
            study.lack(f"{name}: it has no codes")
            continue
        codes = read_codes(results, name)
        if codes:
            found[name] = levels_of(codes, about["codebook_sizes"])
        else:
            study.lack(f"{name}: codes of task {NAME} in the cache of the results")
    lines = [line for name, levels in found.items() for line in _lines(study, results, name, levels)]
    columns = ["tokenizer", "level", "codes", "frames", "in use", "uniform", "normalised perplexity", "uniform"]
    if found:
        study.tables.append(Table("By level", [*columns, "over uniform"], lines))
        study.pictures[""] = _draw(found)
    return study


def read_codes(results: BenchResults, name: str) -> list[np.ndarray]:
    """Codes ``[Q, N]`` of the utterances of a run, from what its task ``codes`` kept; none where it kept nothing."""
    if results.folder is None:
        return []
    stage = results.full(name)
    wanted = results.values(stage, "tokens_per_second", NAME)
    facts = Facts(Path(results.folder) / "cache" / NAME, results.tokenizers[name]["fingerprint"]).of(TOKENS)
    known = {key.rpartition(" ")[0]: fact for key, fact in facts.items()}  # of a changed recording the last one
    values = [known[one].value for one in wanted if one in known and known[one].failure is None]
    return [np.array(value["codes"]) for value in values if value["codes"] is not None]


def levels_of(codes: Sequence[np.ndarray], sizes: Sequence[int]) -> list[Level]:
    """Counts and figures of every level."""
    usage = codebook_usage(codes, sizes)
    return [
        Level(one, np.stack([np.bincount(rows[level], minlength=one.size) for rows in codes]))
        for level, one in enumerate(usage)
    ]


def relative_frequencies(counts: np.ndarray) -> np.ndarray:
    """Falling frequencies of ``counts[K]``, with a mean of 1."""
    return np.sort(counts)[::-1] * len(counts) / counts.sum()


def _evenness(counts: np.ndarray) -> float:
    odds = counts[counts > 0] / counts.sum()
    return float(2 ** -(odds * np.log2(odds)).sum() / len(counts))


def _lines(study: Study, results: BenchResults, name: str, levels: Sequence[Level]) -> Any:
    for number, level in enumerate(levels, start=1):
        usage, even = level.usage, level.evenness
        ideal, drawn = float(np.mean([*map(_evenness, level.uniform)])), float((level.uniform > 0).mean())
        place = {"tokenizer": name, "level": number, "frames": usage.frames}
        study.add("usage", Estimate(usage.usage, None, None, even.n), **place, measure="usage", uniform=drawn)
        study.add("usage", even, **place, measure="normalised_perplexity", uniform=ideal)
        _compare(study, results, name, number, usage)
        figures = [f"{usage.usage:.3f}", f"{drawn:.3f}", cell(even, 3), f"{ideal:.3f}", f"{even.mean / ideal:.3f}"]
        yield [name, str(number), f"{usage.size:,}", f"{usage.frames:,}", *figures]


def _compare(study: Study, results: BenchResults, name: str, number: int, usage: CodebookUsage) -> None:
    """Say where the cache no longer is what the summary was made from."""
    role = level_role(1, 0) if number == 1 else f"level {number}"
    for row in results.document["summary"]:
        where = row["tokenizer"], row["task"], row["measure"], row["role"]
        if where == (name, NAME, "perplexity", role) and not np.isclose(row["mean"], usage.perplexity, rtol=1e-6):
            study.lack(f"{name}: the codes in the cache are not those of the summary; run speechtok bench again")


def _draw(found: Mapping[str, Sequence[Level]]) -> Any:
    from matplotlib import colormaps

    down = -(-len(found) // ACROSS)
    figure, axes = new_figure(down, ACROSS, 0.7 + 2.1 * down, sharex=True, sharey=True)
    for axis, (name, levels) in zip(axes.flat, found.items(), strict=False):
        for number, level in enumerate(levels):
            shade = colormaps["viridis"](0.85 * number / max(1, len(levels) - 1))
            axis.plot(*_visible(level.frequencies), color=shade, linewidth=1.4)
        axis.plot(
            *_visible(np.mean([*map(relative_frequencies, levels[0].uniform)], axis=0)),
            color="black",
            linestyle=":",
            linewidth=1,
        )
        axis.set_yscale("log")
        axis.set_title(name, fontsize=9)
        texts = [
            f"level {i + 1}: {100 * levels[i].usage.usage:.0f} %, {levels[i].evenness.mean:.2f}" for i in _ends(levels)
        ]
        axis.text(0.97, 0.97, "\n".join(texts), transform=axis.transAxes, ha="right", va="top", fontsize=8.5)
    for axis in axes.flat[len(found) :]:
        axis.set_visible(False)
    for axis in axes.flat[max(0, len(found) - ACROSS) : len(found)]:
        axis.tick_params(labelbottom=True)  # those of the last row may be missing
    figure.supylabel("frequency, 1: as in a uniform codebook", fontsize=9)
    note = "codes by their frequency, share of the codebook.   Numbers: codes in use, normalised perplexity."
    figure.supxlabel(
        f"{note}\nDark to light: first to last level.   Dotted: as many frames of a uniform codebook.", fontsize=8.5
    )
    return figure


def _ends(levels: Sequence[Level]) -> list[int]:
    return sorted({0, len(levels) - 1})


def _visible(frequencies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ranks as shares of the codebook, and frequencies of the codes that occur."""
    there = frequencies > 0
    return (np.arange(len(frequencies)) + 1)[there] / len(frequencies), frequencies[there]
