"""`train`: which run a command is about, and how its end is recorded, whichever way it ends.

The work itself is in `training/stages.py`.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from backend.errors import (
    DONE,
    BadDataError,
    ConfigError,
    DivergedError,
    InterruptedRunError,
    UsageError,
    WorkerError,
)
from backend.files import write_atomic
from training.config import LoadedConfig, config_hash, dump_yaml
from training.config.compare import from_preset
from training.config.named_files import content_of_files
from training.config.settle import settle
from training.data.source import DataSource
from training.doctor.run import job_of, preflight
from training.engine.interruption import StopRequest
from training.heartbeat import beat
from training.registry.hook import register_run
from training.rented.machine import RentedMachine
from training.reporting.log import RunLog
from training.reporting.progress import Progress
from training.requests import TrainRequest
from training.runs.data import data_of, data_record, fetched_alike, is_away, with_data_of
from training.runs.extension import changes_of, check_extension
from training.runs.provenance import git_state, versions
from training.runs.run import Run, check_run_name, create_run, find_runs, is_imported, matching_run, resolve_run
from training.runs.status import Status
from training.stages import run_stages
from training.work import OtherDatasetError, Work


def train(request: TrainRequest) -> int:
    """Prepare, train, evaluate, report; or continue the same run where it was left. The exit code.

    Raises:
        WorkerError: with the exit code that says whether running again helps.
    """
    trained_run(request)
    return DONE


def trained_run(request: TrainRequest) -> Run:
    """The same; the run that it is about, which is finished now.

    Raises:
        WorkerError: with the exit code that says whether running again helps.
    """
    with StopRequest(beat) as stop, RentedMachine(request, os.environ, stop) as machine:
        run, work = begin(request, stop, machine)
        if run is not None and run.metadata.get("state") == "finished" and request.resume == "auto":
            if _unchanged(run, work):
                _say_finished(run, work)
                machine.keep(run)
                return run
            run = None
        work.warnings = preflight(job_of(work.task, request, work.source, run.folder if run else None))
        run = run or _new_run(request, work)
        try:
            return _train_run(run, work, machine)
        except OtherDatasetError as other:
            if request.resume not in ("auto", "never"):
                raise other_data_error(run, work.source) from None
            return _train_on_other_data(request, work, machine, other.fingerprint)


def _train_on_other_data(request: TrainRequest, work: Work, machine: RentedMachine, fingerprint: str) -> Run:
    """The dataset changed since the run that was found: the run that began on it as it is now, or a new one."""
    log = work.log = RunLog(None)
    run = run_about(request, work.loaded, fingerprint)
    if run is not None and run.metadata.get("state") == "finished":
        _say_finished(run, work)
        machine.keep(run)
        return run
    which = run.run_id if run is not None else "a new run"
    log.say(f"the dataset is not the one that this run was started on; {which} is about it")
    return _train_run(run or _new_run(request, work), work, machine)


def run_about(request: TrainRequest, loaded: LoadedConfig, fingerprint: str) -> Run | None:
    """The newest run of this command's identity on the dataset with this fingerprint."""
    known = _identity(request, loaded)
    of_these = [run for run in find_runs(request.output, request.task) if known.items() <= run.metadata.items()]
    return next((run for run in of_these if run.metadata.get("dataset", {}).get("fingerprint") == fingerprint), None)


def other_data_error(run: Run, source: DataSource) -> BadDataError:
    """A run that was named is about other data than the command."""
    return BadDataError(
        f"{source.path or 'the sample'}: not the data that {run.run_id} was trained on; a run goes on with its own "
        "data only"
    )


def _say_finished(run: Run, work: Work) -> None:
    changed = ", ".join(changes_of(run, work.loaded))
    note = f"; {changed} differs now and changes nothing in it" if changed else ""
    work.log.say(f"finished before: {run.folder} (run id {run.run_id}){note}; --resume never trains anew")


def begin(request: TrainRequest, stop: StopRequest, machine: RentedMachine) -> tuple[Run | None, Work]:
    """The configuration, the data, and the run to continue if there is one."""
    if request.resume not in ("auto", "never"):
        run = machine.update(resolve_run(request.output, request.resume), RunLog(None).say)
        if is_imported(run):
            raise UsageError(
                f"{run.run_id} holds imported weights and no training to continue; begin one from them with "
                f"--set model.init_from={run.path('best_model.pth')}"
            )
        request, loaded, source = _settle_extension(run, request)
        return run, Work.of(request, loaded, source, stop)
    loaded, source = settle(request, os.environ)
    work = Work.of(request, loaded, source, stop)
    if request.resume == "never":
        return None, work
    wanted = "sample" if source.path is None else str(source.path.resolve())
    identity = _identity(request, loaded)
    local = matching_run(request.output, request.task, identity, lambda run: data_of(run) == wanted)
    return machine.find(local, identity, source.is_sample, work.log.say), work


def _settle_extension(run: Run, request: TrainRequest) -> tuple[TrainRequest, LoadedConfig, DataSource]:
    """`--resume RUN`: the run's own configuration with what the command changes, on the run's own data."""
    if request.config is not None:
        raise ConfigError(
            "--resume RUN takes the run's own config.yaml; change single keys with --set instead of --config"
        )
    request = replace(request, task=run.metadata["task"], config=str(run.path("config.yaml")))
    request = with_data_of(run, request)
    loaded, source = settle(request, os.environ)
    check_extension(run, loaded)
    return request, loaded, source


def _identity(request: TrainRequest, loaded: LoadedConfig) -> dict[str, Any]:
    """What the metadata of a run that this command continues must say; the dataset aside."""
    identity = {"config_hash": config_hash(loaded.config), "run_name": run_name(request, loaded)}
    named = content_of_files(loaded.config)
    return {**identity, "files_sha256": named} if named else identity


def run_name(request: TrainRequest, loaded: LoadedConfig) -> str:
    """The run's name: given, else the preset's. Raises ConfigError where it could not be a folder's."""
    return check_run_name(request.run_name or loaded.preset or "run")


def _new_run(request: TrainRequest, work: Work) -> Run:
    config = work.loaded.config
    return create_run(
        request.output,
        request.task,
        run_name(request, work.loaded),
        dump_yaml(config),
        {
            "task": request.task,
            "config_hash": config_hash(config),
            "files_sha256": content_of_files(config),
            "preset": work.loaded.preset,
            "set_by_user": dict(work.loaded.user_set),
            "differences": from_preset(work.loaded, work.loaded.preset),
            "overrides": dict(work.loaded.overrides),
            "command": shlex.join(request.argv),
            "seed": config.training.seed,
            "versions": versions(),
            "git": git_state(),
            "data": data_record(request.output / request.task / "a run", work.source),
            "subtask": work.task.subtask,
        },
    )


def _unchanged(run: Run, work: Work) -> bool:
    """Whether the run's dataset is still the same; what would have to be fetched again is told by its manifest."""
    if is_away(work.source):
        return fetched_alike(run, work.source)
    prepared = work.prepare()
    return prepared.fingerprint == run.metadata.get("dataset", {}).get("fingerprint")


def _train_run(run: Run, work: Work, machine: RentedMachine) -> Run:
    run = machine.own_place(run, work.log.say)
    with _listed(work), run.locked():
        log = work.log = RunLog(run.path("train.log"))
        log.say(f"log: {run.path('train.log')}")
        try:
            with Progress(log) as display, machine.at_work(run, log.say), _accounted(run, work):
                work.display = display
                run_stages(run, work)
        finally:
            register_run(run.folder, work.request.output, log.say)
    return run


@contextmanager
def _listed(work: Work) -> Iterator[None]:
    """Afterwards the list of all runs is written anew, unless the machine may be gone in seconds."""
    try:
        yield
    except InterruptedRunError:
        raise
    except BaseException:
        _list_runs(work)
        raise
    _list_runs(work)


def _list_runs(work: Work) -> None:
    from training.reporting.index_page import write_index

    try:
        write_index(work.request.output)
    except Exception as error:  # whatever it is: the run is worth more than the list
        work.log.say(f"the list of runs could not be written ({error!r}); `report --all` makes it anew")


@contextmanager
def _accounted(run: Run, work: Work) -> Iterator[None]:
    """Record how a run ended, whichever way."""
    run.update(state="running", error=None)
    run.event("started", command=shlex.join(getattr(work.request, "argv", ())), pid=os.getpid())
    _record_extension(run, work)
    register_run(run.folder, work.request.output, work.log.say)
    try:
        yield
    except OtherDatasetError:
        run.update(state="interrupted")
        raise
    except InterruptedRunError as error:
        with suppress(OSError):  # a disk that is full meanwhile must not change what the exit code says
            run.update(state="interrupted")
            run.event("interrupted", signal=work.stop.signal_name)
            work.log.note(str(error))
        raise
    except BaseException as error:
        with suppress(OSError):
            state = "diverged" if isinstance(error, DivergedError) else "failed"
            run.update(state=state, error=str(error) if isinstance(error, WorkerError) else repr(error))
            run.event("failed", error=repr(error))
        raise
    finally:
        Status(run.folder).clear()


def _record_extension(run: Run, work: Work) -> None:
    """What differs from the run's configuration (`--resume RUN --set …`, or workers and the like): told and saved."""
    config = work.loaded.config
    changed = changes_of(run, work.loaded)
    if not changed and config_hash(config) == run.metadata["config_hash"]:
        return
    run.event("extended", changed=changed, config_hash=config_hash(config))
    write_atomic(run.path("config.yaml"), dump_yaml(config))
    run.update(config_hash=config_hash(config), differences=from_preset(work.loaded, run.metadata.get("preset")))
