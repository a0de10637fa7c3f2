"""Checkpoints: published whole or not at all, verified when read, kept by step.

Order of a save: files into a temporary sibling, fsync each, manifest last, fsync, rename, fsync the parent. What is
found damaged later is set aside by name and the one before it is used.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from backend.artifact import (
    MANIFEST,
    STATE,
    STEP_PREFIX,
    DamagedCheckpointError,
    checkpoints,
    read_state,
    sha256_of,
    step_of,
    verify,
)
from backend.errors import DiskError
from backend.files import fsync_file, fsync_folder, write_atomic
from training.files import to_json

Say = Callable[[str], None]
_SPARE_BYTES = 16 * 2**20


class CheckpointStore:
    """The ``checkpoints/`` folder of one run."""

    def __init__(self, root: Path, keep: int, say: Say) -> None:
        self.root, self.keep, self.say = root, keep, say
        root.mkdir(parents=True, exist_ok=True)

    def folder(self, step: int) -> Path:
        return self.root / f"{STEP_PREFIX}{step:08d}"

    def save(self, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> Path:
        """Publish a checkpoint; ``tensors`` maps file stems to named tensors.

        Raises:
            DiskError: the disk is full or refuses; published checkpoints are untouched.
        """
        final = self.folder(step)
        temporary = self.root / f".tmp-{final.name}-{os.getpid()}"
        try:
            self._check_space(tensors)
            temporary.mkdir()
            for stem, named in tensors.items():
                save_file(
                    {name: tensor.contiguous() for name, tensor in named.items()}, temporary / f"{stem}.safetensors"
                )
            (temporary / STATE).write_text(to_json(state, indent=1), "utf-8")
            _seal(temporary)
            if final.exists():  # only a damaged one of the same step can stand here
                final.rename(self._aside(final))
            temporary.rename(final)
            fsync_folder(self.root)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise DiskError(
                f"{final}: the checkpoint could not be written ({error}); free space or fix the disk, then run again"
            ) from error
        write_atomic(self.root / "latest", final.name + "\n")
        return final

    def newest(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest checkpoint whose content verifies, with its state; damaged ones are set aside and named."""
        for folder in reversed(checkpoints(self.root)):
            if self._sound(folder):
                return folder, read_state(folder)
        return None

    def _sound(self, folder: Path) -> bool:
        try:
            verify(folder)
        except DamagedCheckpointError as error:
            aside = self._aside(folder)
            folder.rename(aside)
            self.say(f"damaged checkpoint set aside as {aside.name}: {error}")
            return False
        return True

    def sound(self, step: int) -> Path | None:
        """The checkpoint of ``step`` if it is there and verifies."""
        folder = self.folder(step)
        return folder if folder.is_dir() and self._sound(folder) else None

    def mark_best(self, step: int | None) -> None:
        """Point the ``best`` hint at a step, or at none."""
        if step is None:
            (self.root / "best").unlink(missing_ok=True)
        else:
            write_atomic(self.root / "best", self.folder(step).name + "\n")

    def prune(self, keep: Collection[int]) -> None:
        """Delete all but the newest ones and the steps in ``keep``."""
        for folder in checkpoints(self.root)[: -self.keep]:
            if step_of(folder) not in keep:
                trash = folder.with_name(f".trash-{folder.name}")
                folder.rename(trash)
                shutil.rmtree(trash, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what a killed process left half-written or half-deleted (the caller holds the run's lock)."""
        for leftover in [*self.root.glob(".tmp-*"), *self.root.glob(".trash-*")]:
            shutil.rmtree(leftover, ignore_errors=True)
        for leftover in self.root.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)

    def _aside(self, folder: Path) -> Path:
        number = 0
        while (aside := folder.with_name(f"damaged-{folder.name}{f'-{number}' if number else ''}")).exists():
            number += 1
        return aside

    def _check_space(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        need = sum(tensor.nbytes for named in tensors.values() for tensor in named.values()) + _SPARE_BYTES
        free = shutil.disk_usage(self.root).free
        if free < need:
            raise OSError(f"needs {need / 2**20:.0f} MiB, {free / 2**20:.0f} MiB are free")


def read_tensors(folder: Path, stem: str) -> dict[str, Tensor]:
    """The named tensors of one file of a verified checkpoint; empty when the checkpoint has no such file."""
    path = folder / f"{stem}.safetensors"
    return load_file(path) if path.exists() else {}


def _seal(folder: Path) -> None:
    """Make a folder's files readable and durable, and write the manifest over them."""
    files = {}
    for path in sorted(folder.iterdir()):
        path.chmod(0o644)  # safetensors writes 0600, unreadable to the caller outside a container
        fsync_file(path)
        files[path.name] = {"size": path.stat().st_size, "sha256": sha256_of(path)}
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps({"format": 1, "files": files}, indent=1), "utf-8")
    fsync_file(manifest)
    fsync_folder(folder)
