"""The transformer detector: transformers' network, our boxes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from backend.errors import ConfigError
from backend.models.detector_rtdetr import RTDetr, corners, shares
from backend.models.detector_rtdetr_weights import renamed, start_from
from backend.weights import read_state_dict
from tests.models.rtdetr import CLASSES, SIDE, TINY, pictures, rows, section, tiny

transformers = pytest.importorskip("transformers")
WORDS = {"net.": "model.", ".mlp.": ".", ".o_proj.": ".out_proj.", ".aifi.": ".encoder."}  # ours, and as published


def published(model: RTDetr) -> dict[str, Tensor]:
    """The weights under the names that the published file has."""
    found = {}
    for name, value in model.state_dict().items():
        for ours, theirs in WORDS.items():
            name = name.replace(ours, theirs, 1)
        if not (name.startswith("model.backbone") and name.endswith("num_batches_tracked")):
            found[name] = value.clone()
    return found


def test_the_published_size() -> None:
    with torch.device("meta"):
        model = RTDetr(section(queries=300, denoising=100), 80, 640)
    assert sum(p.numel() for p in model.parameters()) == 20_184_464
    stored = sum(value.numel() * value.element_size() for value in published(model).values())
    assert 0 < 80_904_640 - stored < 100_000, "the published file has so many bytes, the names' header among them"
    assert sum(p.numel() for p in model.trunk_parameters()) > 11_000_000


def test_it_computes_what_transformers_does() -> None:
    """Our own way through the network (features, first guesses, decoder) against transformers' forward pass."""
    model = tiny(denoising=0).eval()
    whole = transformers.RTDetrV2ForObjectDetection(model.net.config).eval()
    missing, surplus = whole.load_state_dict({f"model.{k[4:]}": v for k, v in model.state_dict().items()}, strict=False)
    assert not surplus
    assert all(name.startswith(("class_embed", "bbox_embed")) for name in missing), "the same under a second name"
    images = pictures()["image"]
    with torch.no_grad():
        ours, theirs = model.answers(images), whole(images / 255)
    torch.testing.assert_close(ours.logits[:, -1], theirs.logits)
    torch.testing.assert_close(ours.boxes[:, -1], theirs.pred_boxes)


def test_boxes_go_to_the_image_and_back() -> None:
    frame = torch.tensor([[0.5, 0.5, 0.0, 16.0, 128.0, 64.0]])
    boxes = torch.tensor([[[10.0, 5.0, 40.0, 60.0], [0.0, 0.0, 128.0, 64.0]]])
    found = shares(boxes[0], frame[0], SIDE)
    torch.testing.assert_close(found[1], torch.tensor([0.5, 0.5, 1.0, 0.5]))
    torch.testing.assert_close(corners(found[None], frame, SIDE), boxes)
    beyond = corners(torch.tensor([[[0.5, 0.1, 1.5, 0.1]]]), frame, SIDE)
    torch.testing.assert_close(beyond, torch.tensor([[[0.0, 0.0, 128.0, 0.0]]]))


def test_detections_are_sorted_and_what_is_missing_is_marked() -> None:
    batch = pictures()
    model = tiny(min_score=0.0, max_detections=100).eval()
    with torch.no_grad():
        found = model(batch["image"], batch["frame"])
    assert found.shape == (4, 100, 6) and found.dtype == torch.float32, "20 queries of 3 classes, then nothing"
    scores, labels = found[..., 4], found[..., 5]
    assert (scores[:, :-1] >= scores[:, 1:]).all()
    assert set(labels[:, 60:].flatten().tolist()) == {-1.0} and (found[:, 60:, :5] == 0).all()
    kept = found[scores > 0]
    assert len(kept) and set(kept[:, 5].tolist()) <= {0.0, 1.0, 2.0}
    assert (kept[:, :4] >= 0).all() and (kept[:, 2] <= 128).all() and (kept[:, 3] <= 64).all()
    assert ((kept[:, 2:4] - kept[:, :2]) > 0).all(), "what lies beside the picture is no detection"
    unsure = tiny(min_score=0.999).eval()
    with torch.no_grad():
        assert (unsure(batch["image"], batch["frame"])[..., 5] == -1).all()


def test_boxes_are_of_fp32_under_autocast() -> None:
    batch, model = pictures(), tiny(denoising=0).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        answers = model.answers(batch["image"])
        found = model(batch["image"], batch["frame"])
    assert answers.boxes.dtype == answers.logits.dtype == found.dtype == torch.float32
    assert (answers.boxes != answers.boxes.bfloat16().float()).float().mean() > 0.9, "finer than bf16 can tell"


def test_frozen_norms_stay_as_they_are() -> None:
    model = tiny(norm="frozen").train()
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    before = [norm.running_mean.clone() for norm in norms]
    model.answers(pictures()["image"])
    assert all(torch.equal(norm.running_mean, mean) for norm, mean in zip(norms, before, strict=True))
    assert not any(p.requires_grad for norm in norms for p in norm.parameters())
    learning = tiny(norm="batch").train()
    learning.answers(pictures()["image"])
    moved = [norm.running_mean.abs().max() > 0 for norm in learning.modules() if isinstance(norm, torch.nn.BatchNorm2d)]
    assert all(moved)


def test_its_costs_are_told() -> None:
    model = tiny()
    generator = torch.random.get_rng_state()
    assert 1e6 < model.flops_per_row() < 1e8
    assert torch.equal(torch.random.get_rng_state(), generator)
    wide, narrow = model.activation_bytes_per_row(), model.activation_bytes_per_row(torch.bfloat16)
    assert wide / 2 < narrow < wide
    larger = RTDetr(section(), CLASSES, 2 * SIDE, TINY)
    assert 3 < larger.flops_per_row() / model.flops_per_row() < 5
    assert larger.activation_bytes_per_row() > 2 * wide


def test_published_weights_are_taken(tmp_path: Path) -> None:
    theirs, path = tiny(seed=3), f"{tmp_path}/model.safetensors"
    save_file(published(theirs), path)
    model = tiny(seed=4)
    assert start_from(model, read_state_dict(path), path) == "an RT-DETR"
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in model.state_dict().items())
    without = tiny(seed=4, denoising=0)
    start_from(without, read_state_dict(path), path)
    assert torch.equal(without.net.enc_score_head.weight, theirs.net.enc_score_head.weight)
    assert renamed("class_embed.0.weight") == "net.decoder.class_embed.0.weight"


def test_other_classes_begin_anew(tmp_path: Path) -> None:
    torch.manual_seed(3)
    theirs, path = RTDetr(section(), 80, SIDE, TINY), f"{tmp_path}/model.safetensors"
    save_file(published(theirs), path)
    model = tiny(seed=4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert "begun anew" in start_from(model, read_state_dict(path), path)
    fresh = {name for name, value in model.state_dict().items() if torch.equal(value, before[name])}
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    heads = {name for name in before if "class_embed" in name or "enc_score_head" in name}
    assert heads <= fresh
    assert "net.decoder.layers.1.encoder_attn.value_proj.weight" in changed


def test_other_weights_are_refused(tmp_path: Path) -> None:
    model = tiny()
    with pytest.raises(ConfigError, match="no weights of an RT-DETR"):
        start_from(model, {"conv1.weight": torch.zeros(3)}, "resnet18.pth")
    wider = RTDetr(section(), CLASSES, SIDE, TINY.__class__(width=64, inner=64, heads=4, layers=2))
    with pytest.raises(ConfigError, match="with other sizes"):
        start_from(model, published(wider), "other.safetensors")


def test_without_the_package_a_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError) as raised:
        tiny()
    line = str(raised.value)
    assert "\n" not in line and "training/requirements.transformers.txt" in line and "model.name" in line
    monkeypatch.undo()
    monkeypatch.setattr(sys.modules["transformers"], "is_torch_available", lambda: False)
    with pytest.raises(ConfigError, match="works with PyTorch"):
        tiny()


def test_an_image_is_answered_alike_alone() -> None:
    batch, model = pictures(), tiny().eval()
    with torch.no_grad():
        whole = model(batch["image"], batch["frame"])
        alone = [model(rows(batch, row)["image"], rows(batch, row)["frame"]) for row in range(4)]
    torch.testing.assert_close(torch.cat(alone), whole, atol=1e-4, rtol=1e-4)
