"""Checks of disk space: what a training will write, on each file system that it writes to."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from backend.errors import IO_ERROR
from training.doctor.finding import Finding, failed, ok, warning

if TYPE_CHECKING:
    from training.doctor.job import Sizes

RUN_BYTES = 64 << 20  # logs, figures, report
_TIGHT = 1.1
_PART_OF_A_GB = 0.05


@dataclass(frozen=True)
class Need:
    """Bytes that will be written below ``folder``."""

    what: str
    folder: Path
    size: int


@dataclass(frozen=True)
class Space:
    """One file system: what it has and what is needed on it."""

    folder: Path  # the first of those that lie on it
    free: int
    needs: Sequence[Need]

    @property
    def need(self) -> int:
        """All that will be written to it."""
        return sum(need.size for need in self.needs)


def run_needs(sizes: Sizes, output: Path, keep: int, has_ema: bool, milestones: int, kept: int) -> list[Need]:
    """What a run writes: checkpoints (those kept, the best, and the one being written), .pth copies, the rest.

    Args:
        sizes: of the model.
        output: the output folder.
        keep: `training.keep_checkpoints`.
        has_ema: whether the weights that are published are an average.
        milestones: checkpoints that are kept for good.
        kept: bytes that a continued run's folder holds already.
    """
    weights = sizes.ema if has_ema else sizes.weights
    checkpoints = (keep + 2 + milestones) * sizes.checkpoint
    copies = (2 + milestones) * weights  # one of them is the one being written
    return [
        Need("checkpoints", output, max(checkpoints - kept, sizes.checkpoint)),
        Need("copies of the weights", output, copies),
        Need("logs and report", output, RUN_BYTES),
    ]


def spaces(needs: Iterable[Need]) -> list[Space]:
    """``needs`` by the file systems that they will lie on; folders that do not exist yet count for their parents."""
    found: dict[int, list[Need]] = {}
    for need in needs:
        if need.size:
            found.setdefault(existing(need.folder).stat().st_dev, []).append(need)
    return [
        Space(group[0].folder, shutil.disk_usage(existing(group[0].folder)).free, group) for group in found.values()
    ]


def check_space(space: Space) -> Finding:
    """Whether a file system has room for all that will be written to it."""
    name = "disk"
    parts = ", ".join(f"{need.what} {_gb(need.size)}" for need in space.needs)
    told = f"{space.folder}: {_gb(space.free)} free, {_gb(space.need)} needed ({parts})"
    numbers = {
        "free_bytes": space.free,
        "need_bytes": space.need,
        "needs": {need.what: need.size for need in space.needs},
        "folders": sorted({str(need.folder) for need in space.needs}),
    }
    if space.need > space.free:
        return failed(
            name,
            told,
            f"free {_gb(space.need - space.free)}, keep fewer checkpoints (training.keep_checkpoints), or put "
            "--output, --datasets or data.cache_dir on a larger disk",
            numbers,
            IO_ERROR,
        )
    if space.need * _TIGHT > space.free:
        return warning(name, told, "it fits, but nothing else may be written there", numbers)
    return ok(name, told, numbers)


def existing(folder: Path) -> Path:
    """``folder``, or the nearest one above that exists."""
    absolute = folder.absolute()
    return next(place for place in (absolute, *absolute.parents) if place.exists())


def size_of(folder: Path) -> int:
    """Bytes that the files below ``folder`` take on the disk."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def _gb(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= _PART_OF_A_GB * 1e9 else f"{count / 1e6:,.0f} MB"
