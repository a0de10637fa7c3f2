"""Which images a detection report shows, and the curves and confusions of a split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from training.reporting.detection_figures import ClassCurve, draw_confusion, draw_precision_recall
from training.reporting.detection_pictures import (
    FALSE,
    MANY,
    MISSED,
    RIGHT,
    TRUE,
    Drawn,
    Shown,
    draw_detections,
    draw_training_images,
)
from training.reporting.figures import literal
from training.scores.detection import DetectionScores
from training.scores.detection_matching import FOUND, IGNORED, Matches, Picture, match_by_score
from training.tasks.protocol import Batch, ItemSource, Prepared

_SHOWN, _WORST = 6, 4  # pictures, and those of them that may be among the worst
_AT_ONCE = 8
_MOST_IMAGES = 1000  # of which the curves are drawn; of more, evenly spaced ones
_AUGMENTED = 9
_SEED = 0  # of the augmentation that is shown


def draw_examples(
    model: nn.Module,
    prepared: Prepared,
    split: str,
    folder: Path,
    device: torch.device,
    confidence: float = 0.5,
    iou: float = 0.5,
) -> list[Path]:
    """Draw training images, and the images, curves and confusions of ``split``; of val where ``split`` has none.

    Args:
        model: takes images and frames, gives detections ``[n, D, 6]``.
        prepared: the dataset.
        split: of which examples are shown.
        folder: where to write.
        device: where the model is.
        confidence: the score from which a detection counts, and is drawn.
        iou: the overlap with a true box from which it counts as found.

    Returns:
        Every file that was written.
    """
    classes = [literal(name) for name in prepared.facts["classes"]]
    written = _draw_augmented(prepared, classes, folder)
    shown = split if split in prepared.splits and len(prepared.splits[split]) else "val"
    items = prepared.splits[shown]
    if not len(items):
        return written
    indices = np.unique(np.linspace(0, len(items) - 1, min(len(items), _MOST_IMAGES)).round().astype(int)).tolist()
    scores = _scored(model, items, indices, device, DetectionScores(classes, confidence, iou))
    written += _draw_pictures(prepared, shown, indices, scores, folder)
    whole = len(indices) == len(items)
    about = f"{len(indices):,} images" if whole else f"{len(indices):,} of {len(items):,} images, evenly spaced"
    written += _draw_curves(scores, folder / f"{shown}_precision_recall", f"{shown}: precision and recall, {about}")
    return written + _draw_matrix(
        scores, folder / f"{shown}_confusion_matrix", f"{shown}: what boxes were taken for", about
    )


def _scored(
    model: nn.Module, items: ItemSource, indices: Sequence[int], device: torch.device, scores: DetectionScores
) -> DetectionScores:
    model.eval()
    for first in range(0, len(indices), _AT_ONCE):
        batch: list[Batch] = [items.item(index, None) for index in indices[first : first + _AT_ONCE]]
        images, frames = (torch.cat([one[key] for one in batch]).to(device) for key in ("image", "frame"))
        with torch.inference_mode():
            detections = model(images, frames).cpu()
        truth = [[row for one in batch for row in one[key]] for key in ("boxes", "labels", "crowd", "area")]
        scores.update(detections, *truth)
    return scores


def _draw_augmented(prepared: Prepared, classes: Sequence[str], folder: Path) -> list[Path]:
    items = prepared.splits["train"]
    count = min(_AUGMENTED, len(items))
    if not count:
        return []
    shown = []
    for place, index in enumerate(np.linspace(0, len(items) - 1, count).round().astype(int).tolist()):
        item = items.item(index, np.random.default_rng([_SEED, place]))
        truth = zip(item["boxes"][0].tolist(), item["labels"][0].tolist(), item["crowd"][0].tolist(), strict=True)
        boxes = [
            Drawn(tuple(box), MANY if crowd else classes[label], f"many: {classes[label]}" if crowd else classes[label])
            for box, label, crowd in truth
        ]
        shown.append(Shown(*_cropped(item), boxes))
    title = "Training images as the model sees them, drawn anew each epoch"
    return draw_training_images(folder / "augmented_training_images", shown, classes, title)


def _cropped(item: Batch) -> tuple[np.ndarray[Any, Any], tuple[float, float, float, float]]:
    """The picture ``[h, w, 3]`` without the grey around it, and its corners in pixels of the boxes."""
    image = item["image"][0].permute(1, 2, 0).numpy()
    scale_x, scale_y, pad_x, pad_y, width, height = item["frame"][0].tolist()
    x1, y1 = max(round(pad_x), 0), max(round(pad_y), 0)
    x2, y2 = (min(round(pad_x + width * scale_x), image.shape[1]), min(round(pad_y + height * scale_y), image.shape[0]))
    corners = ((x1 - pad_x) / scale_x, (y1 - pad_y) / scale_y, (x2 - pad_x) / scale_x, (y2 - pad_y) / scale_y)
    return image[y1:y2, x1:x2], corners


def _draw_pictures(
    prepared: Prepared, split: str, indices: Sequence[int], scores: DetectionScores, folder: Path
) -> list[Path]:
    """The images with the most mistakes, and those with the most boxes and the fewest mistakes."""
    sure = [picture.surer_than(scores.confidence) for picture in scores.pictures()]
    matches = [match_by_score(picture, scores.iou) for picture in sure]
    mistakes = [_mistakes(picture, match) for picture, match in zip(sure, matches, strict=True)]
    wrong = np.array([missed + false for missed, false in mistakes])
    right = np.array([int(match.taken.sum()) for match in matches])
    worst = [place for place in np.lexsort((-right, -wrong)).tolist()[:_WORST] if wrong[place]]
    best = [place for place in np.lexsort((-right, wrong)).tolist() if place not in worst][: _SHOWN - len(worst)]
    shown = []
    for rank, place in [*(("worst", place) for place in worst), *(("best", place) for place in best)]:
        missed, false = mistakes[place]
        name = literal(_shortened(prepared.members[split][indices[place]].name))
        title = f"{rank}: {name}\n{int(right[place])} found, {missed} missed, {false} false"
        item = prepared.splits[split].item(indices[place], None)
        boxes = _boxes(sure[place], matches[place], scores.classes)
        shown.append(Shown(*_cropped(item), boxes, title))
    title = f"{split}: images with the most mistakes, and with the fewest"
    about = f"detections with a score of at least {scores.confidence:g}"
    return draw_detections(folder / f"{split}_examples", shown, f"{title}\n{about}")


def _mistakes(picture: Picture, match: Matches) -> tuple[int, int]:
    """How many true boxes were missed, and how many detections are false."""
    missed = int((~picture.crowd & ~match.taken).sum())
    return missed, int(((match.fates != FOUND) & (match.fates != IGNORED)).sum())


def _boxes(picture: Picture, match: Matches, classes: Sequence[str]) -> list[Drawn]:
    drawn = []
    for box, label, crowd, taken in zip(
        picture.true_boxes, picture.true_labels, picture.crowd, match.taken, strict=True
    ):
        kind = MANY if crowd else TRUE if taken else MISSED
        drawn.append(Drawn(tuple(box), kind, "" if kind == TRUE else f"{kind}: {classes[label]}"))
    for box, label, score, fate in zip(picture.boxes, picture.labels, picture.scores, match.fates, strict=True):
        if fate != IGNORED:
            kind = RIGHT if fate == FOUND else FALSE
            text = f"{classes[label]} {score:.2f}"
            drawn.append(Drawn(tuple(box), kind, f"false: {text}" if kind == FALSE else text))
    return drawn


def _shortened(name: str, most: int = 44) -> str:
    return name if len(name) <= most else f"…{name[1 - most :]}"


def _draw_curves(scores: DetectionScores, path: Path, title: str) -> list[Path]:
    every = scores.curve()
    if every is None or not len(every.scores):
        return []
    classes = []
    for label, name in enumerate(scores.classes):
        curve = scores.curve(label)
        if curve is not None:
            precision = curve.interpolated()
            classes.append(ClassCurve(name, precision, float(precision.mean())))
    return draw_precision_recall(path, classes, every, scores.confidence, title, scores.iou)


def _draw_matrix(scores: DetectionScores, path: Path, title: str, about: str) -> list[Path]:
    matrix = scores.confusion()
    if not matrix.any():
        return []
    words = f"scores from {scores.confidence:g}, overlaps from {scores.iou:g}, paired whatever the class"
    return draw_confusion(path, scores.classes, matrix, title, f"{about}; {words}")
