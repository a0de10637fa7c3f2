"""A run from its dataset to its report, stage by stage; what finished is never done again.

Every stage leaves its result in the run folder (or the prepared cache) before the next begins, so a run that was
killed at any instant is continued by the same command.
"""

from __future__ import annotations

import time
from contextlib import closing, suppress
from typing import Any

import torch

from backend.artifact import Artifact, best_checkpoint, open_checkpoint
from backend.errors import InterruptedRunError
from training.assemble import assemble
from training.config import config_hash, preset_names
from training.engine.device import Choice, Precision, choose_device
from training.engine.loop import Engine, fit
from training.evaluation.scoring import Bench, keep, of_checkpoint
from training.machine import available_cpus
from training.reporting.run_folder import RunFolder
from training.reporting.trackers.follow import Trackers
from training.reporting.units import duration
from training.runs.provenance import determinism, device_facts, git_state, prepare_environment, versions
from training.runs.publish import publish_pth, repair_published
from training.runs.run import Run
from training.tasks.protocol import Prepared
from training.watch import RunObserver
from training.work import Work

CPU = "cpu"  # the preset for machines without a GPU, where a task has one


def run_stages(run: Run, work: Work) -> None:
    """Prepare, train, evaluate, report, in the locked ``run``.

    Raises:
        OtherDatasetError: the run was started on another dataset.
        WorkerError: with the exit code that says whether running again helps.
    """
    config, log, started = work.loaded.config, work.log, time.monotonic()
    work.say_settled()
    prepare_environment(config.training.deterministic)
    device, device_choice = choose_device(config.training.device)
    precision = Precision(config.training.amp, device)
    work.display.watch(device)
    torch.set_num_threads(min(torch.get_num_threads(), available_cpus()))  # more would only wait for each other
    log.say(f"device: {device_choice}; precision: {precision.choice}")
    if device.type == "cpu" and work.loaded.preset == "default" and CPU in preset_names(work.task.name):
        log.say("note: this is the full-size model, made for a GPU; --config cpu (make: CONFIG=cpu) is the small one")

    prepared = work.prepare_for(run)
    trackers = Trackers(run, config, work.stop, log.say)
    observer = RunObserver(run, log, work.display, work.task.item_word, config.selection.metric, trackers)
    engine, choices = assemble(
        run,
        work.task,
        prepared,
        device=device,
        precision=precision,
        observer=observer,
        stop=work.stop,
        tell=work.tellers(),
        identity=_identity(run, work, prepared),
        publish=lambda folder, name: publish_pth(run, folder, name),
    )
    _tell_assembled(run, work, engine, {**choices, "training.device": device_choice, "training.amp": precision.choice})
    repair_published(run)
    with trackers:
        with determinism(config.training.deterministic, device) as undetermined:
            try:
                with closing(engine), closing(observer):
                    observer.begin(engine.progress.step)
                    run.event("stage", stage="training")
                    fit(engine)
                results = _evaluate(run, work, engine, prepared)
            finally:
                _note_determinism(run, config.training.deterministic, undetermined)
        run.event("stage", stage="report")
        _draw_and_report(run, work, engine, prepared)
        run.update(state="finished")
        run.event("finished", step=engine.progress.step)
    _tell_finished(run, work, results)
    log.say(f"took {duration(time.monotonic() - started)}")
    log.say(f"results: {run.folder} (open {run.path('report.html')})")
    log.say(f"run id: {run.run_id}")


def _identity(run: Run, work: Work, prepared: Prepared) -> dict[str, Any]:
    """What every checkpoint says of itself."""
    config = work.loaded.config
    return {
        "run_id": run.run_id,
        "task": work.task.name,
        "config": config.model_dump(mode="json"),
        "config_hash": config_hash(config),
        "files_sha256": run.metadata.get("files_sha256", {}),
        "preprocessing": dict(prepared.preprocessing),
        "facts": dict(prepared.facts),
        "audit": dict(prepared.audit),
        "dataset": {"fingerprint": prepared.fingerprint, "is_sample": work.source.is_sample},
        "versions": versions(),
        "git": git_state(),
    }


def _tell_assembled(run: Run, work: Work, engine: Engine, choices: dict[str, Choice]) -> None:
    parameters = sum(p.numel() for p in engine.model.parameters())
    trained = sum(p.numel() for p in engine.model.parameters() if p.requires_grad)
    run.update(
        device=device_facts(engine.device),
        automatic={key: str(choice) for key, choice in choices.items()},
        parameters={"total": parameters, "trained": trained},
    )
    run.write_json("card.json", work.task.card(engine.facts).to_json())
    work.log.say(f"model: {parameters:,} numbers, {trained:,} of them trained")
    for key in ("training.num_workers", "training.micro_batch_size"):
        work.log.say(f"{key.removeprefix('training.')}: {choices[key]}")


def _note_determinism(run: Run, asked: bool, undetermined: set[str]) -> None:
    """Of all starts of the run: also an operation that only an earlier one came to counts."""
    known = (run.metadata.get("determinism") or {}).get("not_deterministic") or []
    with suppress(OSError):  # a full disk must not change what the exit code says
        run.update(determinism={"asked": asked, "not_deterministic": sorted({*known, *undetermined})})


def _evaluate(run: Run, work: Work, engine: Engine, prepared: Prepared) -> dict[str, dict[str, Any]]:
    """One validation of the best weights on the whole split and one look at test; by split, empty ones left out."""
    artifact = open_checkpoint(best_checkpoint(run.folder))
    best, metric, mode = engine.progress.best, engine.config.selection.metric, engine.config.selection.mode
    if best is None:
        work.log.say(f"warning: {metric} was never defined, so there is no best; {artifact.folder.name} is evaluated")
    engine.model.load_state_dict(artifact.weights)
    results = {
        split: _evaluated_before(run, split, artifact, prepared)
        or _evaluate_split(run, work, engine, prepared, artifact, split)
        for split in ("val", "test")
        if len(prepared.splits[split])
    }
    run.update(
        result={
            "best_step": best.step if best else None,
            "selection": {"metric": metric, "mode": mode, "value": best.value if best else None},
            **{f"{split}/loss": result["metrics"].get(f"{split}/loss") for split, result in results.items()},
        },
    )
    return results


def _evaluated_before(run: Run, split: str, artifact: Artifact, prepared: Prepared) -> dict[str, Any] | None:
    result = RunFolder(run.folder).evaluations.get(split, {})  # without a damaged one
    same = result.get("checkpoint") == artifact.folder.name and result.get("dataset") == prepared.fingerprint
    return result if same else None


def _evaluate_split(
    run: Run, work: Work, engine: Engine, prepared: Prepared, artifact: Artifact, split: str
) -> dict[str, Any]:
    run.event("stage", stage=f"evaluation of {split}")
    bench = Bench(
        run=run,
        task=work.task,
        prepared=prepared,
        precision=engine.precision,
        device=engine.device,
        progress=work.progress,
        stop=work.stop,
        micro=engine.micro,
        is_sample=work.source.is_sample,
    )
    found = bench.score(engine.model, split)
    return keep(run, split, found, bench.result(found, split, of_checkpoint(artifact)))


def _draw_and_report(run: Run, work: Work, engine: Engine, prepared: Prepared) -> None:
    """Pictures and the report: what fails here is told and costs nothing that was trained."""
    from training.reporting.curves import draw_curves
    from training.reporting.model_card import write_model_card
    from training.reporting.report import write_report

    figures = run.path("figures")
    figures.mkdir(exist_ok=True)
    for what, draw in (
        ("curves", lambda: draw_curves(run.folder)),
        ("example figures", lambda: work.task.draw(engine.model, prepared, "test", figures, engine.device)),
        ("model card", lambda: write_model_card(run.folder)),
        ("report", lambda: write_report(run.folder)),
    ):
        work.stop.check()
        try:
            draw()
        except InterruptedRunError:
            raise
        except Exception as error:  # whatever it is: the training is worth more than its picture
            work.log.say(f"the {what} could not be made ({error!r}); everything else is in place")
            run.event("not drawn", what=what, error=repr(error))


def _tell_finished(run: Run, work: Work, results: dict[str, dict[str, Any]]) -> None:
    for split, result in results.items():
        table = run.path("evaluations", split, "table.txt")
        headline = "\n\n".join(table.read_text("utf-8").split("\n\n")[:2])
        work.log.say(f"\n{split}: {result['n']} {result['item']}; all scores in {table}\n{headline}\n")
    if work.source.is_sample:
        work.log.say(
            "this was the built-in sample: made-up data that shows that everything works. Train on your own with "
            f"--data FOLDER (make train TASK={work.task.name} DATA=FOLDER)"
        )
