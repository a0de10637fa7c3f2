"""A detection model's card follows its configuration, and cites what it speaks of."""

from __future__ import annotations

from typing import Any

import pytest

from training.schemas.detection import DetectionConfig
from training.tasks.card import Card, card_from
from training.tasks.detection_card import detection_card

PLAIN = {
    "augmentation": {
        "flip": 0.0, "scale": [1.0, 1.0], "shift": 0.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0,
        "hue": 0.0, "mosaic": 0.0,
    },
    "model": {"name": "retinanet_resnet18", "pretrained": "none", "norm": "batch"},
    "training": {"learning_rate": 1e-3, "trunk_learning_rate": 1e-3},
}  # fmt: skip
MODELS = ["fasterrcnn_resnet50", "fasterrcnn_mobilenet", "retinanet_resnet18", "rtdetr_v2"]


def made(classes: tuple[str, ...] = ("person", "car"), **sections: Any) -> Card:
    return detection_card(DetectionConfig(**sections), {"classes": list(classes)})


def keys(card: Card) -> set[str]:
    return {paper.key for paper in card.references}


def test_it_says_what_was_done() -> None:
    card = made()
    text = " ".join(card.method)
    assert card.what == "It finds objects in images of streets, with a box, a score and a class for each: person, car."
    assert "640 x 640 pixels, their proportions kept and the rest grey, with boxes of 2 classes" in text
    assert "put together of four with probability 0.5 (mosaic; Bochkovskiy et al. 2020)" in text
    assert "scaled by 0.5 to 1.5, shifted by up to 10% of the image" in text
    assert "boxes of which less than 20% stayed inside were left out" in text
    assert "with anchors of 32, 64, 128, 256, 512 pixels of its input and 1,000 regions an image" in text
    assert "trained on COCO (Lin et al. 2014); batch normalisation (Ioffe and Szegedy 2015) kept its" in text
    assert "The trunk had a learning rate of 1e-05." in text
    assert "a score of at least 0.5 and, as found, overlaps of at least 0.5" in text
    assert keys(card) == {
        "bochkovskiy2020yolov4", "ren2015faster", "li2021benchmarking", "he2016resnet", "lin2017pyramid",
        "lin2014coco", "ioffe2015batchnorm",
    }  # fmt: skip


def test_what_was_not_done_is_not_told() -> None:
    card = made(**PLAIN)
    text = " ".join(card.method)
    for absent in ("mosaic", "mirrored", "stayed inside", "regions an image", "ImageNet", "trunk had", "published"):
        assert absent not in text, absent
    assert "Training images were used as they are." in text
    assert "It started from random weights; batch normalisation (Ioffe and Szegedy 2015) was trained." in text
    assert keys(card) == {
        "lin2017focal", "he2016resnet", "lin2017pyramid", "wu2018groupnorm", "ioffe2015batchnorm",
        "rezatofighi2019giou", "lin2014coco",
    }  # fmt: skip


def test_the_limits_are_honest() -> None:
    limits = " ".join(made().limits)
    for said in ("its classes alone", "night", "other cameras", "follow anybody", "identify people"):
        assert said in limits, said


def test_many_classes_are_counted_instead_of_listed() -> None:
    what = made(tuple(f"c{number}" for number in range(80))).what
    assert what.endswith(" for each: c0 to c79, 80 classes.")


STARTS = [{"pretrained": "coco"}, {"pretrained": "imagenet"}, {"pretrained": "none", "init_from": "w.pth"}]
NOT_PUBLISHED = {("retinanet_resnet18", "coco"), ("rtdetr_v2", "imagenet")}


@pytest.mark.parametrize(
    ("name", "start"),
    [(name, start) for name in MODELS for start in STARTS if (name, start["pretrained"]) not in NOT_PUBLISHED],
)
def test_every_source_in_its_sentences_is_among_its_references(name: str, start: dict[str, str]) -> None:
    for denoising in (0, 100):
        card = made(model={"name": name, **start, "denoising": denoising})
        text = " ".join(card.method)
        assert len(keys(card)) == len(card.references)
        assert all(paper.short in text for paper in card.references)
        assert all(paper.bibtex().startswith("@") for paper in card.references)
        assert card_from(card.to_json()).references == card.references
