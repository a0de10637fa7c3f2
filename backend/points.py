"""From image files to the points that a landmark model finds in them: a table, and pictures to look at."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from backend.artifact import Artifact
from backend.errors import BadDataError, UsageError
from backend.files import writable_folder, write_atomic
from backend.left_out import tell_left_out
from backend.models import build
from backend.models.landmarks import predict_points
from backend.preprocessing.images import IMAGE_SUFFIXES, read_image
from backend.preprocessing.landmark_set import LandmarkSet
from backend.preprocessing.landmarks import LandmarkPreprocessing
from backend.weights import load_matching

TABLE, OVERLAYS = "points.csv", "overlays"
_AT_ONCE = 32
_RED, _WHITE = (0, 0, 220), (255, 255, 255)  # OpenCV's order: blue, green, red


def write_points(artifact: Artifact, inputs: Sequence[Path], out: Path) -> Path:
    """Write ``points.csv`` (a row for each image, in pixels of that image) and an overlay of each image into ``out``.

    The points are the mean of the prediction for an image and for its mirror image, where the pairs are known.

    Raises:
        UsageError: there are no images, or two of one name.
        BadDataError: files that are no images; the result of the others is written first.
        DiskError: ``out`` cannot be written.
    """
    files = image_files(inputs)
    writable_folder(out)
    points = LandmarkSet.from_json(artifact.facts["landmark_set"])
    rows: list[list[str]] = []
    left_out: list[str] = []
    for path, found in find_points(artifact, files, left_out):
        rows.append([path.name, *(f"{value:.2f}" for value in found.ravel())])
        (out / OVERLAYS).mkdir(exist_ok=True)
        write_atomic(out / OVERLAYS / f"{path.stem}.png", _overlay(path, found))
    table = out / TABLE
    if rows:
        write_atomic(table, _csv(points.names, rows))
    tell_left_out(left_out, len(files), out if rows else None)
    return table


def find_points(
    artifact: Artifact, files: Sequence[Path], left_out: list[str]
) -> Iterator[tuple[Path, NDArray[np.float32]]]:
    """Each file with the points [P, 2] in pixels of its image; ``left_out`` gets a line for each that is no image."""
    preprocessing = LandmarkPreprocessing.from_dict(artifact.preprocessing["landmarks"])
    mirrors = bool(artifact.facts["landmark_set"]["mirrors"])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build(artifact.state["task"], artifact.config, artifact.facts)
    load_matching(model, artifact.weights, artifact.folder)
    model.to(device).eval()
    for first in range(0, len(files), _AT_ONCE):
        read = list(_readable(preprocessing, files[first : first + _AT_ONCE], left_out))
        if not read:
            continue
        part, images, sizes = zip(*read, strict=True)
        batch = torch.from_numpy(np.stack(images)).to(device)
        found = _predict(model, preprocessing.normalise(batch), mirrors)
        yield from zip(part, found * np.array(sizes, np.float32)[:, None], strict=True)


def _readable(
    preprocessing: LandmarkPreprocessing, files: Sequence[Path], left_out: list[str]
) -> Iterator[tuple[Path, NDArray[np.uint8], tuple[int, int]]]:
    """Each image's file, what the model sees of it, and its width and height."""
    for path in files:
        try:
            image, size = preprocessing.read(path)
        except BadDataError as error:
            left_out.append(str(error))
        else:
            yield path, image, size


def _predict(model: nn.Module, images: torch.Tensor, mirrors: bool) -> NDArray[np.float32]:
    with torch.inference_mode():
        plain, tta = predict_points(model, images, mirrors)
        points = plain if tta is None else tta
        found: NDArray[np.float32] = points.float().cpu().numpy()
    return found


def image_files(inputs: Sequence[Path]) -> list[Path]:
    """Images among files and folders (and all that is under them), by name.

    Raises:
        UsageError: there are none, or two of one name, which the table could not tell apart.
    """
    files: list[Path] = []
    for path in inputs:
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder; expected images ({', '.join(IMAGE_SUFFIXES)})")
        inside = path.rglob("*") if path.is_dir() else [path]
        files += [one for one in inside if path.is_file() or _is_image(one)]
    if not files:
        raise UsageError(f"{', '.join(map(str, inputs))}: no images found ({', '.join(IMAGE_SUFFIXES)})")
    files = sorted({file.resolve(): file for file in files}.values(), key=lambda file: (file.stem, str(file)))
    for one, other in pairwise(files):
        if one.stem == other.stem:
            raise UsageError(f"{one} and {other}: two images of one name; predict them one after another")
    return files


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "." and path.is_file()


def _csv(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The form that training reads: a header, the image's name, x and y of each point."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", *(f"{name}_{axis}" for name in names for axis in "xy")])
    writer.writerows(rows)
    return text.getvalue()


def _overlay(path: Path, points: NDArray[np.float32]) -> bytes:
    """The image with its points as a PNG, at its own size."""
    image = cv2.cvtColor(read_image(path), cv2.COLOR_RGB2BGR)
    radius = max(2, round(min(image.shape[:2]) / 100))
    fraction = 4  # bits: OpenCV takes places between pixels as multiples of 1/16
    for x, y in points:
        centre = (round((x - 0.5) * 2**fraction), round((y - 0.5) * 2**fraction))
        cv2.circle(image, centre, (radius + 1) << fraction, _WHITE, cv2.FILLED, cv2.LINE_AA, fraction)
        cv2.circle(image, centre, radius << fraction, _RED, cv2.FILLED, cv2.LINE_AA, fraction)
    done, content = cv2.imencode(".png", image)
    if not done:
        raise BadDataError(f"{path}: its overlay could not be written as PNG")
    return bytes(content)
