"""What the first level learns from a semantic teacher: losses and the cosines to watch.

``student[B, N, D]`` is the projected first level, ``teacher[B, N', D]`` the frozen features. Both are cut to the
shorter (as SpeechTokenizer's trainer does: its teacher yields 149 frames where the codec yields 150), and only
frames inside ``mask[B, N or N']`` count. Everything is computed in float32, whatever the model runs in.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from speechtok.errors import ConfigError

TINY = 1e-8


@dataclass
class SemanticConfig:
    """How the first level is taught."""

    loss: str = "d_axis"
    """``d_axis`` (the paper's), ``t_axis``, ``cosine``, ``units`` or ``posteriors``."""
    similarity_weight: float = 1.0
    """Weight of the cosine term inside ``t_axis``."""

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ConfigError(f"semantic loss is {self.loss!r}; it must be one of {', '.join(LOSSES)}")


def semantic_losses(
    config: SemanticConfig, student: Tensor, target: Tensor, mask: Tensor | None = None
) -> dict[str, Tensor]:
    """The chosen loss under ``semantic/<name>``, and without gradient the cosines to watch.

    Args:
        student: ``[B, N, D]``; for ``units`` the logits, ``D`` being the number of units.
        target: features ``[B, N', D]``, or units ``[B, N']`` of whole numbers for ``units``.
        mask: True on frames that count, ``[B, N]`` or ``[B, N']``.
    """
    name = f"semantic/{config.loss}"
    if config.loss == "units":
        return {name: unit_loss(student, target, mask), "semantic/unit_accuracy": unit_accuracy(student, target, mask)}
    options = {"similarity_weight": config.similarity_weight} if config.loss == "t_axis" else {}
    if config.loss == "posteriors":
        accuracy = unit_accuracy(student, target.argmax(2), mask)
        return {name: posterior_loss(student, target, mask), "semantic/class_accuracy": accuracy}
    with torch.no_grad():
        watched = {
            "semantic/cosine_time": cosine_over_time(student, target, mask),
            "semantic/cosine_frame": cosine_per_frame(student, target, mask),
        }
    return {name: LOSSES[config.loss](student, target, mask, **options)} | watched


def d_axis_loss(student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean over feature dimensions of ``-log sigmoid(cosine over time)``, from 0.313 (cosine 1) to 1.313 (-1).

    SpeechTokenizer section 3.2 (arXiv v2; v1 prints another formula) and its ``trainer/loss.py``. Unrelated tracks
    give 0.693. An utterance without a single counted frame is left out.
    """
    cosine, counted = _over_time(student, teacher, mask)
    return _mean(-F.logsigmoid(cosine), counted[:, None].expand_as(cosine))


def t_axis_loss(student: Tensor, teacher: Tensor, mask: Tensor | None = None, similarity_weight: float = 1.0) -> Tensor:
    """Mean absolute difference plus ``similarity_weight`` times the mean ``-log sigmoid(cosine of each frame)``.

    SpeechTokenizer's ``trainer/loss.py`` (the form of DistilHuBERT, Chang et al. 2022), which never ran as released.
    """
    student, teacher, mask = _together(student, teacher, mask)
    distance = _mean((student - teacher).abs().mean(2), mask)
    return distance + similarity_weight * _mean(-F.logsigmoid(_cosine(student, teacher, 2)), mask)


def cosine_loss(student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean over frames of ``1 - cosine``: our reading of the semantic loss of arXiv 2507.06802."""
    return 1 - cosine_per_frame(student, teacher, mask)


def unit_loss(logits: Tensor, units: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of k-means ``units[B, N']`` under ``logits[B, N, K]`` (SpeechTokenizer section 3.2)."""
    logits, units, mask = _together(logits, units, mask)
    return _mean(F.cross_entropy(logits.transpose(1, 2), units, reduction="none"), mask)


def posterior_loss(student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean cross-entropy, in nats, of a supervised teacher's log-probabilities under the student's logits.

    Both are ``[B, N, classes]``. The soft form of ``unit_loss`` (Hinton et al. 2015): a teacher that was trained to
    name phones also tells which ones it could not tell apart.
    """
    student, teacher, mask = _together(student, teacher, mask)
    return _mean(-(teacher.softmax(2) * student.log_softmax(2)).sum(2), mask)


@torch.no_grad()
def unit_accuracy(logits: Tensor, units: Tensor, mask: Tensor | None = None) -> Tensor:
    """Share of frames whose largest logit is the unit's."""
    logits, units, mask = _together(logits, units, mask)
    return _mean((logits.argmax(2) == units).float(), mask)


def cosine_over_time(student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean over utterances and feature dimensions of the cosine between tracks over time."""
    cosine, counted = _over_time(student, teacher, mask)
    return _mean(cosine, counted[:, None].expand_as(cosine))


def cosine_per_frame(student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean over frames of the cosine between feature vectors."""
    student, teacher, mask = _together(student, teacher, mask)
    return _mean(_cosine(student, teacher, 2), mask)


LOSSES = {"d_axis": d_axis_loss, "t_axis": t_axis_loss, "cosine": cosine_loss}
LOSSES |= {"units": unit_loss, "posteriors": posterior_loss}


def _over_time(student: Tensor, teacher: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Cosines ``[B, D]`` over the counted frames, and which utterances have any, ``[B]``."""
    student, teacher, mask = _together(student, teacher, mask)
    inside = mask[..., None].to(student.dtype)
    return _cosine(student * inside, teacher * inside, 1), mask.any(1)


def _together(student: Tensor, teacher: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Both cut to the shorter; whole numbers stay so, everything else becomes float32; the mask is always there."""
    frames = min(student.shape[1], teacher.shape[1])
    if mask is not None and mask.shape[1] < frames:
        raise ConfigError(f"the mask covers {mask.shape[1]} frames, {frames} are compared; give one for all of them")
    if teacher.ndim == 3 and teacher.shape[2] != student.shape[2]:
        raise ConfigError(
            f"the student has {student.shape[2]} dimensions and the teacher {teacher.shape[2]};"
            " set semantic_dimension to the teacher's"
        )
    student, teacher = student[:, :frames].float(), teacher[:, :frames]
    if mask is None:
        mask = torch.ones(student.shape[:2], dtype=torch.bool, device=student.device)
    return student, teacher.float() if teacher.is_floating_point() else teacher, mask[:, :frames].bool()


def _cosine(a: Tensor, b: Tensor, axis: int) -> Tensor:
    return F.cosine_similarity(a, b, dim=axis, eps=TINY)


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    """Mean of the counted values; zero, with a gradient of zero, where there is none."""
    return torch.where(counted, values, values.new_zeros(())).sum() / counted.sum().clamp_min(1)
