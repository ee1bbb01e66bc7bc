"""Codecs as graphs: the exportable form, and ONNX Runtime where it is installed."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from speechtok import export as exporting
from speechtok.errors import ConfigError, NotSupportedError
from speechtok.nn.exportable import ExportDecoder, ExportEncoder, min_samples
from tiny import HOP, samples, tiny_codec, tiny_tokenizer

KINDS = ("seanet", "seanet-causal", "seanet-lstm", "frame", "frame-causal", "frame-own")


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_the_exportable_form_is_the_codec(kind):
    codec = tiny_codec(kind)
    encoder, decoder = ExportEncoder(codec), ExportDecoder(codec)
    for length in (min_samples(codec), 20 * HOP, 20 * HOP + 1, 1999):
        wave = torch.tensor(np.stack([samples(length).samples, samples(length, seed=1).samples]))
        codes = codec.encode(wave)
        assert codes.shape == encoder(wave).shape
        assert (codes == encoder(wave)).float().mean() > 0.99
        expected = codec.decode(codes)
        found = decoder(codes)
        assert found.shape == expected.shape
        # a frame codec's random phases leave some bins near zero, where rounding decides
        assert (found - expected).abs().max() < 1e-2 * expected.abs().max()


@pytest.mark.parametrize("kind", ["seanet-transformer", "frame-timbre"])
def test_parts_without_a_graph_are_refused(kind):
    with pytest.raises(NotSupportedError, match=r"cannot be exported|no input"):
        ExportEncoder(tiny_codec(kind))


def test_a_tokenizer_that_is_no_codec_and_a_format_that_is_none(tmp_path):
    from speechtok.tokenizers.registry import load

    with pytest.raises(NotSupportedError, match="logmel-soft is no codec; only codecs can be exported"):
        exporting.export(load("logmel-soft"), tmp_path)
    with pytest.raises(ConfigError, match="format is 'tflite'; it must be one of onnx, openvino"):
        exporting.export(tiny_tokenizer(), tmp_path, "tflite")


def test_a_missing_package_is_one_line(tmp_path, monkeypatch):
    def absent(package):
        raise exporting.importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(exporting.importlib.metadata, "version", absent)
    with pytest.raises(ConfigError, match=r"onnx is not installed; run: pip install 'speechtok\[export\]'"):
        exporting.export(tiny_tokenizer(), tmp_path)


def test_an_older_report_does_not_outlive_a_run_that_was_cut_short(tmp_path, monkeypatch):
    def cut_short(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(exporting, "_version", lambda package: "0")
    monkeypatch.setattr(exporting, "_write_onnx", cut_short)
    (tmp_path / exporting.REPORT).write_text('{"passed": true}')
    with pytest.raises(KeyboardInterrupt):
        exporting.export(tiny_tokenizer("seanet"), tmp_path)
    assert not (tmp_path / exporting.REPORT).exists()


def graphs_of(damage):
    """Stands in for a writer: runs the module itself, ``damage`` done to what the encoder gives."""

    def write(module, example, names, axes, path):
        def run(value):
            with torch.no_grad():
                found = module(torch.tensor(value)).numpy()
            return damage(found) if names[0] == "wave" else found

        return run

    return write


@pytest.mark.parametrize(("damage", "code"), [(lambda codes: codes, 0), (lambda codes: (codes + 1) % 32, 1)])
def test_disagreement_is_stored_and_ends_the_command_with_1(damage, code, cli, tmp_path, monkeypatch):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="needs the extra 'export'")
    monkeypatch.setattr(exporting, "_write_onnx", graphs_of(damage))
    tokenizer = tiny_tokenizer("seanet")
    found, out, _ = cli("export", "tiny", "-o", tmp_path / "g", load=lambda *_, **__: tokenizer)
    report = json.loads((tmp_path / "g" / exporting.REPORT).read_text())
    assert (found, report["passed"]) == (code, code == 0)
    assert report["fingerprint"] == tokenizer.fingerprint and len(report["lengths"]) == len(exporting.SECONDS)
    assert ("do not use them" in out) == bool(code)


@pytest.mark.parametrize(
    ("runtime", "packages", "suffix"),
    [("onnx", ("onnx", "onnxscript", "onnxruntime"), "onnx"), ("openvino", ("openvino",), "xml")],
)
def test_a_runtime_agrees_on_other_lengths_and_batches(runtime, packages, suffix, tmp_path):
    for package in packages:
        pytest.importorskip(package, reason=f"{package} is not installed; the graphs are checked where it is")
    report = exporting.export(tiny_tokenizer("seanet"), tmp_path, runtime, seconds=(0.3, 1.01))
    assert report["passed"] and report["agreement"] >= 0.999
    assert {row["batch"] for row in report["lengths"]} == {1, 2}
    assert all((tmp_path / f"{half}.{suffix}").is_file() for half in ("encoder", "decoder"))
