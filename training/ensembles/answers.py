"""What each member says to the evaluated images: computed once, kept with the run, found again by content.

``<run>/points/<checkpoint>-<model>-<device>-<precision>.safetensors`` holds ``plain`` and ``tta`` [K, P, 2] from 0 to
1, and in its header whose they are and the content of each image. Whatever is not as it was written is computed anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import nn
from xxhash import xxh3_64_hexdigest

from backend.errors import BadDataError
from backend.files import write_atomic
from training.assemble import known_micro, planned_micro, rows_of
from training.data.landmarks.prepare import PREPARATION_VERSION
from training.engine.answers import ModelAnswers
from training.engine.device import Precision, choose_device
from training.ensembles.bench import Content, DataBench
from training.ensembles.members import EnsembleMember
from training.evaluation.scoring import Bench
from training.runs.provenance import determinism, prepare_environment
from training.tasks.protocol import Batch, Outputs, Task

FOLDER = "points"
FORMAT = f"1, images prepared as in {PREPARATION_VERSION}"
_MOST_LETTERS = 24  # of a run's name, so that it stands beside a bar
Points = NDArray[np.float32]
Row = tuple[Points, Points | None]  # what is said to one image: plain [P, 2], and the mean with its mirror image's


@dataclass(frozen=True)
class Said:
    """What one member says to N images."""

    plain: Points  # [N, P, 2] from 0 to 1
    tta: Points | None  # the mean with the mirrored prediction; None for points without mirror pairs

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Said:
        """To the images of ``rows``, one or more."""
        plain, tta = zip(*rows, strict=True)
        return cls(np.stack(plain), None if tta[0] is None else np.stack(tta))

    @property
    def is_finite(self) -> bool:
        """Whether all of it can be averaged."""
        return all(np.isfinite(one).all() for one in (self.plain, self.tta) if one is not None)

    def part(self, chosen: Sequence[int]) -> Said:
        """To some of the images."""
        index = np.asarray(chosen, dtype=np.int64)
        return Said(self.plain[index], None if self.tta is None else self.tta[index])


def ask_all(members: Sequence[EnsembleMember], contents: Sequence[Content], data: DataBench) -> list[Said]:
    """What each of the members says to the images of these contents.

    Raises:
        BadDataError: a damaged checkpoint, or a member whose points are not finite.
        InterruptedRunError: a stop was asked for; what was said until then is kept.
    """
    return [_Interview.of(member, data).about(contents) for member in members]


@dataclass(frozen=True)
class _Interview:
    """One member asked, on the device and in the precision that its settings come to here."""

    member: EnsembleMember
    data: DataBench
    task: Task
    precision: Precision
    path: Path  # of what is kept

    @classmethod
    def of(cls, member: EnsembleMember, data: DataBench) -> _Interview:
        task = data.task_of(member)
        device, _ = choose_device(task.config.training.device)
        precision = Precision(task.config.training.amp, device)
        model = f"{member.checkpoint.name}-{member.model_id[:12]}"
        path = member.run.path(FOLDER, f"{model}-{device.type}-{precision.choice.value}.safetensors")
        return cls(member, data, task, precision, path)

    def about(self, contents: Sequence[Content]) -> Said:
        """Only those images that the member was never asked about are computed."""
        known = _read(self.path, self.member.model_id)
        missing = [content for content in dict.fromkeys(contents) if content not in known]
        if missing:
            self._ask(missing, known)
        said = Said.of([known[content] for content in contents])
        if not said.is_finite:
            raise BadDataError(f"{self.member.label}: its points are not finite; leave it out")
        return said

    def _ask(self, missing: Sequence[Content], known: dict[Content, Row]) -> None:
        """Adds to ``known`` what the model says, and keeps it; also as far as it came before a stop."""
        member, training = self.member, self.task.config.training
        prepare_environment(training.deterministic)
        model = self.task.build_model(member.facts)
        model.load_state_dict(member.weights())
        collect = _Collect(self.task, model.to(self.precision.device))
        try:
            with determinism(training.deterministic, self.precision.device):
                self._bench(model).score(collect.model, "", collect, self.data.items_of(missing))
        finally:
            known.update(zip(missing, collect.rows(), strict=False))
            self._keep(known)

    def _bench(self, model: nn.Module) -> Bench:
        data, run, device = self.data, self.member.run, self.precision.device
        micro = planned_micro(known_micro(run, device), self.task, model, device, self.precision)
        what = f"asking {str(run.metadata['run_name'])[:_MOST_LETTERS]}"
        return Bench(
            run=run,
            task=self.task,
            prepared=data.prepared,
            precision=self.precision,
            device=device,
            progress=lambda _, done, total: data.work.progress(what, done, total),
            stop=data.work.stop,
            micro=rows_of(micro),
        )

    def _keep(self, known: Mapping[Content, Row]) -> None:
        if not known:
            return
        said = Said.of([*known.values()])
        arrays = {"plain": said.plain} if said.tta is None else {"plain": said.plain, "tta": said.tta}
        contents = json.dumps(list(known))
        told = {
            "format": FORMAT,
            "model": self.member.model_id,
            "contents": contents,
            "hash": _hash(arrays, contents),
        }
        try:
            self.path.parent.mkdir(exist_ok=True)
            write_atomic(self.path, save(arrays, metadata=told))
        except OSError as error:
            self.data.log.say(f"note: {self.path} cannot be kept ({error.strerror}); it is computed again next time")


class _Collect(ModelAnswers):
    """Keeps what the model says in memory."""

    def __init__(self, task: Task, model: nn.Module) -> None:
        super().__init__(task, model)
        self._parts: list[Outputs] = []

    def begin(self) -> None:
        self._parts = []

    def to(self, batch: Batch, rows: int) -> Outputs:
        said = super().to(batch, rows)
        self._parts.append({name: value.float().cpu() for name, value in said.items()})
        return said

    def rows(self) -> Iterable[Row]:
        """A row for each image so far, in their order."""
        for part in self._parts:
            plain, tta = part["points"].numpy(), part.get("tta")
            yield from zip(plain, [None] * len(plain) if tta is None else tta.numpy(), strict=True)


def _read(path: Path, model_id: str) -> dict[Content, Row]:
    """What is kept at ``path`` of this model; nothing where it is damaged or another's."""
    try:
        with safe_open(path, framework="numpy") as file:
            told = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        if (told["format"], told["model"], told["hash"]) != (FORMAT, model_id, _hash(arrays, told["contents"])):
            return {}
        contents = [tuple(content) for content in json.loads(told["contents"])]
        plain, tta = arrays["plain"], arrays.get("tta")
        return dict(zip(contents, zip(plain, [None] * len(plain) if tta is None else tta, strict=True), strict=True))
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
        return {}


def _hash(arrays: Mapping[str, NDArray[Any]], contents: str) -> str:
    told = [np.ascontiguousarray(arrays[name]).tobytes() for name in sorted(arrays)]
    return xxh3_64_hexdigest(b"".join([*told, contents.encode()]))
