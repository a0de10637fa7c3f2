"""What preparation's workers do with the images of a landmark dataset. Imports no torch, so that they start quickly."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backend.errors import BadDataError
from backend.preprocessing.images import decode_image
from backend.preprocessing.landmarks import LandmarkPreprocessing
from training.data.io_errors import source_errors
from training.leaks.members import short_hash


@dataclass(frozen=True)
class MakeBlock:
    """One file's content to the model's input, uint8 [3, S, S]; the same functions as in serving."""

    preprocessing: LandmarkPreprocessing

    def __call__(self, path: Path, content: bytes) -> np.ndarray:
        """The block of one file. Raises BadDataError naming ``path``."""
        return self.preprocessing.apply(decode_image(path, content))


@dataclass(frozen=True)
class Seen:
    """What one look at an image tells."""

    size: tuple[int, int] = (0, 0)  # width, height
    pixels: str = ""  # a hash of what is decoded: equal for equal pictures, however they are stored
    sha256: str = ""  # of the file
    problem: str = ""


def look_at(job: tuple[int, Path]) -> tuple[int, Seen]:
    """In a worker: an image's number, and what it shows."""
    number, path = job
    with source_errors(path):
        content = path.read_bytes()
    try:
        image = decode_image(path, content)
    except BadDataError as error:
        return number, Seen(problem=str(error))
    height, width = image.shape[:2]
    pixels = short_hash(hashlib.sha256(b"%d %d " % (width, height) + image.tobytes()).hexdigest())
    return number, Seen((width, height), pixels, hashlib.sha256(content).hexdigest())


def facts_of(seen: Mapping[int, Seen]) -> dict[str, Any]:
    """What the cache keeps beside the images, in their order. JSON types only."""
    ordered = [seen[number] for number in range(len(seen))]
    return {"sizes": [list(one.size) for one in ordered], "pixels": [one.pixels for one in ordered]}
