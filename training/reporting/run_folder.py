"""Reads a run folder for reports; whatever is missing or torn is left out, because a run may still be under way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from backend.errors import UsageError
from training.files import read_json
from training.runs.metadata_shape import without_wrong
from training.yaml_core import read_yaml

Record = dict[str, Any]


@dataclass(frozen=True)
class RunFolder:
    """The parts of a run folder that reports are made of; the formats are in `docs/architecture.md`."""

    path: Path

    @cached_property
    def config(self) -> Record:
        """The resolved settings."""
        return _or_empty(read_yaml, self.path / "config.yaml")

    @cached_property
    def metadata(self) -> Record:
        """Identity, dataset, audit, versions, result; parts that are not of their type are left out."""
        return without_wrong(_or_empty(read_yaml, self.path / "metadata.yaml"))

    @cached_property
    def card(self) -> Record:
        """What the task says of its models in a model card."""
        return _or_empty(read_json, self.path / "card.json")

    @cached_property
    def metrics(self) -> list[Record]:
        """Every whole line of `metrics.jsonl`."""
        return list(read_lines(self.path / "metrics.jsonl"))

    @property
    def training(self) -> list[Record]:
        """Logged training steps."""
        return [record for record in self.metrics if record.get("kind") == "train"]

    @property
    def validations(self) -> list[Record]:
        """Validations."""
        return [record for record in self.metrics if record.get("kind") == "validation"]

    @cached_property
    def events(self) -> list[Record]:
        """What happened to the run."""
        return list(read_lines(self.path / "events.jsonl"))

    @cached_property
    def evaluations(self) -> dict[str, Record]:
        """Evaluations by place: those of the run's own test and val split, then those of other data or checkpoints."""
        found = {}
        for path in (self.path / "evaluations").glob("*/metrics.json"):
            content = _or_empty(read_json, path)
            if content.get("metrics"):
                found[path.parent.name] = content
        return dict(sorted(found.items(), key=lambda pair: (pair[0] != "test", pair[0] != "val", pair[0])))

    @property
    def figures(self) -> list[Path]:
        """PNG figures by name."""
        return sorted((self.path / "figures").glob("*.png"))

    @property
    def best_step(self) -> int | None:
        """The step of the best checkpoint, from the hint `checkpoints/best`."""
        try:
            return int((self.path / "checkpoints" / "best").read_text().strip().removeprefix("step-"))
        except (OSError, ValueError):
            return None


def read_lines(path: Path, only: str = "") -> Iterator[Record]:
    """The JSON objects of a file with one in each line; torn lines and those without the text ``only`` are skipped."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                if only in line:
                    record = _parsed(line)
                    if isinstance(record, dict):
                        yield record
    except OSError:
        return


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _or_empty(read: Callable[[Path], Record], path: Path) -> Record:
    try:
        return read(path)
    except UsageError:
        return {}
