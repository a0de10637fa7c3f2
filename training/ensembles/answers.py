"""What each member says to the evaluated images: computed once, kept with the run, found again by content.

``<run>/points/<checkpoint>-<model>.safetensors`` holds ``plain`` and ``tta`` [K, P, 2] from 0 to 1, and in its header
whose they are and the content of each image. Whatever is not as it was written is computed anew.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import nn
from xxhash import xxh3_64_hexdigest

from backend.files import write_atomic
from training.assemble import choose_micro, rows_of
from training.engine.answers import ModelAnswers
from training.engine.device import Precision, choose_device
from training.ensembles.bench import DataBench, chosen_items
from training.ensembles.members import EnsembleMember
from training.evaluation import Bench
from training.provenance import determinism, prepare_environment
from training.tasks.protocol import Batch, Outputs, Task

Content = tuple[str, ...]
FORMAT = "1"


@dataclass(frozen=True)
class Said:
    """What one member says to N images."""

    plain: NDArray[np.float32]  # [N, P, 2] from 0 to 1
    tta: NDArray[np.float32] | None  # the mean with the mirrored prediction; None for points without mirror pairs

    def part(self, chosen: Sequence[int]) -> Said:
        """To some of the images."""
        index = np.asarray(chosen, dtype=np.int64)
        return Said(self.plain[index], None if self.tta is None else self.tta[index])


class _Collect(ModelAnswers):
    """Keeps what the model says in memory."""

    def __init__(self, task: Task, model: nn.Module) -> None:
        super().__init__(task, model)
        self.parts: list[Outputs] = []

    def begin(self) -> None:
        self.parts = []

    def to(self, batch: Batch, rows: int) -> Outputs:
        said = super().to(batch, rows)
        self.parts.append({name: value.float().cpu() for name, value in said.items()})
        return said


def what_is_said(member: EnsembleMember, contents: Sequence[Content], data: DataBench) -> Said:
    """What ``member`` says to the images of these contents; only those that it was never asked are computed.

    Raises:
        BadDataError: the member's data do not hold one of the images.
        InterruptedRunError: a stop was asked for; what other members said is kept.
    """
    path = member.run.path("points", f"{member.subject.checkpoint}-{member.model_id[:12]}.safetensors")
    known = _read(path, member.model_id)
    missing = [content for content in dict.fromkeys(contents) if content not in known]
    if missing:
        known |= dict(zip(missing, _ask(member, missing, data), strict=True))
        _keep(path, member.model_id, known, data)
    rows = [known[content] for content in contents]
    tta = None if rows[0][1] is None else np.stack([row[1] for row in rows if row[1] is not None])
    return Said(np.stack([row[0] for row in rows]), tta)


Row = tuple[NDArray[np.float32], NDArray[np.float32] | None]


def _ask(member: EnsembleMember, contents: Sequence[Content], data: DataBench) -> list[Row]:
    work, prepared = data.of(member)
    training: Any = work.loaded.config.training
    prepare_environment(training.deterministic)
    device, _ = choose_device(training.device)
    precision = Precision(training.amp, device)
    model = work.task.build_model(member.subject.facts)
    model.load_state_dict(dict(member.subject.weights or {}))
    micro = rows_of(choose_micro(member.run, work.task, model, device, precision))
    items = chosen_items(prepared, contents, member.label)
    bench = Bench(
        run=member.run,
        task=work.task,
        prepared=prepared,
        precision=precision,
        device=device,
        progress=lambda what, done, total: work.progress(f"asking {member.label}", done, total),
        stop=data.stop,
        micro=micro,
    )
    collect = _Collect(work.task, model.to(device))
    with determinism(training.deterministic, device):
        bench.score(collect.model, "test", collect, items)
    joined = {name: torch.cat([part[name] for part in collect.parts]).numpy() for name in collect.parts[0]}
    tta = joined.get("tta")
    return [(plain, None if tta is None else tta[index]) for index, plain in enumerate(joined["points"])]


def _read(path: Path, model_id: str) -> dict[Content, Row]:
    """What is kept at ``path`` of this model; nothing where it is damaged or another's."""
    try:
        with safe_open(path, framework="numpy") as file:
            told = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        if (told["format"], told["model"], told["hash"]) != (FORMAT, model_id, _hash(arrays)):
            return {}
        contents = [tuple(content) for content in json.loads(told["contents"])]
        tta = arrays.get("tta")
        rows = [(plain, None if tta is None else tta[index]) for index, plain in enumerate(arrays["plain"])]
        return dict(zip(contents, rows, strict=True))
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
        return {}


def _keep(path: Path, model_id: str, known: dict[Content, Row], data: DataBench) -> None:
    arrays = {"plain": np.stack([plain for plain, _ in known.values()])}
    if all(tta is not None for _, tta in known.values()):
        arrays["tta"] = np.stack([tta for _, tta in known.values() if tta is not None])
    told = {"format": FORMAT, "model": model_id, "hash": _hash(arrays), "contents": json.dumps(list(known))}
    try:
        path.parent.mkdir(exist_ok=True)
        write_atomic(path, save(arrays, metadata=told))
    except OSError as error:
        data.display.log.say(f"note: {path} cannot be kept ({error.strerror}); it is computed again the next time")


def _hash(arrays: dict[str, NDArray[Any]]) -> str:
    return xxh3_64_hexdigest(b"".join(np.ascontiguousarray(arrays[name]).tobytes() for name in sorted(arrays)))
