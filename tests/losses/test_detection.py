"""Detection losses: torchvision's numbers, micro-batches, crowds, images without objects, precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from backend.models.boxes import to_network
from backend.models.detector import build_detector
from tests.models.detection import CLASSES, MANY, ONE, batch, section
from training.engine.step import combine, split_rows
from training.losses import detection_fasterrcnn
from training.losses.detection import image_losses, loss_counts, loss_terms, scored
from training.losses.detection_matching import BACKGROUND, IGNORED, Truth, matches
from training.losses.detection_sampling import generator_of, sample
from training.tasks.protocol import Term

NAMES = ["retinanet_resnet18", "fasterrcnn_mobilenet", "fasterrcnn_resnet50"]
QUICK = NAMES[:2]  # the third is the second with more in it
MIXED = ([], ONE, MANY, [])


@pytest.fixture(scope="module")
def made() -> Callable[[str], nn.Module]:
    """Detectors, each made once."""
    models: dict[str, nn.Module] = {}

    def get(name: str) -> nn.Module:
        if name not in models:
            torch.manual_seed(0)
            models[name] = build_detector(section(name), CLASSES, 64)
        models[name].zero_grad()
        return models[name].train()

    return get


def total(model: nn.Module, part: dict[str, Any], counts: dict[str, float]) -> Tensor:
    terms = {name: Term(values.sum(), counts[name], 1.0) for name, values in image_losses(model, part).items()}
    return combine(terms, counts)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", QUICK)
def test_terms_are_of_each_image_and_carry_gradient(made: Callable[[str], nn.Module], name: str) -> None:
    model, whole = made(name), batch(*MIXED)
    losses = image_losses(model, whole)
    assert list(losses) == loss_terms(section(name)) == list(loss_counts(whole, section(name)))
    assert set(loss_counts(whole, section(name)).values()) == {4.0}
    for values in losses.values():
        assert values.shape == (4,)
        assert values.dtype == torch.float32
        assert values.requires_grad
        assert values.isfinite().all()
    assert float(losses["box"][[0, 3]].abs().sum()) == 0, "nothing to find, no box to mend"
    assert float(losses["classification"].detach().min()) > 0
    total(model, whole, loss_counts(whole, section(name))).backward()
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert set(gradients(model)) == learning


@pytest.mark.parametrize("name", QUICK)
def test_micro_batches_give_the_gradient_of_the_whole(name: str) -> None:
    """In fp64: in fp32 rounding may switch a rectifier on or off, or one region for another."""
    torch.manual_seed(0)
    model, whole = build_detector(section(name), CLASSES, 64).double().train(), batch(*MIXED)
    counts = loss_counts(whole, section(name))
    total(model, whole, counts).backward()
    expected = gradients(model)
    assert sum(float(value.square().sum()) for value in expected.values()) > 0
    for micro in (1, 2):
        model.zero_grad()
        for part in split_rows(whole, 4, micro):
            total(model, part, counts).backward()
        for name_, value in gradients(model).items():
            assert float((value - expected[name_]).norm()) <= 1e-7 * float(expected[name_].norm()) + 1e-15, name_


@pytest.mark.parametrize("name", QUICK)
def test_a_batch_of_nothing_but_background(made: Callable[[str], nn.Module], name: str) -> None:
    model, whole = made(name), batch([], [])
    total(model, whole, loss_counts(whole, section(name))).backward()
    assert all(value.isfinite().all() for value in gradients(model).values())


def targets(whole: dict[str, Any], first_label: int) -> list[dict[str, Tensor]]:
    return [
        {"boxes": to_network(boxes, frame), "labels": labels + first_label}
        for boxes, labels, frame in zip(whole["boxes"], whole["labels"], whole["frame"], strict=True)
    ]


def test_retinanet_agrees_with_torchvision(made: Callable[[str], Any]) -> None:
    model, whole = made("retinanet_resnet18"), batch(*MIXED)
    raw = model.raw(whole["image"])
    model.head.regression_head._loss_type = "giou"
    true = targets(whole, 0)
    matched = [
        matches(model.anchors, Truth(one["boxes"], one["labels"], torch.empty(0, 4)), 0.5, 0.4, True) for one in true
    ]
    outputs = {"cls_logits": raw.logits, "bbox_regression": raw.deltas}
    expected = model.head.compute_loss(true, outputs, [model.anchors] * 4, matched)
    ours = image_losses(model, whole)
    torch.testing.assert_close(ours["classification"].mean(), expected["classification"], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(ours["box"].mean(), expected["bbox_regression"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", NAMES[1:])
@pytest.mark.parametrize("boxes", [ONE, MANY])
def test_faster_rcnn_agrees_with_torchvision(name: str, boxes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is sampled on both sides, the image is torchvision's own way of bringing it in."""
    torch.manual_seed(1)
    model: Any = build_detector(section(name, samples=4000), CLASSES, 64).train()
    everything, true = 1 << 14, batch(boxes)
    monkeypatch.setattr(detection_fasterrcnn, "SAMPLED_ANCHORS", everything)
    for sampler, count in ((model.rpn.fg_bg_sampler, everything), (model.roi_heads.fg_bg_sampler, 4000)):
        sampler.batch_size_per_image = count
    from torchvision.models.detection.image_list import ImageList

    features = model.features(true["image"])
    regions, first = model.rpn(ImageList(true["image"], [(64, 64)]), features, targets(true, 1))
    _, second = model.roi_heads(features, regions, [(64, 64)], targets(true, 1))
    ours = image_losses(model, true)
    pairs = {
        "objectness": first["loss_objectness"],
        "proposal": first["loss_rpn_box_reg"],
        "classification": second["loss_classifier"],
        "box": second["loss_box_reg"],
    }
    for term, expected in pairs.items():
        assert float(expected.detach()) > 0
        torch.testing.assert_close(ours[term][0], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", QUICK)
def test_scored_is_the_detections_and_losses_of_evaluation(made: Callable[[str], nn.Module], name: str) -> None:
    model, whole = made(name), batch(*MIXED)
    model.train()
    detections, losses = scored(model, whole)
    assert model.training
    assert not detections.requires_grad
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(detections, model(whole["image"], whole["frame"]))
        for term, values in image_losses(model, whole).items():
            torch.testing.assert_close(losses[term], values)


@pytest.mark.parametrize("name", QUICK)
def test_the_draw_alone_chooses_samples(
    made: Callable[[str], nn.Module], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detection_fasterrcnn, "SAMPLED_ANCHORS", 20)
    model, whole = made(name), batch(MANY, MANY)
    whole["image"] = whole["image"][:1].repeat(2, 1, 1, 1)
    differ = image_losses(model, whole)
    whole["draw"] = torch.tensor([3, 3])
    same = image_losses(model, whole)
    for term in same:
        torch.testing.assert_close(same[term][0], same[term][1])
    sampled = any(not torch.allclose(differ[term][0], differ[term][1]) for term in differ)
    assert sampled == (name != "retinanet_resnet18")


def test_crowds_are_neither_learned_nor_background(made: Callable[[str], nn.Module]) -> None:
    """The crowd's box moves; an image whose anchors in it are all ignored does not hear of it."""
    model: Any = made("retinanet_resnet18")
    crowd, true = torch.tensor([[0.0, 0, 30, 64]]), torch.tensor([[40.0, 20, 60, 50]])
    truth = Truth(true, torch.tensor([1]), crowd)
    with_crowd = matches(model.anchors, truth, 0.5, 0.4, True)
    without = matches(model.anchors, Truth(true, truth.labels, crowd[:0]), 0.5, 0.4, True)
    assert torch.equal(with_crowd >= 0, without >= 0)
    changed = model.anchors[with_crowd != without]
    assert len(changed) > 0
    assert set(with_crowd[with_crowd != without].tolist()) == {IGNORED}
    assert set(without[with_crowd != without].tolist()) == {BACKGROUND}
    inside = (changed[:, 2].clamp_max(30) - changed[:, 0].clamp_min(0)) / (changed[:, 2] - changed[:, 0])
    assert float(inside.min()) > 0.5
    alone = image_losses(model, batch(ONE))
    crowded = image_losses(model, batch([*ONE, [0, 0, 20, 96]], crowds=1))
    torch.testing.assert_close(alone["box"], crowded["box"])
    assert float(crowded["classification"].detach()) < float(alone["classification"].detach())


def test_a_box_that_no_anchor_overlaps_makes_nothing_positive() -> None:
    anchors = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50]])
    truth = Truth(torch.tensor([[12.0, 12, 14, 14], [22, 20, 30, 26]]), torch.tensor([0, 1]), torch.empty(0, 4))
    assert matches(anchors, truth, 0.7, 0.3, True).tolist() == [BACKGROUND, 1, BACKGROUND]


@pytest.mark.parametrize("name", QUICK)
def test_boxes_without_area_are_not_learned_from(made: Callable[[str], nn.Module], name: str) -> None:
    model = made(name)
    alone, more = (image_losses(model, batch(boxes)) for boxes in (ONE, [*ONE, [40, 40, 40, 60]]))
    for term, values in alone.items():
        torch.testing.assert_close(more[term], values)


@pytest.mark.parametrize("name", NAMES[1:2])
def test_an_image_that_is_all_crowd(made: Callable[[str], nn.Module], name: str) -> None:
    model, whole = made(name), batch([[-200, -200, 400, 400]], crowds=1)
    losses = image_losses(model, whole)
    assert all(float(values.detach().abs().sum()) == 0 for values in losses.values())
    sum(values.sum() for values in losses.values()).backward()


@pytest.mark.parametrize("name", QUICK)
def test_autocast_keeps_losses_in_fp32(made: Callable[[str], nn.Module], name: str) -> None:
    model, whole = made(name), batch(ONE, MANY)
    plain = image_losses(model, whole)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = image_losses(model, whole)
        detections, _ = scored(model, whole)
    assert detections.dtype == torch.float32
    for term, values in mixed.items():
        assert values.dtype == torch.float32
        if name == "retinanet_resnet18":  # else other regions are found
            torch.testing.assert_close(values, plain[term], rtol=0.05, atol=0.02)


def test_samples_are_drawn_as_often_as_asked() -> None:
    matched = torch.tensor([BACKGROUND] * 500 + [IGNORED] * 200 + [0, 1, 2, 1] * 50)
    positive, negative = sample(matched, 100, 0.25, generator_of(5, torch.device("cpu")))
    assert (len(positive), len(negative)) == (25, 75)
    assert bool((matched[positive] >= 0).all())
    assert bool((matched[negative] == BACKGROUND).all())
    again = sample(matched, 100, 0.25, generator_of(5, torch.device("cpu")))
    assert torch.equal(positive, again[0])
    other = sample(matched, 100, 0.25, generator_of(6, torch.device("cpu")))
    assert not torch.equal(positive, other[0])
    few, rest = sample(matched, 2000, 0.5, generator_of(5, torch.device("cpu")))
    assert (len(few), len(rest)) == (200, 500)


@pytest.mark.slow
def test_a_few_pictures_are_learned_from_nothing() -> None:
    """Red bars that lie and blue bars that stand: after some steps each is found, and called what it is."""
    from torchvision.ops import box_iou

    torch.manual_seed(0)
    model: Any = build_detector(section(norm="batch"), 2, 64).train()
    places = [(4.0, 10.0, 28.0, 22.0), (30.0, 30.0, 54.0, 42.0), (8.0, 30.0, 20.0, 54.0), (44.0, 6.0, 56.0, 30.0)]
    whole = batch(*[[list(place)] for place in places])
    whole["frame"] = torch.tensor([[1.0, 1, 0, 0, 64, 64]]).repeat(4, 1)
    whole["labels"] = [torch.tensor([int(index > 1)]) for index in range(4)]
    whole["image"].fill_(114)
    for picture, place, label in zip(whole["image"], places, whole["labels"], strict=True):
        x1, y1, x2, y2 = map(int, place)
        picture[:, y1:y2, x1:x2] = torch.tensor([[220, 40, 40], [40, 40, 220]])[label[0]].view(3, 1, 1)
    optimizer, steps = torch.optim.AdamW(model.parameters()), 40
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        total(model, whole, loss_counts(whole, section())).backward()
        optimizer.step()
        schedule.step()
    surest = scored(model, whole)[0][:, 0]
    assert surest[:, 5].tolist() == [0, 0, 1, 1]
    overlaps = [float(box_iou(one[None, :4], boxes)) for one, boxes in zip(surest, whole["boxes"], strict=True)]
    assert min(overlaps) > 0.5
