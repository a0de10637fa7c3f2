"""Kept predictions of an evaluation: what the model said to each item, to be scored again without the model.

``evaluations/<place>/predictions/`` holds a safetensors file for each stretch of rows and, written last,
``index.json``: whose predictions they are, and the rows and sha256 of each file.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from backend.errors import BadDataError, DiskError, UsageError
from backend.files import sha256_of
from training.engine.answers import Answers
from training.files import read_json, write_json
from training.tasks.protocol import Batch, Outputs

FOLDER, INDEX = "predictions", "index.json"
FORMAT = 1


class KeepAnswers:
    """Passes on the answers of ``source`` and keeps them beside ``folder``, which `publish` puts in its place."""

    def __init__(self, source: Answers, folder: Path) -> None:
        self._source, self._folder = source, folder
        self._building = folder.with_name(f".{folder.name}.tmp")
        self._files: list[dict[str, Any]] = []

    def begin(self) -> None:
        self._source.begin()
        self._files = []
        shutil.rmtree(self._building, ignore_errors=True)
        self._building.mkdir(parents=True)

    def to(self, batch: Batch, rows: int) -> Outputs:
        outputs = self._source.to(batch, rows)
        path = self._building / f"{len(self._files):06d}.safetensors"
        try:
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in outputs.items()}, path)
            path.chmod(0o644)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(self._building, ignore_errors=True)
            raise DiskError(
                f"{path}: the predictions could not be kept ({error}); free space, then run again"
            ) from error
        self._files.append({"file": path.name, "rows": rows, "sha256": sha256_of(path)})
        return outputs

    def publish(self, facts: Mapping[str, Any]) -> None:
        """Everything was answered: the predictions take the place of earlier ones. ``facts`` say whose they are."""
        write_json(self._building / INDEX, {"format": FORMAT, **facts, "files": self._files})
        old = self._folder.with_name(f".{self._folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if self._folder.exists():
            self._folder.rename(old)
        self._building.rename(self._folder)
        shutil.rmtree(old, ignore_errors=True)


class KeptAnswers:
    """The answers that an earlier evaluation kept in ``folder``.

    Raises:
        BadDataError: they are damaged, of another version, or not as many as are asked for.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.folder, self._device = folder, device
        self.facts = read_facts(folder)
        self._rows: Iterator[Outputs] = iter(())
        self._left: Outputs = {}

    def begin(self) -> None:
        self._rows, self._left = self._files(), {}

    def to(self, batch: Batch, rows: int) -> Outputs:
        while _rows(self._left) < rows:
            following = next(self._rows, None)
            if following is None:
                raise BadDataError(f"{self.folder}: holds fewer predictions than the split has rows; evaluate anew")
            self._left = {
                name: torch.cat([self._left[name], tensor]) if self._left else tensor
                for name, tensor in following.items()
            }
        taken = {name: tensor[:rows].to(self._device) for name, tensor in self._left.items()}
        self._left = {name: tensor[rows:] for name, tensor in self._left.items()}
        return taken

    def _files(self) -> Iterator[dict[str, Tensor]]:
        for entry in self.facts["files"]:
            path = self.folder / entry["file"]
            if not path.is_file() or sha256_of(path) != entry["sha256"]:
                raise BadDataError(f"{path}: missing, or not what was kept (sha256 differs); evaluate anew")
            yield load_file(path)


def read_facts(folder: Path) -> dict[str, Any]:
    """Whose predictions ``folder`` holds.

    Raises:
        UsageError: it holds none.
        BadDataError: they are of another version.
    """
    if not (folder / INDEX).is_file():
        raise UsageError(
            f"{folder}: holds no predictions; name a folder evaluations/…/{FOLDER}, which evaluate --keep-predictions "
            "makes"
        )
    facts = read_json(folder / INDEX)
    if facts.get("format") != FORMAT:
        raise BadDataError(f"{folder / INDEX}: is of format {facts.get('format')}, expected {FORMAT}; evaluate anew")
    return facts


def _rows(outputs: Outputs) -> int:
    return len(next(iter(outputs.values()))) if outputs else 0
