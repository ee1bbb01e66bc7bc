"""The acoustic teacher: a frozen ECAPA-TDNN behind a waveform interface, and its files in SpeechBrain's layout."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from speechtok.errors import CheckpointError
from speechtok.files import write_bytes_atomic
from speechtok.nn.ecapa import ECAPA, MIN_FRAMES, ECAPAConfig, SpeakerFeatures
from speechtok.nn.fbank import SpeakerMel
from speechtok.weights import read_torch_file

FILES = ("model.safetensors", "embedding_model.safetensors", "embedding_model.ckpt")
"""Names looked for in a folder."""
INNER = {nn.Conv1d: "conv", nn.BatchNorm1d: "norm"}
"""SpeechBrain wraps these layers, so a name of theirs is longer by this word."""


class SpeakerTeacher(nn.Module):
    """Waveforms to frozen speaker features at two levels.

    ``rate`` is that of the waveforms in Hz, ``hop`` the samples between frames; frame m is centred on ``m * hop``.
    """

    def __init__(self, network: ECAPA, rate: int = 16000):
        super().__init__()
        self.front = SpeakerMel(rate, network.config.bands)
        self.network = network
        self.rate, self.hop = rate, self.front.hop
        self.dimension, self.frame_dimension = network.config.embedding, network.config.aggregate
        self.requires_grad_(False).eval()

    @property
    def least_samples(self) -> int:
        """Shortest waveform that has an embedding."""
        return self.front.samples(MIN_FRAMES)

    def train(self, mode: bool = True) -> SpeakerTeacher:
        """A teacher stays in evaluation mode."""
        return super().train(False)

    @classmethod
    def load(cls, path: str | Path, rate: int = 16000) -> SpeakerTeacher:
        """From a file or folder that ``read_ecapa`` understands."""
        return cls(read_ecapa(path), rate)

    @torch.no_grad()
    def forward(self, wave: Tensor, lengths: Tensor | None = None) -> SpeakerFeatures:
        """``wave[B, T]`` at ``rate`` to an embedding ``[B, E]`` and frames ``[B, T // hop + 1, F]``.

        ``lengths[B]`` in samples keeps zero padding out of the statistics.
        """
        frames = None if lengths is None else self.front.frames(lengths)
        return self.network(self.front(wave, lengths), frames)


def read_ecapa(path: str | Path) -> ECAPA:
    """The network of a ``.safetensors`` file, of SpeechBrain's ``embedding_model.ckpt``, or of a folder with either.

    The shape is read off the weights. A ``.ckpt`` goes through torch's restricted loader, which runs no code.

    Raises:
        CheckpointError: missing, damaged, or not an ECAPA-TDNN.
    """
    path = _file(Path(path))
    state = _tensors(path)
    try:
        network = ECAPA(_shape(state))
        names = _published_names(network)
        # Older files lack the counter of batches, which evaluation never reads.
        optional = {key for key in names if key.endswith("num_batches_tracked")}
        missing = [theirs for ours, theirs in names.items() if theirs not in state and ours not in optional]
        extra = sorted(set(state) - set(names.values()))
        if missing or extra:
            raise KeyError((missing or extra)[0])
        network.load_state_dict(
            {ours: state[theirs] for ours, theirs in names.items() if theirs in state}, strict=False
        )
    except (KeyError, RuntimeError, IndexError) as error:
        raise CheckpointError(
            f"{path}: is no ECAPA-TDNN in SpeechBrain's layout (first fault: {str(error).splitlines()[0]})"
        ) from error
    return network.eval()


def save_ecapa(network: ECAPA, path: str | Path) -> None:
    """Write the weights as safetensors under SpeechBrain's names, so that either program can read them."""
    names = _published_names(network)
    state = {names[key]: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    write_bytes_atomic(path, to_bytes(state))


def _published_names(network: ECAPA) -> dict[str, str]:
    """Our parameter names to SpeechBrain's."""
    owners = dict(network.named_modules())
    return {key: _published_name(key, owners) for key in network.state_dict()}


def _published_name(key: str, owners: Mapping[str, nn.Module]) -> str:
    owner, _, leaf = key.rpartition(".")
    return f"{owner}.{INNER[type(owners[owner])]}.{leaf}"


def _shape(state: Mapping[str, Tensor]) -> ECAPAConfig:
    first = state["blocks.0.conv.conv.weight"]
    blocks = {key.split(".")[1] for key in state if key.startswith("blocks.")}
    groups = {key.split(".")[4] for key in state if key.startswith("blocks.1.res2net_block.blocks.")}
    return ECAPAConfig(
        bands=first.shape[1],
        channels=first.shape[0],
        aggregate=state["mfa.conv.conv.weight"].shape[0],
        embedding=state["fc.conv.weight"].shape[0],
        dilations=tuple(range(2, 1 + len(blocks))),
        scale=len(groups) + 1,
        squeeze=state["blocks.1.se_block.conv1.conv.weight"].shape[0],
        attention=state["asp.tdnn.conv.conv.weight"].shape[0],
    )


def _file(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = [path / name for name in FILES if (path / name).is_file()]
    if not found:
        raise CheckpointError(f"{path}: holds none of {', '.join(FILES)}; name the file of the speaker model")
    return found[0]


def _tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; name the file or folder of a speaker model")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path}: truncated, or not a safetensors file ({error}); restore it") from error
    state = read_torch_file(path)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path}: holds no plain dictionary of tensors; give embedding_model.ckpt")
    return dict(state)
