"""The few rclone commands that the worker uses, over folders: ``any:path`` is ``$STAND_IN_ROOT/path``.

Exit codes are rclone's own: 3 for a folder and 4 for a file that is not there, 1 for the rest.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path


def place(word: str) -> Path:
    remote, colon, path = word.partition(":")
    if remote == "unknown":
        fail(1, f'2026/11/25 10:17:31 CRITICAL: Failed to create file system for "{word}": didn\'t find section')
    return Path(os.environ["STAND_IN_ROOT"]) / path if colon else Path(word)


def fail(code: int, line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.exit(code)


def entry(path: Path, below: Path) -> dict[str, object]:
    hashes = {"md5": hashlib.md5(path.read_bytes()).hexdigest()} if path.is_file() else {}
    size = path.stat().st_size if path.is_file() else -1
    return {"Path": path.relative_to(below).as_posix(), "Size": size, "Hashes": hashes}


def lsjson(folder: Path, options: set[str]) -> None:
    if not folder.is_dir():
        fail(3, "directory not found")
    found = folder.rglob("*") if "--recursive" in options else folder.iterdir()
    wanted = [path for path in sorted(found) if path.is_dir() == ("--dirs-only" in options)]
    sys.stdout.write(json.dumps([entry(path, folder) for path in wanted]))


def copyto(source: Path, target: Path) -> None:
    if not source.is_file():
        fail(3, "directory not found")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def main() -> None:
    options = {word for word in sys.argv[1:] if word.startswith("--")}
    verb, *words = [word for word in sys.argv[1:] if not word.startswith("--")]
    paths = [place(word) for word in words]
    if verb == "lsjson":
        lsjson(paths[0], options)
    elif verb == "copyto":
        copyto(*paths)
    elif verb == "purge":
        shutil.rmtree(paths[0]) if paths[0].is_dir() else fail(1, "Failed to purge: no such file or directory")
    elif verb == "deletefile" and not paths[0].is_file():
        fail(1, "Failed to deletefile: it is a directory or doesn't exist")  # as rclone 1.60 does; later 4
    elif not paths[0].is_file():
        fail(4, "object not found")
    elif verb == "cat":
        sys.stdout.buffer.write(paths[0].read_bytes())
    elif verb == "deletefile":
        paths[0].unlink()


main()
