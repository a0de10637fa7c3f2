"""A pool of landmark runs with a network of a few numbers: everything else about them is real."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from backend.preprocessing.landmark_set import LandmarkSet
from tests.data.landmark_dataset import faces, lungs
from tests.ensembles.pool import Pool
from training.cli import main
from training.tasks.landmarks import LandmarkTask


class Spot(nn.Module):
    """Says a fixed shape, moved by how bright the left half of the image is."""

    def __init__(self, points: int, order: list[int] | None) -> None:
        super().__init__()
        self.shape = nn.Parameter(torch.zeros(points, 2))
        self.pull = nn.Linear(3, points * 2, bias=False)
        self.mirrored_order = order

    def forward(self, images: Tensor) -> Tensor:
        left = images[..., : images.shape[-1] // 2].mean((2, 3))
        return torch.sigmoid(self.shape + 0.1 * self.pull(left).view(len(images), -1, 2))


def stand_in(patch: pytest.MonkeyPatch) -> None:
    """Let landmark runs have such a network."""

    def build(self: LandmarkTask, facts: dict[str, Any]) -> nn.Module:
        points = LandmarkSet.from_json(facts["landmark_set"])
        return Spot(len(points.names), points.mirrored_order())

    def load(self: LandmarkTask, model: nn.Module, weights: dict[str, Tensor], path: Path) -> str:
        model.load_state_dict(weights)
        return ""

    patch.setattr(LandmarkTask, "build_model", build)
    patch.setattr(LandmarkTask, "load_foreign", load)
    patch.setattr(LandmarkTask, "row_bytes", lambda self, model, dtype, device_type="cpu": 1000)


@pytest.fixture(autouse=True)
def small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)


def weights_file(folder: Path, seed: int, points: int) -> Path:
    torch.manual_seed(seed)
    path = folder / f"{seed}.safetensors"
    save_file({"shape": torch.randn(points, 2), "pull.weight": torch.randn(points * 2, 3)}, path)
    return path


MEMBERS: dict[str, tuple[str, ...]] = {
    "a": (),
    "b": (),
    "c": (),
    "d": ("training.split_seed=4",),
    "e": (),
    "f": ("data.clahe=false",),
    "g": ("evaluation.tta=false", "augmentation.flip=0"),
}


def make_member(place: Path, name: str, seed: int, settings: tuple[str, ...]) -> None:
    points, data = (4, "faces") if name in "gh" else (15, "lungs")
    file = weights_file(place, seed, points)
    sets = [word for text in ("data.image_size=64", "data.prepare_workers=1", *settings) for word in ("--set", text)]
    places = ["--output", str(place / "out"), "--datasets", str(place / "datasets")]
    known = [] if name == "e" else ["--split-known"]
    command = ["import", str(file), "--task", "landmarks", "--data", str(place / data), "--run-name", name]
    assert main([*command, *sets, *places, *known]) == 0


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once: a, b, c share a split; d has another one; of e it is unknown; f sees images in another way, g finds
    other points.
    """
    place = tmp_path_factory.mktemp("pool")
    lungs(place / "lungs", 90)
    faces(place / "faces", 12)
    with pytest.MonkeyPatch.context() as patch:
        stand_in(patch)
        for seed, (name, settings) in enumerate(MEMBERS.items()):
            make_member(place, name, seed, settings)
    return place


@pytest.fixture
def pool(made: Path, tmp_path: Path) -> Pool:
    """A copy of it for one test."""
    shutil.copytree(made, tmp_path / "pool")
    return Pool(tmp_path / "pool")
