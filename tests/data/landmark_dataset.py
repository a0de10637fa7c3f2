"""Small landmark datasets: images of dots, and tables in every form."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np

LUNG_SHAPE = np.array(  # of the fifteen points, as shares of the image
    [
        *([0.5, 0.13], [0.5, 0.8], [0.22, 0.3], [0.78, 0.3], [0.17, 0.46], [0.83, 0.46], [0.15, 0.63], [0.85, 0.63]),
        *([0.5, 0.3], [0.5, 0.46], [0.5, 0.63], [0.35, 0.13], [0.65, 0.13], [0.12, 0.8], [0.88, 0.8]),
    ]
)
KINDS = ("COVID", "Normal", "Viral Pneumonia")


def write_image(path: Path, seed: int = 0, size: tuple[int, int] = (60, 50), dtype=np.uint8) -> Path:
    """A picture of noise of ``size`` (width, height); each seed has its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    top = np.iinfo(dtype).max
    pixels = np.random.default_rng(seed).integers(0, top, (size[1], size[0]), endpoint=True).astype(dtype)
    path.write_bytes(cv2.imencode(path.suffix, pixels)[1].tobytes())
    return path


def shapes(count: int, shape: np.ndarray = LUNG_SHAPE, noise: float = 0.01, seed: int = 0) -> np.ndarray:
    """[count, P, 2]: ``shape`` with noise, as shares."""
    return np.clip(shape + np.random.default_rng(seed).normal(0, noise, (count, *shape.shape)), 0, 1)


def write_rows(path: Path, rows, header=None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([*([header] if header else []), *rows])
    return path


def lungs(root: Path, count: int = 20, size: tuple[int, int] = (60, 50)) -> Path:
    """The old program's layout: no header, folders for classes, names with a space in one."""
    rows = []
    for i, shape in enumerate(shapes(count)):
        kind = KINDS[i % 3]
        name = f"{kind}-{i}"
        write_image(root / "dataset" / kind.replace(" ", "_") / f"{name}.png", i, size)
        rows.append([i, *np.round(shape * size, 2).ravel().tolist(), name])
    write_rows(root / "coordenadas" / "coordenadas_maestro.csv", rows)
    return root


FACE = {"left": (0.2, 0.3), "right": (0.8, 0.3), "nose": (0.5, 0.5), "chin": (0.5, 0.9)}


def faces(root: Path, count: int = 12, layout: str | None = None, **columns) -> Path:
    """A table with a header, images in one folder; ``columns`` are lists of further cells."""
    names = list(FACE)
    header = ["image", *(f"{name}{end}" for name in names for end in ("_x", "_y")), *columns]
    rows = []
    for i, shape in enumerate(shapes(count, np.array(list(FACE.values())), seed=1)):
        write_image(root / "images" / f"face{i}.png", 100 + i)
        rows.append([f"face{i}.png", *(shape * (60, 50)).ravel().tolist(), *(cells[i] for cells in columns.values())])
    write_rows(root / "points.csv", rows, header)
    if layout is not None:
        (root / "landmarks.yaml").write_text(layout)
    return root
