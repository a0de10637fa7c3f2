"""Where a landmark dataset's table and images lie, and what its `landmarks.yaml` says of them.

`landmarks.yaml` is optional; every key in it too::

    csv: annotations.csv              # needed where the folder holds several
    images: images                    # the folder below which the images are found
    points: [left_eye, right_eye, nose]
    pairs: [[left_eye, right_eye]]    # exchanged in a mirror; [] says that no point changes its name
    spans: {inter_ocular: {from: [left_eye], to: [right_eye]}}
    mm_per_px: 0.2                    # of the images as they are
    class_column: label
    group_column: subject
    classes: [no, yes]                # in the order of their numbers
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from backend.errors import BadDataError, ConfigError
from backend.preprocessing.images import IMAGE_SUFFIXES
from backend.preprocessing.landmark_set import LUNGS, LandmarkSet, Span
from training.data.files_below import files_below
from training.data.problems import raise_problems
from training.yaml_core import read_any_yaml

LAYOUT = "landmarks.yaml"


class SpanEnds(BaseModel):
    """A length for errors: from the mean of some points to the mean of others, by name."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    start: list[str] = Field(alias="from", min_length=1)
    end: list[str] = Field(alias="to", min_length=1)


class Layout(BaseModel):
    """What `landmarks.yaml` says; without one, nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    csv: str | None = None
    images: str | None = None
    points: list[str] | None = Field(None, min_length=1)
    pairs: list[list[str]] | None = None
    spans: dict[str, SpanEnds] = {}
    mm_per_px: float | None = Field(None, gt=0, allow_inf_nan=False)
    class_column: str | None = None
    group_column: str | None = None
    classes: list[str] | None = Field(None, min_length=1)


@dataclass(frozen=True)
class DatasetFolder:
    """A dataset as its folder shows it, before its table is read."""

    root: Path
    layout: Layout
    csv: Path
    images: Path  # the folder below which they lie
    image_paths: Sequence[Path]  # all images there


def list_dataset(source: Path) -> DatasetFolder:
    """Walks the folder once. Raises BadDataError: no table, several, no images, or a wrong `landmarks.yaml`."""
    files = list(files_below(source))
    if not files:
        raise BadDataError(f"{source}: holds no files; expected a CSV of points and the images that it names")
    layout_path = _single([path for path in files if path.name == LAYOUT], source, LAYOUT)
    layout = Layout() if layout_path is None else _read_layout(layout_path)
    root = source if layout_path is None else layout_path.parent
    csv = _named_csv(root, layout) or _only_csv(files, source)
    images = root / layout.images if layout.images else root
    if not images.is_dir():
        raise BadDataError(f"{root / LAYOUT}: images: there is no folder {images}")
    found = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES and path.is_relative_to(images)]
    if not found:
        raise BadDataError(f"{images}: holds no images; expected {', '.join(IMAGE_SUFFIXES)} at any depth")
    return DatasetFolder(root, layout, csv, images, found)


def _single(paths: Sequence[Path], source: Path, what: str) -> Path | None:
    if len(paths) > 1:
        names = ", ".join(str(path.relative_to(source)) for path in paths)
        raise BadDataError(f"{source}: holds {len(paths)} files {what} ({names}), expected one")
    return paths[0] if paths else None


def _named_csv(root: Path, layout: Layout) -> Path | None:
    if layout.csv is None:
        return None
    if not (root / layout.csv).is_file():
        raise BadDataError(f"{root / LAYOUT}: csv: there is no file {root / layout.csv}")
    return root / layout.csv


def _only_csv(files: Sequence[Path], source: Path) -> Path:
    tables = [path for path in files if path.suffix.lower() == ".csv"]
    if not tables:
        raise BadDataError(f"{source}: holds no CSV; expected one with a row of points for each image")
    if len(tables) > 1:
        names = ", ".join(str(path.relative_to(source)) for path in tables)
        raise BadDataError(
            f"{source}: holds {len(tables)} CSV files ({names}); say which has the points with the key csv in "
            f"{source / LAYOUT}"
        )
    return tables[0]


def _read_layout(path: Path) -> Layout:
    try:
        content = read_any_yaml(path)
    except ConfigError as error:
        raise BadDataError(str(error)) from error
    if not isinstance(content, dict):
        raise BadDataError(f"{path}: expected keys and values, such as `csv: points.csv`")
    try:
        return Layout.model_validate(content)
    except ValidationError as error:
        raise_problems([f"{path}: {_told(one)}" for one in error.errors(include_url=False)])
        raise AssertionError from error  # for the type checker: there was at least one problem


def _told(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"there is no key {key}; expected some of {', '.join(Layout.model_fields)}"
    return f"{key}: {error['msg']}"


# --- which points -----------------------------------------------------------------------------------------------------


def landmark_set_of(folder: DatasetFolder, names: Sequence[str]) -> LandmarkSet:
    """The points with ``names`` in their order, with what `landmarks.yaml` says of them.

    Points called as the fifteen of the lungs' contour are those. Raises BadDataError for names that there are not.
    """
    layout, known = folder.layout, tuple(names) == LUNGS.names
    origin = _origin(folder, known)
    spans = [(name, ends.start, ends.end) for name, ends in layout.spans.items()]
    raise_problems([f"{origin}: {line}" for line in _unknown_points(layout, names)])
    at = {name: index for index, name in enumerate(names)}
    pairs = LUNGS.pairs if layout.pairs is None and known else tuple((at[a], at[b]) for a, b in layout.pairs or ())
    return LandmarkSet(
        names=tuple(names),
        pairs=pairs,
        spans=tuple(Span(name, tuple(at[n] for n in a), tuple(at[n] for n in b)) for name, a, b in spans),
        mirrors=known or layout.pairs is not None,
        mm_per_px=layout.mm_per_px,
        origin=origin,
    )


def _origin(folder: DatasetFolder, known: bool) -> str:
    path = folder.root / LAYOUT
    if known and not path.exists():
        return f"{folder.csv} (its points are taken for those of the lungs' contour)"
    return str(path)


def _unknown_points(layout: Layout, names: Sequence[str]) -> list[str]:
    there = f"the points are {', '.join(names)}"
    problems = [
        f"pairs: [{', '.join(pair)}] is no pair; expected two different points"
        for pair in layout.pairs or []
        if len(set(pair)) != 2 or len(pair) != 2
    ]
    named = [("pairs", name) for pair in layout.pairs or [] for name in pair]
    named += [(f"spans.{key}", name) for key, ends in layout.spans.items() for name in (*ends.start, *ends.end)]
    return problems + [f"{key}: there is no point {name}; {there}" for key, name in named if name not in names]
