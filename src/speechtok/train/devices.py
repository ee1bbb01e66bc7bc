"""Where a run computes: device, precision, and the processes that share its batch."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager
from datetime import timedelta

import torch
from torch import Tensor, nn

from speechtok.errors import ConfigError

PATIENCE = timedelta(hours=12)
"""How long processes wait for each other: the main one may have a large corpus to read first."""


class Devices:
    """A GPU where there is one, else the CPU; started by ``torchrun``, every process is one of many.

    The processes hold the same weights and draw the same random numbers; each computes its block of the batch, and
    gradients and codebook statistics are averaged over all. No module is wrapped, so the trainer calls any part of
    the codec it likes.

    Args:
        precision: ``fp32``, or ``bf16`` for automatic mixed precision.

    Raises:
        ConfigError: accelerate is not installed.
    """

    def __init__(self, precision: str = "fp32"):
        try:
            from accelerate import PartialState
        except ImportError as error:
            raise ConfigError("training needs accelerate; pip install 'speechtok[train]'") from error
        # asked for explicitly, because accelerate leaves processes on a machine without a GPU to themselves
        on_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
        self.world = PartialState(cpu=on_cpu or not torch.cuda.is_available(), timeout=PATIENCE)
        self.device: torch.device = self.world.device
        self.process, self.processes = self.world.process_index, self.world.num_processes
        self.main: bool = self.world.is_main_process
        self.precision = precision

    def autocast(self) -> AbstractContextManager:
        """Inside it, matrix products and convolutions run in the recipe's precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def main_first(self) -> AbstractContextManager:
        """The other processes enter the block when the main one has left it."""
        return self.world.main_process_first()

    def share_of(self, batch: int, setting: str = "data.batch") -> slice:
        """This process's rows of a batch, whose size ``setting`` says.

        Raises:
            ConfigError: the processes cannot share it evenly.
        """
        if batch % self.processes:
            raise ConfigError(f"{setting}={batch} cannot be shared by {self.processes} processes evenly")
        size = batch // self.processes
        return slice(self.process * size, (self.process + 1) * size)

    def mean(self, values: Tensor) -> Tensor:
        """Mean over processes, in place and without gradient."""
        if self.processes > 1:
            torch.distributed.all_reduce(values)
            values /= self.processes
        return values

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over processes, in one message.

        A parameter that only some of them reached, such as one of a layer that others dropped, counts 0 in the rest.
        """
        if self.processes == 1:
            return
        parameters = list(parameters)
        reached = torch.tensor([float(parameter.grad is not None) for parameter in parameters], device=self.device)
        gradients = []
        for parameter, share in zip(parameters, self.mean(reached).tolist(), strict=True):
            if share:
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                gradients.append(parameter.grad)
        together = self.mean(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = together.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def share(self, *modules: nn.Module) -> None:
        """Every process continues with the main one's weights."""
        if self.processes > 1:
            for module in modules:
                for tensor in module.state_dict().values():
                    torch.distributed.broadcast(tensor, 0)

    def wait(self) -> None:
        """Until every process is here."""
        self.world.wait_for_everyone()

    def close(self) -> None:
        """Leave the group of processes."""
        if self.processes > 1:
            self.world.destroy_process_group()
