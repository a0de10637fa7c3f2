"""Pictures and films with coloured rectangles, a stand-in model that finds them, and a checkpoint of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
from torch import Tensor, nn

from backend.artifact import Artifact

CLASSES, CATEGORY_IDS = ["red thing", "Grüner Kasten"], [3, 17]
COLOURS = ((255, 0, 0), (0, 255, 0))
SIZE = 96
Box = tuple[int, int, int, int]


class ColourFinder(nn.Module):
    """Finds one rectangle of each class's colour in what the network sees, and reports it in the original's pixels."""

    def __init__(self, scores: Sequence[float] = (0.9, 0.2)) -> None:
        super().__init__()
        self.scores = torch.nn.Parameter(torch.tensor(scores))
        self.batches: list[int] = []

    def forward(self, images: Tensor, frames: Tensor) -> Tensor:
        assert images.dtype == torch.uint8
        assert frames.shape == (len(images), 6)
        self.batches.append(len(images))
        found = torch.zeros(len(images), 4, 6)
        found[..., 5] = -1
        for row, (image, frame) in enumerate(zip(images, frames, strict=True)):
            boxes = [(label, self.box(image, label, frame)) for label in range(2)]
            for place, (label, box) in enumerate((label, box) for label, box in boxes if box is not None):
                found[row, place] = torch.cat([box, self.scores[label, None], torch.tensor([float(label)])])
        return found

    @staticmethod
    def box(image: Tensor, label: int, frame: Tensor) -> Tensor | None:
        other = image[[1, 0][label]].float()
        rows, columns = torch.nonzero((image[label].float() > 150) & (other < 100) & (image[2] < 100), as_tuple=True)
        if not len(rows):
            return None
        corners = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
        there = (corners - frame[2:4].repeat(2)) / frame[:2].repeat(2)
        return torch.minimum(there.clamp(min=0), frame[4:6].repeat(2))


def artifact(scores: Sequence[float] = (0.9, 0.2), confidence: float = 0.5) -> Artifact:
    """A checkpoint of the stand-in, as `open_artifact` would give it."""
    state: dict[str, Any] = {
        "task": "detection",
        "run_id": "20260101_000000",
        "config": {"evaluation": {"confidence": confidence}, "model": {}},
        "facts": {"classes": CLASSES, "category_ids": CATEGORY_IDS, "image_size": SIZE},
        "preprocessing": {"detection": {"image_size": SIZE}},
    }
    return Artifact(Path("step-00000001"), state, {"scores": torch.tensor(scores)})


def picture(width: int, height: int, *boxes: tuple[Box, int]) -> np.ndarray:
    """RGB uint8 [height, width, 3]: boxes x1, y1, x2, y2 of a class on grey."""
    image = np.full((height, width, 3), 128, np.uint8)
    for (x1, y1, x2, y2), label in boxes:
        image[y1:y2, x1:x2] = COLOURS[label]
    return image


def save(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    how = [cv2.IMWRITE_JPEG_QUALITY, 98] if path.suffix == ".jpg" else []
    assert cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR), how)
    return path


def film(
    path: Path,
    images: Sequence[np.ndarray],
    *,
    codec: str = "libx264",
    rate: Fraction = Fraction(25),
    turned: int = 0,
    times: Sequence[int] | None = None,
    tick: Fraction = Fraction(1, 1000),
    options: dict[str, str] | None = None,
) -> Path:
    """A film of images of one size; ``times`` in ``tick`` seconds, else evenly; ``turned`` as phones note it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = images[0].shape[:2]
    with av.open(str(path), "w", options=options or {}) as container:
        stream: Any = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if times:
            stream.codec_context.time_base = stream.time_base = tick
        if turned:
            stream.set_display_rotation(turned)
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            if times:
                frame.pts, frame.time_base = times[number], tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def moving(count: int, width: int = 96, height: int = 64) -> list[np.ndarray]:
    """Pictures through which a red square of 16 pixels goes, 2 pixels further each time."""
    return [
        picture(width, height, ((2 * n % (width - 16), 24, 2 * n % (width - 16) + 16, 40), 0)) for n in range(count)
    ]


def rows_of(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))
    return rows
