"""Each kind of detector as an ONNX graph: what a task's export does, without a run."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from backend.errors import VerificationError
from backend.models.detector import build_detector
from tests.models import detection as made
from tests.models.rtdetr import pictures, tiny
from training.exporting.check import compared
from training.exporting.graph import Session, traced
from training.tasks.exported import DETECTION_LIMITS, DetectionsApart, Exported


def exported(model: nn.Module, nms_iou: float | None, any_batch: bool) -> Exported:
    return Exported(
        model,
        lambda batch: {"images": batch["image"], "frames": batch["frame"]},
        "detections",
        DetectionsApart(0.01, nms_iou),
        DETECTION_LIMITS,
        any_batch,
        rows=4,
    )


def test_a_transformer_takes_any_number_of_images() -> None:
    pytest.importorskip("transformers")
    model, batch = tiny(max_detections=20).eval(), pictures()
    plan = exported(model, None, any_batch=True)
    content = traced(plan, {name: value[:1] for name, value in plan.inputs(batch).items()}, {"task": "detection"})
    found = compared(plan, content, {"pictures": [batch]})
    assert not found.over and found.rows == {"pictures": 4} and found.differences["box"] < 0.01
    whole = Session(content)(plan.inputs(batch))
    assert whole.shape == (4, 20, 6) and (whole[..., 4] > 0.05).any()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fasterrcnn_mobilenet", "retinanet_resnet18"])
def test_torchvision_detectors_take_one_image(name: str) -> None:
    torch.manual_seed(0)
    model = build_detector(made.section(name, norm="batch"), made.CLASSES, made.SIZE)
    images = nn.functional.interpolate(torch.rand(8, 3, 8, 8) * 255, size=(made.SIZE, made.SIZE)).to(torch.uint8)
    with torch.no_grad():
        for _ in range(20):  # statistics for batch norm, without which nothing tells one place from another
            model.train().raw(images)
    batch = {"image": images[:4], "frame": made.frames(4)}
    plan = exported(model.eval(), 0.5, any_batch=False)
    content = traced(plan, {name: value[:1] for name, value in plan.inputs(batch).items()}, {})
    found = compared(plan, content, {"pictures": [batch]})
    assert not found.over
    with torch.no_grad():
        assert (model(batch["image"], batch["frame"])[..., 4] > 0).sum() > 10, "there is something to compare"


def test_a_runtime_that_fails_is_a_line() -> None:
    model, batch = tiny().eval(), pictures()
    plan = exported(model, None, any_batch=True)
    session = Session(traced(plan, {name: value[:1] for name, value in plan.inputs(batch).items()}, {}))
    with pytest.raises(VerificationError, match="ONNX Runtime cannot run") as raised:
        session({"images": batch["image"][..., :32], "frames": batch["frame"]})
    assert "\n" not in str(raised.value)
