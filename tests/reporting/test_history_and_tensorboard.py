"""The two mirrors of `metrics.jsonl`: right after a resume, harmless when the disk refuses."""

from __future__ import annotations

import builtins
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

from training.reporting.history import History
from training.reporting.run_folder import RunFolder, read_lines
from training.reporting.tensorboard import TensorBoardLog


def validation(step: int, epoch: int, **metrics: float) -> dict[str, Any]:
    names = {f"val/{name}": value for name, value in metrics.items()}
    return {"kind": "validation", "step": step, "phase": "main", "epoch": epoch, "train_loss": 0.5, "metrics": names}


def train(step: int, loss: float) -> dict[str, Any]:
    return {"kind": "train", "step": step, "phase": "main", "epoch": 1, "loss": loss, "terms": {"huber": 0.1}}


def append(path: Path, *records: dict[str, Any], tail: str = "") -> None:
    with path.open("a") as file:
        file.write("".join(json.dumps(record) + "\n" for record in records) + tail)


def history(folder: Path) -> dict[str, list[Any]]:
    History(folder, pytest.fail).write()
    content: dict[str, list[Any]] = json.loads((folder / "training_history.json").read_text())
    return content


def test_history_has_a_row_per_validation_and_null_for_what_is_missing(tmp_path: Path) -> None:
    append(
        tmp_path / "metrics.jsonl", train(5, 0.6), validation(10, 1, loss=0.4), validation(20, 2, loss=0.3, csi_30=0.2)
    )
    assert history(tmp_path) == {
        "epoch": [1, 2],
        "step": [10, 20],
        "phase": ["main", "main"],
        "train_loss": [0.5, 0.5],
        "val/loss": [0.4, 0.3],
        "val/csi_30": [None, 0.2],
    }


def test_history_survives_a_torn_line_and_numbers_that_json_has_not(tmp_path: Path) -> None:
    append(tmp_path / "metrics.jsonl", validation(10, 1, loss=float("nan")), tail='{"kind": "validation", "step": 2')
    assert history(tmp_path)["val/loss"] == [None]


def test_history_follows_the_log_when_it_was_cut_back(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    append(metrics, validation(10, 1, loss=0.4), validation(20, 2, loss=0.3))
    assert history(tmp_path)["step"] == [10, 20]
    metrics.unlink()
    append(metrics, validation(10, 1, loss=0.4))
    assert history(tmp_path)["step"] == [10]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.jsonl", "training_history.json"]


def test_history_of_a_run_without_validations_is_empty(tmp_path: Path) -> None:
    assert history(tmp_path) == {"epoch": [], "step": [], "phase": [], "train_loss": []}


def test_a_history_that_cannot_be_written_warns_once(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "training_history.json").mkdir()
    keeper = History(tmp_path, said.append)
    keeper.write()
    keeper.write()
    assert len(said) == 1
    assert "cannot be written (Is a directory)" in said[0]


def test_lines_of_a_file_that_is_not_there_are_none(tmp_path: Path) -> None:
    assert list(read_lines(tmp_path / "metrics.jsonl")) == []
    folder = RunFolder(tmp_path)
    assert (folder.config, folder.metadata, folder.events, folder.evaluations, folder.best_step) == (
        {},
        {},
        [],
        {},
        None,
    )


def points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {
        tag: [(event.step, round(event.value, 6)) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


def test_a_resumed_run_has_no_point_twice(tmp_path: Path) -> None:
    first = TensorBoardLog(tmp_path, 0, pytest.fail)
    for step in (1, 2, 3, 4):
        first.write(train(step, 0.1 * step))
    first.write(validation(2, 1, loss=0.4))
    first.close()
    again = TensorBoardLog(tmp_path, 2, pytest.fail)
    for step in (3, 4, 5):
        again.write(train(step, 0.2 * step))
    again.close()
    expected = [(1, 0.1), (2, 0.2), (3, 0.6), (4, 0.8), (5, 1.0)]
    assert points(tmp_path) == {
        "train/loss": expected,
        "train/huber": [(step, 0.1) for step in range(1, 6)],
        "val/train_loss": [(2, 0.5)],
        "val/loss": [(2, 0.4)],
    }


def test_events_are_on_disk_after_a_validation_without_closing(tmp_path: Path) -> None:
    log = TensorBoardLog(tmp_path, 0, pytest.fail)
    log.write(train(1, 0.5))
    log.write(validation(1, 1, loss=0.4))
    assert points(tmp_path)["val/loss"] == [(1, 0.4)]
    log.close()
    log.write(train(2, 0.5))


def test_a_figure_keeps_its_bytes(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 3, 2, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(20))) + chunk(b"IEND", b"")
    (tmp_path / "example.png").write_bytes(png)
    log = TensorBoardLog(tmp_path / "events", 0, pytest.fail)
    log.figure("example", tmp_path / "example.png", 7)
    log.close()
    (image,) = EventAccumulator(str(tmp_path / "events")).Reload().Images("example")
    assert (image.step, image.width, image.height, image.encoded_image_string) == (7, 3, 2, png)


def test_without_the_package_there_is_one_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *rest: Any) -> Any:
        if name.startswith("tensorboard"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    said: list[str] = []
    log = TensorBoardLog(tmp_path, 0, said.append)
    log.write(train(1, 0.5))
    log.close()
    assert len(said) == 1
    assert "No module named" in said[0]


def test_a_disk_that_refuses_is_one_warning(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "tensorboard").write_text("a file where the folder should be")
    log = TensorBoardLog(tmp_path / "tensorboard", 0, said.append)
    log.write(validation(1, 1, loss=0.4))
    log.close()
    assert len(said) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_fills_up_is_one_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    log = TensorBoardLog(tmp_path, 0, said.append)
    assert log._events is not None
    log._events._records._writer.close()
    with Path("/dev/full").open("wb", buffering=0) as full:
        monkeypatch.setattr(log._events._records, "_writer", full)
        log.write(validation(1, 1, loss=0.4))
        log.write(validation(2, 1, loss=0.4))
    assert len(said) == 1
    assert "No space left" in said[0]
