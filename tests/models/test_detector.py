"""The detectors: what comes out, boxes in original pixels, norms, settings, estimates, tracing."""

from __future__ import annotations

import io
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from backend.models.boxes import clipped, share_inside, to_image, to_network
from backend.models.detector import build_detector
from backend.models.detector_select import Selection
from tests.models.detection import CLASSES, SIZE, frames, images, section

NAMES = ["retinanet_resnet18", "fasterrcnn_mobilenet", "fasterrcnn_resnet50"]
WHOLE = torch.tensor([1.0, 1, 0, 0, SIZE, SIZE])


def net_of(name: str = "retinanet_resnet18", size: int = SIZE, **changes: Any) -> Any:
    torch.manual_seed(0)
    return build_detector(section(name, **changes), CLASSES, size).eval()


class TestBoxes:
    def test_there_and_back(self) -> None:
        frame, boxes = frames(2), torch.tensor([[[0.0, 0, 128, 96], [10, 20, 30, 50]]] * 2)
        placed = to_network(boxes, frame)
        torch.testing.assert_close(placed[1], torch.tensor([[0.0, 8, 64, 56], [5, 18, 15, 33]]))
        torch.testing.assert_close(to_image(placed, frame), boxes)
        torch.testing.assert_close(to_network(boxes[0], frame[0]), placed[0])

    def test_clipped_to_the_true_image(self) -> None:
        boxes = torch.tensor([[-5.0, 10, 400, 90], [20, -3, 30, 500]])
        expected = torch.tensor([[0.0, 10, 128, 90], [20, 0, 30, 96]])
        torch.testing.assert_close(clipped(boxes, frames(1)[0]), expected)

    def test_share_inside(self) -> None:
        boxes = torch.tensor([[0.0, 0, 10, 10], [5, 5, 15, 15], [50, 50, 60, 60], [3, 3, 3, 9]])
        regions = torch.tensor([[0.0, 0, 10, 5], [0, 0, 8, 10]])
        torch.testing.assert_close(share_inside(boxes, regions), torch.tensor([0.8, 0.15, 0.0, 0.0]))
        torch.testing.assert_close(share_inside(boxes, regions[:0]), torch.zeros(4))


class TestSelection:
    def test_doubles_of_a_class_are_left_out_and_others_kept(self) -> None:
        boxes = torch.tensor([[10.0, 10, 30, 30], [11, 10, 31, 30], [40, 40, 60, 60]])
        scores = torch.tensor([[0.9, 0.3], [0.8, 0.0], [0.1, 0.5]])
        found = Selection(0.2, 0.5, 5).of_image(boxes, scores, WHOLE)
        expected = [[10, 10, 30, 30, 0.9, 0], [40, 40, 60, 60, 0.5, 1], [10, 10, 30, 30, 0.3, 1]]
        torch.testing.assert_close(found, torch.tensor([*expected, *[[0, 0, 0, 0, 0, -1.0]] * 2]))
        everything = Selection(0.2, 1.0, 5).of_image(boxes, scores, WHOLE)
        assert everything[:, 4].tolist() == pytest.approx([0.9, 0.8, 0.5, 0.3, 0])
        assert len(Selection(0.0, 0.5, 2).of_image(boxes, scores, WHOLE)) == 2

    def test_each_class_its_own_box(self) -> None:
        boxes = torch.tensor([[[0.0, 0, 10, 10], [20, 20, 40, 40]]])
        found = Selection(0.2, 0.5, 2).of_image(boxes, torch.tensor([[0.3, 0.6]]), WHOLE)
        torch.testing.assert_close(found, torch.tensor([[20, 20, 40, 40, 0.6, 1], [0, 0, 10, 10, 0.3, 0]]))

    def test_boxes_in_the_grey_and_images_without_boxes(self) -> None:
        grey = torch.tensor([[0.0, 0, 64, 7.9], [10, 4, 20, 18]])
        found = Selection(0.01, 0.5, 3).of_image(grey, torch.tensor([[0.9], [0.5]]), frames(1)[0])
        assert found[:, 5].tolist() == [0, -1, -1]
        torch.testing.assert_close(found[0, :4], torch.tensor([20.0, 0, 40, 20]))
        none = Selection(0.01, 0.5, 3).of_image(grey[:0], torch.empty(0, 1), frames(1)[0])
        torch.testing.assert_close(none, torch.tensor([[0, 0, 0, 0, 0, -1.0]] * 3))


@pytest.mark.parametrize("name", NAMES)
def test_a_model_gone_wrong_finds_nothing(name: str) -> None:
    net = net_of(name)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(torch.nan)
        found = net(images(2), frames(2))
    assert found.shape == (2, 20, 6) and (found[..., 5] == -1).all() and not found[..., :5].any()


@pytest.mark.parametrize("name", NAMES)
def test_detections_are_sorted_clipped_and_padded(name: str) -> None:
    net = net_of(name, min_score=0.0, max_detections=50)
    with torch.no_grad():
        found = net(images(2), frames(2))
        alone = net(images(2)[1:], frames(1))
    assert found.shape == (2, 50, 6)
    assert found.dtype == torch.float32
    boxes, scores, labels = found[..., :4], found[..., 4], found[..., 5]
    there = scores > 0
    assert bool(there.any())
    assert bool((scores.diff(dim=1) <= 0).all())
    assert set(labels[there].tolist()) <= {0.0, 1.0, 2.0}
    assert bool((boxes >= 0).all())
    assert bool((boxes <= torch.tensor([128.0, 96, 128, 96])).all())
    assert bool((boxes[..., 2:] > boxes[..., :2])[there].all())
    assert bool((labels[~there] == -1).all())
    torch.testing.assert_close(alone[0, :5], found[1, :5], rtol=1e-4, atol=1e-3)


def test_settings_act() -> None:
    with torch.no_grad():
        scores = net_of(min_score=0.0)(images(1), frames(1))[0, :, 4]
        threshold = float(scores[10])
        strict = net_of(min_score=threshold)(images(1), frames(1))[0]
    assert int((strict[:, 4] > 0).sum()) == 11
    counts = [len(net_of("fasterrcnn_mobilenet", proposals=p).raw(images(1)).regions[0]) for p in (3, 500)]
    assert counts[0] == 3 < counts[1]
    anchors = net_of(anchor_sizes=[8.0, 16, 24, 32, 48], anchor_ratios=[1.0]).anchors
    assert anchors.shape == ((64 + 16 + 4 + 1 + 1) * 3, 4)
    sides = anchors[:, 2] - anchors[:, 0]
    assert sides[:3].tolist() == pytest.approx([8, 10, 12], abs=1)
    assert float(sides.max()) == pytest.approx(48 * 2 ** (2 / 3), abs=1)
    assert net_of("fasterrcnn_resnet50", anchor_ratios=[1.0]).anchors.shape == (256 + 64 + 16 + 4 + 1, 4)
    assert net_of("fasterrcnn_mobilenet", anchor_ratios=[1.0, 2.0]).anchors.shape == ((4 + 4 + 1) * 10, 4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [64, 96])
def test_anchors_fit_the_features(name: str, size: int) -> None:
    net = net_of(name, size)
    features = net.features(images(1, size=size))
    assert [f.shape[-1] for f in features.values()] == net.sides
    assert len(net.anchors) == sum(net.anchors_per_level)


class TestNorms:
    def test_frozen_statistics_stay(self) -> None:
        net = net_of("fasterrcnn_mobilenet", norm="frozen").train()
        before = {key: value.clone() for key, value in net.named_buffers()}
        net.raw(images(2))
        assert all(torch.equal(value, before[key]) for key, value in net.named_buffers())
        norms = [m for m in net.backbone.body.modules() if isinstance(m, nn.BatchNorm2d)]
        assert norms
        assert not any(m.training or m.weight.requires_grad for m in norms)

    def test_scale_and_shift_outside_the_trunk_learn(self) -> None:
        net = net_of("fasterrcnn_resnet50", norm="frozen").train()
        norm = net.backbone.fpn.inner_blocks[0][1]
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.weight.requires_grad
        assert not norm.training

    def test_batch_norms_learn(self) -> None:
        net = net_of(norm="batch").train()
        before = net.backbone.body.bn1.running_mean.clone()
        net.raw(images(2))
        assert not torch.equal(net.backbone.body.bn1.running_mean, before)
        assert net.backbone.body.bn1.weight.requires_grad

    def test_the_trunk_is_told_from_the_rest(self) -> None:
        net = net_of(norm="batch")
        trunk = {id(p) for p in net.trunk_parameters()}
        rest = [name for name, p in net.named_parameters() if id(p) not in trunk]
        assert len(trunk) == 60
        assert {name.split(".")[0] + "." + name.split(".")[1] for name in rest} == {
            "backbone.fpn", "head.classification_head", "head.regression_head",
        }  # fmt: skip


@pytest.mark.parametrize("name", NAMES[:2])
def test_autocast_keeps_boxes_exact(name: str) -> None:
    net = net_of(name)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = net(images(1), frames(1))
    assert found.dtype == torch.float32
    coarse = found[..., :4].bfloat16().float()
    assert not torch.equal(coarse, found[..., :4])


class TestEstimates:
    @pytest.mark.parametrize("name", NAMES)
    def test_flops_are_counted(self, name: str) -> None:
        net = net_of(name, proposals=40)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            net(images(1), frames(1))
        assert net.flops_per_row() == pytest.approx(counter.get_total_flops(), rel=0.05)

    def test_memory_is_what_the_backward_pass_keeps(self) -> None:
        net = net_of(norm="batch", size=128).train()
        kept: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        own = {p.untyped_storage().data_ptr() for p in [*net.parameters(), *net.buffers()]}
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            raw = net.raw(images(1, size=128))
        real = sum(size for place, size in kept.items() if place not in own)
        assert raw.logits.requires_grad
        assert net.activation_bytes_per_row() == pytest.approx(real, rel=0.1)
        half = net.activation_bytes_per_row(torch.bfloat16)
        assert 0.4 * real < half < 0.65 * real

    def test_second_stage_counts(self) -> None:
        few, many = (net_of("fasterrcnn_mobilenet", samples=samples) for samples in (8, 256))
        assert few.activation_bytes_per_row() < many.activation_bytes_per_row()


@pytest.mark.parametrize("name", NAMES[:2])
def test_it_can_be_traced(name: str) -> None:
    """On one image, and what was traced serves another one."""
    net = net_of(name, min_score=0.0)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(net, (images(1), frames(1)), check_trace=False)
        again = torch.jit.load(io.BytesIO(saved(traced)))
        other = images(1, seed=5)
        frame = torch.tensor([[0.25, 0.25, 8, 0, 192, 256.0]])
        torch.testing.assert_close(again(other, frame), net(other, frame), rtol=1e-4, atol=1e-3)


def saved(traced: torch.jit.ScriptModule) -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(traced, buffer)
    return buffer.getvalue()
