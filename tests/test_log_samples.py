"""Samples of a codec in training: audio and pictures in TensorBoard, without a trace in the run."""

from contextlib import closing

import numpy as np
import pytest
import torch

from speechtok.train.codec import train
from speechtok.train.data import WaveStore, read_manifest
from speechtok.train.log import RunLog
from speechtok.train.samples import ORIGINAL, Sample, reconstructions, show, spectrograms
from speechtok.train.snapshot import load_snapshot
from test_train import assert_same, make_recipe
from tiny import RATE, tiny_codec

accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def events(folder):
    """What TensorBoard reads from a run's folder."""
    accumulator = accumulators.EventAccumulator(str(folder / "tensorboard"), {"audio": 0, "images": 0, "scalars": 0})
    return accumulator.Reload()


def test_events_hold_the_audio_at_its_rate_and_length(tmp_path):
    wave = np.sin(np.arange(4321) / 10).astype(np.float32)
    with closing(RunLog(tmp_path, 10, 0)) as log:
        log.audio("one", 5, wave, 22050)
    (event,) = events(tmp_path).Audio("samples/one")
    assert (event.step, event.sample_rate, event.length_frames) == (5, 22050, 4321)
    stored = np.frombuffer(event.encoded_audio_string[44:], np.int16) / 32767  # after the header of a wave file
    np.testing.assert_allclose(stored, wave, atol=1e-4)


def test_a_codec_run_logs_originals_once_and_reconstructions_at_each_validation(corpus):
    train(make_recipe(corpus, "log_audio=2"), corpus / "run")
    found = events(corpus / "run")
    tags = found.Tags()
    assert sorted(tags["audio"]) == [f"samples/utterance-0/{name}" for name in ("levels-1", "levels-2", ORIGINAL)]
    assert [event.step for event in found.Audio("samples/utterance-0/original")] == [4]
    for levels in (1, 2):
        both = found.Audio(f"samples/utterance-0/levels-{levels}")
        assert [(e.step, e.sample_rate, e.length_frames) for e in both] == [(4, 16000, 8000), (8, 16000, 8000)]
    assert tags["images"] == ["samples/utterance-0"]
    assert [event.step for event in found.Images("samples/utterance-0")] == [4, 8]


def test_samples_change_nothing_in_the_run(corpus):
    runs = {count: corpus / f"run{count}" for count in (0, 2)}
    for count, folder in runs.items():
        train(make_recipe(corpus, f"log_audio={count}"), folder)
    without, having = (load_snapshot(folder / "checkpoint.safetensors") for folder in runs.values())
    without.pop("recipe"), having.pop("recipe")
    assert_same(without, having)
    assert events(runs[0]).Tags()["audio"] == [] and events(runs[2]).Tags()["audio"]


def test_the_number_of_samples_may_change_when_a_run_goes_on(corpus):
    train(make_recipe(corpus, "log_audio=0"), corpus / "run", stop_at=4)
    train(make_recipe(corpus, "log_audio=1"), corpus / "run")
    assert [e.step for e in events(corpus / "run").Images("samples/utterance-0")] == [8]


def test_reconstructions_are_the_codecs_and_draw_no_random_number(corpus):
    codec = tiny_codec("frame")
    store = WaveStore.build(read_manifest(corpus / "corpus.tsv", "train"), RATE, corpus / "cache")
    before = torch.get_rng_state()
    first, second = reconstructions(codec, store, 2)
    assert torch.equal(before, torch.get_rng_state())
    assert (first.name, second.name, first.rate) == ("utterance-0", "utterance-2", RATE)
    assert list(first.waves) == [ORIGINAL, "levels-1", "levels-4"]
    np.testing.assert_array_equal(first.waves[ORIGINAL], store[0])
    with torch.no_grad():
        expected = codec.decode(codec.encode(torch.from_numpy(store[0])[None])[:, :1])[0, : len(store[0])]
    np.testing.assert_array_equal(first.waves["levels-1"], expected.numpy())


def test_nothing_is_shown_before_there_are_codebooks(corpus):
    codec = tiny_codec("frame")
    codec.quantizer.layers[0].inited.zero_()
    store = WaveStore.build(read_manifest(corpus / "corpus.tsv", "train"), RATE, corpus / "cache")
    assert list(reconstructions(codec, store, 2)) == []


@pytest.mark.parametrize("samples", [1, 700, 16000])
def test_a_picture_shows_every_version(samples):
    noise = np.random.default_rng(0).standard_normal(samples).astype(np.float32) * 0.1
    figure = spectrograms(Sample("one", 16000, {ORIGINAL: noise, "levels-1": 0 * noise, "levels-8": noise}))
    shown = {axis.get_title(loc="left"): axis.images[0] for axis in figure.axes}
    assert list(shown) == [ORIGINAL, "levels-1", "levels-8"]
    np.testing.assert_array_equal(shown[ORIGINAL].get_array(), shown["levels-8"].get_array())
    assert len({image.get_clim() for image in shown.values()}) == 1
    assert shown["levels-1"].get_array().max() < shown[ORIGINAL].get_array().max()


def test_without_tensorboard_nothing_is_written(tmp_path):
    with closing(RunLog(tmp_path, 10, 0)) as log:
        log.board.close()
        log.board = None
        show(log, 1, [Sample("one", 16000, {ORIGINAL: np.zeros(2000, np.float32)})], first=True)
    assert events(tmp_path).Tags()["audio"] == []
