"""HuBERT's network (Hsu et al. 2021) as ``transformers`` has it, over the waveform or over a log-mel spectrogram.

Both are ``transformers.HubertModel``; the log-mel kind has another ``feature_extractor``, with which training is many
times cheaper. Folders of the waveform kind are read by ``transformers`` as they are, unless they have a bottleneck.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from speechtok.errors import CheckpointError, ConfigError
from speechtok.files import StrPath, atomic_path, make_folder, write_text_atomic
from speechtok.nn.bottleneck import BottleneckShape, insert
from speechtok.nn.frame import ConvNeXtBlock
from speechtok.nn.mel import LogMel

RATE = 16000
WAVEFORM, LOG_MEL = "waveform", "log-mel"
FOREIGN = "hubert-log-mel"
"""Model type of a log-mel folder, so that ``transformers`` refuses it instead of inventing convolutions."""
QUANTIZED = "hubert-quantized"
"""The same for waveforms and a bottleneck, which ``transformers`` would leave out."""

DERIVED = ("model_type", "architectures", "transformers_version", "dtype")
"""Entries of a configuration that follow from the rest."""


@dataclass
class HubertShape:
    """Sizes of the network; the defaults of what is not named here are those of ``transformers.HubertConfig``."""

    front_end: Literal["log-mel", "waveform"] = LOG_MEL
    layers: int = 4
    width: int = 256
    heads: int = 4
    feed_forward: int = 768
    position_kernel: int = 128
    """Frames that the convolution of the positions sees."""
    position_groups: int = 16
    local_blocks: int = 0
    """ConvNeXt blocks in the place of that convolution; they learn faster where there is little speech."""
    bands: int = 80
    """Mel bands of the log-mel front end."""
    channels: int = 512
    """Of every convolution of the waveform front end."""
    kernels: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    strides: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.0
    input_dropout: float = 0.1
    layer_drop: float = 0.05
    """Chance that a layer is skipped in training."""

    def __post_init__(self) -> None:
        if self.width % self.heads or self.width % self.position_groups:
            raise ConfigError(f"width={self.width} must be a multiple of heads and of position_groups")
        if self.local_blocks and self.front_end == WAVEFORM:
            raise ConfigError("local_blocks are for front_end=log-mel; transformers could not read them otherwise")
        if len(self.kernels) != len(self.strides):
            raise ConfigError("kernels and strides of the convolutions must be equally many")


class LogMelFrontEnd(nn.Module):
    """``wave[B, T]`` at 16 kHz to ``[B, 2 * bands, T // 320]``: two log-mel frames of 10 ms under one another.

    Windows last 25 ms; output frame n is centred on sample ``320 n + 160``. Every band is brought to mean 0 and
    deviation 1 by figures that ``fit`` takes from a corpus once, so that an utterance and a crop of it look alike.
    """

    HOP = 320

    def __init__(self, bands: int):
        super().__init__()
        self.bands = bands
        self.mel = LogMel(RATE, n_fft=400, hop=self.HOP // 2, n_mels=bands)
        self.register_buffer("mean", torch.zeros(bands))
        self.register_buffer("deviation", torch.ones(bands))

    @torch.no_grad()
    def fit(self, waves: list[Tensor]) -> None:
        """Mean and deviation of every band over waves ``[T_i]``."""
        levels = torch.cat([self.mel(wave[None])[0] for wave in waves])
        self.mean.copy_(levels.mean(0))
        self.deviation.copy_(levels.std(0).clamp_min(1e-3))  # a band without energy stays at its floor

    def forward(self, wave: Tensor) -> Tensor:
        """See the class."""
        frames = wave.shape[1] // self.HOP
        levels = ((self.mel(wave) - self.mean) / self.deviation)[:, : 2 * frames]
        return levels.reshape(len(wave), frames, 2 * self.bands).transpose(1, 2)


class LocalContext(nn.Module):
    """What a few ConvNeXt blocks add to ``x[B, N, C]``, in the place of HuBERT's convolution of the positions.

    It comes after the masking, so that nothing of a masked frame is heard through its neighbours. Frames that are zero
    are padding: so the encoder of ``transformers`` marks them, and they stay zero to the neighbours in every block.
    """

    def __init__(self, width: int, blocks: int):
        super().__init__()
        self.blocks = nn.ModuleList(ConvNeXtBlock(width, 3, 7, False, 1 / blocks) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        y, valid = x, x.any(-1, keepdim=True)
        for block in self.blocks:
            y = block(y, valid)
        return y - x  # the caller adds what it gave


def build(shape: HubertShape, classes: int = 0, bottleneck: BottleneckShape | None = None) -> Any:
    """A network with random weights: ``HubertModel``, or ``HubertForCTC`` with a linear head of ``classes``.

    Raises:
        ConfigError: the bottleneck does not fit the network.
    """
    waveform = shape.front_end == WAVEFORM
    settings = {
        "front_end": shape.front_end,
        "bands": shape.bands,
        "local_blocks": shape.local_blocks,
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.feed_forward,
        "num_conv_pos_embeddings": shape.position_kernel,
        "num_conv_pos_embedding_groups": shape.position_groups,
        # of the log-mel kind only the law of the frames: hop and window of 320 samples
        "conv_dim": [shape.channels] * len(shape.kernels) if waveform else [2 * shape.bands],
        "conv_kernel": list(shape.kernels) if waveform else [LogMelFrontEnd.HOP],
        "conv_stride": list(shape.strides) if waveform else [LogMelFrontEnd.HOP],
        "do_stable_layer_norm": False,
        "vocab_size": max(1, classes),
        "bos_token_id": None,
        "eos_token_id": None,
        **_noise(shape),
        **_quantized(bottleneck),
    }
    return _network(settings, headed=classes > 0)


def _noise(shape: HubertShape) -> dict[str, float]:
    return {
        "hidden_dropout": shape.dropout,
        "attention_dropout": shape.attention_dropout,
        "activation_dropout": shape.activation_dropout,
        "feat_proj_dropout": shape.input_dropout,
        "final_dropout": shape.dropout,
        "layerdrop": shape.layer_drop,
    }


def _quantized(bottleneck: BottleneckShape | None) -> dict[str, Any]:
    return {} if bottleneck is None else {"bottleneck": bottleneck.settled()}


def add_head(network: Any, shape: HubertShape, classes: int, bottleneck: BottleneckShape | None = None) -> Any:
    """``HubertForCTC`` that goes on from a trained network: its sizes and weights, ``shape``'s dropout, a new head.

    Its bottleneck is the network's own, or a new one where it has none.

    Raises:
        ConfigError: the network has another bottleneck, or none of this kind fits it.
    """
    quantized, own = _quantized(bottleneck), getattr(network.config, "bottleneck", None)
    if own is not None and own != quantized.get("bottleneck"):
        raise ConfigError(f"the encoder has a bottleneck; give section bottleneck of the recipe the same: {own}")
    settings = network.config.to_dict() | _noise(shape) | {"vocab_size": classes} | quantized
    headed = _network({name: value for name, value in settings.items() if name not in DERIVED}, headed=True)
    headed.hubert.load_state_dict(headed.hubert.state_dict() | body(network).state_dict())
    return headed


def _network(settings: dict[str, Any], headed: bool) -> Any:
    try:
        from transformers import HubertConfig, HubertForCTC, HubertModel
    except ImportError as error:
        raise CheckpointError("this network needs transformers; pip install 'speechtok[transformers]'") from error
    config = HubertConfig(**settings)
    config._attn_implementation = "sdpa"
    network = (HubertForCTC if headed else HubertModel)(config)
    if settings["front_end"] == LOG_MEL:
        body(network).feature_extractor = LogMelFrontEnd(settings["bands"])
    if settings.get("local_blocks"):
        body(network).encoder.pos_conv_embed = LocalContext(settings["hidden_size"], settings["local_blocks"])
    if settings.get("bottleneck"):
        insert(body(network), settings["bottleneck"])
    return network


def body(network: Any) -> Any:
    """The ``HubertModel`` of a network with or without a head."""
    return getattr(network, "hubert", network)


def save(network: Any, folder: StrPath, about: dict[str, Any] | None = None) -> None:
    """``config.json`` and ``model.safetensors``, and for the waveform kind the preprocessor that it was trained with.

    Args:
        about: further entries of the configuration, such as the names of a head's classes.

    Raises:
        OutputError: the folder cannot be written.
    """
    folder = make_folder(folder)
    config = network.config.to_dict() | {"architectures": [type(network).__name__], **(about or {})}
    if config["front_end"] == LOG_MEL:
        config["model_type"] = FOREIGN
    else:
        preprocessor = {
            "feature_extractor_type": "Wav2Vec2FeatureExtractor",
            "do_normalize": False,
            "sampling_rate": RATE,
            "feature_size": 1,
            "padding_value": 0.0,
            "return_attention_mask": False,
        }
        write_text_atomic(folder / "preprocessor_config.json", json.dumps(preprocessor, indent=2))
        if "bottleneck" in config:
            config["model_type"] = QUANTIZED
    with atomic_path(folder / "model.safetensors") as temporary:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
        save_file(tensors, temporary, {"format": "pt"})
    write_text_atomic(folder / "config.json", json.dumps(config, indent=2, default=str))


def load(folder: StrPath) -> tuple[Any, dict[str, Any]]:
    """Network that ``save`` wrote, in evaluation mode, and its configuration.

    Raises:
        CheckpointError: missing, damaged, or made by something else.
    """
    folder = Path(folder)
    config = read_config(folder)
    if config.get("front_end") not in (WAVEFORM, LOG_MEL):
        raise CheckpointError(f"{folder}: was not trained by speechtok; load it with transformers")
    try:
        settings = {name: value for name, value in config.items() if name not in DERIVED}
        network = _network(settings, headed=config["architectures"] == ["HubertForCTC"])
        network.load_state_dict(load_file(folder / "model.safetensors"))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError, ConfigError) as error:
        raise CheckpointError(f"{folder}: damaged ({error}); train or fetch it again") from error
    return network.eval(), config


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's ``config.json``.

    Raises:
        CheckpointError: missing or damaged.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); name the folder of a trained model") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: is no configuration of a model; name the folder of a trained model")
    return config


def features(network: Any, wave: Tensor) -> Tensor:
    """What the front end gives, ``wave[B, T] -> [B, N, C]``."""
    return body(network).feature_extractor(wave).transpose(1, 2)


def encode(network: Any, extracted: Tensor, hidden: Tensor | None = None, valid: Tensor | None = None) -> Tensor:
    """Last hidden states ``[B, N, D]`` of the front end's ``extracted[B, N, C]``.

    Args:
        hidden: ``[B, N]``, frames that are replaced by the learned mask vector.
        valid: ``[B, N]``, False where a crop is padding, which then is neither heard nor attended to.
    """
    hubert = body(network)
    states = hubert.feature_projection(extracted)
    if hidden is not None:
        states = torch.where(hidden[..., None], hubert.masked_spec_embed.to(states.dtype), states)
    return hubert.encoder(states, attention_mask=valid).last_hidden_state
