"""What a codec in training sounds and looks like: held-out utterances as they were and as they come back.

Pure functions of the averaged weights: they draw no random number and change nothing, so a run with samples equals
one without.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from speechtok.nn.codec import Codec
from speechtok.nn.mel import LogMel
from speechtok.train.data import WaveStore, evenly
from speechtok.train.log import RunLog

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SECONDS = 8.0
"""Longest excerpt, from the start of an utterance."""
ORIGINAL = "original"
SPECTRUM = (1024, 256, 80)
"""Window and hop in samples, and bands, of the pictures."""
SPAN = 9.2
"""Nepers (80 dB) below the original's loudest band at which a picture is darkest."""


@dataclass(frozen=True)
class Sample:
    """One utterance in several versions."""

    name: str
    rate: int
    waves: Mapping[str, np.ndarray]
    """``[T]`` each, by what it is; the first is the ``ORIGINAL``."""


@torch.inference_mode()
def reconstructions(codec: Codec, store: WaveStore, count: int) -> Iterator[Sample]:
    """``count`` utterances spread over ``store``, and what ``codec`` makes of them with one and with all levels.

    Nothing before the codebooks exist.
    """
    if not codec.quantizer.ready:
        return
    rate, device = codec.config.sample_rate, next(codec.parameters()).device
    for index in evenly(len(store), count):
        original = store[index][: round(SECONDS * rate)]
        wave = torch.from_numpy(original)[None].to(device)
        codes, timbre, waves = codec.encode(wave), codec.timbre(wave), {ORIGINAL: original}
        for levels in sorted({1, codes.shape[1]}):
            decoded = codec.decode(codes[:, :levels], timbre=timbre)[0, : len(original)]
            waves[f"levels-{levels}"] = decoded.float().cpu().numpy()
        yield Sample(f"utterance-{index}", rate, waves)


def show(log: RunLog, step: int, samples: Iterable[Sample], first: bool) -> None:
    """Put samples into the log as audio and as one picture each; the original's audio only where ``first``."""
    for sample in samples:
        for version, wave in sample.waves.items():
            if first or version != ORIGINAL:
                log.audio(f"{sample.name}/{version}", step, wave, sample.rate)
        log.picture(sample.name, step, spectrograms(sample))


def spectrograms(sample: Sample) -> Figure:
    """Log-mel spectrograms of all versions below each other, on the original's scale."""
    from matplotlib.figure import Figure  # never pyplot, which keeps figures and wants a display

    window, hop, bands = SPECTRUM
    mel = LogMel(sample.rate, *SPECTRUM)
    # reflection at the ends needs more samples than it reaches
    padded = {version: np.pad(wave, (0, max(0, window - len(wave)))) for version, wave in sample.waves.items()}
    levels = {version: mel(torch.from_numpy(wave)[None])[0].T.numpy() for version, wave in padded.items()}
    top = float(levels[ORIGINAL].max())
    figure = Figure(figsize=(10, 2.2 * len(levels)), layout="constrained")
    for axis, (version, picture) in zip(figure.subplots(len(levels), squeeze=False).flat, levels.items(), strict=True):
        extent = (0, picture.shape[1] * hop / sample.rate, 0, bands)
        axis.imshow(picture, origin="lower", aspect="auto", extent=extent, vmin=top - SPAN, vmax=top)
        axis.set_ylabel("mel band")
        axis.set_title(version, fontsize="small", loc="left")
    axis.set_xlabel("seconds")
    return figure
