"""Losses of the transformer detector: those of transformers, but each image by itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from backend.models.detector_rtdetr import RTDetr, shares
from tests.models.rtdetr import SIDE, pictures, rows, section, tiny
from training.losses.detection_rtdetr import image_losses, loss_counts, loss_terms, scored
from training.losses.rtdetr_noise import copies_of, together

pytest.importorskip("transformers")


def gradients(model: RTDetr, *batches: dict, counts: dict[str, float]) -> dict[str, Tensor]:
    model.zero_grad()
    for batch in batches:
        losses = image_losses(model, batch)
        sum((losses[name].sum() / count for name, count in counts.items()), torch.zeros(())).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_terms_and_counts() -> None:
    batch = pictures(crowded=2)
    assert loss_terms(section()) == ["varifocal", "l1", "giou", "denoising"]
    assert loss_terms(section(denoising=0)) == ["varifocal", "l1", "giou"]
    assert loss_counts(batch, section()) == dict.fromkeys(loss_terms(section()), 5.0), "the region of many is none"


def test_they_are_those_of_transformers() -> None:
    """Without noise, which transformers draws for a whole batch; terms of all stages together."""
    from transformers.loss.loss_rt_detr import RTDetrForObjectDetectionLoss

    batch, model = pictures(), tiny(denoising=0).eval()
    targets = [
        {"class_labels": labels, "boxes": shares(boxes, frame, SIDE)}
        for labels, boxes, frame in zip(batch["labels"], batch["boxes"], batch["frame"], strict=True)
    ]
    ours, answers = image_losses(model, batch), model.answers(batch["image"])
    _, theirs, _ = RTDetrForObjectDetectionLoss(
        answers.logits[:, -1],
        targets,
        "cpu",
        answers.boxes[:, -1],
        model.net.config,
        answers.logits,
        answers.boxes,
        answers.first_logits,
        answers.first_boxes,
    )
    boxes = sum(map(len, batch["boxes"]))
    for name, key in {"varifocal": "loss_vfl", "l1": "loss_bbox", "giou": "loss_giou"}.items():
        wanted = sum(value for full, value in theirs.items() if full.startswith(key))
        torch.testing.assert_close(ours[name].sum() / boxes, wanted)


@pytest.mark.parametrize("denoising", [0, 10])
def test_micro_batches_give_what_one_batch_gives(denoising: int) -> None:
    batch, model = pictures(crowded=2), tiny(denoising=denoising, norm="frozen").double().train()
    batch |= {"boxes": [boxes.double() for boxes in batch["boxes"]], "frame": batch["frame"].double()}
    counts = loss_counts(batch, section(denoising=denoising))
    whole = image_losses(model, batch)
    for row in range(4):
        alone = image_losses(model, rows(batch, row))
        for name, values in whole.items():
            torch.testing.assert_close(alone[name][0], values[row], atol=1e-9, rtol=1e-9)
    together_, apart = (
        gradients(model, *batches, counts=counts)
        for batches in ((batch,), (rows(batch, 0), rows(batch, 1, 2), rows(batch, 3)))
    )
    assert together_.keys() == apart.keys()
    for name, gradient in together_.items():
        torch.testing.assert_close(apart[name], gradient, atol=1e-8, rtol=1e-7)


def test_noise_is_drawn_from_the_draw() -> None:
    batch, model = pictures(), tiny().eval()
    first, again = image_losses(model, batch), image_losses(model, batch)
    other = image_losses(model, {**batch, "draw": batch["draw"] + 1})
    assert torch.equal(first["denoising"], again["denoising"])
    assert not torch.equal(first["denoising"], other["denoising"])
    for name in ("varifocal", "l1", "giou"):
        torch.testing.assert_close(first[name], other[name])
    assert first["denoising"][1] == 0, "there is no box to copy"
    assert first["varifocal"][1] > 0, "yet what is found there is wrong"


def test_copies() -> None:
    labels, boxes = torch.tensor([0, 2]), torch.tensor([[0.5, 0.5, 0.2, 0.4], [0.1, 0.2, 0.2, 0.2]])
    copies = copies_of(labels, boxes, 3, 9, draw=5)
    assert copies.groups == 4 and len(copies.labels) == 16
    assert copies.near.tolist() == [0, 1, 4, 5, 8, 9, 12, 13]
    many = copies_of(labels, boxes, 3, 4000, draw=5)
    found = many.boxes.sigmoid().view(many.groups, 2, 2, 4)
    start, true = found[..., 0, :2] - found[..., 0, 2:] / 2, torch.tensor([0.4, 0.3])
    moved = ((start - true) / torch.tensor([0.1, 0.2])).abs()  # in half sides
    proper = found[..., 0, 2:] > 1e-4  # where the corners have not passed each other
    near, far = (moved[:, kind][proper[:, kind]] for kind in (0, 1))
    assert near.max() < 1.001 and far.min() > 0.999 and far.max() < 2.001
    kept = (many.labels.view(many.groups, 2, 2) == labels).float().mean()
    assert abs(float(kept) - (0.75 + 0.25 / 3)) < 0.02
    alone = copies_of(labels, boxes, 3, 1, draw=5)
    assert alone.groups == 1 and len(alone.labels) == 4, "one of each at least"


def test_groups_do_not_see_each_other() -> None:
    labels, boxes = torch.tensor([0, 2]), torch.full((2, 4), 0.3)
    queries = together([None, copies_of(labels, boxes, 3, 4, 0), copies_of(labels[:1], boxes[:1], 3, 2, 0)], 3)
    assert queries is not None and queries.labels.shape == (3, 8)
    hidden = queries.hidden[1]
    assert not hidden[:4, :4].any() and not hidden[4:, 4:].any() and hidden[:4, 4:].all() and hidden[4:, :4].all()
    assert (queries.labels[0] == 3).all() and (queries.labels[2, 4:] == 3).all(), "padding is of no class"
    assert torch.equal(~queries.hidden[0], torch.eye(8, dtype=torch.bool)), "and sees itself alone"
    assert together([None, None], 3) is None


def test_no_boxes_at_all() -> None:
    batch, model = pictures((0, 0)), tiny().train()
    losses = image_losses(model, batch)
    assert loss_counts(batch, section())["l1"] == 0
    assert all(losses[name].tolist() == [0, 0] for name in ("l1", "giou", "denoising"))
    losses["varifocal"].sum().backward()
    assert model.net.enc_score_head.weight.grad.abs().max() > 0


def test_what_is_not_finite_stays_so() -> None:
    batch, model = pictures(), tiny().train()
    with torch.no_grad():
        model.net.decoder.bbox_embed[0].layers[0].weight.fill_(float("nan"))
    losses = image_losses(model, batch)
    assert all(value.isnan().all() and value.shape == (4,) for value in losses.values())


def test_scored_is_one_pass() -> None:
    batch, model = pictures(), tiny().eval()
    found, losses = scored(model, batch)
    assert not found.requires_grad and not any(value.requires_grad for value in losses.values())
    with torch.no_grad():
        torch.testing.assert_close(found, model(batch["image"], batch["frame"]), atol=1e-4, rtol=1e-4)
    wanted = image_losses(model, batch)
    assert all(torch.equal(losses[name], wanted[name]) for name in loss_terms(section()))


@pytest.mark.slow
def test_it_learns_four_pictures_by_heart() -> None:
    batch, model = pictures((2, 1, 3, 1)), tiny().train()
    counts = loss_counts(batch, section())
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    for _ in range(180):
        losses = image_losses(model, batch)
        optimizer.zero_grad()
        sum((losses[name].sum() / count for name, count in counts.items()), torch.zeros(())).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    found, _ = scored(model.eval(), batch)
    for row, (boxes, labels) in enumerate(zip(batch["boxes"], batch["labels"], strict=True)):
        sure = found[row][found[row, :, 4] > 0.5]
        overlaps, which = box_iou(boxes, sure[:, :4]).max(1)
        assert len(sure) == len(boxes)
        assert overlaps.min() > 0.75
        assert torch.equal(sure[which, 5].long(), labels)
