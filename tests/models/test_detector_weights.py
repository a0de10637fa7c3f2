"""Weights of torchvision's detectors and classifiers, and of this worker's own, in the detectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from backend.errors import ConfigError
from backend.models.detector import build_detector
from backend.models.detector_weights import coco_names, start_from, start_trunk
from backend.weights import read_state_dict, write_pth
from tests.models.detection import CLASSES, SIZE, images, section

PATH = "file.pth"


def net_of(name: str, classes: Any = CLASSES, seed: int = 1, **changes: Any) -> Any:
    torch.manual_seed(seed)
    return build_detector(section(name, **changes), classes, SIZE)


def published(name: str, **keys: Any) -> nn.Module:
    """A detector of torchvision as its files are: of 91 classes, with frozen norms where it has those."""
    from torchvision.models import detection
    from torchvision.ops import FrozenBatchNorm2d

    torch.manual_seed(0)
    if name == "fasterrcnn_resnet50":
        return detection.fasterrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None, **keys)
    model: nn.Module = detection.fasterrcnn_mobilenet_v3_large_fpn(weights=None, weights_backbone=None, **keys)
    for parent in list(model.modules()):
        for key, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, key, FrozenBatchNorm2d(child.num_features))
    return model


def random_statistics(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(3)
    for key, value in model.state_dict().items():
        if key.endswith("running_mean"):
            value.copy_(0.1 * torch.randn(value.shape, generator=generator))
        elif key.endswith("running_var"):
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))


def test_the_published_names_of_classes() -> None:
    names = coco_names()
    assert (len(names), names[0], names[2], names[7]) == (90, "person", "car", "truck")


def test_a_published_detector_finds_what_torchvisions_finds(tmp_path: Path) -> None:
    """With as many classes the whole head is taken over. Names would not do: torchvision's list has gaps, all N/A."""
    theirs = published("fasterrcnn_mobilenet", min_size=SIZE, max_size=SIZE, box_score_thresh=0.0).eval()
    random_statistics(theirs)
    nn.init.normal_(theirs.roi_heads.box_predictor.cls_score.weight, std=0.05)
    write_pth(tmp_path / PATH, theirs.state_dict())
    ours = net_of("fasterrcnn_mobilenet", 90, **ANCHORS, proposals=1000, min_score=0.0).eval()
    said = start_from(ours, read_state_dict(tmp_path / PATH), tmp_path / PATH)
    assert said == "a detector of 90 classes, its head too"
    picture, whole = images(1), torch.tensor([[1.0, 1, 0, 0, SIZE, SIZE]])
    theirs.rpn.score_thresh = 0.0
    with torch.no_grad():
        expected = theirs([picture[0] / 255])[0]
        found = ours(picture, whole)[0]
    count = 10
    torch.testing.assert_close(found[:count, 4], expected["scores"][:count], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(found[:count, :4], expected["boxes"][:count], rtol=1e-3, atol=0.05)
    assert torch.equal(found[:count, 5].long() + 1, expected["labels"][:count])


ANCHORS = {"anchor_sizes": [32.0, 64.0, 128.0, 256.0, 512.0]}


@pytest.mark.parametrize("name", ["fasterrcnn_resnet50", "fasterrcnn_mobilenet"])
def test_rows_of_known_classes_are_taken_over(name: str) -> None:
    weights = published(name).state_dict()
    ours = net_of(name, ["pedestrian", "tram", "Traffic_Light"])
    anew = {key: value.clone() for key, value in ours.state_dict().items()}
    said = start_from(ours, weights, PATH)
    assert said == "a detector of other classes; the head's rows of pedestrian, Traffic_Light with it"
    for key, per_class in (("cls_score", 1), ("bbox_pred", 4)):
        for end in ("weight", "bias"):
            full = f"roi_heads.box_predictor.{key}.{end}"
            mine, old, first = (
                state[full].unflatten(0, (-1, per_class)) for state in (ours.state_dict(), weights, anew)
            )
            assert torch.equal(mine[[0, 1, 3]], old[[0, 1, 10]]), "background, person, traffic light"
            assert torch.equal(mine[2], first[2])
    assert torch.equal(ours.backbone.fpn.inner_blocks[0][0].weight, weights["backbone.fpn.inner_blocks.0.0.weight"])


def test_older_names_are_known() -> None:
    weights: dict[str, Tensor] = {}
    for key, value in published("fasterrcnn_mobilenet").state_dict().items():
        older = key.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        for place in ("0", "1"):
            for blocks in ("inner_blocks", "layer_blocks"):
                older = older.replace(f"{blocks}.{place}.0.", f"{blocks}.{place}.")
        weights[older] = value
    assert "rpn.head.conv.weight" in weights
    assert "backbone.fpn.layer_blocks.1.bias" in weights
    ours = net_of("fasterrcnn_mobilenet")
    start_from(ours, weights, PATH)
    assert torch.equal(ours.rpn.head.conv[0][0].weight, weights["rpn.head.conv.weight"])


class TestOurOwn:
    def test_the_same_classes(self) -> None:
        for name in ("retinanet_resnet18", "fasterrcnn_mobilenet"):
            first, second = net_of(name, seed=1), net_of(name, seed=2)
            assert start_from(second, first.state_dict(), PATH) == "a detector of 3 classes, its head too"
            for key, value in first.state_dict().items():
                assert torch.equal(second.state_dict()[key], value)

    def test_the_same_classes_in_another_order(self) -> None:
        first = net_of("retinanet_resnet18", ["car", "tram"], seed=1)
        second = net_of("retinanet_resnet18", ["tram", "car"], seed=2)
        start_from(second, first.state_dict(), PATH, ["car", "tram"])
        theirs, mine = (net.head.classification_head.cls_logits.bias.unflatten(0, (-1, 2)) for net in (first, second))
        assert torch.equal(mine, theirs.flip(1))

    def test_other_classes(self) -> None:
        first = net_of("retinanet_resnet18", ["car", "tram"], seed=2)
        second = net_of("retinanet_resnet18", ["tram", "person", "car"])
        before = second.head.classification_head.cls_logits.weight.detach().unflatten(0, (-1, 3)).clone()
        said = start_from(second, first.state_dict(), PATH)
        assert said == "a detector of other classes; none of its classes is known here"
        assert torch.equal(second.head.regression_head.bbox_reg.weight, first.head.regression_head.bbox_reg.weight)
        start_from(second, first.state_dict(), PATH, ["car", "tram"])
        theirs = first.head.classification_head.cls_logits.weight.unflatten(0, (-1, 2))
        mine = second.head.classification_head.cls_logits.weight.unflatten(0, (-1, 3))
        assert torch.equal(mine[:, [0, 2]], theirs[:, [1, 0]])
        assert torch.equal(mine[:, 1], before[:, 1])

    @pytest.mark.parametrize(
        ("theirs", "ours"),
        [("fasterrcnn_mobilenet", "retinanet_resnet18"), ("retinanet_resnet18", "fasterrcnn_mobilenet")],
    )
    def test_another_detector_is_told(self, theirs: str, ours: str) -> None:
        net = net_of(ours)
        before = {key: value.clone() for key, value in net.state_dict().items()}
        with pytest.raises(ConfigError, match=r"file\.pth: its weights are of another model"):
            start_from(net, net_of(theirs).state_dict(), PATH)
        assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())

    def test_other_anchors_are_told(self) -> None:
        other = net_of("retinanet_resnet18", anchor_ratios=[1.0])
        with pytest.raises(ConfigError, match="its weights are of another model"):
            start_from(net_of("retinanet_resnet18"), other.state_dict(), PATH)


class TestTrunks:
    @pytest.mark.parametrize(
        ("name", "builder"),
        [
            ("retinanet_resnet18", "resnet18"),
            ("fasterrcnn_resnet50", "resnet50"),
            ("fasterrcnn_mobilenet", "mobilenet_v3_large"),
        ],
    )
    def test_it_computes_what_the_classifier_does(self, name: str, builder: str) -> None:
        import torchvision

        torch.manual_seed(0)
        classifier = getattr(torchvision.models, builder)(weights=None).eval()
        random_statistics(classifier)
        net = net_of(name).eval()
        assert start_from(net, classifier.state_dict(), PATH) == "an ImageNet classifier, for the trunk"
        x = torch.randn(1, 3, SIZE, SIZE)
        with torch.no_grad():
            if builder == "mobilenet_v3_large":
                expected = classifier.features(x)
            else:
                layers = dict(classifier.named_children())
                expected = x
                for key in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
                    expected = layers[key](expected)
            found = list(net.backbone.body(x).values())[-1]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))

    def test_another_network_is_told(self) -> None:
        from torchvision.models import resnet18

        with pytest.raises(ConfigError, match="its weights are of another model"):
            start_trunk(net_of("fasterrcnn_mobilenet"), resnet18(weights=None).state_dict(), PATH)
