"""`audit` over runs and split files: what it finds in real splits, what it says, and its exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs import ALL_TASKS, register_tiny, run_of, train
from training.cli import main
from training.files import read_json, write_json
from training.leaks.members import FILE, Member, Membership, read_membership, to_json

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def every_task(monkeypatch: pytest.MonkeyPatch) -> None:
    register_tiny(monkeypatch)


def split_file(folder: Path, name: str, item: str = "windows", **splits: list[Member]) -> str:
    path = folder / f"{name}.json"
    write_json(path, to_json(Membership(item, 3600.0, splits)))
    return str(path)


def audit(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(["audit", *words])
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.mark.parametrize("task", ALL_TASKS)
def test_a_trainings_own_split_holds_no_leak(task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path, task, sets=("training.max_steps=1",)) == 0
    run = run_of(tmp_path, task)
    members = read_membership(run / FILE).splits
    assert all(members[split] for split in ("train", "val", "test"))
    assert all(member.content for split in members.values() for member in split)
    code, out, _ = audit(capsys, run.name, "--output", str(tmp_path / "out"))
    assert code == 0, out
    assert out.count("nothing in common") == 3


def test_another_split_of_the_same_data_is_full_of_leaks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shifted = {"train": "test", "val": "train", "test": "val"}
    assert train(tmp_path, "convlstm", sets=("training.max_steps=1",)) == 0
    run = run_of(tmp_path, "convlstm")
    found = read_json(run / FILE)
    found["splits"] = {name: found["splits"][other] for name, other in shifted.items()}
    other = tmp_path / "other" / FILE
    other.parent.mkdir()
    write_json(other, found)
    assert audit(capsys, f"{run}:test", f"{other.parent}:test")[0] == 0  # the other's is our validation split
    code, out, _ = audit(capsys, f"{run}:train", str(other.parent))
    assert code == 1
    assert "identical content" in out and "near in time" in out and "the same item" in out
    code, out, _ = audit(capsys, f"{run}:train", str(other.parent), "--json")
    (pair, *_) = [pair for pair in json.loads(out)["pairs"] if pair["examined"] == "val of other"]
    assert pair["tainted"] == pair["n"] and pair["clean"] == 0


def test_two_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = split_file(tmp_path, "one", train=[Member("a", "p1"), Member("b", "p2")], test=[Member("c", "p3")])
    other = split_file(tmp_path, "other", train=[Member("d", "p4")], test=[Member("e", "p2"), Member("f", "p5")])
    code, out, _ = audit(capsys, one, other)
    assert code == 1
    assert "the same group: e (test of" in out
    assert audit(capsys, f"{one}:test", f"{other}:train")[0] == 0
    assert audit(capsys, one)[0] == 0


def test_items_of_different_tasks_share_content_at_most(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = {"train": [Member("1", "a")], "test": [Member("2", "b")]}
    one = split_file(tmp_path, "one", **names)
    code, _, err = audit(capsys, one, split_file(tmp_path, "other", item="images", **names))
    assert (code, "cannot be compared" in err) == (65, True)
    pictures = [Member("7", content=("c",))]
    one = split_file(tmp_path, "three", train=[Member("1", content=("c",))], test=[Member("2", content=("d",))])
    code, out, _ = audit(capsys, f"{one}:train", split_file(tmp_path, "four", item="images", test=pictures))
    assert (code, "(identical content 1)" in out) == (1, True)


def test_how_near_is_near(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = split_file(tmp_path, "one", train=[Member("a", span=(0, 100))], test=[Member("b", span=(7300, 7400))])
    assert audit(capsys, one)[0] == 0
    assert audit(capsys, one, "--near-hours", "3")[0] == 1


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, "no such run"),
        ("{", "damaged"),
        ('{"format": 1, "item": "x", "near_seconds": 0, "splits": {"train": 3}}', "damaged"),
        ('{"format": 9}', "another version"),
        (
            '{"format": 1, "item": "x", "near_seconds": 0, "splits": {"t": {"names": ["a"], "groups": []}}}',
            "damaged",
        ),
    ],
)
def test_what_is_no_split(content: str | None, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "split.json"
    if content is not None:
        path.write_text(content)
    code, _, err = audit(capsys, str(path), "--output", str(tmp_path))
    assert code == (2 if content is None else 65)
    assert line in err and "split.json" in err and len(err.strip().splitlines()) == 1


def test_a_split_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = split_file(tmp_path, "one", train=[Member("a")])
    code, _, err = audit(capsys, f"{one}:test")
    assert code == 2 and "has no split test, only train" in err
    assert audit(capsys, one, one, one)[0] == 2


def test_torch_is_not_needed() -> None:
    code = "import sys; import training.leaks.command; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_nothing_compared_is_not_nothing_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = split_file(tmp_path, "one", train=[Member("a")], test=[])
    code, _, err = audit(capsys, one)
    assert code == 65 and "cannot be compared" in err
    code, _, err = audit(capsys, f"{one}:train")
    assert code == 2 and "nothing to compare" in err
    odd = split_file(tmp_path, "odd", fold0=[Member("a")], holdout=[Member("a")])
    code, _, err = audit(capsys, odd)
    assert code == 65 and "a part called fold0, expected train, val, test" in err
