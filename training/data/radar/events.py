"""Radar events on disk: which folders are events, what their files' headers say, and which frames stand there twice."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from backend.errors import BadDataError
from backend.preprocessing.radar_netcdf import Grid, read_header
from training.data.prepared import SourceFile
from training.data.radar.windows import iso_time
from training.data.workers import WorkerPool

LAYOUT = "expected one folder for each event with its .nc files, such as sample/20100826/000500.nc"
T = TypeVar("T")
_MOST_NAMED = 5
_HEADERS_PER_JOB = 16


@dataclass(frozen=True)
class Listing:
    """The files of a dataset. An event is a folder that directly holds .nc files."""

    root: Path
    sources: list[SourceFile]  # by folder and name
    folders: list[str]  # names of the events
    folder_of: list[int]  # the event of each source
    ignored: int  # files that are not .nc


@dataclass(frozen=True)
class Scan:
    """What the headers say. Grids that are the same are one object."""

    times: list[float]  # of each source, seconds since 1970-01-01 UTC, to the millisecond
    grids: list[Grid]
    grid_of: list[int]  # of each event
    levels: list[np.ndarray]  # of each event: heights [Z]


def list_events(root: Path) -> Listing:
    """Finds the event folders below ``root``, at any depth, without opening a file. Raises BadDataError."""
    files: dict[Path, list[os.DirEntry[str]]] = {}
    empty: list[Path] = []
    ignored = _walk(root, files, empty, set())
    _refuse_odd_folders(root, list(files), empty)
    listing = Listing(root, [], [], [], ignored)
    for folder in sorted(files):
        listing.folders.append(_event_name(root, folder))
        within = folder.relative_to(root)
        for entry in sorted(files[folder], key=lambda entry: entry.name):
            facts, relative = _stat(entry), (within / entry.name).as_posix()
            listing.sources.append(SourceFile(relative, Path(entry.path), facts.st_size, facts.st_mtime_ns))
            listing.folder_of.append(len(listing.folders) - 1)
    return listing


def _walk(folder: Path, files: dict[Path, list[os.DirEntry[str]]], empty: list[Path], seen: set[str]) -> int:
    real = os.path.realpath(folder)
    if real in seen:
        return 0
    seen.add(real)
    try:
        with os.scandir(folder) as entries:
            shown = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise BadDataError(f"{folder} cannot be listed: {error.strerror}; {LAYOUT}") from error
    folders = sorted((entry for entry in shown if entry.is_dir()), key=lambda entry: entry.name)
    volumes = [entry for entry in shown if not entry.is_dir() and entry.name.lower().endswith(".nc")]
    if volumes:
        files[folder] = volumes
    if not shown:
        empty.append(folder)
    ignored = len(shown) - len(folders) - len(volumes)
    return ignored + sum(_walk(Path(entry.path), files, empty, seen) for entry in folders)


def _stat(entry: os.DirEntry[str]) -> os.stat_result:
    try:
        return entry.stat()
    except OSError as error:  # a broken link, mostly
        raise BadDataError(f"{entry.path}: cannot be read ({error.strerror}); mend or remove it") from error


def _refuse_odd_folders(root: Path, holders: Sequence[Path], empty: Sequence[Path]) -> None:
    if empty:
        raise BadDataError(f"Empty folder: {some(empty)}; {LAYOUT}. Fill or remove it.")
    if not holders:
        raise BadDataError(
            f"No event found in {root}: no folder there holds .nc files; {LAYOUT}. Data of another "
            "task need its name: --task (make: TASK=)."
        )
    above = {parent for folder in holders for parent in folder.parents}
    mixed = [folder for folder in holders if folder in above]
    if mixed:
        raise BadDataError(
            f"Files outside event folders: {some(mixed)} holds .nc files and also folders with .nc files; {LAYOUT}. "
            "Move these files into an event folder of their own."
        )


def _event_name(root: Path, folder: Path) -> str:
    name = folder.relative_to(root).as_posix().removeprefix("sample/")
    return root.resolve().name if name in (".", "sample") else name


def scan_events(listing: Listing, variable: str, pool: WorkerPool, progress: Callable[[str, int, int], None]) -> Scan:
    """Reads all headers in parallel and checks each event. Raises BadDataError naming the offenders."""
    headers = _Headers(len(listing.sources))
    files = [(i, source.path) for i, source in enumerate(listing.sources)]
    jobs = ((variable, files[i : i + _HEADERS_PER_JOB]) for i in range(0, len(files), _HEADERS_PER_JOB))
    for count, chunk in enumerate(pool.run(_read_headers, jobs), 1):
        headers.add(chunk)
        progress("reading headers", min(count * _HEADERS_PER_JOB, len(files)), len(files))
    headers.refuse_unreadable()
    by_event = _by_event(listing)
    _refuse_equal_times(listing, headers.times, by_event)
    _refuse_changes(listing, headers, by_event)
    firsts = [members[0] for members in by_event]
    return Scan(
        headers.times, headers.grids, [headers.grid_of[i] for i in firsts], [headers.level_list(i) for i in firsts]
    )


Header = tuple[int, float, np.ndarray, Grid]


def _read_headers(job: tuple[str, list[tuple[int, Path]]]) -> tuple[list[Header], list[str]]:
    """In a worker: the headers of some files, and one line for each that cannot be read."""
    variable, files = job
    read: list[Header] = []
    errors = []
    for index, path in files:
        try:
            header = read_header(path, variable)
        except BadDataError as error:
            errors.append(str(error))
            continue
        grid = next((other for *_, other in read if other.same_as(header.grid)), header.grid)
        read.append((index, round(header.time, 3), header.levels, grid))
    return read, errors


@dataclass
class _Headers:
    """Headers as they arrive; equal grids and levels are kept once, so memory does not grow with them."""

    count: int
    times: list[float] = field(init=False)
    grid_of: list[int] = field(init=False)
    levels_of: list[int] = field(init=False)
    grids: list[Grid] = field(default_factory=list)
    levels: list[np.ndarray] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.times, self.grid_of, self.levels_of = [0.0] * self.count, [0] * self.count, [0] * self.count

    def add(self, chunk: tuple[list[Header], list[str]]) -> None:
        headers, errors = chunk
        self.errors += errors
        for index, time, levels, grid in headers:
            self.times[index] = time
            self.grid_of[index] = _number(self.grids, grid, grid.same_as)
            self.levels_of[index] = _number(self.levels, levels, partial(_same_levels, levels))

    def level_list(self, index: int) -> np.ndarray:
        return self.levels[self.levels_of[index]]

    def refuse_unreadable(self) -> None:
        if not self.errors:
            return
        first, *others = sorted(self.errors)
        more = f" (and {len(others)} more: {some(others, 2)})" if others else ""
        raise BadDataError(first + more)


def _number(known: list[T], item: T, same: Callable[[T], bool]) -> int:
    for number, other in enumerate(known):
        if other is item or same(other):
            return number
    known.append(item)
    return len(known) - 1


def _same_levels(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and bool(np.allclose(one, other))


def _by_event(listing: Listing) -> list[list[int]]:
    members: list[list[int]] = [[] for _ in listing.folders]
    for source, folder in enumerate(listing.folder_of):
        members[folder].append(source)
    return members


def _refuse_equal_times(listing: Listing, times: Sequence[float], by_event: Sequence[Sequence[int]]) -> None:
    pairs = []
    for members in by_event:
        first: dict[float, int] = {}
        kept = [first.setdefault(times[source], source) for source in members]
        pairs += [(one, other) for one, other in zip(kept, members, strict=True) if one != other]
    if pairs:
        raise BadDataError(
            f"Two files with the same time in one folder: {some(_pair(listing, times, *pair) for pair in pairs)}. "
            "Each frame must stand there once; remove one of the two."
        )


def _pair(listing: Listing, times: Sequence[float], one: int, other: int) -> str:
    first, second = listing.sources[one], listing.sources[other]
    same = first.size == second.size and first.path.read_bytes() == second.path.read_bytes()
    content = "identical content" if same else "different content"
    return f"{first.relative} and {second.path.name} ({iso_time(times[one])}, {content})"


def _refuse_changes(listing: Listing, headers: _Headers, by_event: Sequence[Sequence[int]]) -> None:
    changes = []
    for members in by_event:
        first = members[0]
        for source in members[1:]:
            if headers.grid_of[source] != headers.grid_of[first]:
                grids = [headers.grids[headers.grid_of[i]].describe() for i in (first, source)]
                changes.append(_change(listing, first, source, "grid", *grids))
            elif headers.levels_of[source] != headers.levels_of[first]:
                levels = [f"{len(headers.level_list(i))} levels" for i in (first, source)]
                changes.append(_change(listing, first, source, "vertical grid", *levels))
    if changes:
        raise BadDataError(
            f"{some(changes, 3)}. All files of an event must share one grid and one set of levels: "
            "put the others into an event folder of their own."
        )


def _change(listing: Listing, first: int, other: int, what: str, before: str, after: str) -> str:
    if before == after:
        after = f"{after} at other places"
    names = listing.sources[first].relative, listing.sources[other].relative
    return f"The {what} changes inside an event: {names[0]} has {before}, {names[1]} has {after}"


def frames_at_same_time(listing: Listing, scan: Scan) -> list[list[int]]:
    """Groups of sources, in different events on one grid, with the same time; that of the earliest event first."""
    begin = [min(scan.times[i] for i in members) for members in _by_event(listing)]
    at: dict[tuple[float, int], list[int]] = defaultdict(list)
    for source, time in enumerate(scan.times):
        at[time, scan.grid_of[listing.folder_of[source]]].append(source)
    groups = [group for group in at.values() if len(group) > 1]
    return [sorted(group, key=lambda i: (begin[listing.folder_of[i]], i)) for group in groups]


def some(names: Iterable[object], most: int = _MOST_NAMED) -> str:
    """The first few of ``names`` and how many more there are."""
    texts = [str(name) for name in names]
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more
