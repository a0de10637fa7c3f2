"""Which images a landmark report shows: the best and the worst of a split, and the error of each point."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from backend.models.landmarks import predict_points
from backend.preprocessing.landmarks import LandmarkPreprocessing
from torch import nn

from training.reporting.landmark_figures import Example, draw_point_errors, draw_points
from training.tasks.protocol import Batch, ItemSource, Prepared

_SHOWN = 6
_AT_ONCE = 16
SCALE = 224.0  # pixels across, in which errors are told whatever the images' size
UNIT = "px at 224"


def draw_examples(model: nn.Module, prepared: Prepared, split: str, folder: Path, device: torch.device) -> list[Path]:
    """Draw the best and the worst images of ``split``, and how the errors of each point are spread."""
    items = prepared.splits[split]
    truth, predicted = _points(model, items, device)
    errors = np.linalg.norm(predicted - truth, axis=2) * SCALE
    order = np.argsort(errors.mean(axis=1))
    written: list[Path] = []
    for which, chosen in (("worst", order[::-1][:_SHOWN]), ("best", order[:_SHOWN])):
        examples = [_example(prepared, split, int(i), truth[i], predicted[i], errors[i]) for i in chosen]
        title = f"{split}: the {len(examples)} images with the {'largest' if which == 'worst' else 'smallest'} error"
        written += draw_points(folder / f"{split}_{which}_images", examples, title, UNIT)
    names = prepared.facts["landmark_set"]["names"]
    return written + draw_point_errors(
        folder / f"{split}_error_of_each_point", names, errors, f"{split}: error of each point", UNIT
    )


def _points(model: nn.Module, items: ItemSource, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
    """True and predicted points [N, P, 2], from 0 to 1."""
    model.eval()
    truth, predicted = [], []
    for first in range(0, len(items), _AT_ONCE):
        batch: list[Batch] = [items.item(index, None) for index in range(first, min(first + _AT_ONCE, len(items)))]
        images = torch.cat([one["image"] for one in batch]).to(device)
        with torch.inference_mode():
            plain, _ = predict_points(model, preprocessing.normalise(images), mirrored=False)
        predicted.append(plain.float().cpu())
        truth.append(torch.cat([one["points"] for one in batch]))
    return torch.cat(truth).numpy(), torch.cat(predicted).numpy()


def _example(
    prepared: Prepared, split: str, index: int, truth: np.ndarray, predicted: np.ndarray, errors: np.ndarray
) -> Example:
    image = prepared.splits[split].item(index, None)["image"][0].permute(1, 2, 0).numpy()
    side = image.shape[0]
    name = prepared.members[split][index].name
    return Example(name, image, truth * side - 0.5, predicted * side - 0.5, float(errors.mean()))
