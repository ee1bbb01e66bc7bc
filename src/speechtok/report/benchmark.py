"""The page of ``speechtok bench``: all tasks as tables to sort, quality against bitrate, recordings to hear."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from speechtok.bench.bitrates import row_bitrate
from speechtok.bench.facts import ORIGINAL
from speechtok.bench.tables import Shown
from speechtok.bench.tasks import load_task
from speechtok.report.charts import Point, Series, legend, rate_chart
from speechtok.report.page import DASH, Html, facts, page, section, table, tag
from speechtok.report.pictures import data_uri
from speechtok.report.studies import study_parts
from speechtok.report.tables import shown_measure, task_table

ASSETS = Path(__file__).parents[1] / "assets"
RATED = "reconstruction"
CHARTED = ("pesq_wb", "stoi", "mcd", "wer", "voice_cosine", "ffe")
"""Measures of ``RATED`` that are drawn against the bitrate."""
SEEN = {
    "paper": "read in a public copy of the paper or its poster",
    "page": "read on the project's public page",
    "second-hand": "read on a page about the paper, not in the paper itself",
}
FOOTER = "Made by speechtok bench. This page is one file: sound, pictures and numbers are inside it."
Document = Mapping[str, Any]


def benchmark_page(document: Document, audio: Path) -> str:
    """The whole page as a string; nothing in it is loaded from elsewhere.

    Args:
        document: what ``summary.json`` holds.
        audio: folder of the files that its examples name; studies are shown where they lie beside it.
    """
    sections = {
        "tokenizers": ("Tokenizers", section("tokenizers", "Tokenizers", _tokenizers(document))),
        **{name: (_title(name), one) for name, one in _tasks(document)},
        **_studies(document, audio.parent / "studies"),
        "listen": ("Listen", section("listen", "Listen", *_examples(document, audio), lead=_LISTEN)),
        "missing": ("Missing", section("missing", "What was not measured, and why", *_missing(document))),
        "published": ("Published", section("published", "Published numbers", _published(), lead=_PUBLISHED)),
        "run": ("This run", section("run", "About this run", *_run(document))),
    }
    navigation = {name: title for name, (title, _) in sections.items()}
    bodies = [body for _, body in sections.values()]
    scripts = ("script.js", "sort.js", "legend.js")
    return page("speechtok bench", _header(document), navigation, bodies, FOOTER, scripts)


_LISTEN = "The same recordings from every tokenizer: its first level alone, and all its levels."
_STUDIES = "Single questions to the figures above; tables with every number are in studies.md and studies.json."
_PUBLISHED = (
    "These numbers are not ours. They were made with other speech, judges and speaker networks, stand here for their"
    " order alone, and are never part of the tables above."
)


def count_failures(document: Document) -> int:
    """Values of single utterances that are missing, and models and tasks that failed as a whole."""
    return sum(row["failed"] for row in document["summary"]) + len(document["failures"])


def _header(document: Document) -> Html:
    settings = document["settings"]
    where = f"{settings['data']}, {settings['split']}" if settings["split"] else settings["data"]
    brief = " A quick run, which shows that everything works: nothing in it is to be quoted." * settings["quick"]
    sentence = f"{len(document['tokenizers'])} tokenizers on {settings['recordings']} recordings of {where}.{brief}"
    numbers = {"tokenizers": len(document["tokenizers"]), "figures": len(document["summary"])}
    numbers["values missing"] = count_failures(document)
    shown = [tag("li", tag("b", f"{value:,}"), tag("span", name)) for name, value in numbers.items()]
    kicker, title = tag("p", "speechtok bench", class_="kicker"), tag("h1", "Speech tokens, measured")
    return tag("div", kicker, title, tag("p", sentence, class_="lead"), tag("ul", *shown, class_="figures"))


def _tokenizers(document: Document) -> Html:
    heads = ["Tokenizer", "Scheme", "Hz", "Frames/s", "Levels", "Codes", "Taught content", "Causal", "bit/s"]
    rows = [
        [
            one["name"],
            one["scheme"],
            f"{one['sample_rate']:,}",
            DASH if one["frame_rate"] is None else f"{one['frame_rate']:g}",
            one["levels"] or DASH,
            ", ".join(map(str, dict.fromkeys(one["codebook_sizes"]))) or DASH,
            ", ".join(str(level + 1) for level in one["semantic_levels"]) or DASH,
            "yes" if one["causal"] else "no",
            DASH if one["bitrate"] is None else f"{one['bitrate']:,.0f}",
            tag("code", one["fingerprint"]),
        ]
        for one in document["tokenizers"]
    ]
    return table([*heads, "Fingerprint"], rows, class_="numbers sortable")


def _tasks(document: Document) -> Iterator[tuple[str, Html]]:
    """One section per task with figures, in the order they were asked for."""
    reference = document["settings"]["reference"]
    for name in document["settings"]["tasks"]:
        rows = [row for row in document["summary"] if row["task"] == name]
        if not rows:
            continue
        module = load_task(name)
        parts = [task_table(rows, module)]
        if name == RATED:
            parts = [*_charts(document, rows, module.MEASURES), *parts]
        apart = [row for row in document["differences"] if row["task"] == name]
        if apart:
            parts += [
                tag("h3", f"Difference from {reference}"),
                tag("p", _APART, class_="lead"),
                task_table(apart, module, differences=True),
            ]
        yield name, section(name, _title(name), *parts, lead=getattr(module, "HELP", None))


_APART = (
    "Over the same utterances, in pairs; coloured where the 95 % interval excludes zero. Intervals cover the choice of"
    " utterances, not another training of the models, and are not corrected for the number of comparisons."
)


def _charts(document: Document, rows: Sequence[Document], measures: Mapping[str, Shown]) -> Iterator[Html]:
    names = [one["name"] for one in document["tokenizers"]]
    drawn = []
    for measure in CHARTED:
        series = [
            Series(name, number, points)
            for number, name in enumerate(names)
            if (points := tuple(_points(document, rows, name, measure)))
        ]
        if series:
            shown = shown_measure(measure, measures)
            levels = [row["mean"] for row in rows if row["tokenizer"] == ORIGINAL and row["measure"] == measure]
            better = "higher is better" if shown.higher_is_better else "lower is better"
            note = better + ", dashed: the recordings" * bool(levels)
            drawn.append(rate_chart(shown.label, note, series, max(shown.digits, 2), levels[0] if levels else None))
    if drawn:
        yield legend(names)
        yield tag("div", *drawn, class_="charts rates")
        yield tag("h3", "All figures")


def _points(document: Document, rows: Sequence[Document], name: str, measure: str) -> Iterator[Point]:
    found = [row for row in rows if row["tokenizer"] == name and row["measure"] == measure and row["mean"] is not None]
    rated = [(row_bitrate(document, row), row) for row in found]
    for bitrate, row in sorted(((rate, row) for rate, row in rated if rate), key=lambda pair: pair[0]):
        yield Point(bitrate, row["mean"], row["low"], row["high"], row["role"])


def _studies(document: Document, folder: Path) -> dict[str, tuple[str, Html]]:
    parts = list(study_parts(document, folder))
    return {"studies": ("Studies", section("studies", "Studies", *parts, lead=_STUDIES))} if parts else {}


def _examples(document: Document, audio: Path) -> Iterator[Html]:
    originals = [one for one in document["examples"] if "tokenizer" not in one]
    for original in originals:
        same = [one for one in document["examples"] if one["utterance"] == original["utterance"] and "tokenizer" in one]
        players = [_player("Recording", original.get("speaker") or "", original, audio)]
        players += [_player(one["tokenizer"], one["role"], one, audio) for one in same]
        title = tag("h3", original["text"] or original["utterance"])
        body = tag("div", *players, class_="players")
        yield tag("article", title, tag("p", original["utterance"], class_="meta"), body, class_="heard card")
    if not originals:
        yield tag("p", "None of the recordings could be read.", class_="note")


def _player(name: str, role: str, example: Document, audio: Path) -> Html:
    if "file" in example:
        source = data_uri((audio / example["file"]).read_bytes(), "audio/flac")
        what = tag("audio", controls="", preload="metadata", src=source)
    else:
        what = tag("p", f"“{example['text']}”")
    return tag("figure", tag("figcaption", tag("b", name), " ", tag("span", role)), what)


def _missing(document: Document) -> Iterator[Html]:
    """Failures, utterances without a value, and figures that mean nothing for a kind of tokens, with their reasons."""
    failures = [(one["tokenizer"], one["stage"], one["reason"]) for one in document["failures"]]
    utterances = [
        (row["tokenizer"], f"{row['task']}, {row['measure']}, {row['role']}", reason, count)
        for row in document["summary"]
        for reason, count in row["reasons"].items()
    ]
    kinds: dict[tuple[str, str], list[str]] = {}
    for one in document["not_applicable"]:
        what = ", ".join(filter(None, (one["task"], one["measure"], one["role"])))
        kinds.setdefault((what, one["reason"]), []).append(one["tokenizer"])
    unfit = [(", ".join(names), *key) for key, names in kinds.items()]
    heads = ["Tokenizer", "What", "Reason"]
    parts = (
        ("Failed as a whole", heads, failures),
        ("Utterances without a value, left out of the mean", [*heads, "Utterances"], utterances),
        ("Does not apply", heads, unfit),
    )
    for title, names, lines in parts:
        if lines:
            yield tag("h3", title)
            yield table(names, lines, class_="sortable")
    if not failures + utterances + unfit:
        yield tag("p", "Everything that was asked for was measured.", class_="note")


def _published() -> Html:
    groups = yaml.safe_load((ASSETS / "published.yaml").read_text(encoding="utf-8"))
    parts = [tag("p", "Published, not measured here", class_="kicker")]
    for group in groups:
        rows = [[DASH if cell is None else cell for cell in row] for row in group["rows"]]
        note = f"{group['source']}; {SEEN[group['seen']]}. {group['conditions']}."
        parts += [
            tag("h3", group["title"]),
            table(group["columns"], rows, class_="numbers"),
            tag("p", note, class_="note"),
        ]
    return tag("div", *parts, class_="published")


def _run(document: Document) -> Iterator[Html]:
    yield tag("p", "To run it again: ", tag("code", document["command"] or "from Python"), class_="lead")
    settings = {name.replace("_", " "): _setting(value) for name, value in document["settings"].items()}
    yield tag("h3", "Settings")
    yield facts(settings)
    yield tag("h3", "Versions")
    yield facts(document["versions"])
    yield tag("h3", "Measures")
    yield tag("p", "Means over utterances with 95 % bootstrap intervals (2,000 resamples, fixed seed).", class_="lead")
    yield tag("dl", *_definitions(document), class_="terms")


def _definitions(document: Document) -> Iterator[Html]:
    """What the measures of the page mean; one that several tasks share stands once."""
    meanings = yaml.safe_load((ASSETS / "measures.yaml").read_text(encoding="utf-8"))
    found: dict[str, str] = {}
    for task, measure in dict.fromkeys((row["task"], row["measure"]) for row in document["summary"]):
        label = shown_measure(measure, getattr(load_task(task), "MEASURES", {})).label
        meaning = meanings.get(f"{task}.{measure}") or meanings.get(measure)
        if meaning:
            found.setdefault(label, meaning)
    for label, meaning in found.items():
        yield tag("div", tag("dt", label), tag("dd", meaning))


def _title(task: str) -> str:
    return task.replace("_", " ").capitalize()


def _setting(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {one}" for name, one in value.items()) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else "none" if value is None else str(value)
