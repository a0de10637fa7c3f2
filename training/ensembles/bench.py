"""The data of an ensemble's members: prepared as each was trained, and the images that are evaluated."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from backend.errors import BadDataError
from training.config_compare import parse, with_neutral_of
from training.engine.interruption import StopRequest
from training.ensembles.members import TASK, EnsembleMember
from training.leaks.members import Member
from training.reporting.progress import Progress
from training.requests import Places, PrepareRequest
from training.run_data import with_data_of
from training.settle import settle
from training.tasks import task_class
from training.tasks.protocol import Batch, ItemSource, Prepared
from training.work import Work

ALL = "all"
Where = tuple[str, int]  # a split and an index in it


@dataclass(frozen=True)
class Images:
    """The images that are evaluated, with what is true of them."""

    split: str
    members: Sequence[Member]
    points: NDArray[np.float32]  # [N, P, 2] from 0 to 1
    size: NDArray[np.float32]  # [N, 2] width and height in pixels
    classes: NDArray[np.int64]  # [N]

    def __len__(self) -> int:
        return len(self.members)

    def part(self, chosen: Sequence[int]) -> Images:
        """Some of them."""
        index = np.asarray(chosen, dtype=np.int64)
        members = [self.members[i] for i in chosen]
        return Images(self.split, members, self.points[index], self.size[index], self.classes[index])


@dataclass(frozen=True)
class Chosen:
    """Some items of a prepared dataset, from any split (an ItemSource)."""

    splits: Any  # split -> ItemSource
    where: Sequence[Where]

    def __len__(self) -> int:
        return len(self.where)

    def item(self, index: int, rng: np.random.Generator | None) -> Batch:
        split, number = self.where[index]
        found: Batch = self.splits[split].item(number, rng)
        return found


@dataclass
class DataBench:
    """Prepares the dataset as a member's configuration asks, once for those that ask alike."""

    places: Places
    data: str | None
    stop: StopRequest
    display: Progress
    _known: dict[str, tuple[Work, Prepared]] = field(default_factory=dict)

    def of(self, member: EnsembleMember, split_seed: int | None = None) -> tuple[Work, Prepared]:
        """The member's work, set to tell both the plain and the mirrored prediction, and its dataset.

        Raises:
            BadDataError: the dataset is gone, or not one that the member can be scored on.
        """
        work = self._work(member, split_seed)
        config = work.loaded.config
        key = json.dumps([config.data.model_dump(mode="json"), config.training.split_seed])  # type: ignore[attr-defined]
        if key not in self._known:
            self._known[key] = (work, work.prepare())
        prepared = self._known[key][1]
        why = work.task.mismatch(member.subject.preprocessing, member.subject.facts, prepared)
        if why is not None:
            raise BadDataError(f"{member.label} cannot be scored on these data: {why}")
        return work, prepared

    def _work(self, member: EnsembleMember, split_seed: int | None) -> Work:
        run = member.run
        asked = PrepareRequest(
            task=TASK,
            data=self.data,
            config=str(run.path("config.yaml")),
            output=self.places.output,
            datasets=self.places.datasets,
        )
        request = with_data_of(run, asked)
        loaded, source = settle(request, os.environ)
        own = parse(type(loaded.config), member.subject.config, member.subject.origin)
        config: Any = with_neutral_of(own, loaded.config)
        mirrors = member.subject.facts["landmark_set"]["mirrors"]
        config = config.model_copy(
            update={"evaluation": config.evaluation.model_copy(update={"tta": mirrors, "bootstrap": 0})}
        )
        if split_seed is not None:
            training = config.training.model_copy(update={"split_seed": split_seed})
            config = config.model_copy(update={"training": training})
        work = Work.of(request, replace(loaded, config=config), source, self.stop)
        work.display = self.display
        work.log = self.display.log
        work.task = task_class(TASK)(config)
        return work


def images_of(prepared: Prepared, split: str) -> Images:
    """The images of a split, or of all splits, with their points.

    Raises:
        BadDataError: the split holds none.
    """
    names = list(prepared.splits) if split == ALL else [split]
    where = [(name, index) for name in names for index in range(len(prepared.splits[name]))]
    if not where:
        raise BadDataError(f"the {split} split holds no images")
    items = [prepared.splits[name].item(index, None) for name, index in where]
    return Images(
        split,
        [prepared.members[name][index] for name, index in where],
        _joined(items, "points"),
        _joined(items, "size"),
        _joined(items, "class"),
    )


def _joined(items: Sequence[Batch], key: str) -> NDArray[Any]:
    joined: NDArray[Any] = torch.cat([item[key] for item in items]).numpy()
    return joined


def places_by_content(prepared: Prepared) -> dict[tuple[str, ...], Where]:
    """Where each image of a dataset is, by its content: one image under two names is one image."""
    return {
        member.content: (split, index)
        for split, members in prepared.members.items()
        for index, member in enumerate(members)
    }


def chosen_items(prepared: Prepared, contents: Sequence[tuple[str, ...]], label: str) -> ItemSource:
    """The items of these contents.

    Raises:
        BadDataError: one of them is not in the dataset.
    """
    places = places_by_content(prepared)
    if missing := [content for content in contents if content not in places]:
        raise BadDataError(f"{label}: {len(missing)} of the evaluated images are not among its data")
    return Chosen(prepared.splits, [places[content] for content in contents])
