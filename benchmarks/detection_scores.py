"""Time of detection's scores on a split of COCO's size: all of it, COCO's part, and that of faster-coco-eval alone.

python benchmarks/detection_scores.py [IMAGES]
"""

from __future__ import annotations

import contextlib
import io
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from training.scores.detection import DetectionScores
from training.scores.detection_coco import coco_scores
from training.scores.detection_matching import Picture

DETECTIONS, CLASSES, MOST_BOXES, BATCH = 100, 80, 15, 16


def main() -> None:
    """Print seconds of one core and the largest memory."""
    torch.set_num_threads(1)
    images = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    import torchmetrics.detection  # noqa: F401  (seconds that are no part of scoring)

    scores = filled(images)
    print(f"{images:,} images of {DETECTIONS} detections, {CLASSES} classes")
    print(f"compute: {seconds(scores.compute):.1f} s")
    print(f"  COCO's scores, torchmetrics: {seconds(lambda: coco_scores(scores.pictures(), CLASSES)):.1f} s")
    print(f"  the same, faster-coco-eval alone: {seconds(lambda: alone(scores.pictures())):.1f} s")
    print(f"largest memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MiB")


def filled(images: int) -> DetectionScores:
    """Half of the true boxes are found more or less well, the rest of the detections lie anywhere."""
    chance = torch.Generator().manual_seed(0)
    scores = DetectionScores([f"class {number}" for number in range(CLASSES)])
    for first in range(0, images, BATCH):
        made = [picture(chance) for _ in range(min(BATCH, images - first))]
        found, boxes, labels = zip(*made, strict=True)
        crowd = [torch.zeros(len(one), dtype=torch.bool) for one in labels]
        scores.update(torch.stack(found), boxes, labels, crowd, [area(one) for one in boxes])
    return scores


def picture(chance: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Detections ``[D, 6]``, true boxes ``[k, 4]`` and their labels ``[k]``."""
    count = int(torch.randint(0, MOST_BOXES, (1,), generator=chance))
    boxes, told = rectangles(count, chance), rectangles(DETECTIONS, chance)
    labels = torch.randint(0, CLASSES, (count,), generator=chance)
    told_labels = torch.randint(0, CLASSES, (DETECTIONS,), generator=chance)
    told[:count] = boxes + torch.randn(count, 4, generator=chance) * 5
    told_labels[:count] = labels
    sure = torch.rand(DETECTIONS, 1, generator=chance).sort(dim=0, descending=True).values
    return torch.cat([told, sure, told_labels[:, None].float()], dim=1), boxes, labels


def rectangles(count: int, chance: torch.Generator) -> Tensor:
    """``[count, 4]``, x1, y1, x2, y2."""
    corners = torch.rand(count, 4, generator=chance) * 300
    corners[:, 2:] += corners[:, :2] + 4
    return corners


def area(boxes: Tensor) -> Tensor:
    """In pixels."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def alone(pictures: Sequence[Picture]) -> None:
    """The evaluator that torchmetrics calls, on dictionaries made here."""
    from faster_coco_eval import COCO, COCOeval_faster

    images = [{"id": number} for number in range(len(pictures))]
    categories = [{"id": label, "name": str(label)} for label in range(CLASSES)]
    true: list[dict[str, Any]] = []
    told: list[dict[str, Any]] = []
    for number, one in enumerate(pictures):
        for box, label in zip(one.true_boxes.tolist(), one.true_labels.tolist(), strict=True):
            true.append(annotation(len(true) + 1, number, box, label))
        for box, label, score in zip(one.boxes.tolist(), one.labels.tolist(), one.scores.tolist(), strict=True):
            told.append(annotation(len(told) + 1, number, box, label) | {"score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        truth, found = COCO(), COCO()
        for dataset, annotations in ((truth, true), (found, told)):
            dataset.dataset = {"images": images, "categories": categories, "annotations": annotations}
            dataset.createIndex()
        evaluation = COCOeval_faster(truth, found, iouType="bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()


def annotation(number: int, image: int, box: list[float], label: int) -> dict[str, Any]:
    """As COCO's files have it."""
    x1, y1, x2, y2 = box
    width, height = x2 - x1, y2 - y1
    place = {"id": number, "image_id": image, "category_id": label, "iscrowd": 0}
    return place | {"bbox": [x1, y1, width, height], "area": width * height}


def seconds(do: Callable[[], object]) -> float:
    """Processor time: everything here runs on one core, which others may want too."""
    start = time.process_time()
    do()
    return time.process_time() - start


if __name__ == "__main__":
    main()
