"""The YOLO layout: which images and classes a `data.yaml` names. No image and no label is opened.

Folders are looked for where they are written (below ``path``, which is relative to the file), then beside the file,
then without leading ``..``, as Roboflow's exports write ``../train/images`` for ``train/images``.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backend.errors import BadDataError, ConfigError
from training.data.detection.labels import read_labels
from training.data.detection.listing import SPLITS, Listing, images_below, is_file, is_folder, is_image, list_rows, some
from training.data.io_errors import source_errors
from training.data.problems import raise_problems
from training.yaml_core import read_any_yaml

_KEYS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


def yolo_files(source: Path) -> list[Path]:
    """The YAML files at the top of ``source`` that describe a dataset: data.yaml, and those with names and train."""
    files = sorted(path for path in source.iterdir() if path.suffix.lower() in (".yaml", ".yml") and path.is_file())
    return [path for path in files if _describes(path)]


def _describes(path: Path) -> bool:
    if path.stem == "data":
        return True
    try:
        content = read_any_yaml(path)
    except ConfigError:
        return False
    return isinstance(content, dict) and "names" in content and "train" in content


def list_yolo(file: Path) -> Listing:
    """The dataset that ``file`` describes. Raises BadDataError: what is wrong with it, or with what it names."""
    content = _read(file)
    classes = class_names(file, content)
    places = _Places.of(file, content)
    images = {split: places.images(split) for split in SPLITS}
    raise_problems(places.problems)
    sources, rows, source_of = list_rows(places.base, images)
    everything = [sources[number].path for number in source_of]
    return Listing(
        layout="YOLO",
        classes=classes,
        category_ids=list(range(len(classes))),
        sources=sources,
        rows=rows,
        source_of=source_of,
        read_truth=functools.partial(read_labels, places.base, everything, rows, classes),
        notes=places.notes,
    )


def _read(file: Path) -> dict[str, Any]:
    try:
        content = read_any_yaml(file)
    except ConfigError as error:
        raise BadDataError(str(error)) from error
    if not isinstance(content, dict):
        raise BadDataError(f"{file}: expected keys and values, such as `train: images/train`")
    return content


# --- classes ----------------------------------------------------------------------------------------------------------


def class_names(file: Path, content: Mapping[str, Any]) -> list[str]:
    """``names`` in the order of their numbers. Raises BadDataError."""
    names = _listed(file, content.get("names"))
    problems = [f"{file}: names: number {i} is {name!r}, expected a word" for i, name in enumerate(names) if not name]
    problems += [f"{file}: names: {name} stands twice" for name in sorted({n for n in names if names.count(n) > 1})]
    count = content.get("nc")
    if count is not None and count != len(names):
        problems.append(f"{file}: nc is {count!r}, but names has {len(names)}; correct the one that is wrong")
    raise_problems(problems)
    return names


def _listed(file: Path, names: object) -> list[str]:
    if isinstance(names, Mapping):
        try:
            numbered = {int(key): str(name) for key, name in names.items()}
        except (ValueError, TypeError) as error:
            raise BadDataError(f"{file}: names: expected numbers and names, such as `0: car` ({error})") from error
        if sorted(numbered) != list(range(len(numbered))):
            raise BadDataError(f"{file}: names: has the numbers {some(sorted(numbered))}, expected 0, 1, 2, …")
        names = [numbered[number] for number in range(len(numbered))]
    if not isinstance(names, list) or not names:
        raise BadDataError(f"{file}: names: expected a list of the classes, such as [car, bus]")
    return [str(name).strip() if isinstance(name, str | int | float) else "" for name in names]


# --- places -----------------------------------------------------------------------------------------------------------


@dataclass
class _Places:
    """Finds what the keys of one file name, and remembers what was found elsewhere than written."""

    file: Path
    content: Mapping[str, Any]
    base: Path  # what the paths are relative to
    lost_path: str | None = None  # ``path`` where it points nowhere
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, file: Path, content: Mapping[str, Any]) -> _Places:
        written = content.get("path")
        if written is None or written == "":
            return cls(file, content, file.parent)
        if not isinstance(written, str):
            raise BadDataError(f"{file}: path is {written!r}, expected a folder")
        base = _joined(file.parent, written)
        if is_folder(base):
            return cls(file, content, base)
        note = f"{file.name}: path: there is no folder {written}; folders are looked for beside {file.name}"
        return cls(file, content, file.parent, written, [note])

    def images(self, split: str) -> list[Path]:
        """The images of a split; none where the file does not name it."""
        written = [(key, value) for key in _KEYS[split] if (value := self.content.get(key)) not in (None, "", [])]
        if not written:
            self._miss(split)
            return []
        key, value = written[0]
        entries = value if isinstance(value, list) else [value]
        if not all(isinstance(entry, str) and entry for entry in entries):
            self.problems.append(f"{self.file}: {key}: expected a folder, a .txt file, or a list of folders")
            return []
        images: dict[Path, None] = {}
        for entry in entries:
            images.update(dict.fromkeys(self._images_of(split, key, entry)))
        return list(images)

    def _miss(self, split: str) -> None:
        if split == "test":
            self.notes.append(f"{self.file.name} names no test images: the test split is empty, nothing is tested")
            return
        keys = " or ".join(_KEYS[split][:2])
        self.problems.append(
            f"{self.file}: has no {keys}; name the folder of the {split} images, or set some aside for it"
        )

    def _images_of(self, split: str, key: str, entry: str) -> list[Path]:
        place = self._found(split, key, entry)
        if place is None:
            return []
        if place.is_file():
            return self._listed_in(key, place)
        images = images_below(place)
        if not images and split == "test":
            self.notes.append(f"{self.file.name}: test: {place} holds no images: the test split is empty")
        elif not images:
            self.problems.append(f"{self.file}: {key}: {place} holds no images; expected some, at any depth")
        return images

    def _found(self, split: str, key: str, entry: str) -> Path | None:
        tried: list[Path] = []
        for place in self._candidates(entry):
            if place in tried:
                continue
            tried.append(place)
            if is_folder(place) or (is_file(place) and place.suffix.lower() == ".txt"):
                if len(tried) > 1:
                    near = os.path.relpath(place, self.file.parent)
                    self.notes.append(f"{self.file.name}: {key}: {entry} is not there; taken from {near}")
                return place
        where = "; ".join(map(str, tried))
        if split == "test":
            self.notes.append(f"{self.file.name}: test: there is no {entry} ({where}): the test split is empty")
            return None
        lost = f" (and path {self.lost_path} points nowhere)" if self.lost_path else ""
        self.problems.append(
            f"{self.file}: {key}: there is no {entry}{lost}; expected a folder of images or a .txt file that lists "
            f"them, tried {where}"
        )
        return None

    def _candidates(self, entry: str) -> list[Path]:
        """Where ``entry`` may lie; the first is as it is written."""
        parts = Path(entry).parts
        start = next((i for i, part in enumerate(parts) if part not in ("..", ".")), len(parts))
        inside = Path(*parts[start:])
        roots = (self.base, self.file.parent)
        return [_joined(root, entry) for root in roots] + [_joined(root, str(inside)) for root in roots]

    def _listed_in(self, key: str, listing: Path) -> list[Path]:
        """The images that a .txt file lists, one a line."""
        with source_errors(listing):
            lines = listing.read_text("utf-8", errors="replace").splitlines()
        images = []
        for number, line in enumerate(lines, 1):
            if not (entry := line.strip()):
                continue
            found = [place for root in self._roots(listing) if is_file(place := _joined(root, entry))]
            if not found:
                tried = "; ".join(str(root) for root in self._roots(listing))
                self.problems.append(f"{listing}, line {number}: there is no image {entry}, looked for below {tried}")
            elif not is_image(found[0].name):
                self.problems.append(f"{listing}, line {number}: {entry} is no image")
            else:
                images.append(found[0])
        if not images and not self.problems:
            self.problems.append(f"{self.file}: {key}: {listing} lists no images")
        return images

    def _roots(self, listing: Path) -> Sequence[Path]:
        return list(dict.fromkeys((self.base, self.file.parent, listing.parent)))


def _joined(root: Path, entry: str) -> Path:
    """``entry`` below ``root`` (or where it says, if it is absolute), without ``.`` and ``..`` in between."""
    parts: list[str] = []
    for part in (root / entry).parts:
        if part == ".." and parts and parts[-1] != ".." and len(parts) > 1:
            parts.pop()
        elif part != ".":
            parts.append(part)
    return Path(*parts)
