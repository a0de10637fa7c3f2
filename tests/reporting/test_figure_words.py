"""What figures show is said in words, with numbers where the run has them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from backend.preprocessing.landmark_set import LandmarkSet
from training.reporting.figure_words import describe, is_drawing, title_of
from training.scores.detection import DetectionScores
from training.scores.landmarks import LandmarkScores

METRIC = "val/error_px_224"


def run(mode: str = "min", metric: str = METRIC) -> Any:
    """A run with three validations and a test of two landmarks, of which b is off by 22.4 px at 224."""
    scores = LandmarkScores(LandmarkSet(("a", "b")), ["all"], np.full((2, 2), 0.5), bootstrap=0)
    truth = torch.full((3, 2, 2), 0.5)
    found = truth + torch.tensor([[[0.0, 0.01], [0.1, 0.0]]])
    scores.update(found, None, truth, torch.full((3, 2), 100.0), torch.zeros(3, dtype=torch.int64))
    evaluation = {
        "split": "test",
        "metrics": {f"test/{name}": value for name, value in scores.compute().items()},
        "record": scores.record(),
    }
    values = [(10, 0.3, 9.0), (20, 0.1, 7.5), (30, 0.2, 8.0)]
    validations = [{"step": step, "metrics": {"val/loss": loss, METRIC: error}} for step, loss, error in values]
    selection = {"metric": metric, "mode": mode}
    return SimpleNamespace(config={"selection": selection}, validations=validations, evaluations={"test": evaluation})


def test_curves_tell_the_loss_and_the_metric_that_chooses() -> None:
    assert describe(run(), "curves") == (
        "Loss, val/error_px_224 and learning rate over the optimizer steps. "
        "The validation loss begins at 0.3 (step 10), is lowest at 0.1 (step 20) and ends at 0.2 (step 30). "
        "val/error_px_224, by which the best checkpoint is chosen, begins at 9 (step 10), is lowest at 7.5 (step 20) "
        "and ends at 8 (step 30)."
    )
    assert "is highest at 9 (step 10) and" in describe(run("max"), "curves")
    assert "lowest at 0.1 (step 20)" in describe(run("max"), "curves")  # the loss is none that should be high
    assert describe(run(metric="val/loss"), "curves").count("begins at") == 1


def test_landmark_figures_are_told() -> None:
    assert describe(run(), "test_error_of_each_point") == (
        "Errors of each landmark on the test split. "
        "Of 2 landmarks a has the smallest mean error (2.24 px at 224), b the largest (22.4)."
    )
    assert title_of(run(), "test_worst_images").startswith("Images of the test split with the largest errors")
    assert "rings" in describe(run(), "val_best_images")
    assert describe(run(), "val_error_of_each_point") == "Errors of each landmark on the val split."


def detected(classes: list[str]) -> Any:
    """A run with a test of boxes that are all found, but for those of the last class."""
    scores = DetectionScores(classes)
    box = torch.tensor([[0.0, 0.0, 40.0, 40.0]])
    for label in range(len(classes)):
        found = torch.zeros(1, 1, 6)
        found[0, 0] = torch.tensor([0, 0, 40, 40 if label < len(classes) - 1 else 30, 0.9, label])
        scores.update(found, [box], [torch.tensor([label])], [torch.tensor([False])], [torch.tensor([1600.0])])
    metrics = {f"test/{name}": value for name, value in scores.compute().items()}
    evaluation = {"split": "test", "metrics": metrics, "record": scores.record()}
    return SimpleNamespace(config={}, validations=[], evaluations={"test": evaluation})


def test_detection_figures_are_told() -> None:
    several, one = detected(["car", "bus"]), detected(["car"])
    assert describe(several, "test_precision_recall") == (
        "Precision, recall and F1 on the test split, over recall and over the score. "
        "Of 2 classes car has an average precision of 1, the largest, bus the smallest (0.6)."
    )
    assert describe(one, "test_precision_recall").endswith("car has an average precision of 0.6.")
    assert describe(one, "val_precision_recall").endswith("over the score.")
    assert describe(one, "val_examples").startswith("Images of the val split with the most and with the fewest")
    assert "dashed" in describe(one, "val_examples")
    assert describe(one, "test_confusion_matrix") == "What true boxes of the test split were taken for."
    assert "colour of its class" in describe(one, "augmented_training_images")


@pytest.mark.parametrize(
    ("name", "drawing"),
    [
        ("curves", True),
        ("test_error_of_each_point", True),
        ("test_1", False),
        ("test_precision_recall", True),
        ("val_confusion_matrix", True),
        ("val_examples", False),
        ("augmented_training_images", False),
    ],
)
def test_pictures_are_not_drawings(name: str, drawing: bool) -> None:
    assert is_drawing(name) is drawing
