"""Landmark data from a folder of images and a table of points to items for training."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from backend.preprocessing.landmarks import LandmarkPreprocessing
from training.data.landmarks.audit import audit_of, summary_lines
from training.data.landmarks.augment import apply_change, draw_change
from training.data.landmarks.blocks import MakeBlock, facts_of, look_at
from training.data.landmarks.images import Annotated, outside, read_annotated
from training.data.landmarks.mirror import check_pairs
from training.data.landmarks.split import SPLITS, Split, split_images
from training.data.prepared import BlockReader, PreparedCache, Request
from training.data.prepared_build import Plan, open_or_build
from training.data.problems import raise_problems
from training.data.workers import WorkerPool
from training.files import digest
from training.leaks.members import Member
from training.schemas.landmarks import AugmentationSection, LandmarkDataSection
from training.tasks.protocol import Batch, PrepareContext, Prepared

PREPARATION_VERSION = 1  # raise it when the same settings begin to give other blocks
_FILES_PER_WORKER = 200  # fewer are done before another process has started


class LandmarkItems:
    """One split's images (an ItemSource): read from the prepared cache, augmented where there is an ``rng``."""

    def __init__(
        self,
        reader: BlockReader,
        blocks: np.ndarray,
        points: np.ndarray,
        sizes: np.ndarray,
        class_of: np.ndarray,
        weights: np.ndarray,
        augmentation: AugmentationSection,
        mirrored_order: Sequence[int],
    ) -> None:
        self._reader, self._blocks, self._points, self._sizes = reader, blocks, points, sizes
        self._augmentation, self._mirrored_order = augmentation, list(mirrored_order)
        self.class_of = class_of  # int64 [n]
        self._weights = weights  # float32 [n]

    def __len__(self) -> int:
        return len(self._blocks)

    @property
    def points(self) -> np.ndarray:
        """float32 [n, P, 2], x and y as shares of width and height."""
        return self._points

    def item(self, index: int, rng: np.random.Generator | None) -> Batch:
        """One row: ``image`` uint8 [1, 3, S, S], ``points`` float32 [1, P, 2] in [0, 1], ``size`` float32 [1, 2].

        ``size`` is the (width, height) of the image file in pixels; ``class`` is int64 [1]; ``weight`` float32 [1] is
        how much the image counts in the loss.
        """
        block = np.empty((3, 1, *self._reader.shape[1:]), np.uint8)
        self._reader.read_run(int(self._blocks[index]), block)
        image, points = block[:, 0], self._points[index]
        if rng is not None:
            change = draw_change(self._augmentation, rng)
            image, points = apply_change(image, points, change, self._mirrored_order)
        return {
            "image": torch.from_numpy(image)[None],
            "points": torch.from_numpy(points.copy())[None],
            "size": torch.from_numpy(self._sizes[index].copy())[None],
            "class": torch.from_numpy(self.class_of[index : index + 1].copy()),
            "weight": torch.from_numpy(self._weights[index : index + 1].copy()),
        }


def prepare_landmarks(
    section: LandmarkDataSection,
    context: PrepareContext,
    split_seed: int,
    augmentation: AugmentationSection | None = None,
    class_weights: Mapping[str, float] | None = None,
) -> Prepared:
    """A dataset folder to split items over a prepared cache; in well under a second where nothing changed.

    ``class_weights`` say how much images of a class count in the loss, where that is not 1.

    Raises BadDataError, DiskError and InterruptedRunError.
    """
    annotated = read_annotated(context.source)
    mirror = check_pairs(annotated.landmark_set, annotated.points)
    workers = max(1, min(context.workers, len(annotated.sources) // _FILES_PER_WORKER))
    request = Request(cache_settings(section), annotated.sources)
    cache = open_or_build(
        context.cache_dir, request, lambda pool: _plan(section, annotated, pool, context), context, workers
    )
    return prepared_items(
        section, annotated, cache, split_seed, augmentation or AugmentationSection(), class_weights, mirror
    )


def preprocessing_of(section: LandmarkDataSection) -> LandmarkPreprocessing:
    """These settings as the preprocessing that training and serving share."""
    return LandmarkPreprocessing(section.image_size, section.clahe, section.clahe_clip, section.clahe_tile)


def cache_settings(section: LandmarkDataSection) -> dict[str, Any]:
    """What shapes the blocks of a prepared cache: the points are none of it, so mending one costs no preparation."""
    return {"kind": "landmarks", "version": PREPARATION_VERSION, **preprocessing_of(section).to_dict()}


def class_counts(prepared: Prepared) -> dict[str, dict[str, int]]:
    """Images of each class by split."""
    classes = prepared.facts["classes"]
    return {
        name: dict(zip(classes, np.bincount(items.class_of, minlength=len(classes)).tolist(), strict=True))
        for name, items in prepared.splits.items()
        if isinstance(items, LandmarkItems)
    }


def _plan(section: LandmarkDataSection, annotated: Annotated, pool: WorkerPool, context: PrepareContext) -> Plan:
    """Looks at every image and tells all that is wrong with them before the first block is made."""
    jobs = [(i, source.path) for i, source in enumerate(annotated.sources)]
    seen = {}
    for done, (i, found) in enumerate(pool.run(look_at, jobs), 1):
        seen[i] = found
        context.progress("looking at images", done, len(jobs))
    table = annotated.table
    unreadable = [(i, found.problem) for i, found in sorted(seen.items()) if found.problem]
    sizes = np.array([seen[i].size for i in range(len(jobs))])
    raise_problems([f"{table.at(table.rows[i])}: {text}" for i, text in unreadable] + outside(annotated, sizes))
    preprocessing = preprocessing_of(section)
    return Plan(
        shape=(3, preprocessing.image_size, preprocessing.image_size),
        dtype="uint8",
        block_sources=range(len(jobs)),
        make=MakeBlock(preprocessing),
        recipe=preprocessing.to_dict(),
        extra=facts_of(seen),
    )


# --- from the cache to items: nothing here touches an image ----------------------------------------------------------


def prepared_items(
    section: LandmarkDataSection,
    annotated: Annotated,
    cache: PreparedCache,
    split_seed: int,
    augmentation: AugmentationSection,
    class_weights: Mapping[str, float] | None = None,
    mirror: Sequence[str] = (),
) -> Prepared:
    """Split items over an opened cache. Raises BadDataError: a point outside its image, too few images."""
    sizes, pixels = np.array(cache.extra["sizes"]), cache.extra["pixels"]
    raise_problems(outside(annotated, sizes))
    fractions = section.split.fractions
    split = split_images(_by_name(annotated), _keys(annotated, pixels), fractions, split_seed, cache.folder)
    audit = audit_of(annotated, pixels, split, fractions, split_seed)
    points = (annotated.points / sizes[:, None]).astype(np.float32)
    weight_of = np.array([(class_weights or {}).get(name, 1.0) for name in annotated.classes], np.float32)
    splits = _splits(annotated, cache, split, points, sizes, weight_of, augmentation)
    return Prepared(
        fingerprint=_fingerprint(section, annotated, cache, split_seed),
        splits=splits,
        audit=audit,
        members={
            name: [Member(annotated.names[i], annotated.groups[i], content=(pixels[i],)) for i in split.members(name)]
            for name in SPLITS
        },
        preprocessing={"landmarks": preprocessing_of(section).to_dict()},
        summary=summary_lines(annotated, audit, cache.folder.name, mirror),
        facts={**facts_before(section, annotated, splits["train"].points), "cache": cache.fingerprint},
    )


def _by_name(annotated: Annotated) -> np.ndarray:
    """int64 [n]: each image's class, numbered by name: scikit-learn draws in that order, however they are listed."""
    return np.argsort(np.argsort(annotated.classes))[annotated.class_of]


def _keys(annotated: Annotated, pixels: Sequence[str]) -> list[list[tuple[str, str]]]:
    """By which images belong together."""
    return [
        [("pixels", own)] + ([] if group is None else [("group", group)])
        for own, group in zip(pixels, annotated.groups, strict=True)
    ]


def _splits(
    annotated: Annotated,
    cache: PreparedCache,
    split: Split,
    points: np.ndarray,
    sizes: np.ndarray,
    weight_of: np.ndarray,
    augmentation: AugmentationSection,
) -> dict[str, LandmarkItems]:
    reader, order = cache.reader(), annotated.landmark_set.mirrored_order()
    widths, classes = sizes.astype(np.float32), annotated.class_of
    members = {name: split.members(name) for name in SPLITS}
    return {
        name: LandmarkItems(
            reader, at, points[at], widths[at], classes[at], weight_of[classes[at]], augmentation, order
        )
        for name, at in members.items()
    }


def facts_before(section: LandmarkDataSection, annotated: Annotated, points: np.ndarray) -> dict[str, Any]:
    """What building and scoring a model needs; ``points`` [n, P, 2] in [0, 1] are those of the training split."""
    return {
        "landmark_set": annotated.landmark_set.to_json(),
        "image_size": section.image_size,
        "classes": list(annotated.classes),
        "mean_shape": points.mean(axis=0, dtype=np.float64).tolist(),
    }


def _fingerprint(section: LandmarkDataSection, annotated: Annotated, cache: PreparedCache, split_seed: int) -> str:
    """Of the images' and the table's content, and of all that makes a split from it."""
    facts: Mapping[str, Any] = {
        "cache": cache.fingerprint,
        "points": hashlib.sha256(annotated.points.astype("<f8").tobytes()).hexdigest(),
        "names": list(annotated.names),
        "classes": [list(annotated.classes), annotated.class_of.tolist()],
        "groups": list(annotated.groups),
        "landmark_set": annotated.landmark_set.to_json(),
        "split": [section.split.fractions, split_seed],
    }
    return digest(facts)
