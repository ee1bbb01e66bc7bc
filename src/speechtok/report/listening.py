"""The page of a demo: recordings to hear at every number of levels, seen as spectrograms and tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from speechtok.bench.codebooks import CodebookUsage
from speechtok.bench.metrics import METRICS
from speechtok.bench.reconstruction import LevelSummary, estimate_text, failure_lines
from speechtok.report.clip import Item, clip_card
from speechtok.report.page import TIMES, Html, bars, facts, interval_chart, page, section, table, tag

DEFINITIONS = {
    "PESQ-WB": "wide-band PESQ (ITU-T P.862.2), 1.0 to 4.64, higher is better; an estimate of a listening score.",
    "STOI": "short-time objective intelligibility (Taal et al. 2011), up to 1, higher is better.",
    "mel distance": "mean absolute difference of natural-log mel magnitudes, 80 bands, lower is better.",
    "intervals": "95 % bootstrap over utterances. So few say little: run the reconstruction benchmark on a test set.",
    "entropy-coded": "bit/s if each level were coded by the code frequencies of these very recordings.",
    "perplexity": "two to the power of the entropy: how many equally likely codes would carry as much.",
    "speed": "seconds of audio per second of computing, one recording at a time, resampling and metrics excluded.",
}


@dataclass(frozen=True)
class Run:
    """What the page says about the model and the machine."""

    model: Mapping[str, Any]
    """``Tokenizer.describe()``, with ``parameters`` where they are known."""
    encode_speed: float
    """Times real time."""
    decode_speed: float
    """Times real time, all levels."""
    settings: Mapping[str, str]
    """Versions, threads, whatever else may change a number."""


def listening_page(
    run: Run, items: Sequence[Item], summaries: Sequence[LevelSummary], usage: Sequence[CodebookUsage]
) -> str:
    """The whole page as a string; nothing in it is loaded from elsewhere."""
    seconds = sum(item.result.original.seconds for item in items)
    navigation = {
        "model": "Model",
        "quality": "Quality",
        "listen": "Listen",
        "codebooks": "Codebooks",
        "numbers": "Numbers",
    }
    sections = (
        section("model", "Model", _model_facts(run, summaries)),
        section("quality", "Quality by number of levels", *_quality(summaries, len(items), seconds)),
        section("listen", "Listen and look", *map(clip_card, items), lead=_LISTEN_LEAD),
        section("codebooks", "Codebooks", *_codebooks(run, usage, seconds)),
        section("numbers", "About the numbers", *_numbers(run, items)),
    )
    return page(f"{run.model['name']} demo", _header(run, items, summaries), navigation, sections, _FOOTER)


_LISTEN_LEAD = (
    "Choose a version to play it; choose another one while it plays and the sound goes on from the same place. "
    "The strips show one column per frame and one colour per code, so a sound that lasts shows as a run of one colour."
)
_FOOTER = "Made by speechtok. This page is one file: sound, pictures and numbers are inside it."


def _header(run: Run, items: Sequence[Item], summaries: Sequence[LevelSummary]) -> Html:
    counts = [str(one.levels) for one in summaries]
    spoken = " and ".join(filter(None, (", ".join(counts[:-1]), counts[-1])))
    sentence = (
        f"{len(items)} recordings turned into discrete tokens by {run.model['name']}, and back into speech "
        f"from {spoken} of its {run.model['levels']} levels."
    )
    figures = {
        "frames per second": f"{run.model['frame_rate']:g}",
        "bits per second": f"{run.model['bitrate']:,.0f}",
        "million parameters": f"{run.model['parameters'] / 1e6:.1f}" if run.model.get("parameters") else None,
        f"{TIMES} real time, encoding": f"{run.encode_speed:.0f}",
    }
    shown = [tag("li", tag("b", value), tag("span", name)) for name, value in figures.items() if value is not None]
    kicker, title = tag("p", "speechtok demo", class_="kicker"), tag("h1", "Speech, tokens, speech")
    return tag("div", kicker, title, tag("p", sentence, class_="lead"), tag("ul", *shown, class_="figures"))


def _model_facts(run: Run, summaries: Sequence[LevelSummary]) -> Html:
    model = run.model
    sizes = sorted(set(model["codebook_sizes"]))
    semantic = ", ".join(str(level + 1) for level in model["semantic_levels"]) or "none"
    shown = {
        "Name": model["name"],
        "Scheme": model["scheme"],
        "Parameters": f"{model['parameters']:,}" if model.get("parameters") else "not stated",
        "Sample rate": f"{model['sample_rate']:,} Hz",
        "Frame rate": f"{model['frame_rate']:g} per second, hop {model['hop']}",
        "Levels": f"{model['levels']} {TIMES} {' or '.join(map(str, sizes))} codes",
        "Semantic level": semantic,
        "Causal": "yes" if model["causal"] else "no",
        "Bitrate": f"{model['bitrate']:,.0f} bit/s",
        "Entropy-coded": f"{summaries[-1].entropy_bitrate:,.0f} bit/s on these recordings",
        "Encoding": f"{run.encode_speed:.1f} {TIMES} real time in this run",
        "Decoding": f"{run.decode_speed:.1f} {TIMES} real time in this run",
        "Licence of the weights": model["licence"],
        "Fingerprint": tag("code", model["fingerprint"]),
    }
    note = tag("p", model["note"], class_="note") if model.get("note") else ""
    return Html(facts(shown) + note)


def _quality(summaries: Sequence[LevelSummary], count: int, seconds: float) -> list[Html]:
    metrics = [METRICS[name] for name in summaries[0].metrics]
    names = [f"{metric.label} {'↑' if metric.higher_is_better else '↓'}" for metric in metrics]
    rows = [
        [one.levels, f"{one.bitrate:,.0f}", f"{one.entropy_bitrate:,.0f}"]
        + [_estimate(one, metric.name) for metric in metrics]
        + [count]
        for one in summaries
    ]
    lines = [f"{count} recordings, {seconds:.0f} s. Mean and 95 % interval; ↑ higher is better, ↓ lower is better."]
    lines += failure_lines([one.to_dict() for one in summaries])
    charts = [chart for metric in metrics if (chart := _chart(summaries, metric.name))]
    return [
        table(["Levels", "bit/s", "entropy-coded", *names, "n"], rows),
        *(tag("p", line, class_="note") for line in lines),
        tag("div", *charts, class_="charts"),
    ]


def _estimate(summary: LevelSummary, name: str) -> Html:
    estimate, digits = summary.metrics[name], METRICS[name].digits
    mean, _, rest = estimate_text(estimate, digits).partition(" [")
    return Html(tag("b", mean) + (tag("small", f" [{rest}") if rest else ""))


def _chart(summaries: Sequence[LevelSummary], name: str) -> Html | None:
    found = [(str(one.levels), one.metrics[name]) for one in summaries]
    points = [(label, e.mean, e.low, e.high) for label, e in found if e.mean is not None]
    metric = METRICS[name]
    note = f"{'higher' if metric.higher_is_better else 'lower'} is better"
    return interval_chart(metric.label, note, points, 2) if points else None


def _codebooks(run: Run, usage: Sequence[CodebookUsage], seconds: float) -> list[Html]:
    semantic = set(run.model["semantic_levels"])
    rows = []
    for one in usage:
        taught = one.level in semantic
        bits = f"{one.entropy:.1f} of {math.log2(one.size):g} bit"
        value = f"{one.used} of {one.size} · perplexity {one.perplexity:.0f} · {bits}"
        label = f"level {one.level + 1}" + (", semantic" if taught else "")
        rows.append((label, one.usage, value, "semantic" if taught else None))
    frames = usage[0].frames
    note = (
        f"Fraction of each codebook that occurs in these {frames:,} frames ({seconds:.0f} s), which is "
        f"{frames / usage[0].size:.1f} frames per code: it can only grow with more speech."
    )
    return [tag("p", note, class_="lead"), bars(rows)]


def _numbers(run: Run, items: Sequence[Item]) -> list[Html]:
    defined = tag(
        "dl",
        *(tag("div", tag("dt", name), tag("dd", meaning)) for name, meaning in DEFINITIONS.items()),
        class_="terms",
    )
    sources = table(
        ["Recording", "Source", "Licence and speaker"], [(i.name, i.source, " · ".join(i.details)) for i in items]
    )
    return [defined, tag("h3", "This run"), facts(run.settings), tag("h3", "Recordings"), sources]
