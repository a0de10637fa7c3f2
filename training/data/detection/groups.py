"""Which images come from one picture, video or sequence, as far as their file names tell.

Known are the copies that Roboflow makes of a picture (`<picture>_jpg.rf.<hash>.jpg`), frames of a video
(`<video>_frame_000123`, `<video>-0000123`) and folders of numbered frames, one for each sequence (KITTI, MOT). Plain
numbers (`000001`, `image_0001`, `img12`) tell nothing: they count the images of a whole dataset.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_COPY = re.compile(r"(?P<picture>.+)_(?:jpe?g|png|bmp|tiff?|webp)\.rf\.\w+")
_FRAME = re.compile(r"(?P<video>.+?)[-_. ]*(?:frame|frm)[-_. ]*\d+", re.IGNORECASE)
_NUMBERED = re.compile(r"(?P<video>.+?)[-_.]+(?:img|image|f)?(?P<number>\d{3,})", re.IGNORECASE)
_COUNTED = re.compile(r"(?:frame|frm|img|image|im)?[-_. ]*\d+", re.IGNORECASE)  # says nothing of where it is from
_HASHES = re.compile(r"[0-9a-f]{8}-[0-9a-f]{8}")  # the second one may have digits alone
_SPLIT = re.compile(r"(?:train|valid|val|test)(?:ing)?\d*", re.IGNORECASE)
_DAY = re.compile(r"(?:19|20)\d{6}$")
_CLOCK = 6  # digits of hours, minutes and seconds
_NO_SEQUENCE = re.compile(
    r"images?|img\d?|data|frames|jpe?gs?|(?:train|val|valid|validation|test)(?:ing)?[-_]?\d*", re.I
)


def groups_of(names: Sequence[str]) -> list[str | None]:
    """For each image, named by its path in the dataset, what it comes from; None where its name does not tell."""
    parts = [name.rpartition("/") for name in names]
    sequences = _sequences({folder for folder, _, _ in parts})
    return [_group(name.rpartition(".")[0] or name, sequences[folder]) for folder, _, name in parts]


def _group(stem: str, folder: str | None) -> str | None:
    copy = _COPY.fullmatch(stem)
    if copy:
        return _video(copy["picture"]) or copy["picture"]
    if _COUNTED.fullmatch(stem):
        return folder
    return _video(stem)


def _video(stem: str) -> str | None:
    """The video whose frame an image of this name is."""
    if _HASHES.fullmatch(stem):
        return None
    frame = _FRAME.fullmatch(stem)
    if frame:
        return frame["video"]
    numbered = _NUMBERED.fullmatch(stem)
    return numbered["video"] if numbered and _names_a_video(numbered["video"], numbered["number"]) else None


def _names_a_video(text: str, number: str) -> bool:
    """A word alone (`image`, `car`) counts a dataset's images, digits alone are a year or a day, others a moment."""
    if _DAY.search(text) and len(number) == _CLOCK:
        return False
    text = _SPLIT.sub("", text)
    return any(part.isdigit() for part in text) and any(part.isalpha() for part in text)


def _sequences(folders: Iterable[str]) -> dict[str, str | None]:
    """Folders without what splits and layouts are called; None where all are the same then, or nothing is left."""
    told = {
        folder: "/".join(part for part in folder.split("/") if not _NO_SEQUENCE.fullmatch(part)) for folder in folders
    }
    if len(set(told.values())) < 2:
        return dict.fromkeys(told)
    return {folder: left or None for folder, left in told.items()}
