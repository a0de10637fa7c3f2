"""What the tests of fetching share: archives of made files, and a fetch that notes what it tells."""

from __future__ import annotations

import gzip
import hashlib
import io
import random
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.fetching.fetch import Tellers, fetch
from training.fetching.manifest import Manifest, load_manifest
from training.yaml_core import write_yaml

DRIVE_ID = "1aBcDeFgHiJkLmNoPqRsTuVwXyZ"
FILES = {"event_1/a.nc": b"first" * 1000, "event_2/b.nc": random.Random(1).randbytes(300_000)}


def tar_gz(files: dict[str, bytes] | None = None) -> bytes:
    """The same bytes each time."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for name, content in (FILES if files is None else files).items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return gzip.compress(plain.getvalue(), mtime=0)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a dataset by their names, hidden ones left out."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@dataclass
class Place:
    """A datasets folder, the manifests beside it, and what was told."""

    root: Path
    said: list[str] = field(default_factory=list)
    stages: list[str] = field(default_factory=list)
    shown: list[tuple[str, int, int | None]] = field(default_factory=list)
    check_stop: Callable[[], None] = lambda: None

    @property
    def datasets(self) -> Path:
        return self.root / "datasets"

    @property
    def downloads(self) -> Path:
        return self.datasets / ".downloads"

    def manifest(self, *sources: dict[str, str], **keys: Any) -> Manifest:
        path = self.root / "radar.yaml"
        write_yaml(path, {"sources": list(sources), **keys})
        return load_manifest(path)

    def fetch(self, manifest: Manifest) -> Path:
        return fetch(manifest, self.datasets, self.tellers(), backoff=0.01)

    def tellers(self) -> Tellers:
        def progress(what: str, done: int, total: int | None, *, unit: str = "") -> None:
            assert unit == "B"
            self.shown.append((what, done, total))

        return Tellers(self.said.append, progress, lambda: self.check_stop(), self.stages.append)
