"""Derived copies of checkpoints for people and other programs: plain types, one file each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backend.artifact import is_checkpoint, open_checkpoint, step_of
from backend.errors import UsageError
from backend.files import sha256_of
from backend.weights import write_pth
from training.files import read_json_lines
from training.runs.run import Run


def publish_pth(run: Run, folder: Path, name: str) -> None:
    """Write ``name`` into the run folder from the checkpoint ``folder``; its hash is noted so that damage is seen."""
    path = run.path(name)
    if _is_published(run, name, folder.name):
        return
    write_pth(path, pth_content(run, folder))
    run.event("published", file=name, checkpoint=folder.name, sha256=sha256_of(path))


def repair_published(run: Run) -> None:
    """Write the published files again that are missing or damaged, from the checkpoints that they came from."""
    for name, event in published(run).items():
        folder = run.path("checkpoints", event["checkpoint"])
        if folder.is_dir():
            publish_pth(run, folder, name)


def published(run: Run) -> dict[str, dict[str, Any]]:
    """The newest publication of each file."""
    return {event["file"]: event for event in run.events() if event["event"] == "published"}


def model_of(run: Run, named: Path) -> Path:
    """The checkpoint folder or run folder that ``named`` means: a ``.pth`` of the run is the checkpoint it came from.

    Raises:
        UsageError: it is no weights file of this run, or its checkpoint is not kept any more.
    """
    if is_checkpoint(named):
        return named
    if named.suffix != ".pth":
        return run.folder
    event = published(run).get(named.name)
    folder = run.path("checkpoints", event["checkpoint"]) if event else None
    if folder is None or not folder.is_dir() or named.resolve().parent != run.folder.resolve():
        raise UsageError(
            f"{named}: {'its checkpoint is not kept any more' if event else 'was not published by this run'}; name the "
            "run for its best weights, a folder in its checkpoints/, or make a run of the file with `import`"
        )
    return folder


def _is_published(run: Run, name: str, checkpoint: str) -> bool:
    last, path = published(run).get(name, {}), run.path(name)
    return last.get("checkpoint") == checkpoint and path.exists() and sha256_of(path) == last["sha256"]


def pth_content(run: Run, folder: Path) -> dict[str, Any]:
    """What a published .pth holds: the weights to use, and what is needed to use and to judge them."""
    artifact = open_checkpoint(folder)
    state, step = artifact.state, step_of(folder)
    at_step = read_json_lines(run.path("metrics.jsonl"), only=f'"step": {step},')
    validations = [record for record in at_step if record["kind"] == "validation" and record["step"] == step]
    return {
        "epoch": validations[-1]["epoch"] if validations else state["progress"]["epoch"] + 1,
        "step": step,
        "model_state_dict": artifact.weights,
        "config": state["config"],
        "config_hash": state["config_hash"],
        "metrics": validations[-1]["metrics"] if validations else {},
        "preprocessing": state["preprocessing"],
        "facts": state["facts"],
        "metadata": {"run_id": run.run_id, "task": state["task"], "versions": state["versions"], "git": state["git"]},
    }
