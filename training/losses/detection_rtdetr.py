"""Losses of RT-DETR, by the matching and the losses of transformers (Lv et al. 2024, arXiv:2407.17140).

Each true box is matched to one object, by the Hungarian method; then count how sure the model is of each class
(varifocal loss, Zhang et al. 2021, arXiv:2008.13367), the distance of the boxes, and their generalised overlap
(Rezatofighi et al. 2019, arXiv:1902.09630), after each layer of the decoder and for the first guesses. The same of
noisy copies of true boxes is the term ``denoising``. All are sums of an image, to be divided by the batch's true boxes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from backend.models.detector_rtdetr import Answers, shares
from training.losses.rtdetr_noise import Copies, copies_of, together

if TYPE_CHECKING:
    from backend.models.detector_rtdetr import RTDetr

DENOISING = "denoising"
_TERMS = {"varifocal": "loss_vfl", "l1": "loss_bbox", "giou": "loss_giou"}  # ours, and the name in transformers
_Target = dict[str, Tensor]  # as transformers wants it: class_labels [k] and boxes [k, 4] as shares of the image


def loss_terms(model_section: Mapping[str, Any]) -> list[str]:
    """Names of the terms."""
    return [*_TERMS, *([DENOISING] if model_section["denoising"] > 0 else [])]


def loss_counts(batch: Mapping[str, Any], model_section: Mapping[str, Any]) -> dict[str, float]:
    """What each term's sum is divided by: the true boxes, regions of many not among them."""
    crowd = torch.cat(list(batch["crowd"]))
    return dict.fromkeys(loss_terms(model_section), float((~crowd).sum()))


def image_losses(model: RTDetr, batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """Each term's sum for each image, ``[n]`` fp32, weighted as transformers does.

    Noise is drawn from ``draw``, so that an image's losses do not depend on the others of its batch, batch norms that
    learn aside. Where the model's answers are not finite, neither are the losses.
    """
    return _answered(model, batch)[1]


@torch.no_grad()
def scored(model: RTDetr, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
    """Detections ``[n, D, 6]`` and the losses of `image_losses`, from one pass; the model is in evaluation."""
    answers, losses = _answered(model, batch)
    return model.detections(answers, batch["frame"]), losses


def _answered(model: RTDetr, batch: Mapping[str, Any]) -> tuple[Answers, dict[str, Tensor]]:
    targets = _targets(batch, model.image_size)
    copies = _copies(model, targets, batch["draw"])
    answers = model.answers(batch["image"], together(copies, model.classes))
    with torch.autocast(answers.logits.device.type, enabled=False):
        return answers, _losses(model, answers, targets, copies)


def _targets(batch: Mapping[str, Any], image_size: int) -> list[_Target]:
    """The true boxes of each image; nothing is learned from regions of many."""
    rows = zip(batch["boxes"], batch["labels"], batch["crowd"], batch["frame"], strict=True)
    return [
        {"class_labels": labels[~crowd], "boxes": shares(boxes[~crowd], frame, image_size)}
        for boxes, labels, crowd, frame in rows
    ]


def _copies(model: RTDetr, targets: Sequence[_Target], draws: Tensor) -> list[Copies | None]:
    amount = model.denoising
    return [
        copies_of(target["class_labels"], target["boxes"], model.classes, amount, draw)
        if amount and len(target["boxes"])
        else None
        for target, draw in zip(targets, draws.tolist(), strict=True)
    ]


def _losses(
    model: RTDetr, answers: Answers, targets: Sequence[_Target], copies: Sequence[Copies | None]
) -> dict[str, Tensor]:
    from transformers.loss.loss_rt_detr import RTDetrLoss

    names = [*_TERMS, *([DENOISING] if model.denoising else [])]
    everything = [getattr(answers, field.name) for field in fields(answers)]
    if not all(part.isfinite().all() for part in everything):  # which transformers' own code would stop at
        unknown = sum(part.sum() for part in everything) * torch.nan
        return dict.fromkeys(names, unknown.expand(len(targets)))
    criterion = RTDetrLoss(model.net.config)
    of_images = []
    for row, (target, own) in enumerate(zip(targets, copies, strict=True)):
        logits = torch.cat([answers.logits[row], answers.first_logits[row : row + 1]])
        boxes = torch.cat([answers.boxes[row], answers.first_boxes[row : row + 1]])
        found = _of_stages(criterion, logits, boxes, target, None)
        if model.denoising:
            found[DENOISING] = _of_copies(criterion, answers, row, target, own)
        of_images.append(found)
    return {name: torch.stack([found[name] for found in of_images]) for name in names}


def _of_copies(criterion: Any, answers: Answers, row: int, target: _Target, copies: Copies | None) -> Tensor:
    """All terms of an image's noisy copies together, a mean over their groups."""
    if copies is None:
        return answers.logits[row].sum() * 0
    length, near = len(copies.labels), copies.near
    pairs = near, torch.arange(len(target["boxes"]), device=near.device).repeat(copies.groups)
    found = _of_stages(
        criterion, answers.noisy_logits[row, :, :length], answers.noisy_boxes[row, :, :length], target, pairs
    )
    return sum(found.values(), torch.zeros((), device=near.device)) / copies.groups


def _of_stages(
    criterion: Any, logits: Tensor, boxes: Tensor, target: _Target, pairs: tuple[Tensor, Tensor] | None
) -> dict[str, Tensor]:
    """Each term of one image, summed over its stages: answers ``[stages, Q, K]`` and ``[stages, Q, 4]``.

    Args:
        criterion: transformers' loss; what it takes for images of a batch are the stages here.
        logits: the classes.
        boxes: centre, width and height as shares of the image.
        target: what is true.
        pairs: which answers belong to which true boxes; None matches them, each stage by itself.
    """
    outputs, targets = {"logits": logits, "pred_boxes": boxes}, [target] * len(logits)
    if pairs is not None:
        indices = [pairs] * len(logits)
    elif len(target["boxes"]):
        indices = [(ours.to(boxes.device), true.to(boxes.device)) for ours, true in criterion.matcher(outputs, targets)]
    else:  # the matcher cannot tell how much nothing is
        nothing = torch.zeros(0, dtype=torch.int64, device=boxes.device)
        indices = [(nothing, nothing)] * len(logits)
    found: dict[str, Tensor] = {}
    for loss in criterion.losses:
        found |= criterion.get_loss(loss, outputs, targets, indices, 1.0)
    return {ours: found[theirs] * criterion.weight_dict[theirs] for ours, theirs in _TERMS.items()}
