"""One command at work: what was asked for and settled, who is told, and the dataset brought to where it can be used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from training.config import LoadedConfig
from training.config.settle import cache_folder, can_be_made
from training.data.source import DataSource, sample_folder
from training.engine.interruption import StopRequest
from training.fetching.fetch import Tellers, fetch
from training.leaks.members import FILE as SPLIT_FILE
from training.leaks.members import Membership, to_json
from training.leaks.own import audited, leaks_inside, of_other_weights
from training.machine import available_cpus
from training.reporting.log import RunLog
from training.reporting.progress import Progress
from training.requests import PrepareRequest
from training.runs.data import dataset_name, note_fetched
from training.runs.run import Run
from training.runs.status import Status
from training.tasks import task_class
from training.tasks.protocol import PrepareContext, Prepared, Task


class OtherDatasetError(Exception):
    """The dataset is not the one that the run was started on. ``fingerprint`` is that of the dataset."""

    def __init__(self, fingerprint: str) -> None:
        super().__init__(fingerprint)
        self.fingerprint = fingerprint


@dataclass
class Work:
    """What a command works with."""

    request: PrepareRequest
    loaded: LoadedConfig
    source: DataSource
    task: Task
    log: RunLog
    display: Progress
    stop: StopRequest
    warnings: list[str] = field(default_factory=list)  # of the quick checks
    status: Status | None = None  # of the run that this is for

    @classmethod
    def of(cls, request: PrepareRequest, loaded: LoadedConfig, source: DataSource, stop: StopRequest) -> Work:
        """Work that is logged to the terminal alone, until it has a run."""
        log = RunLog(None)
        return cls(request, loaded, source, task_class(request.task)(loaded.config), log, Progress(log), stop)

    def be_quiet(self) -> None:
        """Print nothing: the command answers to a program."""
        self.log.console.quiet = True

    @property
    def cache_dir(self) -> Path:
        """Where prepared caches lie."""
        request = self.request
        return cache_folder(self.loaded.config, self.task.name, request.datasets, request.output, can_be_made)

    def data(self, stage: Callable[[str], None] = lambda name: None) -> Path:
        """The dataset's folder; what is not there is fetched, the sample is made. ``stage`` is told what begins."""
        if self.source.manifest is not None:
            return fetch(self.source.manifest, self.request.datasets, self.tellers(stage))
        if self.source.path is not None:
            return self.source.path
        make = type(self.task).make_sample
        return sample_folder(self.task.name, self.request.datasets, self.request.output, make)

    def tellers(self, stage: Callable[[str], None] = lambda name: None) -> Tellers:
        """Who is told of a download, and who may stop it."""
        return Tellers(self.log.say, self.progress, self.stop.check, stage)

    def say_settled(self) -> None:
        """Which data and why, what the settings mean here, and what the quick checks warn of."""
        for line in (self.source.reason, *self.loaded.notes, *self.warnings):
            self.log.say(line)

    def progress(self, what: str, done: int, total: int | None, *, unit: str = "") -> None:
        """Show how far fetching or preparing has come, in the run's status too."""
        self.display.update(what, done, total, unit=unit)
        if self.status is not None:
            self.status.write({"stage": what, "done": done, "total": total, **({"unit": unit} if unit else {})})

    def prepare(self, stage: Callable[[str], None] = lambda name: None) -> Prepared:
        """The dataset, fetched and prepared; ``stage`` is told what begins."""
        data = self.data(stage)
        stage("preparation")
        prepared = self.task.prepare(
            PrepareContext(
                source=data,
                cache_dir=self.cache_dir,
                workers=self._prepare_workers(),
                say=self.log.say,
                progress=self.progress,
                check_stop=self.stop.check_waiting,
            )
        )
        self.stop.check()
        return prepared

    def searched_for_leaks(self, prepared: Prepared) -> Prepared:
        """With what its parts have in common in the audit, and told; also with what other weights have seen."""
        found = leaks_inside(prepared.members, prepared.near_seconds)
        weights = getattr(getattr(self.loaded.config, "model", None), "init_from", None)
        if weights is not None:
            others = of_other_weights(Path(weights), prepared.members, prepared.near_seconds)
            if others is None:
                self.log.say(f"note: nobody knows what {weights} was trained on, so leaks from it cannot be looked for")
            found += others or []
        lines = [f"warning: {leaks.line()}" for leaks in found if leaks]
        audit = audited(prepared.audit, found)
        return replace(prepared, audit=audit, summary=[*prepared.summary, *lines])

    def prepare_for(self, run: Run) -> Prepared:
        """The same, recorded in ``run``.

        Raises:
            OtherDatasetError: the run was started on another dataset.
        """
        self.status = Status(run.folder)
        prepared = self.searched_for_leaks(self.prepare(lambda name: run.event("stage", stage=name)))
        note_fetched(run, self.source)
        known = run.metadata.get("dataset", {}).get("fingerprint")
        if known not in (None, prepared.fingerprint):
            raise OtherDatasetError(prepared.fingerprint)
        for line in prepared.summary:
            self.log.say(line)
        run.write_json(SPLIT_FILE, to_json(Membership(self.task.item_word, prepared.near_seconds, prepared.members)))
        run.update(
            dataset={
                **dataset_name(self.source),
                "fingerprint": prepared.fingerprint,
                "kind": self.source.kind,
                "is_sample": self.source.is_sample,
                "items": {name: len(items) for name, items in prepared.splits.items()},
                "item": self.task.item_word,
                "summary": list(prepared.summary),
            },
            audit=dict(prepared.audit),
            preprocessing=dict(prepared.preprocessing),
            facts=dict(prepared.facts),
        )
        return prepared

    def _prepare_workers(self) -> int:
        asked = getattr(self.task.config.data, "prepare_workers", "auto")
        return available_cpus() if asked == "auto" else int(asked)
