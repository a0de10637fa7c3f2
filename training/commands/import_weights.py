"""`import`: old weights become a run that can be evaluated, used for forecasts and listed; nothing is unpickled.

What the file does not tell is not made up: the run has no split, no seed and no history, and its metadata say so.
Whoever knows on which split they were trained can say it; then leaks are looked for as with a run's own.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from typing import Any

import torch

from backend.artifact import FORMAT
from backend.errors import BadDataError, UsageError
from backend.files import sha256_of
from backend.weights import SAFETENSORS, read_pth, read_state_dict
from training.config import config_hash, dump_yaml
from training.config.settle import settle
from training.doctor.run import job_of, preflight
from training.engine.checkpoint import CheckpointStore
from training.engine.interruption import StopRequest
from training.engine.state import Progress as Standing
from training.heartbeat import beat
from training.leaks.members import FILE as SPLIT_FILE
from training.leaks.members import Membership, to_json
from training.registry.hook import register_run
from training.reporting.progress import Progress
from training.requests import ImportRequest
from training.runs.data import data_record
from training.runs.provenance import git_state, versions
from training.runs.publish import publish_pth
from training.runs.run import IMPORTED, Run, check_run_name, create_run
from training.tasks.protocol import Prepared
from training.work import Work

THE_DATA, THE_SPLIT = "the data that it was trained on", "its split"
UNKNOWN = (THE_DATA, THE_SPLIT, "the seed", "the settings of training")
_MOST_TEXT = 200


def import_weights(request: ImportRequest) -> Run:
    """Make a run of the weights in ``request.file``, for the dataset that they are to be used on.

    The dataset says what the weights cannot, such as the grid of images or the names of points and classes.

    Raises:
        UsageError: there is no such file.
        BadDataError: it cannot be read safely.
        ConfigError: its weights are not those of the configured model.
    """
    if not request.file.is_file():
        raise UsageError(f"{request.file}: no such file; expected weights (.pth or .safetensors)")
    weights = read_state_dict(request.file)
    told = {} if request.file.suffix == SAFETENSORS else what_is_told(read_pth(request.file))
    with StopRequest(beat) as stop:
        loaded, source = settle(request, os.environ)
        check_run_name(request.run_name or IMPORTED)
        if source.is_sample and request.data is None:
            raise BadDataError(
                "import needs the data that the weights are to be used on, which tell what weights cannot: name them "
                "with --data FOLDER (or --data sample)"
            )
        work = Work.of(request, loaded, source, stop)
        work.warnings = preflight(job_of(work.task, request, source, None), training=False)
        with Progress(work.log) as work.display:
            work.say_settled()
            prepared = work.prepare()
        model = work.task.build_model(prepared.facts)
        if said := work.task.load_foreign(model, weights, request.file):
            work.log.say(f"the weights are those of {said}")
        run = _make_run(request, work, prepared, model.state_dict(), told)
        for line in (f"imported: {run.folder}", f"unknown: {', '.join(_unknown(request))}", f"run id: {run.run_id}"):
            work.log.say(line)
        return run


def _unknown(request: ImportRequest) -> list[str]:
    return [what for what in UNKNOWN if not (request.split_known and what in (THE_DATA, THE_SPLIT))]


def _make_run(
    request: ImportRequest, work: Work, prepared: Prepared, weights: Mapping[str, torch.Tensor], told: dict[str, Any]
) -> Run:
    """The run folder with its one checkpoint, of step 0."""
    config = work.loaded.config
    identity = {
        "task": work.task.name,
        "config_hash": config_hash(config),
        "preprocessing": dict(prepared.preprocessing),
        "facts": dict(prepared.facts),
        "versions": versions(),
        "git": git_state(),
    }
    digest = sha256_of(request.file)
    metadata = {
        **identity,
        "state": IMPORTED,
        "preset": work.loaded.preset,
        "set_by_user": dict(work.loaded.user_set),
        "command": shlex.join(request.argv),
        "data": data_record(request.output / work.task.name / "a run", work.source),
        "dataset": {  # that it is used on
            "fingerprint": prepared.fingerprint,
            "is_sample": work.source.is_sample,
            "items": {name: len(items) for name, items in prepared.splits.items()},
            "item": work.task.item_word,
            "summary": list(prepared.summary),
        },
        "imported": {
            "file": request.file.name,
            "sha256": digest,
            "told": told,
            "unknown": _unknown(request),
            "split_told": request.split_known,  # by whoever imported it
        },
        "parameters": {"total": sum(tensor.numel() for tensor in weights.values())},
    }
    run = create_run(request.output, work.task.name, request.run_name or IMPORTED, dump_yaml(config), metadata)
    with run.locked():
        state = {
            "format": FORMAT,
            "run_id": run.run_id,
            **identity,
            "config": config.model_dump(mode="json"),
            "audit": {},
            "dataset": {"fingerprint": None, "is_sample": work.source.is_sample},
            "progress": Standing().to_json(),
            "weights": "model",
            "ema_updates": 0,
            "metrics": {},
        }
        store = CheckpointStore(run.path("checkpoints"), keep=1, say=work.log.say)
        folder = store.save(0, {"model": dict(weights)}, state)
        store.mark_best(0)
        publish_pth(run, folder, "best_model.pth")
        if request.split_known:
            members = Membership(work.task.item_word, prepared.near_seconds, prepared.members)
            run.write_json(SPLIT_FILE, to_json(members))
        run.event("imported", file=request.file.name, sha256=digest)
    register_run(run.folder, request.output, work.log.say)
    return run


def what_is_told(content: Any) -> dict[str, Any]:
    """What a foreign checkpoint says besides its weights, as far as it is short and plain."""
    if not isinstance(content, Mapping):
        return {}
    return {str(key): value for key, value in content.items() if _is_plain(value) and len(str(value)) <= _MOST_TEXT}


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(one) for key, one in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str)
