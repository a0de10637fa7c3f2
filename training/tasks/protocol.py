"""What a task owes the engine. The engine knows no task; a task never loops, saves, or touches a device.

Words used throughout:

* **item**: what the user counts and `training.batch_size` counts (radar: a window with all its levels).
* **row**: the smallest unit the model takes (radar: one level of one window). An item is one or more rows.
* **batch**: the items of one optimizer step, collated: a dict whose every value (tensor, or list for ragged data)
  has the rows as its first dimension. The engine slices it into micro-batches along that dimension.
* **term**: one part of the loss as (sum, count, weight). The loss of a batch is
  ``sum over terms of weight * sum / count`` with the sums and counts of the whole batch, so that k micro-batches
  give what one gives.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from backend.weights import load_matching
from training.fetching.archive import Tellers
from training.leaks.members import Member
from training.schemas.shared import RunConfig
from training.tasks.card import Card
from training.tasks.exported import Exported

Batch = dict[str, Any]
Outputs = dict[str, Tensor]  # each with the rows as its first dimension


@dataclass(frozen=True, slots=True)
class Term:
    """One loss term of one micro-batch: ``sum`` (fp32 scalar, carries the gradient), ``count`` and ``weight``."""

    sum: Tensor
    count: float | Tensor
    weight: float


@dataclass(frozen=True)
class Phase:
    """A stretch of training with its own optimizer: frozen trunk, curriculum step, self-training round.

    ``epochs``, ``learning_rate``, ``patience`` and ``schedule`` (where it is not None) take the place of the ones in
    `training`. With ``start_from_best`` the phase begins from the best weights of the one before.
    """

    name: str
    epochs: int
    learning_rate: float
    patience: int | None = None
    start_from_best: bool = False
    schedule: str | None = None


class ItemSource(Protocol):
    """One split's items: indexable, cheap to pickle, safe to use in several processes."""

    def __len__(self) -> int: ...

    def item(self, index: int, rng: np.random.Generator | None) -> Batch:
        """Item ``index`` as rows. ``rng`` belongs to (seed, phase, epoch, position); None means no augmentation."""
        ...


@dataclass(frozen=True)
class Prepared:
    """A dataset ready to train on."""

    fingerprint: str  # of the content and of the settings that shaped it, independent of paths
    splits: Mapping[str, ItemSource]  # "train", "val", "test"
    audit: Mapping[str, Any]  # split audit: counts, ranges, overlaps found and what was done; JSON types only
    members: Mapping[str, Sequence[Member]]  # who is in train, val, test, in the order of the items: for the leak audit
    preprocessing: Mapping[str, Any]  # what serving needs to treat a raw input alike: goes into every checkpoint
    summary: Sequence[str] = ()  # lines for the user
    near_seconds: float = 0.0  # items closer in time than this are not independent
    facts: Mapping[str, Any] = field(default_factory=dict)  # what building the model needs (grid, class names, …)


@dataclass(frozen=True)
class Glance:
    """What a dataset will become, told before the work: exact where it is prepared, else estimated.

    ``items`` is None where nothing but the configuration is known, ``facts`` are then what it implies.
    """

    facts: Mapping[str, Any]  # as in `Prepared`
    found: str  # one line for the user
    items: Mapping[str, int] | None = None  # by split
    exact: bool = False  # the dataset is prepared
    cache_bytes: int = 0  # that preparation still has to write


class Scores(Protocol):
    """Accumulates verification counts over a split; never holds predictions."""

    def compute(self) -> dict[str, float]:
        """Metric names without the split's prefix. An undefined score is absent, never 0 or 1."""
        ...

    def names(self) -> dict[str, str | None]:
        """Every name that `compute` may give, with ``min`` or ``max`` for which way is better.

        None is for those that rank no model: neither way is better, or they do not depend on the model.
        """
        ...

    def record(self) -> dict[str, Any]:
        """What stands beside the numbers: counts, scale, sample count, definitions. JSON types only.

        ``definitions`` maps names to sentences. ``layout`` is a `training.scores.layout.Layout` as JSON: the tables
        that reports show, and the baseline that the model is held against. ``headlines`` names the scores that lists of
        runs show where there are very many.
        """
        ...

    def table(self) -> str:
        """The scores as a text table for people."""
        ...

    def frame(self) -> pd.DataFrame:
        """The scores with their counts, a row for each thing that was scored; kept as scores.csv."""
        ...


@dataclass(frozen=True)
class PrepareContext:
    """What preparation may use of the world around it."""

    source: Path  # the dataset's folder
    cache_dir: Path  # where prepared caches live: <cache_dir>/<fingerprint>/
    workers: int
    say: Callable[[str], None]  # one line to the log
    progress: Callable[[str, int, int], None]  # (what, done, total)
    check_stop: Callable[[], None]  # raises InterruptedRunError when the run was asked to stop


class Task(ABC):
    """One kind of training job. Instances are made from a resolved config and hold nothing else that changes."""

    name: ClassVar[str]
    config_type: ClassVar[type[RunConfig]]
    item_word: ClassVar[str] = "items"  # what reports call an item, plural
    augments: ClassVar[bool] = False  # whether training items use their rng
    cheap_items: ClassVar[bool] = False  # reading an item is a slice of a memory map: no loader processes needed

    def __init__(self, config: Any) -> None:
        self.config = config

    @property
    def subtask(self) -> str | None:
        """Which of several jobs under its name the task does here; the registry finds runs by it too."""
        return None

    @staticmethod
    @abstractmethod
    def make_sample(folder: Path, seed: int = 42) -> None:
        """Write the built-in sample, in the task's real file format, into an empty folder."""

    @abstractmethod
    def prepare(self, context: PrepareContext) -> Prepared:
        """Read, check, split and cache the dataset; quick when nothing changed. Raises BadDataError."""

    @abstractmethod
    def build_model(self, facts: Mapping[str, Any]) -> nn.Module:
        """A freshly initialised model (the engine has seeded torch), on the CPU."""

    def init_weights(self, model: nn.Module, tell: Tellers) -> None:
        """Start a new run from other weights, where the config names some; ``tell`` hears of what is fetched."""
        return

    def published_weights(self) -> str | None:
        """Where weights are published that a new run starts from; None where it needs none."""
        return None

    def load_foreign(self, model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> str:
        """Put weights of the program that this task comes from, read from ``path``, into ``model``.

        Gives what there is to say of them to people, in words after "the weights are those of"; nothing as a rule.

        Raises ConfigError where they are of another model.
        """
        load_matching(model, weights, path)
        return ""

    def phases(self) -> list[Phase]:
        training = self.config.training
        return [Phase("main", training.epochs, training.learning_rate, training.patience)]

    def enter_phase(self, model: nn.Module, phase: Phase) -> list[dict[str, Any]]:
        """Freeze and thaw for ``phase``; returns AdamW's parameter groups (``params`` and optional ``lr_scale``)."""
        return [{"params": [p for p in model.parameters() if p.requires_grad]}]

    def collate(self, items: Sequence[Batch]) -> Batch:
        """Items to one batch: tensors are concatenated along rows, lists are joined."""
        first = items[0]
        if len(items) == 1:
            return first
        return {
            key: torch.cat([item[key] for item in items])
            if isinstance(value, Tensor)
            else [row for item in items for row in item[key]]
            for key, value in first.items()
        }

    @abstractmethod
    def counts(self, batch: Batch) -> dict[str, float | Tensor]:
        """Each term's count over a whole batch, known before any forward pass. ``batch`` is on the device."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Term]:
        """Forward and loss terms of a (micro-)batch. Runs under autocast; compute losses in fp32."""

    @abstractmethod
    def terms(self) -> Sequence[str]:
        """Names of the loss terms that this configuration has."""

    @abstractmethod
    def new_scores(self, facts: Mapping[str, Any]) -> Scores:
        """Empty scores for a dataset with these ``facts``."""

    @abstractmethod
    def outputs(self, model: nn.Module, batch: Batch) -> Outputs:
        """The model's answers to a (micro-)batch, which `score` needs and which can be kept; without gradients."""

    @abstractmethod
    def score(self, outputs: Outputs, batch: Batch, scores: Any) -> dict[str, Term]:
        """Add ``outputs`` to ``scores`` and return the loss terms; ``batch`` is what they are answers to."""

    @abstractmethod
    def glance(self, source: Path | None, cache_dir: Path) -> Glance:
        """What ``source`` (None: a dataset yet to come) will become; well under a second. Raises BadDataError."""

    @abstractmethod
    def trial_item(self, facts: Mapping[str, Any], rng: np.random.Generator) -> Batch:
        """One item of random data in the form that the loader gives: shapes and dtypes are the real ones."""

    def card(self, facts: Mapping[str, Any]) -> Card:
        """What a model card says of models that were trained with this configuration on data with these ``facts``."""
        return Card()

    def mismatch(self, preprocessing: Mapping[str, Any], facts: Mapping[str, Any], prepared: Prepared) -> str | None:
        """Why a model that was trained with these must not be scored on ``prepared``; None where it may."""
        return None if dict(preprocessing) == dict(prepared.preprocessing) else "its preprocessing is another one"

    def class_counts(self, prepared: Prepared) -> Mapping[str, Mapping[str, int]]:
        """Items (or annotations) of each class by split; empty where the task has no classes."""
        return {}

    def row_bytes(self, model: nn.Module, dtype: torch.dtype, device_type: str = "cpu") -> int | None:
        """Roughly what one row needs in memory for a training step in ``dtype``; None when unknown."""
        return None

    def row_flops(self, model: nn.Module) -> float | None:
        """Multiplications and additions of one row's forward pass; None when unknown."""
        return None

    def exported(self, model: nn.Module, facts: Mapping[str, Any]) -> Exported | None:
        """``model`` (in evaluation, on the CPU) as ONNX is to have it; None where the task has no such form."""
        return None

    def smaller(self, facts: Mapping[str, Any], share: float) -> tuple[Task, Mapping[str, Any]]:
        """The same job with roughly ``share`` (0 to 1) of the arithmetic a row, for a trial on a slow machine."""
        return self, facts

    def draw(self, model: nn.Module, prepared: Prepared, split: str, folder: Path, device: torch.device) -> list[Path]:
        """Example figures for the report (PNG, with an SVG of the same name beside it)."""
        return []
