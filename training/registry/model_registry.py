"""The registry as a class, with the method names that the street-scene framework's documents use."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from backend.errors import UsageError
from backend.files import write_atomic
from training.registry.entry import Entry, key_of
from training.registry.export import export_csv
from training.registry.index import Registry
from training.registry.names import matching
from training.registry.place import NAME, output_folder, registry_place
from training.registry.ranking import may_be_best, of_task, ranked

_LOG = logging.getLogger(__name__)


class ModelRegistry:
    """The runs and their models, newest first; `training/registry/entry.py` says what an entry holds.

    Every call looks at the runs as they are now. Paths in what it returns are absolute.

    Args:
        path: the registry's file, or the folder of runs that it lies in. None stands for what TRAIN_WORKER_REGISTRY
            names, else for ``registry.json`` in TRAIN_WORKER_OUTPUT_DIR, else in ``model_output``.

    Raises:
        DiskError: from every call, when the registry is there and cannot be read.
    """

    def __init__(self, path: Path | str | None = None) -> None:
        if path is None:
            output = output_folder(os.environ)
            file = registry_place(output, os.environ)
        else:
            file = Path(path).expanduser()
            file = file / NAME if file.is_dir() else file
            output = file.absolute().parent
        self._registry = Registry(file, output, _LOG.warning)

    @property
    def path(self) -> Path:
        """The registry's file, which need not be there yet."""
        return self._registry.path

    def list_all_entries(self) -> list[Entry]:
        """Every run."""
        return self._registry.entries()

    def find_entry_by_run_id(self, run_id: str) -> Entry | None:
        """The run with this id (or ``task/run id``), or whose id alone begins so; None where there is none.

        Raises:
            UsageError: several answer to it.
        """
        found = matching(self.list_all_entries(), run_id)
        if len(found) > 1:
            raise UsageError(f"{run_id}: matches {len(found)} runs; name more of it, or task/run_id")
        return found[0] if found else None

    def find_entries_by_task(self, task: str) -> list[Entry]:
        """The runs of a task, or of a sub-task of that name."""
        return of_task(self.list_all_entries(), task)

    def find_entries_by_config_hash(self, config_hash: str) -> list[Entry]:
        """The runs whose config hash is this one or begins so."""
        if not config_hash:
            return []
        return [e for e in self.list_all_entries() if (e["config_hash"] or "").startswith(config_hash)]

    def find_best_entry_by_metric(self, task: str, metric_name: str, mode: str) -> Entry | None:
        """The best finished run by a validation metric; None where no run of the task can be ranked.

        ``best_val_metric`` is the metric by which the runs chose their best checkpoints (``selection`` in an entry
        names it). Runs on the built-in sample never count.

        Raises:
            UsageError: a test metric, a metric that no run has, or the wrong mode for it.
        """
        entries = self.list_all_entries()
        if not any(map(may_be_best, of_task(entries, task))):
            return None
        return ranked(entries, task, metric_name, mode)[0]

    def get_summary(self) -> dict[str, Any]:
        """How many runs there are, by task and there by state."""
        tasks: dict[str, dict[str, Any]] = {}
        entries = self.list_all_entries()
        for entry in entries:
            found = tasks.setdefault(entry["task"], {"count": 0, "states": {}})
            found["count"] += 1
            found["states"][entry["state"]] = found["states"].get(entry["state"], 0) + 1
        return {"total_entries": len(entries), "tasks": tasks}

    def register(self, run_folder: Path | str) -> Entry:
        """Put a run on the list, wherever its folder lies; one that is there already is read anew.

        Raises:
            UsageError: it is no run's folder, or a copy of a run that is on the list and lies elsewhere.
            DiskError: the registry cannot be written.
        """
        folder = Path(run_folder)
        if not (folder / "metadata.yaml").is_file():
            raise UsageError(f"{folder}: no run folder; expected one with a metadata.yaml")
        return self._registry.register(folder)

    def delete_entry(self, run_id: str) -> bool:
        """Take a run off the list and leave its folder alone; whether it was there. `runs delete` deletes both.

        Raises:
            UsageError: several answer to the id.
            DiskError: the registry cannot be written.
        """
        entry = self.find_entry_by_run_id(run_id)
        if entry is None:
            return False
        self._registry.file.remove([key_of(entry)], leave_out=True)
        return True

    def export_to_csv(self, path: Path | str) -> None:
        """All runs as CSV; the columns are the union over the runs. Raises OSError as it comes."""
        write_atomic(Path(path), export_csv(self.list_all_entries()))
