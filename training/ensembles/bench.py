"""The evaluated dataset: prepared once, as its first member was trained, and the members' tasks to ask them by.

All members see an image in the same way (`members.py` holds that), so that one preparation serves them all, wherever
their own data lie and however they were split.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from backend.errors import BadDataError
from training.config.compare import parse, with_neutral_of
from training.config.settle import settle
from training.engine.interruption import StopRequest
from training.ensembles.members import TASK, EnsembleMember
from training.leaks.members import Member
from training.reporting.log import RunLog
from training.reporting.progress import Progress
from training.requests import EnsembleRequest, PrepareRequest
from training.runs.data import check_data_there, with_data_of
from training.tasks import task_class
from training.tasks.protocol import Batch, ItemSource, Prepared, Task
from training.work import Work

ALL = "all"
Content = tuple[str, ...]


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

    @property
    def contents(self) -> list[Content]:
        """What each is, whatever it is called."""
        return [member.content for member in self.members]

    def part(self, chosen: Sequence[int]) -> Images:
        """Some of them."""
        index = np.asarray(chosen, dtype=np.int64)
        return replace(
            self,
            members=[self.members[i] for i in chosen],
            points=self.points[index],
            size=self.size[index],
            classes=self.classes[index],
        )


@dataclass(frozen=True)
class _Chosen:
    """Some items of a prepared dataset, from any split (an ItemSource)."""

    items: Sequence[tuple[ItemSource, int]]

    def __len__(self) -> int:
        return len(self.items)

    def item(self, index: int, rng: np.random.Generator | None) -> Batch:
        source, number = self.items[index]
        return source.item(number, rng)


@dataclass(frozen=True)
class DataBench:
    """The dataset, and who is told or may stop what is done with it."""

    work: Work
    prepared: Prepared
    whose: str  # in words: whose split it is

    @classmethod
    def open(
        cls, first: EnsembleMember, request: EnsembleRequest, stop: StopRequest, log: RunLog, display: Progress
    ) -> DataBench:
        """Prepare the dataset as ``first`` was trained, on the split that the request asks for.

        Raises:
            WorkerError: it is gone or unfit.
            InterruptedRunError: a stop was asked for.
        """
        work = _work(first, request, stop)
        work.display, work.log = display, log
        split_seed = request.spec.split_seed
        prepared = work.prepare()
        _say_about(first, work, prepared, split_seed)
        return cls(work, prepared, first.label if split_seed is None else f"split seed {split_seed}")

    @property
    def log(self) -> RunLog:
        """Who is told."""
        return self.work.log

    def task_of(self, member: EnsembleMember) -> Task:
        """The member's own, set to tell the plain and the mirrored prediction.

        Raises:
            BadDataError: the dataset is not one that the member can be scored on.
        """
        config = _asked_for_both(member, self.work.loaded.config)
        task = task_class(TASK)(config)
        why = task.mismatch(member.state["preprocessing"], member.facts, self.prepared)
        if why is not None:
            raise BadDataError(f"{member.label} cannot be scored on these data: {why}")
        return task

    def images(self, split: str) -> Images:
        """The images of a split, or of all splits, with their points. Raises BadDataError where there are none."""
        names = list(self.prepared.splits) if split == ALL else [split]
        where = [(name, index) for name in names for index in range(len(self.prepared.splits[name]))]
        if not where:
            raise BadDataError(f"the {split} split holds no images")
        items = [_without_pixels(self.prepared.splits[name].item(index, None)) for name, index in where]
        return Images(
            split=split,
            members=[self.prepared.members[name][index] for name, index in where],
            points=_joined(items, "points"),
            size=_joined(items, "size"),
            classes=_joined(items, "class"),
        )

    def described(self, split: str) -> str:
        """The images of ``split`` in words: of which split, drawn how."""
        return f"all splits of {self.whose}" if split == ALL else f"{split} of {self.whose}"

    def items_of(self, contents: Sequence[Content]) -> ItemSource:
        """The items of these contents, each of which the dataset holds."""
        return _Chosen([self._places[content] for content in contents])

    @cached_property
    def _places(self) -> dict[Content, tuple[ItemSource, int]]:
        """One image under two names is one image."""
        return {
            member.content: (self.prepared.splits[split], index)
            for split, members in self.prepared.members.items()
            for index, member in enumerate(members)
        }


def _work(first: EnsembleMember, request: EnsembleRequest, stop: StopRequest) -> Work:
    run, asked = (
        first.run,
        PrepareRequest(
            task=TASK,
            data=request.data,
            config=str(first.run.path("config.yaml")),
            output=request.output,
            datasets=request.datasets,
        ),
    )
    prepare = with_data_of(run, asked)
    check_data_there(run, prepare, request.data)
    loaded, source = settle(prepare, os.environ)
    config = _asked_for_both(first, loaded.config)
    if request.spec.split_seed is not None:
        training = config.training.model_copy(update={"split_seed": request.spec.split_seed})
        config = config.model_copy(update={"training": training})
    return Work.of(prepare, replace(loaded, config=config), source, stop)


def _asked_for_both(member: EnsembleMember, around: Any) -> Any:
    """The member's own configuration, but asked with the mirror image wherever pairs are known.

    What does not change a result (device, workers, places) is taken from ``around``.
    """
    own = parse(type(around), member.state["config"], str(member.checkpoint))
    config: Any = with_neutral_of(own, around)
    mirrors = bool(member.facts["landmark_set"]["mirrors"])
    evaluation = config.evaluation.model_copy(update={"tta": mirrors, "bootstrap": 0})
    return config.model_copy(update={"evaluation": evaluation})


def _say_about(first: EnsembleMember, work: Work, prepared: Prepared, split_seed: int | None) -> None:
    if work.source.is_sample:
        work.log.say("note: the built-in sample, made-up data: these numbers say nothing about real images")
    trained_on = first.run.metadata.get("dataset", {}).get("fingerprint")
    if split_seed is None and trained_on is not None and trained_on != prepared.fingerprint:
        work.log.say(
            f"note: the data are not as {first.label} was trained on; they are split anew by its settings, and the "
            "audit goes by names and content"
        )


def _without_pixels(item: Batch) -> Batch:
    """What is small: a whole dataset's images need not fit into memory."""
    return {key: value for key, value in item.items() if key != "image"}


def _joined(items: Sequence[Batch], key: str) -> NDArray[Any]:
    joined: NDArray[Any] = torch.cat([item[key] for item in items]).numpy()
    return joined
