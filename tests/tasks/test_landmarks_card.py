"""A landmark model's card follows its configuration, and cites what it speaks of."""

from __future__ import annotations

from typing import Any

import pytest

from backend.preprocessing.landmark_set import LUNGS
from training.schemas.landmarks import LandmarkConfig
from training.tasks.card import Card
from training.tasks.landmarks_card import landmark_card

ANOTHER = {
    "data": {"clahe": False},
    "model": {"pretrained": "none", "coordinate_attention": False, "head": "shallow"},
    "frozen": {"epochs": 0},
    "augmentation": {"flip": 0.0, "rotation": 0.0, "brightness": 0.0, "contrast": 0.0},
    "evaluation": {"tta": False, "bootstrap": 0},
}


def made(**sections: Any) -> Card:
    return landmark_card(LandmarkConfig(**sections), {"landmark_set": LUNGS.to_json()})


def keys(card: Card) -> set[str]:
    return {paper.key for paper in card.references}


def test_it_says_what_was_done() -> None:
    card = made(loss={"class_weights": {"COVID": 2.0}})
    text = " ".join(card.method)
    assert card.what == f"It finds 15 points in an image: {', '.join(LUNGS.names)}."
    assert "224 x 224 pixels, after contrast-limited adaptive histogram equalisation (Zuiderveld 1994)" in text
    assert "mirrored with probability 0.5, rotated by up to 10 degrees, changed in brightness by up to 20%" in text
    assert "three linear layers with group normalisation (Wu and He 2018), 768 wide and with dropout 0.3" in text
    assert "for up to 15 epochs the head alone" in text.lower()
    assert "omega 10, epsilon 2 in pixels of a 224-pixel image); images counted by class (COVID 2, others 1)" in text
    assert keys(card) == {
        "he2016resnet", "hou2021coordinate", "wu2018groupnorm", "deng2009imagenet", "feng2018wing",
        "zuiderveld1994clahe", "efron1993bootstrap",
    }  # fmt: skip


def test_what_was_not_done_is_not_told() -> None:
    card = made(**ANOTHER)
    text = " ".join(card.method)
    for absent in ("equalisation", "attention", "group norm", "ImageNet", "head alone", "mirror", "bootstrap"):
        assert absent not in text, absent
    assert "Training images were used as they are." in text
    assert keys(card) == {"he2016resnet", "he2015rectifiers", "feng2018wing"}


def test_the_rate_of_all_but_the_head_is_told_where_it_is_another() -> None:
    told = "Everything but the head had a learning rate of 2e-05."
    assert told in made(frozen={"epochs": 0}).method
    same = {"learning_rate": 1e-3, "trunk_learning_rate": 1e-3}
    assert "Everything but the head" not in " ".join(made(frozen={"epochs": 0}, training=same).method)


@pytest.mark.parametrize("kind", ["wing", "weighted_wing", "combined", "adaptive_wing", "soft_wing"])
def test_every_source_in_its_sentences_is_among_its_references(kind: str) -> None:
    for sections in ({}, ANOTHER, {"model": {"init_from": "w.pth"}}):
        card = made(loss={"kind": kind}, **sections)
        text = " ".join(card.method)
        assert all(paper.short in text for paper in card.references)
        assert all(paper.bibtex().startswith("@") for paper in card.references)
