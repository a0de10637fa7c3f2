"""The commands besides `train` and `doctor`: the first stages alone, and what is done with a trained run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from backend.artifact import Artifact, best_checkpoint, is_checkpoint, open_artifact
from backend.errors import BadDataError, UsageError
from training.assemble import choose_micro, rows_of
from training.data.prepared import prune
from training.doctor.run import job_of, preflight
from training.engine.device import Precision, choose_device
from training.engine.interruption import StopRequest
from training.evaluation import evaluate_artifact
from training.heartbeat import beat
from training.provenance import determinism, prepare_environment
from training.registry.hook import register_run
from training.reporting.progress import Progress
from training.requests import EvaluateRequest, PredictRequest, PrepareRequest
from training.run import Run, resolve_run
from training.run_data import with_data_of
from training.settle import settle
from training.tasks.protocol import Prepared
from training.work import Work


def fetch(request: PrepareRequest) -> None:
    """Bring the dataset to its place, and say where that is.

    Raises:
        UsageError: nothing says what to fetch.
        WorkerError: with the exit code that says whether running again helps.
    """
    with StopRequest(beat) as stop:
        # Whether a GPU is at work matters to the sample alone, which is nothing to fetch.
        loaded, source = settle(request, os.environ, lambda config: False)
        if source.is_sample:
            raise UsageError(
                "nothing says what to fetch: name a manifest with --set data.manifest=FILE, or a Google Drive file "
                "with --drive-id"
            )
        work = Work.of(request, loaded, source, stop)
        with Progress(work.log) as work.display:
            work.say_settled()
            if source.manifest is None:
                work.log.say("that is a folder, so there is nothing to fetch")
                return
            work.log.say(f"complete: {work.data()}")


def prepare(request: PrepareRequest) -> None:
    """Read, check, split and cache the dataset, and show what was found."""
    with StopRequest(beat) as stop:
        loaded, source = settle(request, os.environ)
        work = Work.of(request, loaded, source, stop)
        work.warnings = preflight(job_of(work.task, request, source, None), training=False)
        with Progress(work.log) as work.display:
            work.say_settled()
            prepared = work.prepare()
            for line in prepared.summary:
                work.log.say(line)
            if request.prune:
                freed = prune(work.cache_dir, prepared.facts.get("cache"))
                work.log.say(f"other prepared caches in {work.cache_dir}: deleted, {freed / 1e6:,.1f} MB freed")


def evaluate(request: EvaluateRequest) -> None:
    """Score a run's model on a split; the result is kept in the run folder and shown as a table.

    Raises:
        BadDataError: the split is empty, or the data come to other inputs than the model was trained on.
    """
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
        work = Work.of(prepare_request, loaded, source, stop)
        with run.locked(), Progress(work.log) as work.display:
            prepared = work.prepare()
            _check_fits(work, artifact, prepared, request.split)
            place = _place(run, request.split, artifact, prepared)
            if place != request.split:
                work.log.say(f"note: not the run's own dataset and best checkpoint: kept apart in evaluations/{place}")
            result = _score(run, work, artifact, prepared, request.split, place)
            run.event("evaluated", split=request.split, place=place, looks=result["looks"])
            register_run(run.folder, request.output, work.log.say)
        path = run.path("evaluations", place)
        work.log.say((path / "table.txt").read_text("utf-8"))
        work.log.say(
            f"{result['n']} {result['item']} of {request.split}, look {result['looks']}: {path / 'metrics.json'}"
        )


def _check_fits(work: Work, artifact: Artifact, prepared: Prepared, split: str) -> None:
    if split not in prepared.splits or not len(prepared.splits[split]):
        raise BadDataError(f"the {split} split holds no {work.task.item_word}")
    why = work.task.mismatch(artifact.preprocessing, artifact.facts, prepared)
    if why is not None:
        raise BadDataError(
            f"{work.source.path or 'the sample'}: {artifact.folder.name} was not trained on such data ({why}); "
            "evaluate it on data like its own"
        )


def _place(run: Run, split: str, artifact: Artifact, prepared: Prepared) -> str:
    """Where the result is kept: under the split's name if it is the run's headline, else under one of its own."""
    place = split
    if prepared.fingerprint != run.metadata.get("dataset", {}).get("fingerprint"):
        place += f"-{prepared.fingerprint[:8]}"
    if artifact.folder.name != best_checkpoint(run.folder).name:
        place += f"-{artifact.folder.name}"
    return place


def _score(run: Run, work: Work, artifact: Artifact, prepared: Prepared, split: str, place: str) -> dict[str, Any]:
    training = work.loaded.config.training
    prepare_environment(training.deterministic)
    device, _ = choose_device(training.device)
    precision = Precision(training.amp, device)
    model = work.task.build_model(artifact.facts)
    model.load_state_dict(artifact.weights)
    micro = choose_micro(run, work.task, model, device, precision)
    with determinism(training.deterministic, device):
        return evaluate_artifact(
            run,
            work.task,
            artifact,
            model.to(device),
            prepared,
            split,
            precision=precision,
            device=device,
            display=work.display,
            stop=work.stop,
            micro=rows_of(micro),
            is_sample=work.source.is_sample,
            place=place,
        )


def predict(request: PredictRequest) -> None:
    """Forecast from raw inputs; says where the result is."""
    from backend.predict import predict as forecast

    named = Path(request.run)
    model = named if is_checkpoint(named) else resolve_run(request.output, request.run).folder
    print(forecast(model, request.inputs, request.out))  # noqa: T201
