"""The built-in sample is learned: by heart on train, and what is learned holds on images that were never seen."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from backend.artifact import Artifact, open_artifact
from backend.weights import load_matching
from training.cli import main
from training.config import load_config
from training.engine.device import Precision
from training.engine.evaluate import evaluate_split
from training.engine.loader import Loader
from training.samples.detection import make_detection_sample
from training.tasks.detection import DetectionTask
from training.tasks.protocol import PrepareContext


def score(artifact: Artifact, data: Path, cache: Path, split: str) -> dict[str, float]:
    """The scores of a trained model on a split of the dataset in ``data``."""
    task = DetectionTask(load_config("detection", preset_or_file="sample").config)
    prepared = task.prepare(PrepareContext(data, cache, 1, lambda line: None, lambda *_: None, lambda: None))
    model = task.build_model(prepared.facts)
    load_matching(model, artifact.weights, artifact.folder)
    device = torch.device("cpu")
    items = prepared.splits[split]
    found = evaluate_split(
        task,
        model,
        Loader(task, items, 42, 0, device),
        len(items),
        facts=prepared.facts,
        batch_size=8,
        precision=Precision("off", device),
    )
    return found.metrics


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_sample_is_learned(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    make_detection_sample(data)
    places = ["--output", str(tmp_path / "out"), "--datasets", str(tmp_path / "datasets")]
    assert main(["train", "--task", "detection", "--config", "sample", "--data", str(data), *places]) == 0
    (run,) = (tmp_path / "out" / "detection").glob("2*")
    artifact = open_artifact(run)
    for split, at_least in (("train", 0.95), ("val", 0.9), ("test", 0.9)):
        assert score(artifact, data, tmp_path / "cache", split)["map_50"] >= at_least, split
