"""Supervised semantic tokens: codes of a bottleneck in a recogniser's encoder, trained by ``speechtok train phones``.

Source: the S3 tokenizers of CosyVoice (Du et al. 2024, arXiv 2407.05407) and CosyVoice 2 (arXiv 2412.10117). What lies
behind the bottleneck taught the codes and is not needed for them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from speechtok.errors import ConfigError
from speechtok.guidance.frames import FrameLaw
from speechtok.nn import hubert
from speechtok.nn.bottleneck import bottleneck_of, listening, up_to_bottleneck
from speechtok.tokenizers.checkpoint import STATISTICS
from speechtok.tokenizers.codec import torch_device
from speechtok.tokenizers.features import at_least, carried, network_facts, on_grid
from speechtok.tokenizers.units import UnitSource, UnitTokenizer


class SupervisedQuantizer(UnitSource):
    """What the bottleneck of a network chooses for each frame: ``Q`` levels."""

    def __init__(self, network: Any, reference: str | None = None):
        """
        Args:
            network: of ``nn.hubert``, with or without its head; its layers up to the bottleneck are copied.
            reference: folder it was loaded from; without it, saving puts these layers into the folder.

        Raises:
            ConfigError: it has no bottleneck, or one whose codes were never placed.
        """
        bottleneck = bottleneck_of(network)
        if bottleneck is None:
            raise ConfigError(
                f"{reference or type(network).__name__}: has no bottleneck; train it with section bottleneck"
                " of speechtok train phones"
            )
        if not bottleneck.quantizer.ready:
            raise ConfigError(
                f"{reference or type(network).__name__}: its bottleneck has no codes yet; train it beyond"
                " bottleneck.quantize_from"
            )
        self.network = up_to_bottleneck(hubert.body(network)).float().eval().requires_grad_(False)
        self.reference = reference
        config = self.network.config
        self.law = FrameLaw.of_convolutions(hubert.RATE, config.conv_kernel, config.conv_stride)
        self.sample_rate, self.hop = hubert.RATE, self.law.hop
        self.name = f"{Path(reference or type(network).__name__).name} bottleneck"
        self.codebook_sizes = bottleneck.quantizer.codebook_sizes

    @classmethod
    def load(cls, folder: str | Path) -> SupervisedQuantizer:
        """From the folder ``model`` of a run.

        Raises:
            CheckpointError: it cannot be loaded.
            ConfigError: see ``__init__``.
        """
        return cls(hubert.load(folder)[0], str(folder))

    def rows(self, wave: Tensor) -> Tensor:
        padded = at_least(wave, self.law).to(next(self.network.parameters()).device)[None]
        with listening() as heard:
            hubert.encode(self.network, hubert.features(self.network, padded))
        return on_grid(heard[0].codes[0].T, self.law, self.hop, len(wave))

    def facts(self) -> Any:
        return ["supervised", self.law.rate, self.law.hop, self.law.window, network_facts(self.network)]

    def state(self) -> dict[str, Tensor]:
        state = self.network.state_dict()
        return {key: value for key, value in state.items() if key.rpartition(".")[2] not in STATISTICS}

    def section(self, folder: Path) -> dict[str, Any]:
        def save(place: Path) -> None:
            hubert.save(self.network, place)

        return {"source": "supervised", "model": carried(self.reference, folder, save)}

    def to(self, device: str) -> SupervisedQuantizer:
        self.network.to(torch_device(device))
        return self


def trained_supervised(folder: str | Path, name: str, **options: Any) -> UnitTokenizer:
    """A tokenizer of the network that ``speechtok train phones`` left in ``folder``; ``save_units`` makes it a model.

    Args:
        folder: ``model`` in that of the run.
        name: what messages and token files call it.
        options: of ``UnitTokenizer``.

    Raises:
        CheckpointError: the folder cannot be loaded.
        ConfigError: its network has no bottleneck, or one without codes.
    """
    return UnitTokenizer(SupervisedQuantizer.load(folder), name, **options)
