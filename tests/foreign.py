"""Very small codecs of ``transformers`` with random weights, saved as folders."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import torch
import transformers

from tiny import signal

ACOUSTIC = {
    "model_type": "dac", "encoder_hidden_size": 4, "decoder_hidden_size": 32, "hidden_size": 64,
    "downsampling_ratios": [8, 5, 4, 2], "upsampling_ratios": [8, 5, 4, 2],
}  # fmt: skip
SEMANTIC = {
    "model_type": "hubert", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 32, "conv_dim": [8] * 7, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "encodec": (
        "Encodec",
        {
            "sampling_rate": 8000, "upsampling_ratios": [4, 5, 2], "num_filters": 4, "hidden_size": 16,
            "codebook_size": 64, "target_bandwidths": [1.2, 2.4, 4.8], "num_lstm_layers": 1,
        },
    ),
    "dac": (
        "Dac",
        {
            "sampling_rate": 8000, "downsampling_ratios": [2, 4, 5], "encoder_hidden_size": 4,
            "decoder_hidden_size": 32, "n_codebooks": 4, "codebook_size": 32, "codebook_dim": 4,
        },
    ),
    "mimi": (
        "Mimi",
        {
            "sampling_rate": 8000, "upsampling_ratios": [5, 4], "num_filters": 4, "hidden_size": 16,
            "codebook_size": 32, "codebook_dim": 8, "vector_quantization_hidden_dimension": 8, "num_quantizers": 4,
            "num_hidden_layers": 2, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2,
            "sliding_window": 6, "upsample_groups": 16, "layer_scale_initial_scale": 0.5,
        },
    ),
    "xcodec": (
        "Xcodec",
        {
            "sample_rate": 16000, "acoustic_model_config": ACOUSTIC, "semantic_model_config": SEMANTIC,
            "codebook_size": 32, "target_bandwidths": [0.5, 1.0],
        },
    ),
}  # fmt: skip
KINDS = tuple(CONFIGS)


@torch.no_grad()
def foreign_model(kind: str, **changes: Any) -> torch.nn.Module:
    """A model whose codebooks are vectors of its own latents, so that its codes differ from frame to frame."""
    family, settings = CONFIGS[kind]
    config = getattr(transformers, f"{family}Config")(**{**settings, **changes})
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}Model")(config).eval()
    for name, weight in model.named_parameters():
        if weight.ndim == 3 and "parametrizations" not in name and "pos_conv" not in name:
            # the way to the codes is strong, so that they differ; so strong a decoder would saturate and be chaotic
            strong = "encoder" in name or "in_proj" in name
            weight.normal_(std=(1.3 if strong else 0.3) / math.sqrt(weight[0].numel()))
    for module in list(model.modules()):
        if type(module).__name__.endswith("EuclideanCodebook"):
            _fit_at_first(module, "encode")
        elif type(module).__name__ == "DacVectorQuantize":
            _fit_at_first(module, "decode_latents")
    rate = getattr(config, "sampling_rate", None) or config.sample_rate
    wave = torch.tensor(signal(3.2, rate, seed=100).samples)[None, None]
    model.encode(wave, **({"bandwidth": config.target_bandwidths[-1]} if hasattr(config, "target_bandwidths") else {}))
    return model


def _fit_at_first(module: torch.nn.Module, method: str) -> None:
    """Fill a codebook with what the first call of ``method`` brings to it."""
    call = getattr(module, method)

    def fit(hidden: torch.Tensor) -> Any:
        delattr(module, method)
        rows = hidden.transpose(1, 2).flatten(0, 1) if method == "decode_latents" else hidden.flatten(0, -2)
        codebook = next(getattr(module, name) for name in ("embed_sum", "codebook", "embed") if hasattr(module, name))
        codebook = getattr(codebook, "weight", codebook)
        codebook.copy_(rows[torch.randint(len(rows), (len(codebook),))])
        codebook += 0.01 * rows.std() * torch.randn(codebook.shape)
        if hasattr(module, "_embed"):
            module._embed = None
        return call(hidden)

    setattr(module, method, fit)


def save_foreign(kind: str, folder: Path, **changes: Any) -> Path:
    """A folder as ``save_pretrained`` writes it."""
    foreign_model(kind, **changes).save_pretrained(folder)
    return folder


def save_all(root: Path) -> dict[str, Path]:
    """A folder of each kind."""
    return {kind: save_foreign(kind, root / kind) for kind in KINDS}


def copy_of(folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(folder, tmp_path / "copy")


def changed(folder: Path, tmp_path: Path, file: str = "config.json", **changes: Any) -> Path:
    """A copy with other entries in one of its JSON files."""
    path = copy_of(folder, tmp_path) / file
    settings = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(settings | changes))
    return path.parent
