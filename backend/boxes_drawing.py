"""Boxes, classes and scores drawn on a picture, readable on small ones and on large ones."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

# Okabe and Ito, Color Universal Design, 2008: told apart by colour-blind people too. Red, green, blue.
_PALETTE = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)
_WEIGHT = 500  # between regular and bold
_HIDDEN = 0.3  # share of a label that may lie on a surer one's; a box whose label finds no place stays without


class BoxDrawing:
    """Draws detections of some classes; a class keeps its colour from picture to picture."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = classes
        self._font = cv2.FontFace("sans")  # comes with OpenCV, and knows more than English letters

    def draw(self, image: np.ndarray, found: np.ndarray) -> np.ndarray:
        """A copy of RGB uint8 [h, w, 3] with detections [k, 6] (pixels, score, label), the surest on top."""
        drawn = np.ascontiguousarray(image).copy()
        height, width = drawn.shape[:2]
        line = max(2, round(min(height, width) / 270))
        size = max(9, round(min(height, width) / 40))
        for row in found[::-1]:
            _rectangle(drawn, row[:4], _colour(row[5]), line)
        labels = np.zeros((0, 4))
        for index, row in enumerate(found):
            others = np.delete(found[:, :4], index, axis=0)
            labels = self._label(drawn, row, size, line, labels, others)
        return drawn

    def _label(
        self, drawn: np.ndarray, row: np.ndarray, size: int, line: int, labels: np.ndarray, others: np.ndarray
    ) -> np.ndarray:
        """Class and score beside a box; gives the places [k, 4] of all ``labels`` so far."""
        text = f"{self._classes[int(row[5])]} {row[4]:.2f}"
        _, _, text_width, _ = cv2.getTextSize((0, 0), text, (0, 0), self._font, size, _WEIGHT)
        margin = max(1, size // 5)
        width, height = text_width + 2 * margin, size + 2 * margin
        place = _place(row[:4], (width, height), line, drawn.shape, labels, others)
        if place is None:
            return labels
        x1, y1, x2, y2 = (int(value) for value in place)
        colour = _colour(row[5])
        cv2.rectangle(drawn, (x1, y1), (x2 - 1, y2 - 1), colour, cv2.FILLED)
        baseline = y2 - margin - max(1, size // 8)
        cv2.putText(drawn, text, (x1 + margin, baseline), _text_colour(colour), self._font, size, _WEIGHT)
        return np.concatenate([labels, place[None]])


def _rectangle(drawn: np.ndarray, box: np.ndarray, colour: tuple[int, int, int], line: int) -> None:
    """The box's edge in its colour, around a darker one, so that it is seen on every ground."""
    x1, y1, x2, y2 = (round(float(value)) for value in box)
    for outwards, ink, thickness in ((0, _BLACK, max(1, line // 3)), (1 + line // 2, colour, line)):
        first, last = (x1 - outwards, y1 - outwards), (x2 - 1 + outwards, y2 - 1 + outwards)  # middles of pixels
        cv2.rectangle(drawn, first, last, ink, thickness)


def _place(
    box: np.ndarray,
    size: tuple[int, int],
    line: int,
    shape: tuple[int, ...],
    labels: np.ndarray,
    others: np.ndarray,
) -> np.ndarray | None:
    """Where a label hides the least of other labels [k, 4] and boxes [k, 4]; None where it would hide a label.

    Of places that are alike the first is taken: above the box, else below it, inside it or beside it.
    """
    width, height = size
    x1, y1, x2, y2 = (round(float(value)) for value in box)
    edge = line + 1
    left, right, above, below = x1 - edge, x2 + edge - width, y1 - edge - height, y2 + edge
    corners = np.array(
        [
            (left, above), (right, above), (left, below), (right, below), (left, y1 + edge), (left, y2 - edge - height),
            (x2 + edge, y1), (x1 - edge - width, y1),
        ]
    )  # fmt: skip
    corners = np.clip(corners, 0, np.maximum(0, (shape[1] - width, shape[0] - height)))
    places = np.concatenate([corners, corners + size], axis=1)
    hidden = _overlap(places, labels).max(axis=1, initial=0) / (width * height)
    crossed = _overlap(places, others).sum(axis=1) / (width * height)
    cost = 8 * hidden + crossed + 0.1 * np.arange(len(places))
    best = int(cost.argmin())
    return places[best] if hidden[best] < _HIDDEN else None


def _overlap(places: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Pixels [n, k] that each of ``places`` [n, 4] shares with each of ``others`` [k, 4]."""
    first = np.maximum(places[:, None, :2], others[None, :, :2])
    last = np.minimum(places[:, None, 2:], others[None, :, 2:])
    return np.prod(np.maximum(0, last - first), axis=2)


def _colour(label: float) -> tuple[int, int, int]:
    return _PALETTE[int(label) % len(_PALETTE)]


def _text_colour(ground: tuple[int, int, int]) -> tuple[int, int, int]:
    """Black or white, whichever stands out more (relative luminance of WCAG 2.1)."""
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (part / 255 for part in ground)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return _BLACK if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else _WHITE
