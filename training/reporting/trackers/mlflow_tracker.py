"""MLflow: a server, or a sqlite file in the output folder. Talks through its client alone, never its global state."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from training.reporting.tensorboard import scalars
from training.reporting.trackers.tracker import Outcome, Record, Subject, Tracker
from training.shown import without_secrets

DATABASE, ARTIFACTS = "mlflow.db", "mlartifacts"
_STATES = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
_MOST_METRICS, _MOST_PARAMS, _LONGEST_VALUE = 1000, 100, 6000  # MLflow's own limits
_TOKEN = "train_worker.token"


class MlflowTracker(Tracker):
    """Logs to MLFLOW_TRACKING_URI, else to `mlflow.db` in ``output``."""

    name: ClassVar[str] = "mlflow"
    drops_doubles: ClassVar[bool] = True  # same key, step, time and value: one point

    def __init__(self, output: Path) -> None:
        self._output = output.resolve()
        self._uri = os.environ.get("MLFLOW_TRACKING_URI") or ""
        self._client: Any = None
        self._id = ""

    @property
    def place(self) -> str:
        return without_secrets(self._uri) if self._uri else DATABASE

    def open(self, subject: Subject, known_id: str | None) -> str:
        from mlflow import MlflowClient

        self._client = MlflowClient(tracking_uri=self._uri or f"sqlite:///{self._output / DATABASE}")
        experiment = self._experiment(subject.project)
        self._id = self._find(experiment, subject, known_id) or self._create(experiment, subject)
        told = self._client.get_run(self._id).data.params
        new = {key: value for key, value in subject.settings.items() if key not in told}
        for part in _parts([*new.items()], _MOST_PARAMS):
            self._client.log_batch(self._id, params=[_param(key, value) for key, value in part])
        return self._id

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        location = None if self._uri else (self._output / ARTIFACTS).as_uri()
        try:
            return str(self._client.create_experiment(name, artifact_location=location))
        except Exception:  # another training made it meanwhile
            found = self._client.get_experiment_by_name(name)
            if found is None:
                raise
            return str(found.experiment_id)

    def _find(self, experiment: str, subject: Subject, known_id: str | None) -> str | None:
        """The run as it is there already; its token tells it also where the id was not noted."""
        same = self._client.search_runs([experiment], f"tags.`{_TOKEN}` = '{subject.token}'")
        ids = [str(run.info.run_id) for run in same]
        if not ids:
            return None
        chosen = known_id if known_id in ids else ids[0]
        self._client.update_run(chosen, status="RUNNING")
        return chosen

    def _create(self, experiment: str, subject: Subject) -> str:
        tags = {**subject.tags, _TOKEN: subject.token}
        return str(self._client.create_run(experiment, tags=tags, run_name=subject.name).info.run_id)

    def reached(self) -> dict[str, int]:
        return {"train": self._last_step("train/loss"), "validation": self._last_step("val/loss", "val/train_loss")}

    def _last_step(self, *names: str) -> int:
        history = [point.step for name in names for point in self._client.get_metric_history(self._id, name)]
        return max(history, default=-1)

    def log(self, records: Sequence[Record]) -> None:
        waiting: list[Any] = []
        for record in records:
            points = _metrics(scalars(record), record["step"], record["time"])
            if len(waiting) + len(points) > _MOST_METRICS:
                self._send(waiting)
                waiting = []
            waiting += points  # a record goes as a whole
        self._send(waiting)

    def _send(self, metrics: list[Any]) -> None:
        for part in _parts(metrics, _MOST_METRICS):
            self._client.log_batch(self._id, metrics=part)

    def finish(self, outcome: Outcome) -> str:
        self._send(_metrics(outcome.metrics, outcome.step, outcome.time))
        self._client.set_terminated(self._id, _STATES[outcome.state])
        for path in outcome.files:
            self._client.log_artifact(self._id, str(path))
        return f"{self.place}, run {self._id}"


def _metrics(values: Mapping[str, float], step: int, time: str) -> list[Any]:
    from mlflow.entities import Metric

    at = int(datetime.fromisoformat(time).timestamp() * 1000)
    return [Metric(name, float(value), at, step) for name, value in values.items()]


def _param(key: str, value: Any) -> Any:
    from mlflow.entities import Param

    return Param(key, str(value)[:_LONGEST_VALUE])


def _parts(whole: list[Any], size: int) -> Iterator[list[Any]]:
    return (whole[start : start + size] for start in range(0, len(whole), size))
