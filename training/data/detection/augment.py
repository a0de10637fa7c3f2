"""What happens to a training picture and its boxes: a pure function of the item's random numbers.

A picture is mirrored, scaled and moved in one step; what it leaves free is grey. Or four of them become one (mosaic:
Bochkovskiy et al. 2020, arXiv:2004.10934): they meet at a drawn point, each fills its corner as far as it reaches.
Boxes are clipped to what is seen of their picture. Then light and colours change, in one linear map of red, green and
blue: brightness, contrast about the mean, saturation towards grey, and hue as a turn about the grey axis.

Coordinates are continuous: the pixel in column i reaches from i to i + 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from backend.preprocessing.detection import GREY
from training.schemas.detection import DetectionAugmentationSection

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_MEETING = (0.25, 0.75)  # where four pictures may meet, in shares of the side
_SMALLEST = 1.0  # pixels: a thinner box cannot be seen


@dataclass(frozen=True)
class Picture:
    """A picture of the model's size with its boxes."""

    image: np.ndarray  # uint8 [3, S, S]
    boxes: np.ndarray  # float32 [k, 4]
    labels: np.ndarray  # int64 [k]
    crowd: np.ndarray  # bool [k]
    area: np.ndarray  # float32 [k]
    frame: np.ndarray  # float32 [6]: where the original lies in it


@dataclass(frozen=True)
class Change:
    """One drawn augmentation."""

    others: tuple[int, ...]  # the items of a mosaic besides the first; none for a single picture
    mirror: np.ndarray  # bool [4], one for each picture
    scale: np.ndarray  # float64 [4]
    shift: np.ndarray  # float64 [2], shares of the side, of a single picture
    meeting: np.ndarray  # float64 [2], shares of the side, of a mosaic
    part: np.ndarray  # float64 [4, 2]: which part of a picture is seen that is larger than its corner, 0 to 1
    colours: np.ndarray  # float64 [3, 3]: of red, green and blue, without contrast
    contrast: float  # factor
    min_visible: float


@dataclass(frozen=True)
class _Place:
    """x' = scale_x * x + left and y' = scale_y * y + top, seen in a window x1, y1, x2, y2 of whole pixels."""

    scale_x: float  # negative where it is mirrored
    scale_y: float
    left: float
    top: float
    window: tuple[int, int, int, int]


def draw_change(settings: DetectionAugmentationSection, rng: np.random.Generator, count: int) -> Change:
    """Always the same amount of ``rng``, whatever the settings; ``count`` items are there to choose others from."""
    others = rng.integers(count, size=3)
    mosaic, *flips = rng.random(5)
    low, high = settings.scale
    scale = low + (high - low) * rng.random(4)
    shift = settings.shift * rng.uniform(-1, 1, 2)
    meeting = rng.uniform(*_MEETING, 2)
    part = rng.random((4, 2))
    light, contrast, saturation, hue = rng.uniform(-1, 1, 4)
    return Change(
        others=tuple(others.tolist()) if mosaic < settings.mosaic else (),
        mirror=np.array(flips) < settings.flip,
        scale=scale,
        shift=shift,
        meeting=meeting,
        part=part,
        colours=_colours(1 + settings.brightness * light, 1 + settings.saturation * saturation, settings.hue * hue),
        contrast=float(1 + settings.contrast * contrast),
        min_visible=settings.min_visible,
    )


def _colours(brightness: float, saturation: float, hue: float) -> np.ndarray:
    """float64 [3, 3]; ``hue`` in turns."""
    angle = 2 * math.pi * hue
    grey = np.full((3, 3), 1 / 3)
    across = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    turn = math.cos(angle) * np.eye(3) + math.sin(angle) * across + (1 - math.cos(angle)) * grey  # Rodrigues' formula
    saturate = saturation * np.eye(3) + (1 - saturation) * np.tile(_LUMA, (3, 1))
    return brightness * turn @ saturate


def augmented(pictures: Sequence[Picture], change: Change) -> Picture:
    """One picture of one or, in a mosaic, of four; boxes of ``pictures`` are in their own pixels.

    Boxes of which less is seen than ``change.min_visible`` of their area are left out, but never a region of many.
    """
    side = pictures[0].image.shape[1]
    places = _mosaic(pictures, change, side) if change.others else [_single(change, side)]
    canvas = np.full((side, side, 3), GREY, np.uint8)
    for picture, place in zip(pictures, places, strict=True):
        _paint(canvas, picture.image, place)
    canvas = _coloured(canvas, change)
    moved = [_moved(picture, place, change) for picture, place in zip(pictures, places, strict=True)]
    boxes, labels, crowd, area = (np.concatenate(parts) for parts in zip(*moved, strict=True))
    frame = np.array([1, 1, 0, 0, side, side], np.float32)
    return Picture(np.stack(cv2.split(canvas)), boxes, labels, crowd, area, frame)


# --- where pictures lie -----------------------------------------------------------------------------------------------


def _single(change: Change, side: int) -> _Place:
    scale = float(change.scale[0])
    across = -scale if change.mirror[0] else scale
    x, y = (side / 2 + change.shift * side).tolist()  # of the picture's middle
    return _Place(across, scale, x - across * side / 2, y - scale * side / 2, (0, 0, side, side))


def _mosaic(pictures: Sequence[Picture], change: Change, side: int) -> list[_Place]:
    x, y = np.rint(change.meeting * side).astype(int).tolist()
    windows = ((0, 0, x, y), (x, 0, side, y), (0, y, x, side), (x, y, side, side))
    return [_in_corner(picture, change, number, windows[number]) for number, picture in enumerate(pictures)]


def _in_corner(picture: Picture, change: Change, number: int, window: tuple[int, int, int, int]) -> _Place:
    """Without the grey that surrounds it, the picture reaches the meeting point or beyond the whole corner."""
    scale, frame = float(change.scale[number]), picture.frame.astype(np.float64)
    pad, inner = frame[2:4], frame[:2] * frame[4:6]
    at = []
    for axis, ends_there in ((0, number in (0, 2)), (1, number in (0, 1))):
        low, high, length = window[axis], window[axis + 2], scale * inner[axis]
        spare = length - (high - low)
        if spare > 0:
            at.append(low - change.part[number, axis] * spare)
        else:
            at.append(high - length if ends_there else low)
    left, top = at
    if change.mirror[number]:
        return _Place(-scale, scale, left + scale * (inner[0] + pad[0]), top - scale * pad[1], window)
    return _Place(scale, scale, left - scale * pad[0], top - scale * pad[1], window)


def _paint(canvas: np.ndarray, image: np.ndarray, place: _Place) -> None:
    x1, y1, x2, y2 = place.window
    left, top = (  # in OpenCV's coordinates, where pixel i has its centre at i
        start + 0.5 * scale - 0.5 - corner
        for start, scale, corner in ((place.left, place.scale_x, x1), (place.top, place.scale_y, y1))
    )
    move = np.array([[place.scale_x, 0, left], [0, place.scale_y, top]])
    canvas[y1:y2, x1:x2] = cv2.warpAffine(
        cv2.merge(list(image)), move, (x2 - x1, y2 - y1), flags=cv2.INTER_LINEAR, borderValue=(GREY, GREY, GREY)
    )


def _moved(picture: Picture, place: _Place, change: Change) -> tuple[np.ndarray, ...]:
    """Boxes, labels, crowd and area of what is still seen."""
    x = picture.boxes[:, 0::2] * place.scale_x + place.left
    y = picture.boxes[:, 1::2] * place.scale_y + place.top
    whole = np.stack([x.min(axis=1), y.min(axis=1), x.max(axis=1), y.max(axis=1)], axis=1)
    x1, y1, x2, y2 = place.window
    seen = np.clip(whole, (x1, y1, x1, y1), (x2, y2, x2, y2))
    sides, before = seen[:, 2:] - seen[:, :2], whole[:, 2:] - whole[:, :2]
    share = sides.prod(axis=1) / np.maximum(before.prod(axis=1), 1e-9)
    keep = (sides >= _SMALLEST).all(axis=1) & ((share >= change.min_visible) | picture.crowd)
    area = picture.area * abs(place.scale_x) * place.scale_y * share
    return (
        seen[keep].astype(np.float32),
        picture.labels[keep],
        picture.crowd[keep],
        area[keep].astype(np.float32),
    )


# --- light and colours ------------------------------------------------------------------------------------------------


def _coloured(canvas: np.ndarray, change: Change) -> np.ndarray:
    """``canvas`` uint8 [S, S, 3], RGB, with other light and colours."""
    mean = float(_LUMA @ change.colours @ np.array(cv2.mean(canvas)[:3]))
    matrix = np.empty((3, 4))
    matrix[:, :3] = change.contrast * change.colours
    matrix[:, 3] = (1 - change.contrast) * mean
    return cv2.transform(canvas, matrix)
