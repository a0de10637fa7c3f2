"""`evaluate`: scores trained runs, or what was kept of their predictions, again or on other data."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import typer
from torch import nn

from backend.artifact import best_checkpoint, open_artifact
from backend.errors import (
    DONE,
    VERIFICATION_FAILED,
    BadDataError,
    ConfigError,
    UsageError,
    VerificationError,
    WorkerError,
)
from training.assemble import choose_micro, rows_of
from training.config import LoadedConfig, dump_yaml, load_config
from training.config.compare import changes, mismatch_lines, parse, with_neutral_of
from training.config.settle import settle
from training.data.source import DataSource
from training.engine.answers import Answers, ModelAnswers
from training.engine.device import Precision, choose_device
from training.engine.interruption import StopRequest
from training.evaluation.goals import judge
from training.evaluation.predictions import FOLDER, KeepAnswers, KeptAnswers
from training.evaluation.rescoring import rescored
from training.evaluation.scoring import Bench, keep
from training.evaluation.subject import Subject
from training.files import digest
from training.heartbeat import beat
from training.leaks.find import Leaks, find_leaks
from training.leaks.members import FILE as SPLIT_FILE
from training.leaks.members import read_membership
from training.leaks.own import LEARNED_FROM
from training.registry.hook import register_run
from training.reporting.progress import Progress
from training.requests import EvaluateRequest, PrepareRequest
from training.runs.data import check_data_there, with_data_of
from training.runs.provenance import determinism, prepare_environment
from training.runs.publish import model_of
from training.runs.run import Run, find_runs, is_imported, is_split_told, resolve_run
from training.tasks import TASKS, config_class
from training.tasks.protocol import Batch, ItemSource, Prepared
from training.work import Work


def evaluate(request: EvaluateRequest) -> int:
    """Score each run that the request names; what is found is kept in its folder and shown. Returns the exit code.

    Where there are several, one that cannot be scored is told, and the others are scored all the same.

    Raises:
        UsageError: the request names no run.
        WorkerError: the one run cannot be scored.
    """
    with StopRequest(beat) as stop:
        names = _names(request)
        if len(names) == 1:
            evaluated = [_Evaluation.of(request, names[0], stop).run()]
            return _told(request, evaluated)
        evaluated, code = [], DONE
        for name in names:
            if not request.as_json:
                typer.echo(f"\n{Path(name).name}:")
            try:
                evaluated.append(_Evaluation.of(request, name, stop).run())
            except WorkerError as error:
                stop.check()
                typer.echo(f"error: {name}: {error}", err=True)
                code = code or error.exit_code
        told = _told(request, evaluated)
        return code or told


def _names(request: EvaluateRequest) -> Sequence[str]:
    if request.predictions is not None:
        if request.runs or request.all_of is not None:
            raise UsageError("--predictions names what is scored: name no run and no --all beside it")
        return [str(request.predictions)]
    if request.all_of is None:
        if not request.runs:
            raise UsageError("name a run, or take all of a task with --all --task TASK")
        return request.runs
    if request.runs:
        raise UsageError("--all takes every finished run of the task: name no run beside it")
    of_each = {task: find_runs(request.output, task) for task in TASKS}
    named = [run for task in of_each for run in of_each[task] if request.all_of in (task, run.metadata.get("subtask"))]
    found = [run for run in named if run.metadata.get("state") == "finished"]
    if not found:
        raise UsageError(f"no finished run of {request.all_of} under {request.output}")
    return [str(run.folder) for run in found]


def _told(request: EvaluateRequest, evaluated: Sequence[_Evaluated]) -> int:
    """Show all results as JSON or as a comparison, and the goals; the exit code."""
    if request.as_json:
        typer.echo(json.dumps([one.result for one in evaluated], indent=1))
    elif len(evaluated) > 1:
        for one in sorted(evaluated, key=lambda one: one.result["run_id"]):
            value = one.result["metrics"].get(one.headline)
            typer.echo(f"{one.result['run_id']}  {one.headline} {'–' if value is None else f'{value:.5g}'}")
    if not request.check_goals:
        return DONE
    verdicts = [(one, verdict) for one in evaluated for verdict in judge(one.goals, _independent(one.result))]
    if not verdicts:
        raise UsageError(f"--check-goals: no goal about {request.split} is set (goals in the run's config.yaml)")
    for one, verdict in verdicts:
        typer.echo(f"{one.result['run_id']}: {verdict.line()}", err=request.as_json)
    return DONE if all(verdict.reached for _, verdict in verdicts) else VERIFICATION_FAILED


def _independent(result: dict[str, Any]) -> dict[str, float]:
    """The metrics by which goals are judged: of the independent part, where the whole was not."""
    metrics: dict[str, float] = result["clean"]["metrics"] if result.get("leaks") else result["metrics"]
    return metrics


@dataclass(frozen=True)
class _Evaluated:
    result: dict[str, Any]
    goals: dict[str, str]  # of the run, about the split
    headline: str  # the metric that the run chose its checkpoint by, on this split


@dataclass
class _Evaluation:
    """One run being scored."""

    request: EvaluateRequest
    target: Run
    subject: Subject
    work: Work
    changed: dict[str, list[Any]]  # settings by which kept predictions are scored now: key -> [the model's, this one]

    @classmethod
    def of(cls, request: EvaluateRequest, name: str, stop: StopRequest) -> _Evaluation:
        run = resolve_run(request.output, name)
        if request.predictions is not None:
            subject = Subject.of_predictions(request.predictions)
        else:
            subject = Subject.of_artifact(open_artifact(model_of(run, Path(name))))
        prepare = with_data_of(run, _as_trained(run, request))
        check_data_there(run, prepare, request.data)
        loaded, source = _settled(prepare, subject)
        own = parse(type(loaded.config), subject.config, subject.origin)
        config = with_neutral_of(own, loaded.config)  # whatever stands around it now
        if request.predictions is not None and not request.verify_config:
            config = rescored(config, request.sets)
        loaded = replace(loaded, config=config)
        work = Work.of(prepare, loaded, source, stop)
        if request.as_json:
            work.be_quiet()
        return cls(request, run, subject, work, changes(with_neutral_of(own, config), config))

    def run(self) -> _Evaluated:
        """Score, keep, show."""
        work, run, split = self.work, self.target, self.request.split
        mismatch = self._verify_config()
        with run.locked(), Progress(work.log) as work.display:
            prepared = work.prepare()
            _check_fits(work, self.subject, prepared, split)
            place = _place(run, split, self.subject, prepared, self.changed)
            if place != split:
                what = "dataset, best checkpoint and settings"
                work.log.say(f"note: not all of the run's own {what}: kept apart in evaluations/{place}")
            notes = {"config_mismatch": mismatch, "changed": self.changed}
            result = self._score(prepared, place, {name: note for name, note in notes.items() if note})
            run.event("evaluated", split=split, place=place, looks=result["looks"])
            register_run(run.folder, self.request.output, work.log.say)
            _renew_report(run, work)
        path = run.path("evaluations", place)
        work.log.say((path / "table.txt").read_text("utf-8"))
        work.log.say(f"{result['n']} {result['item']} of {split}, look {result['looks']}: {path / 'metrics.json'}")
        goals = {name: goal for name, goal in work.loaded.config.goals.items() if name.startswith(f"{split}/")}
        chosen_by = work.loaded.config.selection.metric.removeprefix("val/")
        return _Evaluated(result, goals, f"{split}/{chosen_by}")

    def _verify_config(self) -> list[str]:
        """Hold the checkpoint's configuration against the one that the command names, or the run's own file.

        The lines that tell what differs; none where nothing does.
        """
        request, task = self.request, self.work.task
        if not request.verify_config:
            return []
        if is_imported(self.target):
            self.work.log.say("note: these are imported weights: the settings that they were trained with are unknown")
        own = parse(task.config_type, self.subject.config, self.subject.origin)
        asked = request.config or str(self.target.path("config.yaml"))
        current = load_config(task.name, preset_or_file=asked, sets=list(request.sets)).config
        lines = mismatch_lines(own, current)
        if lines and request.strict:
            raise VerificationError("\n".join(lines))
        for line in lines or ["the configuration is the checkpoint's"]:
            self.work.log.say(line)
        return lines

    def _score(self, prepared: Prepared, place: str, notes: dict[str, Any]) -> dict[str, Any]:
        request, run, work, split = self.request, self.target, self.work, self.request.split
        leaks = self._leaks(prepared)
        model, bench = self._model(), self._bench(prepared)
        if model is not None:
            bench = replace(bench, micro=rows_of(choose_micro(run, work.task, model, bench.device, bench.precision)))
            model = model.to(bench.device)
        answers: Answers | None = None
        kept: KeepAnswers | None = None
        if request.predictions is not None:
            answers = self._kept(prepared, bench)
        elif request.keep_predictions and model is not None:
            answers = kept = KeepAnswers(ModelAnswers(work.task, model), run.path("evaluations", place, FOLDER))
        with determinism(work.loaded.config.training.deterministic, bench.device):
            found = bench.score(model, split, answers)
            result = bench.result(found, split, self.subject.named()) | notes
            if leaks:
                result["leaks"] = leaks.to_json()
                result["clean"] = self._clean(bench, model, leaks)
        if kept is not None:
            told = {key: result[key] for key in ("run_id", "split", "checkpoint", "weights", "dataset", "n")}
            kept.publish({**told, **self.subject.record()})
            work.log.say(f"predictions: {run.path('evaluations', place, FOLDER)}")
        return keep(run, place, found, result)

    def _model(self) -> nn.Module | None:
        """The model with its weights; None where only predictions are left."""
        if self.subject.weights is None:
            return None
        model = self.work.task.build_model(self.subject.facts)
        model.load_state_dict(dict(self.subject.weights))
        return model

    def _bench(self, prepared: Prepared) -> Bench:
        work, training = self.work, self.work.loaded.config.training
        prepare_environment(training.deterministic)
        device, _ = choose_device(training.device)
        return Bench(
            run=self.target,
            task=work.task,
            prepared=prepared,
            precision=Precision(training.amp, device),
            device=device,
            progress=work.progress,
            stop=work.stop,
            is_sample=work.source.is_sample,
        )

    def _kept(self, prepared: Prepared, bench: Bench) -> KeptAnswers:
        """The kept predictions, when they are about this split of these data."""
        assert self.request.predictions is not None
        kept = KeptAnswers(self.request.predictions, bench.device)
        facts, wanted = kept.facts, {"split": self.request.split, "dataset": prepared.fingerprint}
        other = [f"{key} {facts.get(key)}, not {value}" for key, value in wanted.items() if facts.get(key) != value]
        if other:
            raise BadDataError(f"{kept.folder}: these predictions are about something else: {'; '.join(other)}")
        return kept

    def _leaks(self, prepared: Prepared) -> Leaks | None:
        """What the evaluated items have in common with what the model learned from; None where nobody knows."""
        run, split = self.target, self.request.split
        if not run.path(SPLIT_FILE).is_file():
            self.work.log.say("note: nobody knows what this model was trained on, so leaks cannot be looked for")
            return None
        if is_split_told(run):
            self.work.log.say("note: its split is what was said with --split-known; nothing can check it")
        known = read_membership(run.path(SPLIT_FILE))
        own = prepared.fingerprint == run.metadata.get("dataset", {}).get("fingerprint")
        seen = [
            member
            for name in LEARNED_FROM
            if not (own and name == split)  # it is what is scored
            for member in known.splits.get(name, ())
        ]
        near = max(known.near_seconds, prepared.near_seconds)
        leaks = find_leaks(seen, prepared.members[split], near, ("what the run learned from", split))
        if leaks or not own:
            self.work.log.say(f"{'warning: ' if leaks else ''}{leaks.line()}")
        return leaks

    def _clean(self, bench: Bench, model: nn.Module | None, leaks: Leaks) -> dict[str, Any]:
        """The independent part by itself; nothing where there is none, or no model to score it."""
        split = self.request.split
        if not leaks.clean:
            self.work.log.say(f"warning: no part of {split} is independent: these scores say nothing about new data")
        if not leaks.clean or model is None:
            return {"n": 0, "metrics": {}}
        part = Part(bench.prepared.splits[split], leaks.clean)
        found = bench.score(model, split, items=part)
        self.work.log.say(f"the {found.n} independent {bench.task.item_word} alone:\n{found.table}")
        return {"n": found.n, "metrics": bench.result(found, split, {})["metrics"]}


@dataclass(frozen=True)
class Part:
    """Some items of a split (an ItemSource)."""

    items: ItemSource
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    def item(self, index: int, rng: np.random.Generator | None) -> Batch:
        return self.items.item(self.indices[index], rng)


def _renew_report(run: Run, work: Work) -> None:
    """Where the run has a report and a card, the new scores go into them; what fails there costs no score."""
    from training.reporting.model_card import write_model_card
    from training.reporting.report import write_report

    for name, write in (("report.html", write_report), ("MODEL_CARD.md", write_model_card)):
        if run.path(name).is_file():
            try:
                write(run.folder)
            except Exception as error:
                work.log.say(f"{name} could not be made anew ({error!r}); the scores are kept")


def _as_trained(run: Run, request: EvaluateRequest) -> PrepareRequest:
    return PrepareRequest(
        task=run.metadata["task"],
        data=request.data,
        config=str(run.path("config.yaml")),
        output=request.output,
        datasets=request.datasets,
    )


def _settled(prepare: PrepareRequest, subject: Subject) -> tuple[LoadedConfig, DataSource]:
    """Settings and data as the run's config.yaml says or, where it is refused, as the checkpoint does."""
    try:
        return settle(prepare, os.environ)
    except (ConfigError, UsageError) as error:
        own = parse(config_class(prepare.task), subject.config, subject.origin)
        with tempfile.TemporaryDirectory() as place:
            file = Path(place) / "config.yaml"
            file.write_text(dump_yaml(own), "utf-8")
            found = settle(replace(prepare, config=str(file)), os.environ)  # a wrong environment is refused again
        typer.echo(f"note: {error}; the checkpoint's own settings are used instead", err=True)
        return found


def _check_fits(work: Work, subject: Subject, prepared: Prepared, split: str) -> None:
    if split not in prepared.splits or not len(prepared.splits[split]):
        raise BadDataError(f"the {split} split holds no {work.task.item_word}")
    why = work.task.mismatch(subject.preprocessing, subject.facts, prepared)
    if why is not None:
        raise BadDataError(
            f"{work.source.path or 'the sample'}: {subject.checkpoint} was not trained on such data ({why}); "
            "evaluate it on data like its own"
        )


def _place(run: Run, split: str, subject: Subject, prepared: Prepared, changed: dict[str, list[Any]]) -> str:
    """Where the result is kept: under the split's name if it is the run's headline, else under one of its own."""
    place = split
    if prepared.fingerprint != run.metadata.get("dataset", {}).get("fingerprint"):
        place += f"-{prepared.fingerprint[:8]}"
    if subject.checkpoint != _best(run, subject):
        place += f"-{subject.checkpoint}"
    if changed:
        place += f"-set-{digest([changed])[:8]}"
    return place


def _best(run: Run, subject: Subject) -> str:
    """The best checkpoint's name; without checkpoints the one that was scored is all that is known."""
    try:
        return best_checkpoint(run.folder).name
    except BadDataError:
        return subject.checkpoint
