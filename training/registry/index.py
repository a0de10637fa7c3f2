"""The list of runs as it is now: the registry's file, and a look at the folders for what it does not know yet."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from backend.errors import DiskError, UsageError
from training.registry.content import Content, name_of
from training.registry.entry import Entry, Key, is_complete, key_of, read_entry, with_progress
from training.registry.folders import absolute, folders_under, has_runs_name, is_run, is_there, real_place, stamp_of
from training.registry.lock import at_work
from training.registry.store import RegistryFile
from training.shown import all_without_secrets

Say = Callable[[str], None]
_TOLD = ("error", "dataset_name", "dataset_version", "metadata")  # what somebody else may have put into words
GONE = "gone"  # the state that is told of a run whose folder is not there any more
_MANY = 200  # folders to read anew from which on it takes so long that a line is due
_WRITE_BACK_SECONDS = 2.0


class CopyError(UsageError):
    """A folder cannot stand on the list for a run that is there in another place."""


class Registry:
    """The registry at ``path``: of the runs under ``output``, and of those elsewhere that were registered.

    ``say`` is told what a person should know, such as that a damaged registry was set aside.
    """

    def __init__(self, path: Path, output: Path | None = None, say: Say = lambda line: None) -> None:
        self.path = real_place(path)
        self.base = self.path.parent  # what paths in the registry are relative to
        self.file = RegistryFile(self.path, say)
        self.output = str(output.resolve()) if output is not None else None
        self._say = say

    def entries(self) -> list[Entry]:
        """Every run, newest first, with ``folder`` and ``checkpoint_path`` absolute.

        What changed since it was registered is read anew and, where the registry can be written, noted there.

        Raises:
            DiskError: the registry is there and cannot be read.
        """
        content = self.file.read()
        known = dict(content.entries)
        gone, fresh = self._refresh(content)
        if fresh:
            with suppress(DiskError):  # a look at somebody else's runs
                self.file.write_back(known, fresh, _WRITE_BACK_SECONDS)
        found = [self._opened(entry, key in gone) for key, entry in content.entries.items()]
        return sorted(found, key=_age, reverse=True)

    def stored(self) -> list[Entry]:
        """The list as it was last written, without a look at the folders, newest first.

        Raises:
            DiskError: the registry is there and cannot be read.
        """
        found = [self._opened(entry, False) for entry in self.file.read().entries.values()]
        return sorted(found, key=_age, reverse=True)

    def register(self, folder: Path, seconds: float = 60.0) -> Entry:
        """Put one run on the list as its folder shows it now; ``seconds`` is for how long to wait for other writers.

        Raises:
            CopyError: it is a copy of a run that is on the list and lies elsewhere.
            DiskError: the registry cannot be written.
        """
        entry = read_entry(real_place(folder), self.base)
        self.file.update([entry], seconds, self._refuse_copy)
        return self._opened(entry, False)

    def look_at(self, folder: Path) -> Entry:
        """The entry of a run that need not be on the list, as its folder shows it now."""
        entry = read_entry(real_place(folder), self.base)
        state = "killed" if entry["state"] == "running" and not at_work(str(folder)) else entry["state"]
        return self._opened({**entry, "state": state}, False)

    def rebuild(self) -> tuple[int, list[Key]]:
        """Make the list anew from the folders: how many runs there are, and which of those known before are gone.

        Raises:
            DiskError: the registry cannot be written.
        """
        known = self.file.read()
        places = {*self._known(known), *self.folders()}
        fresh = Content()
        for folder in filter(is_run, sorted(places)):
            fresh.put(read_entry(Path(folder), self.base))
        self.file.replace(known, fresh)
        return len(fresh.entries), [key for key in known.entries if key not in fresh.entries]

    def _refresh(self, content: Content) -> tuple[set[Key], list[Entry]]:
        """Bring ``content`` up to date: whose folders are gone, and the entries that are other than in the file."""
        gone, unread = self._look(content)
        if len(unread) >= _MANY:
            self._say(f"reading {len(unread):,} run folders that the registry does not know as they are now")
        fresh = {}
        for folder in unread:
            entry = read_entry(Path(folder), self.base)
            other = content.entries.get(key_of(entry))
            is_copy = other is not None and self._is_copy(entry, other)
            if not is_copy and name_of(key_of(entry)) not in content.left_out:
                content.put(entry)
                fresh[key_of(entry)] = entry
        fresh |= self._refresh_unfinished(content)
        return gone - fresh.keys(), list(fresh.values())

    def _refuse_copy(self, stored: Entry, fresh: Entry) -> None:
        if self._is_copy(fresh, stored):
            raise CopyError(
                f"{self._place(fresh)}: a copy of {self._place(stored)}, which is the run on the list; delete one of "
                "them, or move the copy to an output folder of its own"
            )

    def _is_copy(self, entry: Entry, known: Entry) -> bool:
        """Whether an entry of the same run lies elsewhere, and the ``known`` one is still in its place."""
        return entry["folder"] != known["folder"] and is_run(self._place(known))

    def _look(self, content: Content) -> tuple[set[Key], list[str]]:
        """Whose folders are gone, and the folders of which the registry knows nothing, or not the newest."""
        known = self._known(content)
        stamps = {folder: stamp_of(folder) for folder in known}
        lost = {folder for folder, stamp in stamps.items() if not stamp and not is_there(folder)}
        stale = {
            folder for folder, entry in known.items() if stamps[folder] != entry["stamp"] or not is_complete(entry)
        }
        changed = [folder for folder in known if folder in stale and folder not in lost]
        others = [folder for folder in self.folders() if folder not in known]
        new = [folder for folder in others if name_of_folder(folder) not in content.left_out]
        unread = changed + [folder for folder in new if has_runs_name(folder) or is_run(folder)]
        return {key_of(known[folder]) for folder in lost}, unread

    def _refresh_unfinished(self, content: Content) -> dict[Key, Entry]:
        """Bring in how far they are, and who is at work and who was killed; the last is worth writing back."""
        unfinished = {key: entry for key, entry in content.entries.items() if entry["state"] in ("running", "killed")}
        for key, entry in unfinished.items():
            folder = self._place(entry)
            state = "running" if at_work(folder) else "killed"
            if "running" in (state, entry["state"]):
                content.entries[key] = {**with_progress(entry, Path(folder)), "state": state}
        return {
            key: content.entries[key]
            for key, old in unfinished.items()
            if content.entries[key]["state"] != old["state"]
        }

    def _known(self, content: Content) -> dict[str, Entry]:
        """The entries by their folders."""
        return {self._place(entry): entry for entry in content.entries.values()}

    def folders(self) -> list[str]:
        """What lies where the runs of ``output`` do, on the list or not."""
        return list(folders_under(self.output)) if self.output is not None else []

    def _place(self, entry: Entry) -> str:
        return absolute(str(self.base), entry["folder"])

    def _opened(self, entry: Entry, is_gone: bool) -> Entry:
        """``entry`` as it is told: with absolute paths, without secrets."""
        folder, checkpoint = self._place(entry), entry["checkpoint_path"]
        path = absolute(str(self.base), checkpoint) if checkpoint else None
        entry = entry | {name: all_without_secrets(entry[name]) for name in _TOLD if name in entry}
        return {**entry, "folder": folder, "checkpoint_path": path, "state": GONE if is_gone else entry["state"]}


def name_of_folder(folder: str) -> str:
    """``task/run id`` by where a folder lies."""
    return "/".join(folder.rsplit("/", 2)[-2:])


def _age(entry: Entry) -> tuple[str, str]:
    return entry["timestamp"], entry["run_id"]
