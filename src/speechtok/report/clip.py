"""One recording on a page: players for every version, spectrograms and tokens on one time axis."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import soundfile

from speechtok.audio import Audio
from speechtok.bench.metrics import METRICS
from speechtok.bench.reconstruction import Reconstruction
from speechtok.bench.scoring import Scores
from speechtok.report.page import DASH, Html, image, tag
from speechtok.report.pictures import data_uri, spectrum, spectrum_png, strip_png
from speechtok.tokens import Tokens

TILE_METRICS = ("pesq_wb", "stoi")
ORIGINAL = "original"


@dataclass(frozen=True, eq=False)
class Item:
    """A recording and what a tokenizer made of it."""

    name: str
    title: str
    language: str
    details: Sequence[str]
    """Speaker, corpus, licence and the like."""
    source: str
    result: Reconstruction
    scores: Mapping[int, Scores]

    @property
    def best(self) -> str:
        """The version with the most levels."""
        return str(max(self.result.decoded))

    def versions(self) -> dict[str, Audio]:
        """The original and the reconstructions, by name."""
        return {ORIGINAL: self.result.original} | {str(count): one for count, one in self.result.decoded.items()}


def clip_card(item: Item) -> Html:
    """The recording as a card; its script part is what ``script.js`` reads the codes from."""
    audio, tokens = item.result.original, item.result.tokens
    details = [*item.details, f"{audio.seconds:.1f} s", f"{tokens.frames} frames"]
    codes = json.dumps(tokens.codes.tolist(), separators=(",", ":"))
    return tag(
        "article",
        tag("h3", item.title, lang=item.language),
        tag("p", " · ".join(details), class_="meta", title=item.source),
        tag("div", *(_tile(item, name, version) for name, version in item.versions().items()), class_="tiles"),
        tag("div", *_rows(item), _overlay(), class_="timeline"),
        tag("p", "Point at the timeline to read the tokens, click to play from there.", class_="readout"),
        tag("script", Html(codes), type="application/json", class_="codes"),
        id=f"clip-{item.name}",
        class_="clip card",
        data_seconds=f"{audio.seconds:.4f}",
        data_frame_rate=f"{tokens.frame_rate:.6g}",
    )


def _tile(item: Item, name: str, audio: Audio) -> Html:
    if name == ORIGINAL:
        title, lines = "Original", [f"{audio.rate * 16 / 1000:.0f} kbit/s PCM"]
    else:
        title = _levels(name)
        lines = [f"{item.result.tokens.take(int(name)).bitrate / 1000:.1f} kbit/s", *_quality(item.scores[int(name)])]
    return tag(
        "figure",
        tag("button", type="button", class_="play", aria_label=f"Play {title.lower()}"),
        tag("figcaption", tag("b", title), *(tag("span", line) for line in lines)),
        tag("audio", controls="", preload="metadata", src=data_uri(_flac(audio), "audio/flac")),
        class_="tile chosen" if name == item.best else "tile",
        data_version=name,
    )


def _quality(scores: Scores) -> Iterator[str]:
    for metric in (METRICS[name] for name in TILE_METRICS if name in scores):
        value = scores[metric.name].value
        yield f"{metric.label} {DASH if value is None else f'{value:.{metric.digits}f}'}"


def _rows(item: Item) -> Iterator[Html]:
    tokens, rate = item.result.tokens, item.result.original.rate
    pictures = {name: spectrum(audio.samples, audio.rate) for name, audio in item.versions().items()}
    top = float(pictures[ORIGINAL].max())
    first, *others = (_spectrogram(name, picture, top, item.best) for name, picture in pictures.items())
    yield _row(Html(f"original<small>0{DASH}{rate / 2000:g} kHz</small>"), tag("div", first, class_="track"))
    name = tag("span", f"from {_levels(item.best)}", class_="version-name")
    yield _row(name, tag("div", *others, class_="track versions"))
    yield from _strips(tokens)
    yield _row("", tag("div", *_ticks(item.result.original.seconds), class_="axis"))


def _spectrogram(name: str, picture: np.ndarray, top: float, best: str) -> Html:
    source = data_uri(spectrum_png(picture, top), "image/png")
    alt = "Spectrogram of the original" if name == ORIGINAL else f"Spectrogram from {_levels(name)}"
    return image(source, alt, class_="spectrogram chosen" if name == best else "spectrogram", data_version=name)


def _strips(tokens: Tokens) -> Iterator[Html]:
    semantic = [level for level in range(tokens.levels) if level in tokens.semantic_levels]
    acoustic = [level for level in range(tokens.levels) if level not in tokens.semantic_levels]
    for kind, levels in (("semantic", semantic), ("acoustic", acoustic)):
        if not levels:
            continue
        source = data_uri(strip_png(tokens.codes[levels], vivid=kind == "semantic"), "image/png")
        picture = image(source, f"Tokens of the {kind} levels", class_="strip")
        label = Html(tag("span", kind, class_="kind") + tag("ol", *(tag("li", level + 1) for level in levels)))
        yield _row(label, tag("div", picture, class_="track", style=f"--rows:{len(levels)}"), kind)


def _ticks(seconds: float) -> Iterator[Html]:
    for second in range(math.ceil(seconds)):
        yield tag("span", second or "0 s", style=f"left:{second / seconds:.3%}")


def _overlay() -> Html:
    return tag("div", tag("div", class_="playhead"), class_="overlay", role="presentation")


def _row(label: object, track: Html, kind: str = "") -> Html:
    return tag("div", tag("div", label, class_="label"), track, class_=f"row {kind}".rstrip())


def _levels(count: str) -> str:
    return f"{count} level" if count == "1" else f"{count} levels"


def _flac(audio: Audio) -> bytes:
    # lossless, so that what is heard is the model and not a second codec
    buffer = io.BytesIO()
    soundfile.write(buffer, audio.samples, audio.rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()
