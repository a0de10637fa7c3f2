"""What preparation's workers do with the images of a detection dataset. Imports no torch: they start quickly."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backend.errors import BadDataError
from backend.preprocessing.detection import DetectionPreprocessing
from backend.preprocessing.images import decode_image
from training.data.problems import raise_problems
from training.leaks.members import short_hash


@dataclass(frozen=True)
class MakeBlock:
    """One file's content to the model's input, uint8 [3, S, S], and what the one look at it told.

    The same functions as in serving. The facts are ``[width, height, hash of the pixels]``, or a text: what is wrong.
    """

    preprocessing: DetectionPreprocessing

    def __call__(self, path: Path, content: bytes) -> tuple[np.ndarray, Any]:
        """The block and facts of one file; what is no image gets an empty block, so that all are told at once."""
        try:
            image = decode_image(path, content, upright=True)
        except BadDataError as error:
            side = self.preprocessing.image_size
            return np.zeros((3, side, side), np.uint8), str(error)
        height, width = image.shape[:2]
        pixels = hashlib.sha256(b"%d %d " % (width, height))
        pixels.update(np.ascontiguousarray(image).data)
        return self.preprocessing.letterbox(image)[0], [width, height, short_hash(pixels.hexdigest())]


def check_facts(facts: Sequence[Any]) -> None:
    """Raises BadDataError with all files that are no images."""
    raise_problems([one for one in facts if isinstance(one, str)])
