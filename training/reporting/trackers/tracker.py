"""What a tracker owes: MLflow, Weights & Biases. A tracker shows what the run folder holds and is never needed."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from training.shown import without_secrets

Record = Mapping[str, Any]
_ADDRESS = "MLFLOW_TRACKING_URI"
_SECRETS = ("WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


@dataclass(frozen=True)
class Subject:
    """What is told of a run besides its curves; no secrets in it."""

    folder: Path
    name: str  # the run id
    project: str
    token: str  # 12 hexadecimal digits that no other run has
    settings: Mapping[str, Any]  # by dotted key
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Outcome:
    """How a worker's part of the run ended."""

    state: str  # finished, interrupted or failed
    metrics: Mapping[str, float]
    step: int  # of the checkpoint that was scored
    time: str
    files: Sequence[Path]


class Tracker(ABC):
    """One place where a run's curves are shown. Methods raise whatever the library raises."""

    name: ClassVar[str]
    drops_doubles: ClassVar[bool]  # a record that comes twice stands there once

    @property
    @abstractmethod
    def place(self) -> str:
        """Where it is, as people may see it; the same for the same place."""

    @abstractmethod
    def open(self, subject: Subject, known_id: str | None) -> str:
        """Begin, or go on with the run that is there already; its id."""

    @abstractmethod
    def reached(self) -> Mapping[str, int]:
        """The last step that is there, by kind of record; empty where it cannot be asked."""

    @abstractmethod
    def log(self, records: Sequence[Record]) -> None:
        """Lines of `metrics.jsonl`, oldest first."""

    @abstractmethod
    def finish(self, outcome: Outcome) -> str:
        """Say how it ended and close; where people find it."""


def shown(error: BaseException) -> str:
    """An error of a library in one line, without secrets."""
    text = " ".join(str(error).split()) or repr(error)
    secrets = [os.environ.get(name) for name in _SECRETS]
    with suppress(ValueError):  # an address that is none
        secrets.append(urlsplit(os.environ.get(_ADDRESS, "")).password)
    for secret in filter(None, secrets):
        text = text.replace(secret, "…")
    return without_secrets(text)[:300]
