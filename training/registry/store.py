"""The registry's file on disk: replaced whole, changed by one process at a time, set aside when it is damaged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from backend.errors import DiskError
from backend.files import write_atomic
from training.clock import now_utc
from training.registry.content import Content, DamagedRegistryError, entry_in, name_of, parse, render, spliced
from training.registry.entry import Entry, Key, key_of

_LOCK_SECONDS = 60.0
_FEW = 8


class RegistryFile:
    """One registry on disk. ``say`` is told where a damaged one was set aside."""

    def __init__(self, path: Path, say: Callable[[str], None] = lambda line: None) -> None:
        self.path = path
        self._say = say
        self._seen = b""  # what `read` found

    def read(self) -> Content:
        """What is in it; a damaged one is set aside, and what can still be read of it is kept.

        Raises:
            DiskError: it cannot be read.
        """
        self._seen = self._bytes()
        try:
            return parse(self._seen)
        except DamagedRegistryError as damage:
            return self._repaired(damage)

    @contextmanager
    def locked(self, seconds: float = _LOCK_SECONDS) -> Iterator[None]:
        """Hold the file for a change.

        Raises:
            DiskError: it cannot be written, or others have held it for ``seconds``.
        """
        from filelock import FileLock, Timeout

        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path.with_name(f".{self.path.name}.lock"), timeout=seconds, poll_interval=0.01):
                yield
        except Timeout:
            raise DiskError(f"{self.path}: other processes have been writing it for {seconds:g} s") from None
        except OSError as error:
            raise DiskError(f"{self.path}: the registry cannot be written ({error.strerror or error})") from error

    def update(
        self,
        fresh: Sequence[Entry],
        seconds: float = _LOCK_SECONDS,
        check: Callable[[Entry, Entry], None] | None = None,
    ) -> None:
        """Add or replace entries; one or a few in a time that hardly depends on the others.

        ``check`` is given each stored entry and the one to replace it, and may raise.

        Raises:
            DiskError: it cannot be written, or others have held it for ``seconds``.
        """
        with self.locked(seconds):
            if check is not None:
                data = self._bytes()
                pairs = ((entry_in(data, key_of(entry)), entry) for entry in fresh)
                for stored, entry in pairs:
                    if stored is not None:
                        check(stored, entry)
            self._put(fresh)

    def write_back(self, known: Mapping[Key, Entry], fresh: Sequence[Entry], seconds: float = _LOCK_SECONDS) -> None:
        """Put ``fresh`` in place of what `read` found as ``known``; what others changed since then stays.

        Raises:
            DiskError: it cannot be written, or others have held it for ``seconds``.
        """
        with self.locked(seconds):
            if self._bytes() != self._seen:
                now = self._read_locked()
                fresh = [entry for entry in fresh if _is_as_known(now, known, key_of(entry))]
            if fresh:
                self._put(fresh)

    def replace(self, known: Content, fresh: Content) -> None:
        """Write ``fresh`` in place of ``known``, and keep what others wrote since that was read. Raises DiskError."""
        with self.locked():
            now = self._read_locked()
            for key in known.entries.keys() - now.entries.keys():
                fresh.entries.pop(key, None)
            for key, entry in now.entries.items():
                if entry != known.entries.get(key):
                    fresh.put(entry)
            fresh.left_out |= now.left_out - known.left_out
            self._write(fresh)

    def remove(self, keys: Iterable[Key], *, leave_out: bool = False) -> None:
        """Take entries off the list; with ``leave_out`` their folders do not bring them back. Raises DiskError."""
        with self.locked():
            content = self._read_locked()
            for key in keys:
                content.entries.pop(key, None)
                content.left_out.discard(name_of(key))
                if leave_out:
                    content.left_out.add(name_of(key))
            self._write(content)

    def _put(self, fresh: Sequence[Entry]) -> None:
        data = self._bytes() if len(fresh) <= _FEW else None
        for entry in fresh if data else ():
            data = spliced(data, entry) if data is not None else None
        if data is not None:
            write_atomic(self.path, data)
            return
        content = self._read_locked()
        for entry in fresh:
            content.put(entry)
        self._write(content)

    def _write(self, content: Content) -> None:
        write_atomic(self.path, render(content))

    def _bytes(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return render(Content())
        except OSError as error:
            raise DiskError(f"{self.path}: the registry cannot be read ({error.strerror})") from error

    def _repaired(self, damage: DamagedRegistryError) -> Content:
        """Set aside, unless this user may not write there: then what is told comes from memory alone."""
        try:
            with self.locked(5.0):
                return self._read_locked()
        except DiskError as error:
            self._say(f"warning: {self.path} is damaged ({damage}) and cannot be set aside: {error}")
            return damage.content

    def _read_locked(self) -> Content:
        try:
            return parse(self._bytes())
        except DamagedRegistryError as damage:
            aside = self._set_aside()
            self._write(damage.content)
            self._say(
                f"{self.path} is damaged ({damage}); it is set aside as {aside.name}, and the list is rebuilt from the "
                "run folders"
            )
            return damage.content

    def _set_aside(self) -> Path:
        stamp = now_utc().replace(":", "").replace("-", "")
        number = 1
        while True:
            end = f"-{number}" if number > 1 else ""
            aside = self.path.with_name(f"{self.path.stem}.damaged-{stamp}{end}{self.path.suffix}")
            if not aside.exists():
                self.path.rename(aside)
                return aside
            number += 1


def _is_as_known(now: Content, known: Mapping[Key, Entry], key: Key) -> bool:
    return now.entries.get(key) == known.get(key) and name_of(key) not in now.left_out
