"""Makes a small dataset of landmarks: drawn chest images with the fifteen points of the lungs' contour, as files.

What is in it can be learned: two dark lung fields of varying size, place, tilt and shape lie between spine, heart,
diaphragm and ribs, and the points are the true ones of the contour that was drawn. The two sides differ as drawn
numbers do, so that a mirrored image is as likely as it was (but for the heart, as in people).

The layout is a real one: a CSV without a header and images in a folder for each class, two of whose names differ
(`Viral_Pneumonia/Viral Pneumonia-12.png`).
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from backend.errors import DiskError

CLASSES = (("COVID", 0.32), ("Normal", 0.49), ("Viral Pneumonia", 0.19))  # the last one takes what is left
_STATIONS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the points along the axis, from the apex to the base
_HALF_WIDTHS = (0.24, 0.43, 0.51, 0.55, 0.58)  # of the contour there, in lengths of the axis
_EVERY_RGB = 40  # one image in so many is written in RGB, as a few real ones are
_ABOVE = 0.07  # how far a lung reaches above the first station, in lengths of the axis


def make_landmark_sample(folder: Path, seed: int = 42, *, images: int = 160, size: int = 299) -> None:
    """Write ``images`` grey PNG files (a few in RGB) of ``size`` x ``size`` pixels and their CSV into ``folder``.

    The same arguments give the same pixels. Raises DiskError where the folder cannot be written.
    """
    names = _names(np.random.default_rng([seed, images]), images)
    rows = []
    try:
        for index, (kind, name) in enumerate(names):
            rng = np.random.default_rng([seed, index])
            chest = _drawn_chest(rng, size)
            _write_image(folder / "dataset" / kind.replace(" ", "_") / f"{name}.png", chest.image(rng, kind), index)
            rows.append([index, *np.rint(chest.points()).astype(int).ravel().tolist(), name])
        _write_rows(folder / "coordenadas" / "coordenadas_maestro.csv", rows)
    except OSError as error:
        raise DiskError(f"{folder}: the sample cannot be written ({error.strerror})") from error


def _names(rng: np.random.Generator, images: int) -> list[tuple[str, str]]:
    """(class, image name) in a drawn order; numbers in names are those of a larger collection."""
    counts = [round(share * images) for _, share in CLASSES[:-1]]
    counts.append(images - sum(counts))
    names = [
        (kind, f"{kind}-{number}")
        for (kind, _), count in zip(CLASSES, counts, strict=True)
        for number in sorted(rng.choice(10 * images, count, replace=False) + 1)
    ]
    return [names[index] for index in rng.permutation(len(names))]


def _write_image(path: Path, grey: np.ndarray, index: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR) if index % _EVERY_RGB == _EVERY_RGB - 1 else grey
    path.write_bytes(cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 3])[1].tobytes())


def _write_rows(path: Path, rows: Sequence[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


# --- the chest --------------------------------------------------------------------------------------------------------
# u goes across (negative is the viewer's left) and v along the axis from the apex (0) to the base (1), both in lengths
# of the axis.


@dataclass(frozen=True)
class _Chest:
    """Where the lungs lie and how they are shaped."""

    size: int  # pixels of the square image
    top: tuple[float, float]  # (x, y) of the axis's upper end in pixels
    length: float  # of the axis in pixels
    tilt: float  # rad, of the axis against the vertical
    widths: np.ndarray  # [2, 5]: half widths left and right at the stations

    def points(self) -> np.ndarray:
        """float64 [15, 2]: the contour's points in pixels, in the order L1 to L15."""
        left, right = (
            [(sign * width, v) for width, v in zip(widths, _STATIONS, strict=True)]
            for sign, widths in zip((-1, 1), self.widths, strict=True)
        )
        axis = [(0.0, v) for v in _STATIONS]
        sides = [point for i in (1, 2, 3) for point in (left[i], right[i])]
        order = [axis[0], axis[4], *sides, *axis[1:4], left[0], right[0], left[4], right[4]]
        return self._to_pixels(np.array(order))

    def _to_pixels(self, uv: np.ndarray) -> np.ndarray:
        cosine, sine = np.cos(self.tilt), np.sin(self.tilt)
        return np.array(self.top) + self.length * uv @ np.array([[cosine, sine], [-sine, cosine]])

    def coordinates(self) -> tuple[np.ndarray, np.ndarray]:
        """(u, v) on a grid of half as many places in each direction, float32: all that is drawn on it is smooth."""
        count = -(-self.size // 2)
        axis = (np.arange(count, dtype=np.float32) + np.float32(0.5)) * np.float32(self.size / count)
        dx, dy = axis[None, :] - np.float32(self.top[0]), axis[:, None] - np.float32(self.top[1])
        cosine, sine = np.float32(np.cos(self.tilt) / self.length), np.float32(np.sin(self.tilt) / self.length)
        return cosine * dx + sine * dy, cosine * dy - sine * dx

    def outer(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Half width of the contour on the side of each place."""
        stations = (-_ABOVE, -0.04, *_STATIONS, 1.2)
        left, right = (_curve(v, stations, (0.1, 0.185, *widths, widths[-1] + 0.02)) for widths in self.widths)
        return np.where(u < 0, left, right)

    def image(self, rng: np.random.Generator, kind: str) -> np.ndarray:
        """uint8 [size, size]."""
        u, v = self.coordinates()
        outer = self.outer(u, v)
        body, lungs = _body(u, v, rng), _lungs(u, v, outer, rng)
        tissue = 0.62 + 0.2 * _ramp(v - 0.9, 0.3) + _spine(u, v) + 0.1 * _ramp(0.22 - abs(u), 0.08)
        air = 0.27 + 0.1 * _ramp(v - 0.3, 1.2) + _disease(kind, u, v, rng)
        light = tissue * (1 - lungs) + air * lungs
        light = (light + _ribs(u, v, outer, rng) + _clavicles(u, v)) * body + 0.03
        light += 0.04 * _clouds(rng, len(u))
        return _exposed(cv2.resize(light.astype(np.float32), (self.size, self.size)), rng)


def _drawn_chest(rng: np.random.Generator, size: int) -> _Chest:
    """Drawn until all its points lie in the image, which mostly is at once."""
    scale = size / 299
    while True:
        common = rng.normal(1, 0.07)
        chest = _Chest(
            size=size,
            top=(rng.normal(149, 10) * scale, rng.normal(42, 14) * scale),
            length=rng.normal(192, 24) * scale,
            tilt=rng.normal(0, 0.03),
            widths=np.stack([np.array(_HALF_WIDTHS) * common * _side(rng) for _ in range(2)]),
        )
        points = chest.points()
        if points.min() >= 3 * scale and points.max() <= size - 3 * scale:
            return chest


def _side(rng: np.random.Generator) -> np.ndarray:
    """Factors by which one side's half widths differ from the mean, smooth along the axis."""
    v = np.array(_STATIONS) - 0.5
    return 1 + rng.normal(0, 0.045) + rng.normal(0, 0.09) * v + rng.normal(0, 0.12) * (v**2 - 0.125)


# --- what is drawn ----------------------------------------------------------------------------------------------------


def _ramp(distance: np.ndarray, width: float) -> np.ndarray:
    """0 below 0, 1 above ``width``, a line between."""
    return np.clip(distance * np.float32(1 / width), 0, 1)


def _curve(v: np.ndarray, at: Sequence[float], values: Sequence[float] | np.ndarray) -> np.ndarray:
    """A smooth curve through ``values`` (cubic Hermite, slopes by differences), float32; constant beyond its ends."""
    x, y = np.array(at), np.array(values)
    slopes = np.gradient(y, x)
    fine = np.linspace(x[0], x[-1], 1024)
    piece = np.clip(np.searchsorted(x, fine, side="right") - 1, 0, len(x) - 2)
    width = np.diff(x)[piece]
    t = (fine - x[piece]) / width
    table = (1 + 2 * t) * (1 - t) ** 2 * y[piece] + t**2 * (3 - 2 * t) * y[piece + 1]
    table += t * (1 - t) * width * ((1 - t) * slopes[piece] - t * slopes[piece + 1])
    index = np.clip((v - np.float32(x[0])) * np.float32(1023 / (x[-1] - x[0])) + 0.5, 0, 1023).astype(np.int32)
    return table.astype(np.float32)[index]


def _body(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """1 in the chest, 0 beside it: neck, shoulders, sides."""
    heights = (-0.6, -0.28, -0.2, -0.05, 0.1, 0.5, 1.4)
    widths = np.array((0.24, 0.27, 0.5, 0.85, 0.84, 0.74, 0.76)) * rng.uniform(0.97, 1.12)
    return _ramp(_curve(v, heights, widths) - abs(u), 0.06)


def _lungs(u: np.ndarray, v: np.ndarray, outer: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """How much of each place is lung, 0 to 1."""
    across = abs(u)
    dome = rng.uniform(0.12, 0.2) * np.clip(1 - (across - 0.06) / (outer - 0.06), 0, 1) ** np.float32(0.6)
    heart = rng.uniform(0.15, 0.24) * np.exp(-(((v - 0.78) / 0.2) ** 2)) * (0.3 + 0.7 * (u > 0).astype(np.float32))
    inner = 0.09 + heart + 0.02 * np.sin(9 * v)
    edge = 0.02
    lungs = np.ones_like(u)
    for part in (outer - across, across - inner, 1 - dome - v, v + _ABOVE - 0.35 * (across - 0.17) ** 2):
        lungs *= _ramp(part + edge / 2, edge)
    return lungs


def _spine(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return _ramp(0.085 - abs(u), 0.03) * (0.1 + 0.035 * np.sin(62 * v))


def _ribs(u: np.ndarray, v: np.ndarray, outer: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Bright arcs that fall towards the sides, brighter at the edge of the chest, none below it."""
    across = abs(u)
    phase = 2 * np.pi * (v - 0.75 * across**2 - 0.1 * across) / rng.uniform(0.1, 0.125) + rng.uniform(0, 6)
    arcs = np.square(np.clip(np.sin(phase), 0, 1))
    inside = (
        _ramp(across - 0.1, 0.06) * _ramp(outer + 0.07 - across, 0.04) * _ramp(v + 0.06, 0.05) * _ramp(1.05 - v, 0.25)
    )
    return np.float32(rng.uniform(0.05, 0.1)) * arcs * inside * (0.6 + 1.2 * across)


def _clavicles(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    across = abs(u)
    line = v - 0.06 + 0.22 * across
    return 0.12 * np.exp(-((line / 0.018) ** 2)) * _ramp(across - 0.06, 0.04) * _ramp(0.62 - across, 0.08)


def _disease(kind: str, u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light that a class of images has in its lungs: patches at the edges, streaks in the middle, or nothing."""
    if kind == "Normal":
        return np.zeros_like(u)
    light = np.zeros_like(u)
    patches = 5 if kind == "COVID" else 3
    for _ in range(patches):
        where = rng.uniform(0.3, 0.5) if kind == "COVID" else rng.uniform(0.15, 0.3)
        at = (float(rng.choice([-1, 1])) * where, rng.uniform(0.3, 0.85))
        spread = rng.uniform(0.06, 0.14)
        light += rng.uniform(0.06, 0.16) * np.exp(-((u - at[0]) ** 2 + (v - at[1]) ** 2) / np.float32(spread**2))
    return light.astype(np.float32)


def _clouds(rng: np.random.Generator, size: int) -> np.ndarray:
    """Soft unevenness at two scales, about 1 in size."""
    coarse, fine = (rng.standard_normal((n, n), np.float32) for n in (7, 40))
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC) + 0.5 * cv2.resize(
        fine, (size, size), interpolation=cv2.INTER_LINEAR
    )


def _exposed(light: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """uint8: blurred a little, with a drawn exposure, contrast and grain."""
    soft = cv2.GaussianBlur(light, (0, 0), 0.8)
    curve = np.clip(soft, 0, 1) ** rng.uniform(0.75, 1.35)
    grain = rng.standard_normal(light.shape, np.float32) * np.float32(rng.uniform(0.4, 1.2))
    return np.clip(rng.uniform(215, 265) * curve + rng.uniform(0, 12) + grain, 0, 255).astype(np.uint8)
