"""What happens to a training image and its points: a pure function of the item's random numbers.

Light first (brightness, then contrast about the image's mean), then a mirror, then a rotation about the centre whose
corners are black. Coordinates are continuous, from 0 to 1 over the image: pixel i of S has its centre at (i + ½) / S,
so the mirror image of x is 1 - x. A point that is turned out of the image stays where it is: it still says where the
object is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from training.schemas.landmarks import AugmentationSection


@dataclass(frozen=True)
class Change:
    """One drawn augmentation."""

    mirror: bool
    degrees: float  # as seen on the image, counter-clockwise
    brightness: float  # factors
    contrast: float


def draw_change(settings: AugmentationSection, rng: np.random.Generator) -> Change:
    """Always four numbers of ``rng``, whatever the settings."""
    mirror, turn, brightness, contrast = rng.random(4)
    return Change(
        mirror=bool(mirror < settings.flip),
        degrees=settings.rotation * (2 * turn - 1),
        brightness=1 + settings.brightness * (2 * brightness - 1),
        contrast=1 + settings.contrast * (2 * contrast - 1),
    )


def apply_change(
    image: np.ndarray, points: np.ndarray, change: Change, mirrored_order: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """``image`` uint8 [3, S, S] and ``points`` float32 [P, 2] in [0, 1], changed; the given ones stay as they are."""
    pixels = cv2.LUT(np.ascontiguousarray(image.transpose(1, 2, 0)), _light(image, change))
    if change.mirror:
        pixels = cv2.flip(pixels, 1)
        points = mirrored(points, mirrored_order)
    if change.degrees:
        size = image.shape[1]
        centre = ((size - 1) / 2, (size - 1) / 2)  # in OpenCV's coordinates, where pixel i has its centre at i
        turn = cv2.getRotationMatrix2D(centre, change.degrees, 1.0)
        pixels = cv2.warpAffine(pixels, turn, (size, size), flags=cv2.INTER_LINEAR, borderValue=(0, 0, 0))
        points = rotated(points, change.degrees)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)), points


def mirrored(points: np.ndarray, order: Sequence[int]) -> np.ndarray:
    """Points [P, 2] of the mirror image, under their own names."""
    there = points[list(order)].copy()
    there[:, 0] = 1 - there[:, 0]
    return there


def rotated(points: np.ndarray, degrees: float) -> np.ndarray:
    """Points [P, 2] of an image turned about its centre, counter-clockwise as seen (y goes down)."""
    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return ((points - 0.5) @ turn.T + 0.5).astype(np.float32)


def _light(image: np.ndarray, change: Change) -> np.ndarray:
    """uint8 [256]: what becomes of each value."""
    bright = np.clip(np.arange(256) * change.brightness, 0, 255)
    counts = np.bincount(image.ravel(), minlength=256)
    mean = (counts * bright).sum() / counts.sum()
    return np.clip(np.rint(mean + (bright - mean) * change.contrast), 0, 255).astype(np.uint8)
