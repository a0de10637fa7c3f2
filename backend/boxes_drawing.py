"""Boxes, classes and scores drawn on a picture, readable on small ones and on large ones."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

# Okabe and Ito, Color Universal Design, 2008: told apart by colour-blind people too. Red, green, blue.
_PALETTE = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)
_WEIGHT = 500  # between regular and bold
_FRACTION = 3  # bits: OpenCV takes places between pixels as multiples of 1/8
_Place = tuple[int, int, int, int]  # x1, y1, x2, y2


class BoxDrawing:
    """Draws detections of some classes; a class keeps its colour from picture to picture."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = classes
        self._font = cv2.FontFace("sans")  # comes with OpenCV, and knows more than English letters

    def draw(self, image: np.ndarray, found: np.ndarray) -> np.ndarray:
        """A copy of RGB uint8 [h, w, 3] with detections [k, 6] (pixels, score, label), the surest on top."""
        drawn = np.ascontiguousarray(image).copy()
        height, width = drawn.shape[:2]
        line = max(1, round(min(height, width) / 400))
        size = max(10, round(min(height, width) / 45))
        for row in found[::-1]:
            _rectangle(drawn, row[:4], _colour(row[5]), line)
        taken: list[_Place] = []
        for row in found:
            self._label(drawn, row, size, line, taken)
        return drawn

    def _label(self, drawn: np.ndarray, row: np.ndarray, size: int, line: int, taken: list[_Place]) -> None:
        text = f"{self._classes[int(row[5])]} {row[4]:.2f}"
        _, _, text_width, _ = cv2.getTextSize((0, 0), text, (0, 0), self._font, size, _WEIGHT)
        margin = max(2, size // 5)
        place = _free_place(row[:4], text_width + 2 * margin, size + 2 * margin, line, drawn.shape, taken)
        if place is None:
            return
        taken.append(place)
        x1, y1, x2, y2 = place
        colour = _colour(row[5])
        cv2.rectangle(drawn, (x1, y1), (x2 - 1, y2 - 1), colour, cv2.FILLED)
        baseline = y2 - margin - max(1, size // 8)
        cv2.putText(drawn, text, (x1 + margin, baseline), _text_colour(colour), self._font, size, _WEIGHT)


def _rectangle(drawn: np.ndarray, box: np.ndarray, colour: tuple[int, int, int], line: int) -> None:
    """The box's edge in its colour, between darker ones, so that it is seen on every ground."""
    half = 0.5  # the pixel in column i reaches from i to i + 1, and OpenCV's places are the middles of pixels
    x1, y1, x2, y2 = (round(float(value - half) * 2**_FRACTION) for value in box)
    for thickness, ink in ((line + 2, _BLACK), (line, colour)):
        cv2.rectangle(drawn, (x1, y1), (x2, y2), ink, thickness, cv2.LINE_AA, _FRACTION)


def _free_place(
    box: np.ndarray, width: int, height: int, line: int, shape: tuple[int, ...], taken: Sequence[_Place]
) -> _Place | None:
    """Where a label covers no other one, else above its box; None for where it would cover a surer one wholly."""
    x1, y1, x2, y2 = (round(float(value)) for value in box)
    edge = line // 2 + 1
    left, right = x1 - edge, x2 + edge - width
    corners = [
        (left, y1 - edge - height), (left, y1 + edge), (right, y1 - edge - height), (left, y2 + edge),
        (left, y2 - edge - height), (right, y2 + edge), (x2 + edge, y1), (x1 - edge - width, y1),
    ]  # fmt: skip
    places = [_inside(corner, width, height, shape) for corner in corners]
    uncovered = [place for place in places if not any(_overlap(place, other) for other in taken)]
    if uncovered:
        return uncovered[0]
    least = min(places, key=lambda place: max(_overlap(place, other) for other in taken))
    return least if max(_overlap(least, other) for other in taken) < 0.5 * width * height else None


def _inside(corner: tuple[int, int], width: int, height: int, shape: tuple[int, ...]) -> _Place:
    """Moved into the picture."""
    x = max(0, min(corner[0], shape[1] - width))
    y = max(0, min(corner[1], shape[0] - height))
    return x, y, x + width, y + height


def _overlap(one: _Place, other: _Place) -> int:
    """Pixels that both cover."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    return max(0, across) * max(0, down)


def _colour(label: float) -> tuple[int, int, int]:
    return _PALETTE[int(label) % len(_PALETTE)]


def _text_colour(ground: tuple[int, int, int]) -> tuple[int, int, int]:
    """Black or white, whichever stands out more (relative luminance of WCAG 2.1)."""
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (part / 255 for part in ground)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return _BLACK if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else _WHITE
