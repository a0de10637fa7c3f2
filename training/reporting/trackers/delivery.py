"""Brings what a run folder holds to one tracker, each point once, wherever and however often it is begun.

The source is `metrics.jsonl`, which is durable and complete, so that nothing has to be queued: what a tracker that was
away has missed is still there. How far it has come stands in `trackers.json` beside it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from training.files import digest, read_json, write_json
from training.reporting.run_folder import RunFolder
from training.reporting.trackers.tracker import Outcome, Record, Subject, Tracker
from training.shown import all_without_secrets, without_secrets

NOTE = "trackers.json"
_FILES = ("config.yaml", "report.html", "MODEL_CARD.md")
_MOST_RECORDS = 200  # at once: the rest follows in the next round
_LOCK_SECONDS = 30.0


class Delivery:
    """One run folder's way to one tracker. Methods raise whatever the tracker raises; they can be tried again."""

    def __init__(self, folder: Path, tracker: Tracker) -> None:
        self.folder, self.tracker = folder, tracker
        self.opened = False
        self._lock = FileLock(folder / f".{tracker.name}.lock")
        self._reached: dict[str, int] = {}
        self._offset = 0

    def begin(self) -> None:
        """Open the tracker's run and find out what is there. Raises filelock.Timeout while another process is at it."""
        self._lock.acquire(timeout=_LOCK_SECONDS)
        known = self._noted()
        run_id = self.tracker.open(subject_of(self.folder), known.get("id"))
        there, noted = self.tracker.reached(), known if known.get("id") == run_id else {}  # else that run was deleted
        self._reached = {kind: max(noted.get(kind, -1), there.get(kind, -1)) for kind in ("train", "validation")}
        self._note(id=run_id)
        self.opened = True

    def round(self) -> bool:
        """Bring over what is new, up to a bounded number of records; whether anything was."""
        records, offset = self._new()
        if not records:
            self._offset = offset
            return False
        reached = {**self._reached, **{record["kind"]: record["step"] for record in records}}
        if self.tracker.drops_doubles:
            self.tracker.log(records)
            self._reached, self._offset = reached, offset
            self._note()
        else:  # better a point too few after a kill than one twice
            self._reached, self._offset = reached, offset
            self._note()
            self.tracker.log(records)
        return True

    def finish(self, state: str) -> str:
        """Bring over the rest and how it ended; where people find it."""
        while self.round():
            pass
        where = self.tracker.finish(outcome_of(self.folder, state))
        self.close()
        return where

    def close(self) -> None:
        """Leave the run to others."""
        self._lock.release()

    def _new(self) -> tuple[list[Record], int]:
        records: list[Record] = []
        offset = self._offset
        for record, end in _records_from(self.folder / "metrics.jsonl", self._offset):
            offset = end
            if record.get("kind") in self._reached and record["step"] > self._reached[record["kind"]]:
                records.append(record)
            if len(records) == _MOST_RECORDS:
                break
        return records, offset

    def _noted(self) -> dict[str, Any]:
        known = self._all_noted().get(self.tracker.name)
        return known if isinstance(known, dict) and known.get("place") == self.tracker.place else {}

    def _all_noted(self) -> dict[str, Any]:
        path = self.folder / NOTE
        return read_json(path) if path.exists() else {}

    def _note(self, **facts: Any) -> None:
        with FileLock(self.folder / f".{NOTE}.lock"):
            kept = {**self._noted(), "place": self.tracker.place, **facts, **self._reached}
            write_json(self.folder / NOTE, {**self._all_noted(), self.tracker.name: kept})


def _records_from(path: Path, offset: int) -> Iterator[tuple[Record, int]]:
    """Whole lines from ``offset`` on, each with the place where it ends; damaged ones are passed over."""
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            try:
                record = json.loads(line)
            except ValueError:
                record = {}
            yield record if isinstance(record, dict) else {}, offset


def subject_of(folder: Path) -> Subject:
    """What a tracker is told of the run in ``folder``."""
    run = RunFolder(folder)
    metadata, name = run.metadata, folder.name
    dataset = metadata.get("dataset") or {}
    facts = {
        "task": metadata.get("task"),
        "config_hash": metadata.get("config_hash"),
        "dataset": dataset.get("name"),
        "dataset_fingerprint": dataset.get("fingerprint"),
        "is_sample": dataset.get("is_sample"),
        "git_commit": (metadata.get("git") or {}).get("commit"),
        "seed": metadata.get("seed"),
        "command": metadata.get("command"),
    }
    return Subject(
        folder,
        name,
        str((run.config.get("tracking") or {}).get("project") or "train-worker"),
        str(metadata.get("token") or digest(["run", name])[:12]),
        dict(_flat(run.config, "")),
        {key: without_secrets(str(value)) for key, value in facts.items() if value is not None},
    )


def outcome_of(folder: Path, state: str) -> Outcome:
    """What a tracker is told in the end: the scores of the best checkpoint, on test under their names."""
    evaluations = RunFolder(folder).evaluations
    metrics: dict[str, float] = {}
    step, time = 0, ""
    for split in ("val", "test"):
        found = evaluations.get(split)
        if found is not None:
            named = {name if split == "test" else f"best/{name}": value for name, value in found["metrics"].items()}
            metrics |= {name: value for name, value in named.items() if math.isfinite(value)}
            step, time = int(str(found["checkpoint"]).rpartition("-")[2]), found["time"]
    return Outcome(state, metrics, step, time, [folder / name for name in _FILES if (folder / name).is_file()])


def _flat(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield without_secrets(f"{prefix}{name}"), all_without_secrets(value)
