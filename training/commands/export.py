"""`export`: a run's best weights as one file for other programs, and the proof that it says the same."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import typer

from backend.artifact import Artifact, open_artifact
from backend.errors import UsageError, VerificationError
from backend.files import sha256_of, writable_folder
from training.clock import now_utc
from training.config.compare import parse
from training.engine.interruption import StopRequest
from training.exporting.check import Comparison, compared
from training.exporting.data import SPLIT, random_items, real_items
from training.exporting.formats import about, write_as_pth, write_as_safetensors
from training.exporting.graph import OPSET, traced, write
from training.files import read_json
from training.heartbeat import beat
from training.reporting.units import size_in_words
from training.requests import ExportRequest
from training.runs.provenance import versions
from training.runs.publish import model_of
from training.runs.run import Run, resolve_run
from training.tasks import config_class, task_class
from training.tasks.protocol import Batch, Task

FOLDER, RECORD = "export", "export.json"
FORMAT = 1


def export(request: ExportRequest) -> None:
    """Write the file, say where, and note it in the run's ``export/export.json``.

    Raises:
        VerificationError: ONNX Runtime does not answer as PyTorch does; no file is written then.
        UsageError, ConfigError: there is no such run, or its model has no such format.
        DiskError: the place cannot be written.
        BadDataError: the model is damaged.
    """
    with StopRequest(beat) as stop:
        run = resolve_run(request.output, request.run)
        path = request.out or run.path(FOLDER, f"model.{request.format}")
        if path.is_dir():
            raise UsageError(f"{path}: a folder; --out names the file")
        artifact = open_artifact(model_of(run, Path(request.run)))
        writable_folder(path.parent)
        with run.locked():
            _write(run, artifact, path, request, stop)


def _write(run: Run, artifact: Artifact, path: Path, request: ExportRequest, stop: StopRequest) -> None:
    record: dict[str, Any] = {}
    if request.format == "onnx":
        record = _onnx(run, artifact, path, request, stop)
    else:
        {"pth": write_as_pth, "safetensors": write_as_safetensors}[request.format](run, artifact, path)
    size = path.stat().st_size
    told = {
        "file": os.path.relpath(path, run.folder) if path.resolve().is_relative_to(run.folder.resolve()) else str(path),
        "bytes": size,
        "sha256": sha256_of(path),
    }
    _note(run, artifact, request.format, told | record)
    run.event("exported", format=request.format, checkpoint=artifact.folder.name, **told)
    typer.echo(f"{path}: {size_in_words(size)}, {artifact.folder.name} of {run.run_id}")


def _onnx(run: Run, artifact: Artifact, path: Path, request: ExportRequest, stop: StopRequest) -> dict[str, Any]:
    """Trace, compare, and write where both agree; what the record says of it."""
    task = task_class(artifact.state["task"])(
        parse(config_class(artifact.state["task"]), artifact.config, str(artifact.folder))
    )
    model = task.build_model(artifact.facts)
    model.load_state_dict(dict(artifact.weights))
    exported = task.exported(model.eval(), artifact.facts)
    if exported is None:
        raise UsageError(
            f"{run.run_id}: models of the task {task.name} have no ONNX form; take --format safetensors or pth"
        )
    exported.module.eval()
    random = random_items(task, artifact.facts, exported.rows)
    first = {name: value[:1] for name, value in exported.inputs(random[0]).items()}
    content = traced(exported, first, about(run, artifact))
    stop.check()
    comparison = compared(exported, content, _kinds(run, task, artifact, request, exported.rows, random, stop))
    record = {
        "opset": OPSET,
        "inputs": {name: [str(value.dtype).removeprefix("torch."), *value.shape] for name, value in first.items()},
        "output": exported.output,
        "any_batch": exported.any_batch,
        "compared": comparison.to_json(),
    }
    typer.echo(comparison.line())
    if comparison.over:
        _note(run, artifact, request.format, {"file": None} | record)
        raise VerificationError(_apart(run, comparison))
    write(path, content)
    return record


def _kinds(
    run: Run,
    task: Task,
    artifact: Artifact,
    request: ExportRequest,
    rows: int,
    random: list[Batch],
    stop: StopRequest,
) -> dict[str, list[Batch]]:
    """Rows to compare by what they are, as the comparison's line names them."""
    real, why_not = real_items(run, task, artifact, request, rows, stop)
    if why_not is not None:
        typer.echo(f"note: compared on random inputs alone: {why_not}")
    return {"random rows": random, **({f"rows of {SPLIT}": real} if real else {})}


def _apart(run: Run, comparison: Comparison) -> str:
    found = ", ".join(
        f"{name} {comparison.differences[name]:.3g} is over {comparison.limits[name]:g}" for name in comparison.over
    )
    return f"{run.run_id}: ONNX Runtime does not answer as PyTorch does: {found}; no file was written"


def _note(run: Run, artifact: Artifact, kind: str, told: dict[str, Any]) -> None:
    """Put what was exported beside what was before, in other formats."""
    place = run.path(FOLDER, RECORD)
    before = read_json(place).get("exports", {}) if place.is_file() else {}
    packages = versions() | {name: version(name) for name in ("onnx", "onnxruntime")}
    entry = {
        "format": kind,
        **told,
        "checkpoint": artifact.folder.name,
        "weights": artifact.state["weights"],
        "config_hash": artifact.state["config_hash"],
        "time": now_utc(),
        "versions": packages,
    }
    run.write_json(f"{FOLDER}/{RECORD}", {"format": FORMAT, "run_id": run.run_id, "exports": before | {kind: entry}})
