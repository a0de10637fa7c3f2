"""The images of a landmark dataset, found by the names in its table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backend.preprocessing.images import IMAGE_SUFFIXES
from backend.preprocessing.landmark_set import LandmarkSet
from training.data.io_errors import source_errors
from training.data.landmarks.layout import LAYOUT, DatasetFolder, landmark_set_of, list_dataset
from training.data.landmarks.table import Table, points_of, read_table
from training.data.prepared import SourceFile
from training.data.problems import raise_problems

_ONE_CLASS = "all"  # where neither a column nor a folder says more


@dataclass(frozen=True)
class Annotated:
    """A landmark dataset as table and folder tell it; no image has been opened. One entry a row, in the CSV's order."""

    table: Table
    landmark_set: LandmarkSet
    points: np.ndarray  # float64 [n, P, 2] in pixels
    names: Sequence[str]  # of the images, without folder and extension
    classes: Sequence[str]  # all there are, in the order of their numbers
    class_of: np.ndarray  # int64 [n]
    groups: Sequence[str | None]
    sources: Sequence[SourceFile]
    without_points: int  # images that no row names


def read_annotated(source: Path) -> Annotated:
    """The dataset in ``source``, without opening an image.

    Raises:
        BadDataError: what is wrong with table, names and classes, all of it at once.
    """
    folder = list_dataset(source)
    table = read_table(folder.csv, folder.layout)
    landmark_set = landmark_set_of(folder, table.points)
    problems: list[str] = []
    names = [_stem(row.image) for row in table.rows]
    paths = _paths_of(folder, table, names, problems)
    labels = [row.label or _folder_class(folder, path) for row, path in zip(table.rows, paths, strict=True)]
    classes = _classes_of(folder, table, labels, problems)
    raise_problems(problems)
    number = {name: index for index, name in enumerate(classes)}
    return Annotated(
        table=table,
        landmark_set=landmark_set,
        points=points_of(table),
        names=names,
        classes=classes,
        class_of=np.array([number[label] for label in labels if label is not None], np.int64),
        groups=[row.group for row in table.rows],
        sources=[_source_file(source, path) for path in paths if path is not None],
        without_points=len(folder.image_paths) - len(paths),
    )


def _stem(image: str) -> str:
    name = Path(image).name
    return name[: -len(Path(name).suffix)] if Path(name).suffix.lower() in IMAGE_SUFFIXES else name


def _paths_of(folder: DatasetFolder, table: Table, names: Sequence[str], problems: list[str]) -> list[Path | None]:
    """The image of each row; None where there is none, which is a problem then."""
    there: dict[str, list[Path]] = defaultdict(list)
    for path in folder.image_paths:
        there[path.stem].append(path)
    first_line: dict[str, int] = {}
    found: list[Path | None] = []
    for row, name in zip(table.rows, names, strict=True):
        paths = there[name]
        if name in first_line:
            problems.append(f"{table.at(row)}: {name} stands already in line {first_line[name]}")
        elif not paths:
            problems.append(f"{table.at(row)}: there is no image {name} below {folder.images}")
        elif len(paths) > 1:
            both = " and ".join(str(path.relative_to(folder.images)) for path in paths[:2])
            problems.append(f"{table.at(row)}: {both} have one name, expected each name once")
        first_line.setdefault(name, row.line)
        found.append(paths[0] if paths else None)
    return found


def _folder_class(folder: DatasetFolder, path: Path | None) -> str | None:
    if path is None:
        return None
    return _ONE_CLASS if path.parent == folder.images else path.parent.name


def _classes_of(folder: DatasetFolder, table: Table, labels: Sequence[str | None], problems: list[str]) -> list[str]:
    wanted, found = folder.layout.classes, sorted({label for label in labels if label is not None})
    if wanted is None:
        return found
    origin = folder.root / LAYOUT
    problems += [f"{origin}: classes: {name} has no images" for name in wanted if name not in found]
    problems += [
        f"{origin}: classes: {name} stands twice" for name in sorted({n for n in wanted if wanted.count(n) > 1})
    ]
    problems += [
        f"{table.at(row)}: its class {label} is not among the classes of {origin}"
        for row, label in zip(table.rows, labels, strict=True)
        if label is not None and label not in wanted
    ]
    return list(wanted)


def _source_file(source: Path, path: Path) -> SourceFile:
    with source_errors(path):
        facts = path.stat()
    return SourceFile(path.relative_to(source).as_posix(), path, facts.st_size, facts.st_mtime_ns)


# --- once their sizes are known --------------------------------------------------------------------------------------


def outside(annotated: Annotated, sizes: np.ndarray) -> list[str]:
    """A line for each point that does not lie on its image; ``sizes`` [n, 2] are (width, height), 0 where unknown."""
    limits = np.where(sizes > 0, sizes, np.inf)[:, None]
    wrong = np.argwhere(((annotated.points < 0) | (annotated.points > limits)).any(axis=2))
    return [_outside_line(annotated, sizes, row, point) for row, point in wrong.tolist()]


def _outside_line(annotated: Annotated, sizes: np.ndarray, row: int, point: int) -> str:
    (x, y), (width, height) = annotated.points[row, point], sizes[row]
    table = annotated.table
    return (
        f"{table.at(table.rows[row])}: {annotated.landmark_set.names[point]} is at ({x:g}, {y:g}), outside "
        f"{annotated.names[row]}, which is {width} wide and {height} high"
    )
