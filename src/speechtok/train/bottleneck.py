"""How the bottleneck of a network learns: when its codes are placed, its losses, and the health of its codebooks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from speechtok.config import require_whole
from speechtok.nn.bottleneck import BottleneckShape, bottleneck_of
from speechtok.nn.quantizers import Quantized
from speechtok.nn.quantizers.codebook import frames
from speechtok.train.health import Watch, codebook_health
from speechtok.train.recipe import Alarm


@dataclass
class BottleneckConfig(BottleneckShape):
    """A bottleneck and its training."""

    commitment: float = 0.25
    """Weight of the commitment; those of other losses stand in ``quantizer``."""
    quantize_from: int = 0
    """First step with codes; before it states pass as they are. Codes that an encoder brings along are used at once."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole(self, 0, "quantize_from", section="bottleneck.")

    @property
    def weights(self) -> dict[str, float]:
        """Of its losses, by name."""
        return {"commitment/mse": self.commitment, **self.quantizer.weights}


class Codebooks:
    """The codebooks of ``model`` and of its ``average`` in a run. Their only state beyond the networks is ``watch``."""

    def __init__(self, config: BottleneckConfig, alarm: Alarm, model: nn.Module, average: nn.Module):
        self.config = config
        self.quantizer, self.average = bottleneck_of(model).quantizer, bottleneck_of(average).quantizer
        self.watch = Watch(config.codebook_sizes, alarm)

    def due(self, step: int) -> bool:
        """Whether this step is the first to need codes that nothing has placed."""
        return step >= self.config.quantize_from and not self.quantizer.ready

    def place(self, states: Iterable[Tensor]) -> None:
        """Codes by ``states[M, D]`` of some batches; all processes must bring the same."""
        self.quantizer.initialise(torch.cat(list(states)))
        self.average.load_state_dict(self.quantizer.state_dict())

    def losses(self, heard: Sequence[Quantized]) -> dict[str, Tensor]:
        """What the bottleneck adds to a training step; nothing before there are codes."""
        (quantized,) = heard
        if quantized.codes is None:
            return {}
        self.watch.step(quantized.revived)
        revived = quantized.commitment.new_tensor(float(sum(quantized.revived)))
        return {"commitment/mse": quantized.commitment, **quantized.losses, "codes/revived": revived}

    def health(self, codes: Sequence[Tensor], counted: bool) -> tuple[dict[str, Any], list[str]]:
        """Figures and alarms of a validation's ``codes[Q, M]``; see ``train.loop.Trainee.validate``."""
        health = codebook_health(torch.cat(list(codes), 1), self.config.codebook_sizes)
        return self.watch.validation(health) if counted else (health, [])


def states_of(heard: Sequence[Quantized], mask: Tensor | None) -> Tensor:
    """States ``[M, D]`` of the real frames of one batch, before codes are placed."""
    return frames(heard[0].latent, mask)


def codes_of(heard: Sequence[Quantized], mask: Tensor | None) -> Tensor | None:
    """Codes ``[Q, M]`` of the real frames of one batch; None where nothing is quantized yet."""
    return None if not heard or heard[0].codes is None else frames(heard[0].codes.transpose(1, 2), mask).T
