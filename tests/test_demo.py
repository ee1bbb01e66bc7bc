"""The demo's page stands alone and shows what was measured, and the bundled recordings are what they claim."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechtok.audio import read, write
from speechtok.bench import metrics
from speechtok.demo import Clip, bundled_clips, run_demo
from speechtok.errors import OutputError
from speechtok.report.page import image, tag
from speechtok.report.pictures import png
from speechtok.tokens import Tokens
from tiny import signal, tiny_tokenizer

VERSIONS = ["original", "1", "2", "4"]


class Page(HTMLParser):
    """All elements with their attributes, and the text outside style and script."""

    def __init__(self, source: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(source)

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        if name not in {"meta", "link", "img", "circle", "line", "polyline"}:
            self.open.append(name)

    def handle_endtag(self, name):
        if name not in {"circle", "line", "polyline"}:
            assert self.open.pop() == name, f"</{name}> closes something else"

    def handle_data(self, data):
        if self.open and self.open[-1] not in {"style", "script"}:
            self.words.append(data)

    def all(self, name: str, class_: str | None = None) -> list[dict[str, str | None]]:
        found = [attributes for tag_name, attributes in self.elements if tag_name == name]
        return [a for a in found if class_ is None or class_ in (a.get("class") or "").split()]


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    clips = []
    for number, seconds in enumerate((0.8, 1.1)):
        path = folder / f"{number}.wav"
        write(path, signal(seconds, seed=number))
        clips.append(Clip(f"clip {number}", path, "Tea & <toast>", details=("speaker 7", "CC0 1.0"), source="a source"))
    return run_demo(folder / "out", tiny_tokenizer(), clips, processes=0)


@pytest.fixture(scope="module")
def page(demo) -> Page:
    return Page(demo.read_text("utf-8"))


def test_nothing_is_loaded_from_elsewhere(demo, page):
    addresses = [a.get(key) or "" for _, a in page.elements for key in ("src", "href", "srcset", "poster") if key in a]
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    source = re.sub(r"data:[\w/]+;base64,[\w+/=]+", "", demo.read_text("utf-8"))
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|https?://", source)


def test_links_lead_somewhere_and_every_element_is_closed(page):
    names = {attributes.get("id") for _, attributes in page.elements}
    assert {link["href"][1:] for link in page.all("a")} <= names
    assert page.open == []


def test_every_version_of_every_recording_can_be_played(page):
    assert [tile["data-version"] for tile in page.all("figure", "tile")] == VERSIONS * 2
    players = page.all("audio")
    assert len(players) == len(VERSIONS) * 2
    for number, player in enumerate(players):
        kind, _, data = player["src"].partition(";base64,")
        samples, rate = soundfile.read(io.BytesIO(base64.b64decode(data)))
        assert (kind, rate) == ("data:audio/flac", 8000)
        assert len(samples) == (6400 if number < len(VERSIONS) else 8800)


def test_strips_and_codes_show_the_tokens(demo, page):
    assert len(page.all("img", "strip")) == 2 * 2  # semantic and acoustic
    assert len(page.all("div", "semantic")) == 2
    codes = re.findall(r'class="codes">([\d,\[\]]+)<', demo.read_text("utf-8"))
    tokens = Tokens.load(demo.parent / "tokens" / "clip_1.tokens.safetensors")
    assert np.array_equal(json.loads(codes[1]), tokens.codes)


def test_tables_bars_and_text_are_there(page):
    words = " ".join(page.words)
    assert len(page.all("table")) == 2
    assert len(page.all("ul", "bars")) == 1 and words.count("perplexity") >= 4
    for expected in ("Tea & <toast>", "speaker 7", "CC0 1.0", "tiny-frame", "PESQ-WB", "STOI", "mel distance", "95 %"):
        assert expected in words


def test_files_hold_what_the_page_plays(demo):
    tokenizer = tiny_tokenizer()
    tokens = Tokens.load(demo.parent / "tokens" / "clip_0.tokens.safetensors")
    heard = read(demo.parent / "audio" / "clip_0.2.wav").samples
    assert np.abs(np.clip(tokenizer.decode(tokens.take(2)).samples, -1, 1) - heard).max() < 1e-3
    summary = json.loads((demo.parent / "summary.json").read_text())
    assert [row["levels"] for row in summary["summary"]] == [1, 2, 4]
    assert summary["model"]["fingerprint"] == tokens.fingerprint
    assert len(summary["utterances"]) == 6


def test_a_missing_package_is_said_on_the_page_and_counted(tmp_path, monkeypatch, capsys):
    def missing(reference, degraded, rate):
        raise metrics.MetricError("the package pesq is not installed; run: pip install 'speechtok[pesq]'")

    monkeypatch.setitem(metrics.METRICS, "pesq_wb", metrics.Metric("pesq_wb", "PESQ-WB", missing, digits=2))
    write(tmp_path / "a.wav", signal(0.6))
    report = run_demo(tmp_path / "out", tiny_tokenizer(), [Clip("a", tmp_path / "a.wav", "A")], processes=0)
    words = " ".join(Page(report.read_text("utf-8")).words)
    assert "not measured (1 failed)" in words
    assert "PESQ-WB: 3 not measured, the package pesq is not installed" in words
    assert "pip install 'speechtok[pesq]'" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["summary"][0]["pesq_wb"]["mean"] is None


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError) as error:
        run_demo(tmp_path / "file", tiny_tokenizer(), [])
    assert "\n" not in str(error.value) and "file" in str(error.value)


def test_text_is_escaped_in_elements_and_attributes():
    assert tag("p", "<b>", title='"x"') == '<p title="&quot;x&quot;">&lt;b&gt;</p>'
    assert "<script" not in image("data:,", '"><script>')


def test_png_has_the_pixels_it_was_given(tmp_path):
    pillow = pytest.importorskip("PIL.Image", reason="Pillow reads the picture back")
    indices = np.random.default_rng(0).integers(0, 4, (5, 7)).astype(np.uint8)
    palette = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [1, 2, 3]], dtype=np.uint8)
    picture = np.asarray(pillow.open(io.BytesIO(png(indices, palette))).convert("RGB"))
    assert np.array_equal(picture, palette[indices])


@pytest.mark.parametrize("clip", bundled_clips(), ids=lambda clip: clip.name)
def test_bundled_recording_is_speech_with_its_papers(clip):
    audio = read(clip.path)
    assert audio.rate == 16000 and 2 <= audio.seconds <= 6
    assert 0.01 < float(np.sqrt(np.mean(audio.samples**2))) < 0.3
    assert clip.text and clip.source and clip.details[2] in {"CC BY 4.0", "CC0 1.0"}


def test_bundled_recordings_have_eight_speakers_and_stay_small():
    clips = bundled_clips()
    assert len({clip.details[:2] for clip in clips}) == len(clips) == 8
    assert sum(clip.path.stat().st_size for clip in clips) < 1_200_000
