"""The commands' work: `train` from configuration to report, and its stages alone.

Every stage leaves its result in the run folder (or the prepared cache) before the next begins, so a run that was
killed at any instant is continued by the same command and repeats no finished stage.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from backend.artifact import best_checkpoint, is_checkpoint, open_artifact, open_checkpoint
from backend.errors import BadDataError, ConfigError, InterruptedRunError, WorkerError
from backend.files import write_atomic
from training.assemble import assemble
from training.config import LoadedConfig, config_hash, dump_yaml
from training.data.fetch import Tellers, fetch
from training.data.prepared import prune
from training.data.source import DataSource, sample_folder
from training.doctor.run import job_of, preflight
from training.engine.device import Precision, choose_device
from training.engine.interruption import StopRequest
from training.engine.loop import Engine, fit
from training.evaluation import evaluate_artifact
from training.extension import changes_of, check_extension
from training.heartbeat import beat
from training.machine import available_cpus
from training.provenance import determinism, device_facts, git_state, prepare_environment, versions
from training.publish import publish_pth, repair_published
from training.rented import RentedMachine
from training.reporting.log import RunLog
from training.reporting.progress import Progress
from training.reporting.units import duration
from training.requests import EvaluateRequest, PredictRequest, PrepareRequest, TrainRequest
from training.run import Run, create_run, matching_run, resolve_run
from training.run_data import data_of, data_record, fetched_alike, is_away, note_fetched, with_data_of
from training.settle import cache_folder, can_be_made, settle
from training.tasks import task_class
from training.tasks.protocol import PrepareContext, Prepared, Task
from training.watch import RunObserver


@dataclass
class Work:
    """One command at work: what was asked for, what was settled, and who is told."""

    request: PrepareRequest
    loaded: LoadedConfig
    source: DataSource
    task: Task
    log: RunLog
    display: Progress
    stop: StopRequest
    warnings: list[str] = field(default_factory=list)  # of the quick checks

    def data(self, stage: Callable[[str], None] = lambda name: None) -> Path:
        """The dataset's folder; what is not there is fetched, the sample is made. ``stage`` is told what begins."""
        if self.source.manifest is not None:
            tell = Tellers(self.log.say, self.display.update, self.stop.check, stage)
            return fetch(self.source.manifest, self.request.datasets, tell)
        if self.source.path is not None:
            return self.source.path
        make = type(self.task).make_sample
        return sample_folder(self.task.name, self.request.datasets, self.request.output, make)


def train(request: TrainRequest) -> int:
    """Prepare, train, evaluate, report; or continue the same run where it was left.

    Raises:
        WorkerError: with the exit code that says whether running again helps.
    """
    with StopRequest(beat) as stop, RentedMachine(request, os.environ, stop) as machine:
        run, work = _begin(request, stop, machine)
        if run is not None and run.metadata.get("state") == "finished" and request.resume == "auto":
            if _unchanged(run, work):
                work.log.say(f"finished before: {run.folder} (run id {run.run_id}); --resume never trains anew")
                machine.keep(run)
                return 0
            run = None
        work.warnings = preflight(job_of(work.task, request, work.source, run.folder if run else None))
        run = run or _new_run(request, work)
        try:
            return _train_run(run, work, machine)
        except _OtherDatasetError:
            if request.resume not in ("auto", "never"):
                raise BadDataError(
                    f"{work.source.path or 'the sample'}: not the data that {run.run_id} was trained on; a run goes on "
                    "with its own data only"
                ) from None
            work.log.say("the dataset is not the one that this run was started on; a new run begins")
            return _train_run(_new_run(request, work), work, machine)


class _OtherDatasetError(Exception):
    """The dataset's fingerprint is not the run's."""


def _begin(request: TrainRequest, stop: StopRequest, machine: RentedMachine) -> tuple[Run | None, Work]:
    """The configuration, the data, and the run to continue if there is one."""
    if request.resume not in ("auto", "never"):
        run = machine.update(resolve_run(request.output, request.resume), RunLog(None).say)
        request, loaded, source = _settle_extension(run, request)
        return run, _work(request, loaded, source, stop)
    loaded, source = settle(request, os.environ)
    work = _work(request, loaded, source, stop)
    if request.resume == "never":
        return None, work
    wanted = "sample" if source.path is None else str(source.path.resolve())
    identity = {"config_hash": config_hash(loaded.config), "run_name": _run_name(request, loaded)}
    local = matching_run(request.output, request.task, **identity, same_data=lambda run: data_of(run) == wanted)
    return machine.find(local, identity, source.is_sample, work.log.say), work


def _settle_extension(run: Run, request: TrainRequest) -> tuple[TrainRequest, LoadedConfig, DataSource]:
    """`--resume RUN`: the run's own configuration with what the command changes, on the run's own data."""
    from dataclasses import replace

    if request.config is not None:
        raise ConfigError(
            "--resume RUN takes the run's own config.yaml; change single keys with --set instead of --config"
        )
    request = replace(request, task=run.metadata["task"], config=str(run.path("config.yaml")))
    request = with_data_of(run, request)
    loaded, source = settle(request, os.environ)
    check_extension(run, loaded)
    return request, loaded, source


def _work(request: PrepareRequest, loaded: LoadedConfig, source: DataSource, stop: StopRequest) -> Work:
    task = task_class(request.task)(loaded.config)
    log = RunLog(None)
    return Work(request, loaded, source, task, log, Progress(log), stop)


def _run_name(request: TrainRequest, loaded: LoadedConfig) -> str:
    name = request.run_name or loaded.preset or "run"
    if not all(character.isalnum() or character in "-_." for character in name) or name.startswith("."):
        raise ConfigError(
            f"--run-name {name!r}: use letters, digits, '-', '_' and '.', since it becomes a folder's name"
        )
    return name


def _new_run(request: TrainRequest, work: Work) -> Run:
    config, source = work.loaded.config, work.source
    run = create_run(
        request.output,
        request.task,
        _run_name(request, work.loaded),
        dump_yaml(config),
        {
            "task": request.task,
            "config_hash": config_hash(config),
            "preset": work.loaded.preset,
            "set_by_user": dict(work.loaded.user_set),
            "command": shlex.join(request.argv),
            "seed": config.training.seed,
            "versions": versions(),
            "git": git_state(),
        },
    )
    run.update(data=data_record(run, source))
    return run


def _unchanged(run: Run, work: Work) -> bool:
    """Whether the run's dataset is still the same; what would have to be fetched again is told by its manifest."""
    if is_away(work.source):
        return fetched_alike(run, work.source)
    prepared = _prepare(work)
    return prepared.fingerprint == run.metadata.get("dataset", {}).get("fingerprint")


def _train_run(run: Run, work: Work, machine: RentedMachine) -> int:
    with run.locked():
        log = work.log = RunLog(run.path("train.log"))
        log.say(f"log: {run.path('train.log')}")
        with Progress(log) as display, machine.at_work(run, log.say), _accounted(run, work):
            work.display = display
            _stages(run, work)
    return 0


@contextmanager
def _accounted(run: Run, work: Work) -> Iterator[None]:
    """Record how a run ended, whichever way."""
    run.update(state="running", error=None)
    run.event("started", command=shlex.join(getattr(work.request, "argv", ())), pid=os.getpid())
    _record_extension(run, work)
    try:
        yield
    except _OtherDatasetError:
        run.update(state="interrupted")
        raise
    except InterruptedRunError as error:
        run.update(state="interrupted")
        run.event("interrupted", signal=work.stop.signal_name)
        work.log.note(str(error))
        raise
    except BaseException as error:
        run.update(state="failed", error=str(error) if isinstance(error, WorkerError) else repr(error))
        run.event("failed", error=repr(error))
        raise


def _record_extension(run: Run, work: Work) -> None:
    """`--resume RUN --set …` changes the run's configuration: said in its events, and saved."""
    config = work.loaded.config
    if config_hash(config) == run.metadata["config_hash"]:
        return
    run.event("extended", changed=changes_of(run, work.loaded), config_hash=config_hash(config))
    write_atomic(run.path("config.yaml"), dump_yaml(config))
    run.update(config_hash=config_hash(config))


def _stages(run: Run, work: Work) -> None:
    config, log, started = work.loaded.config, work.log, time.monotonic()
    _say_settled(work)
    prepare_environment(config.training.deterministic)
    device, device_choice = choose_device(config.training.device)
    precision = Precision(config.training.amp, device)
    work.display.watch(device)
    torch.set_num_threads(min(torch.get_num_threads(), available_cpus()))  # more would only wait for each other
    log.say(f"device: {device_choice}; precision: {precision.choice}")

    prepared = _prepare(work, run)
    observer = RunObserver(run, log, work.display, work.task.item_word, config.selection.metric)
    engine, choices = assemble(
        run,
        work.task,
        prepared,
        device=device,
        precision=precision,
        observer=observer,
        stop=work.stop,
        identity=_identity(run, work, prepared),
        publish=lambda folder, name: publish_pth(run, folder, name),
    )
    choices |= {"training.device": device_choice, "training.amp": precision.choice}
    parameters = sum(p.numel() for p in engine.model.parameters())
    trained = sum(p.numel() for p in engine.model.parameters() if p.requires_grad)
    run.update(
        device=device_facts(device),
        automatic={key: str(choice) for key, choice in choices.items()},
        parameters={"total": parameters, "trained": trained},
    )
    log.say(f"model: {parameters:,} numbers, {trained:,} of them trained")
    for key in ("training.num_workers", "training.micro_batch_size"):
        log.say(f"{key.removeprefix('training.')}: {choices[key]}")
    repair_published(run)

    with closing(engine), closing(observer), determinism(config.training.deterministic, device) as undetermined:
        observer.begin(engine.progress.step)
        run.event("stage", stage="training")
        fit(engine)
        run.update(determinism={"asked": config.training.deterministic, "not_deterministic": sorted(undetermined)})
    _conclude(run, work, engine, prepared)
    log.say(f"took {duration(time.monotonic() - started)}")
    log.say(f"results: {run.folder} (open {run.path('report.html')})")
    log.say(f"run id: {run.run_id}")


def _say_settled(work: Work) -> None:
    work.log.say(work.source.reason)
    for line in (*work.loaded.notes, *work.warnings):
        work.log.say(line)


def _prepare(work: Work, run: Run | None = None) -> Prepared:
    """The dataset, prepared; recorded in the run where there is one."""
    data = work.data(lambda name: run.event("stage", stage=name) if run is not None else None)
    if run is not None:
        note_fetched(run, work.source)
        run.event("stage", stage="preparation")
    prepared = work.task.prepare(
        PrepareContext(
            source=data,
            cache_dir=_cache_dir(work),
            workers=_prepare_workers(work),
            say=work.log.say,
            progress=work.display.update,
            check_stop=work.stop.check_waiting,
        )
    )
    work.stop.check()
    if run is None:
        return prepared
    known = run.metadata.get("dataset", {}).get("fingerprint")
    if known not in (None, prepared.fingerprint):
        raise _OtherDatasetError
    for line in prepared.summary:
        work.log.say(line)
    run.write_json("split.json", {name: list(members) for name, members in prepared.membership.items()})
    run.update(
        dataset={
            "fingerprint": prepared.fingerprint,
            "kind": work.source.kind,
            "is_sample": work.source.is_sample,
            "items": {name: len(items) for name, items in prepared.splits.items()},
            "item": work.task.item_word,
            "summary": list(prepared.summary),
        },
        audit=dict(prepared.audit),
        preprocessing=dict(prepared.preprocessing),
        facts=dict(prepared.facts),
    )
    return prepared


def _cache_dir(work: Work) -> Path:
    request = work.request
    return cache_folder(work.loaded.config, work.task.name, request.datasets, request.output, can_be_made)


def _prepare_workers(work: Work) -> int:
    asked = getattr(work.task.config.data, "prepare_workers", "auto")
    return available_cpus() if asked == "auto" else int(asked)


def _identity(run: Run, work: Work, prepared: Prepared) -> dict[str, Any]:
    """What every checkpoint says of itself."""
    config = work.loaded.config
    return {
        "run_id": run.run_id,
        "task": work.task.name,
        "config": config.model_dump(mode="json"),
        "config_hash": config_hash(config),
        "preprocessing": dict(prepared.preprocessing),
        "facts": dict(prepared.facts),
        "audit": dict(prepared.audit),
        "dataset": {"fingerprint": prepared.fingerprint, "is_sample": work.source.is_sample},
        "versions": versions(),
        "git": git_state(),
    }


def _conclude(run: Run, work: Work, engine: Engine, prepared: Prepared) -> None:
    """One validation of the best weights on the whole split, one look at test, figures, report."""
    artifact = open_checkpoint(best_checkpoint(run.folder))
    engine.model.load_state_dict(artifact.weights)
    results = {}
    for split in ("val", "test"):
        results[split] = _evaluated_before(run, split, artifact.folder.name, prepared) or _evaluate_split(
            run, work, engine, prepared, artifact, split
        )
    best = engine.progress.best
    run.update(
        result={
            "best_step": best.step if best else None,
            "selection": {"metric": engine.config.selection.metric, "value": best.value if best else None},
            "val/loss": results["val"]["metrics"].get("val/loss"),
            "test/loss": results.get("test", {}).get("metrics", {}).get("test/loss"),
        },
    )
    run.event("stage", stage="report")
    _draw_and_report(run, work, engine, prepared)
    run.update(state="finished")
    run.event("finished", step=engine.progress.step)
    for split, result in results.items():
        table = run.path("evaluations", split, "table.txt")
        headline = "\n\n".join(table.read_text("utf-8").split("\n\n")[:2])
        work.log.say(f"\n{split}: {result['n']} {result['item']}; all scores in {table}\n{headline}\n")
    if work.source.is_sample:
        work.log.say(
            "this was the built-in sample: made-up data that shows that everything works. Train on your own with "
            f"--data FOLDER (make train TASK={work.task.name} DATA=FOLDER)"
        )


def _evaluated_before(run: Run, split: str, checkpoint: str, prepared: Prepared) -> dict[str, Any] | None:
    result = run.read_json(f"evaluations/{split}/metrics.json")
    same = result.get("checkpoint") == checkpoint and result.get("dataset") == prepared.fingerprint
    return result if same else None


def _evaluate_split(
    run: Run, work: Work, engine: Engine, prepared: Prepared, artifact: Any, split: str
) -> dict[str, Any]:
    run.event("stage", stage=f"evaluation of {split}")
    return evaluate_artifact(
        run,
        work.task,
        artifact,
        engine.model,
        prepared,
        split,
        precision=engine.precision,
        device=engine.device,
        display=work.display,
        stop=work.stop,
        micro=engine.micro,
        is_sample=work.source.is_sample,
    )


def _draw_and_report(run: Run, work: Work, engine: Engine, prepared: Prepared) -> None:
    """Pictures and the report: what fails here is told and costs nothing that was trained."""
    from training.reporting.curves import draw_curves
    from training.reporting.report import write_report

    figures = run.path("figures")
    figures.mkdir(exist_ok=True)
    for what, draw in (
        ("curves", lambda: draw_curves(run.folder)),
        ("example figures", lambda: work.task.draw(engine.model, prepared, "test", figures, engine.device)),
        ("report", lambda: write_report(run.folder)),
    ):
        work.stop.check()
        try:
            draw()
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            work.log.say(f"the {what} could not be made ({error!r}); everything else is in place")
            run.event("not drawn", what=what, error=repr(error))


def prepare(request: PrepareRequest) -> int:
    """The first stages of `train` alone: read, check, split and cache the dataset."""
    with StopRequest(beat) as stop:
        loaded, source = settle(request, os.environ)
        work = _work(request, loaded, source, stop)
        work.warnings = preflight(job_of(work.task, request, source, None), training=False)
        with Progress(work.log) as work.display:
            _say_settled(work)
            prepared = _prepare(work)
            for line in prepared.summary:
                work.log.say(line)
            if request.prune:
                freed = prune(_cache_dir(work), prepared.facts.get("cache"))
                work.log.say(f"other prepared caches in {_cache_dir(work)}: deleted, {freed / 1e6:,.1f} MB freed")
    return 0


def evaluate(request: EvaluateRequest) -> int:
    """Score a run's model on a split; the result is kept in the run folder and shown as a table."""
    with StopRequest(beat) as stop:
        run = resolve_run(request.output, request.run)
        named = Path(request.run)
        artifact = open_artifact(named if is_checkpoint(named) else run.folder)
        prepare_request = with_data_of(
            run,
            PrepareRequest(
                task=run.metadata["task"],
                data=request.data,
                config=str(run.path("config.yaml")),
                output=request.output,
                datasets=request.datasets,
            ),
        )
        loaded, source = settle(prepare_request, os.environ)
        work = _work(prepare_request, loaded, source, stop)
        device, _ = choose_device(loaded.config.training.device)
        with run.locked(), Progress(work.log) as work.display:
            prepared = _prepare(work)
            place = request.split
            if prepared.fingerprint != run.metadata.get("dataset", {}).get("fingerprint"):
                place = f"{request.split}-{prepared.fingerprint[:8]}"
                work.log.say(f"note: not the dataset, or not the split, of the run: kept apart in evaluations/{place}")
            if request.split not in prepared.splits or not len(prepared.splits[request.split]):
                raise BadDataError(f"the {request.split} split holds no {work.task.item_word}")
            model = work.task.build_model(artifact.facts).to(device)
            model.load_state_dict(artifact.weights)
            result = evaluate_artifact(
                run,
                work.task,
                artifact,
                model,
                prepared,
                request.split,
                precision=Precision(loaded.config.training.amp, device),
                device=device,
                display=work.display,
                stop=stop,
                is_sample=source.is_sample,
                place=place,
            )
            run.event("evaluated", split=request.split, looks=result["looks"])
        path = run.path("evaluations", place)
        work.log.say((path / "table.txt").read_text("utf-8"))
        work.log.say(
            f"{result['n']} {result['item']} of {request.split}, look {result['looks']}: {path / 'metrics.json'}"
        )
    return 0


def predict(request: PredictRequest) -> int:
    """Forecast from raw inputs; says where the result is."""
    from backend.predict import predict as forecast

    named = Path(request.run)
    model = named if is_checkpoint(named) else resolve_run(request.output, request.run).folder
    print(forecast(model, request.inputs, request.out))  # noqa: T201
    return 0
