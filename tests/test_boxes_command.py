"""`predict` with a detector that was trained: from a run and a folder to the files, as a user meets it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.detection_predict import film, moving, rows_of
from tests.runs import places, run_of, small_sample, train
from training.cli import main


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with a short run on the built-in sample."""
    place = tmp_path_factory.mktemp("trained")
    assert train(place, "detection") == 0
    return place


@pytest.fixture
def predict_with(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """``predict_with(inputs…)``: the exit code, and the only line that was printed."""

    def command(*inputs: Path, out: Path = tmp_path / "out") -> tuple[int, str]:
        capsys.readouterr()
        run = run_of(trained, "detection").name
        code = main(["predict", run, *map(str, inputs), "--out", str(out), *places(trained)])
        said = capsys.readouterr()
        printed = (said.err if code else said.out).strip().splitlines()
        (line,) = (one for one in printed if " pictures: " not in one)
        return code, line

    return command


def test_images_and_films_together(tmp_path: Path, predict_with: Callable[..., tuple[int, str]]) -> None:
    images = sorted((small_sample("detection") / "images" / "test").iterdir())
    clip = film(tmp_path / "clip.mp4", moving(3))
    assert predict_with(images[0].parent, clip) == (0, str(tmp_path / "out" / "detections.json"))
    listed = json.loads((tmp_path / "out" / "images.json").read_text())
    assert len(listed["images"]) == len(images) + 3
    assert [category["name"] for category in listed["categories"]] == ["person", "car", "truck", "bus"]
    sizes = {image["id"]: (image["width"], image["height"]) for image in listed["images"]}
    for row in rows_of(tmp_path / "out" / "detections.json"):
        width, height = sizes[row["image_id"]]
        x, y, across, down = row["bbox"]
        assert x >= 0
        assert y >= 0
        assert x + across <= width + 0.02
        assert y + down <= height + 0.02
        assert 0 < row["score"] <= 1


def test_another_confidence_and_what_was_found(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = small_sample("detection") / "images" / "test"
    run = run_of(trained, "detection").name
    command = ["predict", run, str(images), *places(trained)]
    assert main([*command, "--out", str(tmp_path / "all"), "--confidence", "0.0"]) == 0
    rows = rows_of(tmp_path / "all" / "detections.json")
    labels = [line for path in (tmp_path / "all" / "labels").iterdir() for line in path.read_text().splitlines()]
    assert len(labels) == len(rows) > 0
    told = f"4 pictures: {len(rows)} boxes at least 0 sure, drawn and labelled; {len(rows)} in all, in detections.json"
    assert told in capsys.readouterr().err
    assert main([*command, "--out", str(tmp_path / "none"), "--confidence", "1"]) == 0
    assert not any(path.read_text() for path in (tmp_path / "none" / "labels").iterdir())


def test_exit_codes(tmp_path: Path, predict_with: Callable[..., tuple[int, str]]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "in_the_way").write_text("")
    image = min((small_sample("detection") / "images" / "test").iterdir())
    (tmp_path / "out").mkdir()
    for given, out, code, words in [
        ([tmp_path / "nowhere"], "out", 2, "nowhere: no such file or folder"),
        ([tmp_path / "empty"], "out", 2, "no images or videos found"),
        ([tmp_path / "notes.txt"], "out", 65, "notes.txt: damaged or no video"),
        ([image, tmp_path / "notes.txt"], "out", 65, "the result of the rest is in"),
        ([image], "in_the_way/out", 74, "choose another --out"),
    ]:
        found, line = predict_with(*given, out=tmp_path / out)
        assert (found, words in line) == (code, True), line
    assert len(json.loads((tmp_path / "out" / "images.json").read_text())["images"]) == 1
