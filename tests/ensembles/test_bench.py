"""The images that an ensemble is scored on."""

from __future__ import annotations

import weakref
from pathlib import Path

import pytest
import torch

from tests.data.landmark_dataset import lungs
from tests.data.world import World
from training.data.landmarks.prepare import LandmarkItems, prepare_landmarks
from training.ensembles.bench import ALL, DataBench
from training.schemas.landmarks import LandmarkDataSection


def test_their_pixels_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(lungs(tmp_path / "lungs", 24), tmp_path / "cache")
    prepared = prepare_landmarks(LandmarkDataSection(image_size=64), world.context, 42)
    made: list[weakref.ref[torch.Tensor]] = []
    most, real = 0, LandmarkItems.item

    def item(self, index, rng):
        nonlocal most
        found = real(self, index, rng)
        made.append(weakref.ref(found["image"]))
        most = max(most, sum(one() is not None for one in made))
        return found

    monkeypatch.setattr(LandmarkItems, "item", item)
    images = DataBench(None, prepared, "").images(ALL)  # type: ignore[arg-type]
    assert len(images) == len(made) == 24
    assert images.points.shape == (24, 15, 2)
    assert most <= 2
