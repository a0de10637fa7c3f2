"""Makes a small dataset of street scenes: drawn people, cars, trucks and buses with their boxes, as files.

What is in it can be learned quickly: each class has its own shape, size and range of colours, the further away the
smaller and the higher up the road, and objects hardly cover one another. A box is exactly what was drawn. Some scenes
are empty, and houses stand behind the road that are no objects.

The layout is a real one: YOLO, a `data.yaml` over `images/<split>` and `labels/<split>`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from backend.errors import DiskError

CLASSES = ("person", "car", "truck", "bus")
_SHARES = (("train", 4), ("val", 1), ("test", 1))  # of the images
_HEIGHTS = ((0.24, 0.44), (0.13, 0.24), (0.2, 0.36), (0.18, 0.32))  # far and near, in heights of the image
_ASPECTS = ((0.34, 0.44), (2.0, 2.5), (1.6, 2.0), (2.5, 3.0))  # width over height
_MOST = 4  # objects in an image
_EMPTY_EVERY = 12  # one image in so many shows a street without anybody
_FINE = 2  # scenes are drawn so many times larger, and made smaller: soft edges
_JPEG_QUALITY = 92


def make_detection_sample(
    folder: Path, seed: int = 42, *, images: int = 144, size: tuple[int, int] = (256, 192)
) -> None:
    """Write ``images`` JPEG files of ``size`` (width, height) pixels, their labels and data.yaml into ``folder``.

    Two thirds are for training, a sixth each for validation and testing. The same arguments give the same pixels.
    Raises DiskError where the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "data.yaml").write_text(_description(), encoding="utf-8")
        number = 0
        for split, count in _counts(images):
            for place in ("images", "labels"):
                (folder / place / split).mkdir(parents=True, exist_ok=True)
            for index in range(count):
                scene = _drawn_scene(np.random.default_rng([seed, number]), size, empty=index % _EMPTY_EVERY == 5)
                _write_scene(folder, split, f"scene_{number:04d}", scene)
                number += 1
    except OSError as error:
        raise DiskError(f"{folder}: the sample cannot be written ({error.strerror})") from error


def _counts(images: int) -> list[tuple[str, int]]:
    parts = sum(share for _, share in _SHARES)
    small = [(split, max(1, images * share // parts)) for split, share in _SHARES[1:]]
    return [("train", max(1, images - sum(count for _, count in small))), *small]


def _description() -> str:
    splits = "".join(f"{split}: images/{split}\n" for split, _ in _SHARES)
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(CLASSES))
    return f"path: .\n{splits}nc: {len(CLASSES)}\nnames:\n{names}"


@dataclass(frozen=True)
class _Scene:
    """A drawn picture, BGR uint8, and what is in it."""

    picture: np.ndarray
    labels: Sequence[int]
    boxes: np.ndarray  # float64 [k, 4]: x1, y1, x2, y2 in shares of the picture


def _write_scene(folder: Path, split: str, name: str, scene: _Scene) -> None:
    content = cv2.imencode(".jpg", scene.picture, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()
    (folder / "images" / split / f"{name}.jpg").write_bytes(content)
    rows = [_row(label, box) for label, box in zip(scene.labels, scene.boxes.tolist(), strict=True)]
    (folder / "labels" / split / f"{name}.txt").write_text("".join(rows), encoding="utf-8")


def _row(label: int, box: Sequence[float]) -> str:
    x1, y1, x2, y2 = box
    return f"{label} {(x1 + x2) / 2:.6f} {(y1 + y2) / 2:.6f} {x2 - x1:.6f} {y2 - y1:.6f}\n"


# --- the scene: all of it in pixels of the larger drawing -------------------------------------------------------------


def _drawn_scene(rng: np.random.Generator, size: tuple[int, int], empty: bool) -> _Scene:
    width, height = size[0] * _FINE, size[1] * _FINE
    horizon = int(height * rng.uniform(0.36, 0.46))
    canvas = _street(rng, width, height, horizon)
    objects = [] if empty else _placed(rng, width, height, horizon)
    for label, box in objects:
        _DRAWERS[label](canvas, box, rng)
    picture = cv2.resize(canvas, size, interpolation=cv2.INTER_AREA)
    grain = rng.normal(0, rng.uniform(1, 4), picture.shape)
    picture = np.clip(picture * rng.uniform(0.8, 1.1) + grain, 0, 255).astype(np.uint8)
    boxes = np.array([box for _, box in objects], np.float64).reshape(-1, 4) / [width, height, width, height]
    return _Scene(picture, [label for label, _ in objects], boxes)


_Box = tuple[int, int, int, int]


def _placed(rng: np.random.Generator, width: int, height: int, horizon: int) -> list[tuple[int, _Box]]:
    """Objects that hardly overlap, far ones first. What finds no room is left out; the first always finds some."""
    objects: list[tuple[int, _Box]] = []
    for _ in range(int(rng.integers(1, _MOST + 1))):
        label = int(rng.integers(len(CLASSES)))
        for _ in range(20):
            box = _place(rng, label, width, height, horizon)
            if all(_clear(box, other) for _, other in objects):
                objects.append((label, box))
                break
    return sorted(objects, key=lambda one: one[1][3])


def _place(rng: np.random.Generator, label: int, width: int, height: int, horizon: int) -> _Box:
    near = rng.uniform(0, 1)
    low, high = _HEIGHTS[label]
    tall = int(height * (low + (high - low) * near))
    wide = min(int(tall * rng.uniform(*_ASPECTS[label])), width - 8)
    bottom = int(horizon + (height - horizon) * (0.3 + 0.62 * near))
    left = int(rng.integers(2, width - wide - 2))
    return left, bottom - tall, left + wide, bottom


def _clear(one: _Box, other: _Box) -> bool:
    """Whether two boxes have at most a twentieth of the smaller one in common."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return across <= 0 or down <= 0 or across * down <= 0.05 * smaller


# --- what is drawn: colours are BGR -----------------------------------------------------------------------------------


def _street(rng: np.random.Generator, width: int, height: int, horizon: int) -> np.ndarray:
    """Sky, houses, and a road with its kerb and its middle line, uint8 [height, width, 3]."""
    canvas = np.empty((height, width, 3), np.uint8)
    sky = np.array([235, 205, 175]) + rng.uniform(-25, 20)
    fade = np.linspace(0, 1, horizon)[:, None]
    canvas[:horizon] = np.clip(sky + fade * 25, 0, 255)[:, None].astype(np.uint8)
    left = 0
    while left < width:
        right = left + int(rng.uniform(0.1, 0.25) * width)
        grey = rng.uniform(120, 190)
        top = int(horizon * rng.uniform(0.25, 0.8))
        cv2.rectangle(canvas, (left, top), (right, horizon), tuple((grey + rng.uniform(-18, 18, 3)).tolist()), -1)
        left = right
    road = int(rng.uniform(75, 115))
    canvas[horizon:] = road
    kerb = horizon + int(0.06 * height)
    canvas[horizon:kerb] = (road + 40, road + 45, road + 45)
    middle = (kerb + height) // 2
    dash, phase = width // 10, int(rng.integers(0, width // 10))
    for start in range(-phase, width, 2 * dash):
        cv2.rectangle(canvas, (start, middle - 3), (start + dash, middle + 3), (200, 205, 205), -1)
    return canvas


def _hue(rng: np.random.Generator, hues: tuple[float, float], saturation: float, value: float) -> tuple[int, ...]:
    """A BGR colour of a drawn hue (in degrees), about as full and as bright as said."""
    hsv = [rng.uniform(*hues) / 2 % 180, 255 * saturation, np.clip(255 * value * rng.uniform(0.9, 1.1), 0, 255)]
    pixel = cv2.cvtColor(np.array([[hsv]]).astype(np.uint8), cv2.COLOR_HSV2BGR)
    return tuple(int(part) for part in pixel[0, 0])


def _fill(canvas: np.ndarray, box: _Box, part: Sequence[float], colour: Sequence[int]) -> None:
    """Fill a part (left, top, right, bottom in shares) of ``box``."""
    x1, y1, x2, y2 = box
    left, right = (round(x1 + (x2 - x1) * share) for share in (part[0], part[2]))
    top, bottom = (round(y1 + (y2 - y1) * share) for share in (part[1], part[3]))
    canvas[top:bottom, left:right] = colour


def _wheels(canvas: np.ndarray, box: _Box, at: Sequence[float], share: float) -> None:
    """Wheels that stand on the box's bottom, ``share`` of its height across."""
    x1, _, x2, y2 = box
    radius = max(2, round(share * (y2 - box[1]) / 2))
    for where in at:
        centre = (round(x1 + (x2 - x1) * where), y2 - radius - 1)
        cv2.circle(canvas, centre, radius, (25, 25, 25), -1)
        cv2.circle(canvas, centre, max(1, radius // 2), (150, 150, 150), -1)


_GLASS, _DARK = (215, 190, 160), (40, 40, 40)


def _person(canvas: np.ndarray, box: _Box, rng: np.random.Generator) -> None:
    x1, y1, x2, y2 = box
    radius = round((y2 - y1) * 0.09)
    _fill(canvas, box, (0.22, 0.17, 0.78, 0.6), _hue(rng, (330, 380), 0.75, 0.85))
    _fill(canvas, box, (0, 0.2, 0.2, 0.55), _hue(rng, (330, 380), 0.75, 0.7))
    _fill(canvas, box, (0.8, 0.2, 1, 0.55), _hue(rng, (330, 380), 0.75, 0.7))
    for legs in ((0.24, 0.6, 0.46, 1), (0.54, 0.6, 0.76, 1)):
        _fill(canvas, box, legs, _DARK)
    cv2.circle(canvas, ((x1 + x2) // 2, y1 + radius), radius, (150, 180, 225), -1)


def _car(canvas: np.ndarray, box: _Box, rng: np.random.Generator) -> None:
    colour = _hue(rng, (200, 260), 0.8, 0.85)
    x1, y1, x2, y2 = box
    wide, tall = x2 - x1, y2 - y1
    roof = [(0.2, 0.45), (0.32, 0), (0.7, 0), (0.84, 0.45)]
    corners = np.array([(x1 + wide * x, y1 + tall * y) for x, y in roof])
    cv2.fillPoly(canvas, [np.rint(corners).astype(np.int32)], colour)
    _fill(canvas, box, (0, 0.42, 1, 0.82), colour)
    _fill(canvas, box, (0.34, 0.1, 0.5, 0.42), _GLASS)
    _fill(canvas, box, (0.54, 0.1, 0.7, 0.42), _GLASS)
    _wheels(canvas, box, (0.2, 0.8), 0.36)


def _truck(canvas: np.ndarray, box: _Box, rng: np.random.Generator) -> None:
    cab = (0.74, 0.28, 1, 0.86)
    _fill(canvas, box, (0, 0, 0.7, 0.8), (int(rng.uniform(225, 250)),) * 3)
    _fill(canvas, box, (0, 0.8, 0.76, 0.86), _DARK)
    _fill(canvas, box, cab, _hue(rng, (100, 150), 0.75, 0.7))
    _fill(canvas, box, (0.84, 0.34, 0.97, 0.55), _GLASS)
    _wheels(canvas, box, (0.14, 0.34, 0.86), 0.24)


def _bus(canvas: np.ndarray, box: _Box, rng: np.random.Generator) -> None:
    _fill(canvas, box, (0, 0, 1, 0.88), _hue(rng, (35, 55), 0.9, 0.95))
    for window in range(6):
        _fill(canvas, box, (0.04 + 0.16 * window, 0.15, 0.16 + 0.16 * window, 0.48), _DARK)
    _wheels(canvas, box, (0.2, 0.78), 0.26)


_DRAWERS = (_person, _car, _truck, _bus)
