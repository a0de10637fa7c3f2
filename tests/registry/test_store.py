"""The registry's file: changed by many at once, and one line at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import DiskError
from training.registry.content import Content, DamagedRegistryError, parse, render, spliced
from training.registry.entry import Entry
from training.registry.store import RegistryFile

ROOT = Path(__file__).parent.parent.parent
PROCESSES, THREADS = 5, 20

WRITER = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tests.registry.made import make_run
from training.registry.index import Registry

output, process, threads = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
def write(number):
    run = make_run(output, f"20261125_{process:02d}{number:04d}_w", metrics={"val/loss": 0.5})
    Registry(output / "registry.json").register(run)
sys.stdin.readline()
with ThreadPoolExecutor(threads) as pool:
    list(pool.map(write, range(threads)))
"""


def entry(run_id: str, task: str = "convlstm", **more: Any) -> Entry:
    texts = {"state": "finished", "timestamp": "2026-11-25T10:00:00Z", "folder": f"{task}/{run_id}", "stamp": "1:2"}
    groups: dict[str, Any] = {"metrics": {}, "selection": {}, "metadata": {}, "checkpoint_path": None}
    return {"task": task, "run_id": run_id, **texts, **groups, **more}


def test_a_hundred_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    writers = [
        subprocess.Popen([*command, str(number), str(THREADS)], cwd=ROOT, stdin=subprocess.PIPE, text=True)
        for number in range(PROCESSES)
    ]
    for writer in writers:  # all of them are loaded and wait
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate()
    assert [writer.returncode for writer in writers] == [0] * PROCESSES
    content = parse((tmp_path / "registry.json").read_bytes())
    assert len(content.entries) == PROCESSES * THREADS == 100
    assert sorted(path.name for path in tmp_path.iterdir()) == [".registry.json.lock", "convlstm", "registry.json"]


names = st.text(st.characters(codec="utf-8"), max_size=12)
entries = st.builds(entry, names, st.sampled_from(["convlstm", "video", 'a"b', "\n"]), error=names)


@given(st.lists(entries, max_size=6))
def test_putting_in_a_line_is_the_same_as_writing_anew(those: list[Entry]) -> None:
    content, data = Content(), render(Content())
    for one in those:
        content.put(one)
        changed = spliced(data, one)
        assert changed is not None
        data = changed
        assert parse(data) == content
    assert data == render(content)


@given(st.integers(0, 10_000), st.binary(max_size=3), st.integers(0, 3))
def test_no_damage_is_a_surprise(at: int, put: bytes, cut: int) -> None:
    whole = Content()
    for run_id in "abc":
        whole.put(entry(run_id, metrics={"val/loss": 0.5}, error=None))
    data = render(whole)
    at %= len(data)
    try:
        found = parse(data[:at] + put + data[at + cut :])
    except DamagedRegistryError as damage:
        assert str(damage)
        found = damage.content
    assert parse(render(found)) == found


def test_a_file_of_another_shape_is_changed_too(tmp_path: Path) -> None:
    file = RegistryFile(tmp_path / "registry.json")
    file.update([entry("a"), entry("b")])
    pretty = json.dumps(json.loads(file.path.read_text()), indent=2)
    file.path.write_text(pretty)
    assert spliced(pretty.encode(), entry("c")) is None
    file.update([entry("c", state="failed"), entry("a", state="killed")])
    found = {key[1]: one["state"] for key, one in file.read().entries.items()}
    assert found == {"a": "killed", "b": "finished", "c": "failed"}


def test_many_entries_are_written_at_once(tmp_path: Path) -> None:
    file = RegistryFile(tmp_path / "deep" / "registry.json")
    file.update([entry(str(number)) for number in range(50)])
    assert len(file.read().entries) == 50


def test_a_writer_that_waits_too_long_says_so(tmp_path: Path) -> None:
    file = RegistryFile(tmp_path / "registry.json")
    with file.locked(), pytest.raises(DiskError, match=r"other processes have been writing it for 0\.05 s"):
        file.update([entry("a")], seconds=0.05)
    assert not FileLock(tmp_path / ".registry.json.lock").is_locked


def test_a_place_that_cannot_be_written_or_read_is_a_disk_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="cannot be written"):
        RegistryFile(tmp_path / "file" / "registry.json").update([entry("a")])
    (tmp_path / "registry.json").mkdir()
    with pytest.raises(DiskError, match="cannot be read"):
        RegistryFile(tmp_path / "registry.json").read()
