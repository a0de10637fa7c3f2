"""Names inside an archive: which are let in, and that no two of them mean the same place."""

from __future__ import annotations

import re
import unicodedata

from training.unpacking.formats import ArchiveError

NAME_BYTES = 255  # what Linux filesystems take for one name
PATH_BYTES = 2048  # leaves room for the target's own path below the system's 4096

_DRIVE = re.compile(r"[A-Za-z]:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def shown(name: str) -> str:
    """``name`` for an error line: quoted, nothing in it that a terminal acts on, not too long."""
    return ascii(name) if len(name) <= 120 else f"{name[:120]!a}…"


def checked_parts(name: str, is_folder: bool) -> tuple[str, ...]:
    """The names along a member's path, below the target; empty for the target itself (``./``).

    Raises:
        ArchiveError: the path leads elsewhere, or means different places on different systems.
    """
    if problem := _problem(name):
        raise ArchiveError(f"the member name {shown(name)} {problem}; pack it anew with plain relative names")
    parts = name.split("/")
    if not is_folder and parts[-1] in ("", "."):
        raise ArchiveError(f"the file {shown(name)} has a folder's name; pack it anew")
    return tuple(part for part in parts if part not in ("", "."))


def _problem(name: str) -> str | None:
    if not name:
        return "is empty"
    if _CONTROL.search(name):
        return "holds a NUL or another control character"
    if "\\" in name:
        return "holds a backslash"
    if name.startswith("/"):
        return "is an absolute path"
    if _DRIVE.match(name):
        return "begins with a drive"
    return _problem_of_parts(name)


def _problem_of_parts(name: str) -> str | None:
    parts = name.split("/")
    if ".." in parts:
        return "holds '..'"
    try:
        longest = max(len(part.encode()) for part in parts)
    except UnicodeEncodeError:
        return "is not UTF-8"
    if longest > NAME_BYTES:
        return f"has a part of {longest} bytes, more than {NAME_BYTES}"
    if len(name.encode()) > PATH_BYTES:
        return f"is longer than {PATH_BYTES} bytes"
    return None


class Paths:
    """All paths taken so far. Those that differ in case or Unicode form alone are one, as some filesystems see it."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._folders: dict[str, str] = {}  # folded -> as it was spelled

    def add_folder(self, parts: tuple[str, ...]) -> list[str]:
        """Take a folder; returns the paths of the folders to make for it, outermost first. Again is no error.

        Raises:
            ArchiveError: a file, or a folder spelled otherwise, has its place.
        """
        path = "/".join(parts)
        if not parts or self._folders.get(_folded(path)) == path:
            return []
        fresh = self.add_folder(parts[:-1])
        folded = _folded(path)
        if folded in self._files:
            raise ArchiveError(f"{shown(path)} is both a file and a folder; pack it anew")
        if folded in self._folders:
            raise ArchiveError(
                f"the folders {shown(path)} and {shown(self._folders[folded])} differ in case or Unicode form alone; "
                "rename one"
            )
        self._folders[folded] = path
        return [*fresh, path]

    def add_file(self, parts: tuple[str, ...]) -> list[str]:
        """Take a file; returns the paths of the folders to make for it, outermost first.

        Raises:
            ArchiveError: its place is taken, or a part of its path is a file.
        """
        fresh = self.add_folder(parts[:-1])
        path = "/".join(parts)
        folded = _folded(path)
        if folded in self._folders:
            raise ArchiveError(f"{shown(path)} is both a file and a folder; pack it anew")
        if folded in self._files:
            raise ArchiveError(f"{shown(path)} is there twice (case and Unicode form apart); pack each file once")
        self._files.add(folded)
        return fresh


def _folded(path: str) -> str:
    if path.isascii():
        return path.casefold()
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", path).casefold())
