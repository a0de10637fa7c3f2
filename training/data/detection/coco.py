"""The COCO layout: a JSON file of images, categories and boxes for each split.

Either `<split>/_annotations.coco.json` beside its images (as Roboflow exports; `valid` is val), or
`annotations/instances_<split>….json` with images in `<split>…/`, `images/<split>…/` or `images/`. The format is that of
Lin et al. 2014 (arXiv:1405.0312): `bbox` is x, y, width, height in pixels.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from backend.errors import BadDataError
from training.data.detection.coco_boxes import Document, read_boxes
from training.data.detection.listing import SPLITS, Listing, images_below, is_file, list_rows, some
from training.data.io_errors import source_errors
from training.data.problems import raise_problems

_BESIDE = "_annotations.coco.json"
_FOLDERS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
_PREFIX = "instances_"
_LONGEST = 1 << 20  # pixels of a side: no file that OpenCV reads has more


def coco_files(source: Path) -> dict[str, Path]:
    """The annotation files of ``source`` by split; empty where there are none. Raises BadDataError: two for a split."""
    found: dict[str, list[Path]] = {split: [] for split in SPLITS}
    for split, folders in _FOLDERS.items():
        found[split] += [path for name in folders if (path := source / name / _BESIDE).is_file()]
    for path in sorted((source / "annotations").glob(f"{_PREFIX}*.json")):
        if split := _split_of(path):
            found[split].append(path)
    raise_problems(
        [
            f"{source}: {split} has {len(paths)} files of annotations ({', '.join(map(str, paths))}), expected one; "
            "move the others to another folder"
            for split, paths in found.items()
            if len(paths) > 1
        ]
    )
    return {split: paths[0] for split, paths in found.items() if paths}


def _split_of(path: Path) -> str:
    name = path.stem.removeprefix(_PREFIX)
    return next((split for split in SPLITS if name.startswith(split)), "")


def list_coco(source: Path, files: Mapping[str, Path]) -> Listing:
    """The dataset whose annotations lie in ``files``. Raises BadDataError: what is wrong with images and categories."""
    raise_problems(
        [
            f"{source}: has no annotations of {split}; expected {split}/{_BESIDE} or annotations/{_PREFIX}{split}.json"
            for split in ("train", "val")
            if split not in files
        ]
    )
    documents = {split: _read(path) for split, path in files.items()}
    notes: list[str] = []
    if "test" not in documents or not documents["test"].images:
        notes.append("there are no annotations of test images: the test split is empty, nothing is tested")
    names = _common_categories(documents, notes)
    images: dict[str, list[Path]] = {split: [] for split in SPLITS}
    problems: list[str] = []
    folders: set[Path] = set()
    for split, document in documents.items():
        folder = _image_folder(source, split, document, problems)
        if folder is not None:
            folders.add(folder)
            images[split] = _paths_in(folder, document, problems)
    raise_problems(problems)
    notes += _unnamed(source, folders, images)
    sources, rows, source_of = list_rows(source, images)
    return Listing(
        layout="COCO",
        classes=list(names.values()),
        category_ids=list(names),
        sources=sources,
        rows=rows,
        source_of=source_of,
        read_truth=functools.partial(read_boxes, documents, list(names)),
        notes=notes,
    )


# --- the file ---------------------------------------------------------------------------------------------------------


def _read(path: Path) -> Document:
    with source_errors(path):
        content = path.read_bytes()
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BadDataError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(found, dict):
        raise BadDataError(f"{path}: expected an object with images, categories and annotations")
    problems = [
        f"{path}: {key}: expected a list of objects"
        for key in ("images", "categories", "annotations")
        if not isinstance(found.get(key), list) or not all(isinstance(entry, dict) for entry in found[key])
    ]
    raise_problems(problems)
    document = Document(path, found["images"], found["categories"], found["annotations"])
    raise_problems(_wrong_images(document) + _wrong_categories(document))
    return document


def _wrong_images(document: Document) -> list[str]:
    problems = []
    for at, image in enumerate(document.images):
        name, size = image.get("file_name"), [image.get("width"), image.get("height")]
        if not isinstance(name, str) or not name:
            problems.append(f"{document.path}: images[{at}]: file_name is {name!r}, expected the name of an image")
        elif not all(_is_length(side) for side in size):
            problems.append(
                f"{document.path}: images[{at}] ({name}): width and height are {size[0]!r} and {size[1]!r}, expected "
                "whole pixels"
            )
    problems += _repeated(document.path, "images", "id", [image.get("id") for image in document.images])
    return problems + _repeated(document.path, "images", "file_name", [i.get("file_name") for i in document.images])


def _wrong_categories(document: Document) -> list[str]:
    path, entries = document.path, document.categories
    problems = [] if entries else [f"{path}: categories: lists no categories"]
    for at, entry in enumerate(entries):
        if not isinstance(entry.get("id"), int) or not isinstance(entry.get("name"), str) or not entry["name"]:
            problems.append(f"{path}: categories[{at}]: expected a whole number as id, and a name")
    if problems:
        return problems
    return _repeated(path, "categories", "id", [entry["id"] for entry in entries]) + _repeated(
        path, "categories", "name", [entry["name"] for entry in entries]
    )


def _repeated(path: Path, where: str, key: str, values: Sequence[object]) -> list[str]:
    seen: set[object] = set()
    problems = []
    for at, value in enumerate(values):
        if not isinstance(value, int | str):
            problems.append(f"{path}: {where}[{at}]: {key} is {value!r}, expected a number or a word")
        elif value in seen:
            problems.append(f"{path}: {where}[{at}]: {key} {value!r} stands twice")
        else:
            seen.add(value)
    return problems


def _is_length(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 1 <= value <= _LONGEST and value == int(value)


# --- categories and images --------------------------------------------------------------------------------------------


def _common_categories(documents: Mapping[str, Document], notes: list[str]) -> dict[int, str]:
    first = next(iter(documents.values()))
    names = first.category_names()
    for other in documents.values():
        theirs = other.category_names()
        if theirs != names:
            differing = sorted(set(names.items()) ^ set(theirs.items()))
            told = some(f"{number} {name}" for number, name in differing)
            raise BadDataError(
                f"{other.path}: its categories are others than those of {first.path} (differing: {told}); expected "
                "the same ids and names in every split"
            )
    placeholder = _placeholder(documents)
    if placeholder is not None:
        notes.append(f"the category {placeholder} ({names[placeholder]}) stands for all others: left out")
        del names[placeholder]
    return names


def _placeholder(documents: Mapping[str, Document]) -> int | None:
    """Roboflow's category 0, which is the others' supercategory and which no box has."""
    entries = {entry["id"]: entry for entry in next(iter(documents.values())).categories}
    root = entries.pop(0, None)
    if root is None or not any(entry.get("supercategory") == root["name"] for entry in entries.values()):
        return None
    used = any(box.get("category_id") == 0 for document in documents.values() for box in document.annotations)
    return None if used else 0


def _image_folder(source: Path, split: str, document: Document, problems: list[str]) -> Path | None:
    """Where the images of a split lie; None where there are none, or none are found, which is a problem."""
    if not document.images:
        if split != "test":
            problems.append(f"{document.path}: images: lists no images, expected those of {split}")
        return None
    first = str(document.images[0]["file_name"])
    folders = _folders(source, split, document.path)
    folder = next((place for place in folders if is_file(place / first)), None)
    if folder is None:
        where = "; ".join(map(str, folders))
        problems.append(f"{document.path}: images[0]: there is no image {first}, looked for in {where}")
    return folder


def _paths_in(folder: Path, document: Document, problems: list[str]) -> list[Path]:
    paths = [folder / str(image["file_name"]) for image in document.images]
    problems += [
        f"{document.path}: images[{at}]: there is no image {path}" for at, path in enumerate(paths) if not is_file(path)
    ]
    return paths


def _unnamed(source: Path, folders: Iterable[Path], images: Mapping[str, Sequence[Path]]) -> list[str]:
    """A line on images that lie among the dataset's and that no annotation file names."""
    named = {os.path.normpath(path) for paths in images.values() for path in paths}
    lying = {os.path.normpath(path) for folder in folders for path in images_below(folder)}
    alone = sorted(lying - named)
    if not alone:
        return []
    names = some((Path(os.path.relpath(path, source)).as_posix() for path in alone), 3)
    return [f"{len(alone):,} images are named by no annotation file ({names}): not used"]


def _folders(source: Path, split: str, path: Path) -> list[Path]:
    """Where the images of an annotation file may lie."""
    if path.name == _BESIDE:
        return [path.parent]
    exact = path.stem.removeprefix(_PREFIX)
    names = [exact, *(name for name in _FOLDERS[split] if name != exact)]
    alike = sorted(place.name for place in source.glob(f"{split}*") if place.is_dir())
    names = list(dict.fromkeys([*names, *alike]))
    return [source / name for name in names] + [source / "images" / name for name in names] + [source / "images"]
