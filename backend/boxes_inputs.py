"""Which images and videos a prediction is about, and by what name each is found in the result."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from backend.errors import UsageError
from backend.preprocessing.images import IMAGE_SUFFIXES
from backend.video import VIDEO_SUFFIXES


@dataclass(frozen=True)
class Source:
    """An image or a video, and its name in the result: its place below the folder that is common to all inputs."""

    path: Path
    name: PurePosixPath

    @property
    def is_image(self) -> bool:
        """By its suffix; whatever else was named is tried as a video."""
        return self.path.suffix.lower() in IMAGE_SUFFIXES

    @property
    def stem(self) -> PurePosixPath:
        """The name without its suffix, by which labels and drawn pictures are called."""
        return self.name.with_suffix("")


def find_sources(inputs: Sequence[Path], out: Path) -> list[Source]:
    """Files that were named, and images and videos in folders and all that is under them, each once, by name.

    What lies below an ``out`` inside such a folder is the result of an earlier prediction, and left out.

    Raises:
        UsageError: there are none, one is not there, or two would write one file.
    """
    files: dict[Path, Path] = {}
    for given in inputs:
        if not given.exists():
            raise UsageError(f"{given}: no such file or folder; expected images, videos or folders of them")
        if given.resolve() == out.resolve():
            raise UsageError(f"--out {out}: is also an input, whose files it would replace; name another folder")
        found = _below(given, out) if given.is_dir() else [given]
        files |= {file.resolve(): file for file in found if file.resolve() not in files}
    if not files:
        suffixes = ", ".join((*IMAGE_SUFFIXES, *VIDEO_SUFFIXES))
        raise UsageError(f"{', '.join(map(str, inputs))}: no images or videos found ({suffixes})")
    base = _common_folder(inputs)
    sources = [Source(file, PurePosixPath(Path(os.path.abspath(file)).relative_to(base))) for file in files.values()]  # noqa: PTH100
    sources.sort(key=lambda source: source.name)
    _refuse_collisions(sources)
    return sources


def _below(folder: Path, out: Path) -> list[Path]:
    suffixes = {*IMAGE_SUFFIXES, *VIDEO_SUFFIXES}
    is_inside = out.resolve().is_relative_to(folder.resolve())
    return [
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in suffixes
        and file.name[0] != "."
        and not (is_inside and file.resolve().is_relative_to(out.resolve()))
        and file.is_file()
    ]


def _common_folder(inputs: Sequence[Path]) -> Path:
    # not resolved: a link's name is the one that the user knows
    places = [Path(os.path.abspath(given)) for given in inputs]  # noqa: PTH100
    return Path(os.path.commonpath([place if place.is_dir() else place.parent for place in places]))


def _refuse_collisions(sources: Sequence[Source]) -> None:
    taken: dict[tuple[bool, PurePosixPath], Source] = {}
    for source in sources:
        other = taken.setdefault((source.is_image, source.stem), source)
        if other is not source:
            raise _same_name(other, source)
    for source in sources:
        video = taken.get((False, source.stem.parent))
        if source.is_image and video and source.stem.name.isdecimal():  # called as the video's frames are
            raise _same_name(video, source)


def _same_name(one: Source, other: Source) -> UsageError:
    return UsageError(f"{one.path} and {other.path}: two inputs of one name; predict them one after another")
