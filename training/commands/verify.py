"""`runs verify`: does a run still stand for what its record says? Evaluated again and, if asked, trained again."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import typer
from filelock import FileLock, Timeout

from backend.artifact import Artifact, DamagedCheckpointError, best_checkpoint, checkpoints, open_checkpoint, verify
from backend.errors import DONE, VERIFICATION_FAILED, BadDataError, ConfigError, UsageError, WorkerError
from backend.files import sha256_of
from training.assemble import choose_micro, rows_of
from training.clock import now_utc
from training.config import config_hash, load_config
from training.config.compare import with_neutral_of
from training.config.settle import settle
from training.engine.device import Precision, choose_device
from training.engine.interruption import StopRequest
from training.evaluation.scoring import Bench, with_split
from training.heartbeat import beat
from training.leaks.members import FILE as SPLIT_FILE
from training.leaks.members import Membership, read_membership, to_json
from training.registry.place import VARIABLE as REGISTRY
from training.reporting.progress import Progress
from training.requests import PrepareRequest, TrainRequest, VerifyRequest
from training.runs.data import with_data_of
from training.runs.provenance import determinism, prepare_environment, versions
from training.runs.publish import published
from training.runs.run import Run, is_imported, is_split_told, resolve_run
from training.tasks.protocol import Prepared
from training.work import Work

REPORT = "verification_report.json"
_LEAST = 1e-3  # a score below it is compared as if it were as large: what is left of a rounding must not count
_SCRATCH = ".verify-"
_STAY = {"training.device", "training.num_workers", "training.micro_batch_size", "data.cache_dir"}
_ALTERING = {"TRAIN_WORKER_SEED", "TRAIN_WORKER_DATA", "TRAIN_WORKER_DRIVE_ID", "TRAIN_WORKER_SYNC_TO"}
FORMAT = 1


@dataclass(frozen=True)
class Check:
    """One thing that was held against the record."""

    name: str
    ok: bool
    found: str

    def line(self) -> str:
        """One line for people."""
        return f"{'ok    ' if self.ok else 'FAILED'}  {self.name}: {self.found}"


def verify_run(request: VerifyRequest) -> int:
    """Check everything, show it, keep it as ``verification_report.json``; 0 where all of it holds, else 1.

    Raises:
        WorkerError: the run cannot be opened, or its data are not there.
    """
    with StopRequest(beat) as stop:
        run = resolve_run(request.output, request.run)
        checks = []
        with run.locked():
            for check in _checks(run, request, stop):
                checks.append(check)
                typer.echo(check.line())
            ok = all(check.ok for check in checks)
            run.write_json(REPORT, _report(run, request, checks, ok))
            run.event("verified", ok=ok, retrained=request.retrain)
    failed = sum(not check.ok for check in checks)
    verdict = "verified" if ok else f"{failed} of {len(checks)} checks failed"
    typer.echo(f"{run.run_id}: {verdict}; {run.path(REPORT)}")
    return DONE if ok else VERIFICATION_FAILED


def _report(run: Run, request: VerifyRequest, checks: list[Check], ok: bool) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "run_id": run.run_id,
        "ok": ok,
        "tolerance": request.tolerance,
        "retrained": request.retrain,
        "checks": [asdict(check) for check in checks],
        "versions": versions(),
        "time": now_utc(),
    }


def _checks(run: Run, request: VerifyRequest, stop: StopRequest) -> Iterator[Check]:
    yield from _files(run)
    wanted = with_data_of(
        run,
        PrepareRequest(
            task=run.metadata["task"],
            data=request.data,
            config=str(run.path("config.yaml")),
            output=request.output,
            datasets=request.datasets,
        ),
    )
    try:
        own = load_config(wanted.task, preset_or_file=wanted.config).config  # without the environment's settings
    except (ConfigError, UsageError) as error:
        yield Check("configuration", ok=False, found=str(error))
        return  # nothing can be scored by it
    loaded, source = settle(wanted, os.environ)
    yield _same("configuration", run.metadata.get("config_hash"), config_hash(own))
    work = Work.of(wanted, replace(loaded, config=with_neutral_of(own, loaded.config)), source, stop)
    work.be_quiet()
    with Progress(work.log) as work.display:
        prepared = work.prepare()
        fingerprint = run.metadata.get("dataset", {}).get("fingerprint")
        yield _same("dataset", fingerprint, prepared.fingerprint)
        yield _same_split(run, work, prepared)
        if fingerprint != prepared.fingerprint:
            return  # its scores would be about other data
        for place in _recorded(run):
            yield _evaluation(run, work, prepared, place, request.tolerance)
    if request.retrain:
        yield from _retrained(run, wanted, request.tolerance)


def _files(run: Run) -> Iterator[Check]:
    """Every checkpoint against its own hashes, every published file against the hash that was noted."""
    found = checkpoints(run.path("checkpoints"))
    yield Check("checkpoints", bool(found), f"{len(found)} in checkpoints/")
    for folder in found:
        try:
            verify(folder)
            yield Check(folder.name, ok=True, found="every file is what was written")
        except (DamagedCheckpointError, BadDataError) as error:
            yield Check(folder.name, ok=False, found=str(error))
    for name, event in published(run).items():
        path = run.path(name)
        if not path.is_file():
            yield Check(name, ok=False, found="missing")
        else:
            yield _same(name, event["sha256"], sha256_of(path))


def _same(name: str, recorded: object, found: object) -> Check:
    if recorded == found:
        return Check(name, ok=True, found=f"{str(found)[:16]}, as recorded")
    return Check(name, ok=False, found=f"{str(found)[:16]}, but {str(recorded)[:16]} was recorded")


def _same_split(run: Run, work: Work, prepared: Prepared) -> Check:
    if is_imported(run) and not is_split_told(run):
        return Check("split", ok=True, found="unknown, as recorded: these are imported weights")
    if not run.path(SPLIT_FILE).is_file():
        return Check("split", ok=False, found=f"{SPLIT_FILE} is missing")
    now = to_json(Membership(work.task.item_word, prepared.near_seconds, prepared.members))
    then = to_json(read_membership(run.path(SPLIT_FILE)))
    counts = ", ".join(f"{name} {len(members)}" for name, members in prepared.members.items())
    if now == then:
        return Check("split", ok=True, found=f"{counts}: the same {work.task.item_word} in each")
    return Check("split", ok=False, found=f"{counts}: not the {work.task.item_word} of {SPLIT_FILE}")


def _recorded(run: Run) -> list[str]:
    return [split for split in ("val", "test") if run.path("evaluations", split, "metrics.json").is_file()]


def _evaluation(run: Run, work: Work, prepared: Prepared, split: str, tolerance: float) -> Check:
    name = f"evaluation of {split}"
    recorded = run.read_json(f"evaluations/{split}/metrics.json")
    try:
        artifact = open_checkpoint(run.path("checkpoints", recorded["checkpoint"]))
    except WorkerError as error:
        return Check(name, ok=False, found=str(error))
    return _compared(name, recorded["metrics"], _score(run, work, prepared, artifact, split), tolerance)


def _score(run: Run, work: Work, prepared: Prepared, artifact: Artifact, split: str) -> dict[str, float]:
    training = work.loaded.config.training
    prepare_environment(training.deterministic)
    device, _ = choose_device(training.device)
    precision = Precision(training.amp, device)
    model = work.task.build_model(artifact.facts)
    model.load_state_dict(artifact.weights)
    micro = rows_of(choose_micro(run, work.task, model, device, precision))
    bench = Bench(run, work.task, prepared, precision, device, work.progress, work.stop, micro)
    with determinism(training.deterministic, device):
        return with_split(bench.score(model.to(device), split), split)


def _compared(name: str, recorded: Mapping[str, float], found: Mapping[str, float], tolerance: float) -> Check:
    """Metrics against the record: the same names, values within the tolerance, a share of the value."""
    off = {key: abs(found[key] - value) / max(_LEAST, abs(value)) for key, value in recorded.items() if key in found}
    absent = sorted(recorded.keys() ^ found.keys())
    worst = max(off, key=lambda key: off[key], default=None)
    if absent:
        return Check(name, ok=False, found=f"{len(absent)} metrics are on one side only, such as {absent[0]}")
    if worst is None:
        return Check(name, ok=False, found="no metric is recorded")
    told = f"{len(off)} metrics, the largest difference is {off[worst]:.3g} ({worst})"
    if off[worst] <= tolerance:
        return Check(name, ok=True, found=f"{told}, at most {tolerance:g} is allowed")
    return Check(name, ok=False, found=f"{told}, more than the {tolerance:g} that is allowed")


# --- training again ---------------------------------------------------------------------------------------------------


def _retrained(run: Run, wanted: PrepareRequest, tolerance: float) -> Iterator[Check]:
    from training.commands import train as pipeline

    with _scratch(wanted.output) as place, _nobody_else_told(place):
        request = TrainRequest(
            task=wanted.task,
            data=wanted.data,
            drive_id=wanted.drive_id,
            config=wanted.config,
            sets=("tracking.mlflow=false", "tracking.wandb=off"),
            output=place,
            datasets=wanted.datasets,
            run_name=str(run.metadata.get("run_name") or "again"),
            resume="never",
        )
        pipeline.train(request)
        (again,) = (Run(path) for path in (place / wanted.task).iterdir() if not path.name.startswith("."))
        yield _same_weights(run, again)
        for split in _recorded(run):
            recorded, found = (one.read_json(f"evaluations/{split}/metrics.json")["metrics"] for one in (run, again))
            yield _compared(f"retrained, {split}", recorded, found, tolerance)


@contextmanager
def _scratch(output: Path) -> Iterator[Path]:
    """A folder on the disk of the runs for the second training, removed afterwards; those of killed ones, too."""
    for left_behind in output.glob(f"{_SCRATCH}*"):
        _remove(left_behind)
    place = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=output))
    lock = FileLock(place / ".lock")
    try:
        with lock:
            yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _remove(left_behind: Path) -> None:
    """Unless another verification is at work there."""
    with suppress(Timeout, OSError):
        with FileLock(left_behind / ".lock", timeout=0):
            pass
        shutil.rmtree(left_behind, ignore_errors=True)


@contextmanager
def _nobody_else_told(place: Path) -> Iterator[None]:
    """The second training is no run of the user's: no registry lists it, and no setting of the environment is in it."""
    kept = dict(os.environ)
    for name in [name for name in kept if _alters(name)]:
        del os.environ[name]
    os.environ[REGISTRY] = str(place / "registry.json")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)


def _alters(name: str) -> bool:
    """Whether a variable may be another setting than the run's; where to train and the like may stay as they are."""
    key = name.removeprefix("TRAIN_WORKER_").lower().replace("__", ".")
    return name in _ALTERING or (name.startswith("TRAIN_WORKER_") and "__" in name and key not in _STAY)


def _same_weights(run: Run, again: Run) -> Check:
    """Bit for bit where that was promised: on the CPU, and with `training.deterministic`."""
    own, other = (sha256_of(best_checkpoint(one.folder) / "model.safetensors") for one in (run, again))
    check = _same("retrained weights", own, other)
    promised = run.metadata.get("device", {}).get("kind") == "cpu" or run.metadata.get("determinism", {}).get("asked")
    if check.ok or promised:
        return check
    return Check(
        check.name, ok=True, found=f"{check.found}; equal bits were not promised without training.deterministic"
    )
