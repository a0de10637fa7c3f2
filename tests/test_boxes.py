"""Images and videos in, boxes out: coordinates, the files of the result, and the inputs that are refused."""

from __future__ import annotations

import contextlib
import io
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from backend import boxes
from backend.boxes import write_detections
from backend.errors import BadDataError, DiskError, UsageError
from tests.detection_predict import CLASSES, ColourFinder, artifact, film, moving, picture, rows_of, save
from tests.small_disk import small_disk
from training.data.detection.labels import Rows, read_rows


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch) -> ColourFinder:
    """What every checkpoint's network is."""
    finder = ColourFinder()
    monkeypatch.setattr(boxes, "build", lambda *_: finder)
    return finder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images of one name in two folders, of other proportions and sizes, and a film."""
    folder = tmp_path / "in"
    save(folder / "a" / "x.png", picture(192, 96, ((20, 10, 60, 50), 0), ((100, 40, 180, 90), 1)))
    save(folder / "b" / "x.jpg", picture(96, 288, ((30, 90, 60, 150), 0)))
    film(folder / "b" / "drive.mp4", moving(20))
    (folder / "notes.txt").write_text("left alone")
    return folder


# --- what comes out ---------------------------------------------------------------------------------------------------


def test_boxes_come_back_in_the_pixels_of_the_image(folder: Path, tmp_path: Path) -> None:
    assert write_detections(artifact(), [folder / "a" / "x.png"], tmp_path / "out") == tmp_path / "out/detections.json"
    assert rows_of(tmp_path / "out" / "detections.json") == [
        {"image_id": 1, "category_id": 3, "bbox": [20, 10, 40, 40], "score": 0.9, "file_name": "x.png"},
        {"image_id": 1, "category_id": 17, "bbox": [100, 40, 80, 50], "score": 0.2, "file_name": "x.png"},
    ]


def test_an_image_that_does_not_fit_evenly_is_off_by_less_than_a_network_pixel(tmp_path: Path) -> None:
    save(tmp_path / "odd.png", picture(1001, 333, ((101, 57, 757, 301), 0)))
    write_detections(artifact(), [tmp_path / "odd.png"], tmp_path / "out")
    (row,) = rows_of(tmp_path / "out" / "detections.json")
    x, y, width, height = row["bbox"]
    assert np.abs(np.array([x, y, x + width, y + height]) - (101, 57, 757, 301)).max() < 1001 / 96


def test_names_keep_the_folders_of_the_input(folder: Path, tmp_path: Path) -> None:
    write_detections(artifact(), [folder], tmp_path / "out")
    images = json.loads((tmp_path / "out" / "images.json").read_text("utf-8"))
    assert [image["file_name"] for image in images["images"]] == [
        "a/x.png", *(f"b/drive/{number:06d}" for number in range(20)), "b/x.jpg",
    ]  # fmt: skip
    assert [image["id"] for image in images["images"]] == list(range(1, 23))
    assert images["images"][3] == {
        "id": 4, "file_name": "b/drive/000002", "width": 96, "height": 64,
        "video": "b/drive.mp4", "frame": 2, "seconds": 0.08,
    }  # fmt: skip
    assert images["categories"] == [{"id": 3, "name": "red thing"}, {"id": 17, "name": "Grüner Kasten"}]
    found = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert found == {
        "detections.json", "images.json", "labels/a/x.txt", "labels/b/x.txt", "drawn/a/x.png", "drawn/b/x.jpg",
        "drawn/b/drive.mp4", *(f"labels/b/drive/{number:06d}.txt" for number in range(20)),
    }  # fmt: skip


def test_inputs_of_several_folders_are_named_from_the_folder_that_they_share(folder: Path, tmp_path: Path) -> None:
    write_detections(artifact(), [folder / "b" / "x.jpg", folder / "a", folder / "a" / "x.png"], tmp_path / "out")
    names = [image["file_name"] for image in json.loads((tmp_path / "out" / "images.json").read_text())["images"]]
    assert names == ["a/x.png", "b/x.jpg"]


def test_labels_are_yolo_s_and_have_what_is_sure_enough(folder: Path, tmp_path: Path) -> None:
    write_detections(artifact(), [folder / "a"], tmp_path / "out")
    label = (tmp_path / "out" / "labels" / "x.txt").read_text()
    assert label == f"0 {40 / 192:.6f} {30 / 96:.6f} {40 / 192:.6f} {40 / 96:.6f} 0.90000\n"
    write_detections(artifact(confidence=0.1), [folder / "a"], tmp_path / "out")
    assert [line[0] for line in (tmp_path / "out" / "labels" / "x.txt").read_text().splitlines()] == ["0", "1"]
    write_detections(artifact(confidence=0.95), [folder / "a"], tmp_path / "out")
    assert (tmp_path / "out" / "labels" / "x.txt").read_text() == ""


def test_training_reads_the_labels_without_their_scores(folder: Path, tmp_path: Path) -> None:
    write_detections(artifact(confidence=0.1), [folder / "a"], tmp_path / "out")
    text = (tmp_path / "out" / "labels" / "x.txt").read_text()
    rows = Rows()
    read_rows("\n".join(line.rpartition(" ")[0] for line in text.splitlines()).encode(), "x.txt", 2, rows)
    assert rows.problems == []
    assert rows.labels == [0, 1]
    in_pixels = np.array(rows.boxes) * (192, 96, 192, 96)
    np.testing.assert_allclose(in_pixels, [(20, 10, 60, 50), (100, 40, 180, 90)], atol=1e-3)


def test_pycocotools_loads_the_result(folder: Path, tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    write_detections(artifact(), [folder], tmp_path / "out")
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco.COCO(str(tmp_path / "out" / "images.json"))
        found = truth.loadRes(str(tmp_path / "out" / "detections.json"))
    assert len(found.getAnnIds()) == 3 + 20
    assert {truth.cats[row["category_id"]]["name"] for row in found.anns.values()} == set(CLASSES)
    assert [row["bbox"] for row in found.loadAnns(found.getAnnIds(imgIds=[22]))] == [[30, 90, 30, 60]]


def test_nothing_found_is_an_empty_list(tmp_path: Path) -> None:
    save(tmp_path / "grey.png", picture(50, 40))
    write_detections(artifact(), [tmp_path / "grey.png"], tmp_path / "out")
    assert rows_of(tmp_path / "out" / "detections.json") == []
    assert (tmp_path / "out" / "labels" / "grey.txt").read_text() == ""


def test_a_drawing_has_the_image_s_size_and_what_is_sure_enough(folder: Path, tmp_path: Path) -> None:
    write_detections(artifact(), [folder / "a"], tmp_path / "out")
    drawn = cv2.cvtColor(cv2.imread(str(tmp_path / "out" / "drawn" / "x.png")), cv2.COLOR_BGR2RGB)
    changed = (drawn != picture(192, 96, ((20, 10, 60, 50), 0), ((100, 40, 180, 90), 1))).any(axis=2)
    assert drawn.shape == (96, 192, 3)
    assert changed[45, 15:23].any()
    assert not changed[14:46, 24:56].any()  # the object itself is not painted over
    assert not changed[:, 130:].any()  # 0.2 is not sure enough


def test_a_photo_is_taken_as_the_camera_was_held(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    exif = image.Exif()
    exif[0x0112] = 6  # turn it a quarter clockwise
    (tmp_path / "in").mkdir()
    image.fromarray(picture(96, 48, ((0, 0, 24, 24), 0))).save(tmp_path / "in" / "p.jpg", exif=exif, quality=98)
    write_detections(artifact(), [tmp_path / "in"], tmp_path / "out")
    (row,) = rows_of(tmp_path / "out" / "detections.json")
    assert row["bbox"] == [24, 0, 24, 24]
    assert cv2.imread(str(tmp_path / "out" / "drawn" / "p.jpg")).shape == (96, 48, 3)


def test_images_go_through_the_model_together(tmp_path: Path, model: ColourFinder) -> None:
    for number in range(20):
        save(tmp_path / "in" / f"{number}.png", picture(30 + number, 40))
    write_detections(artifact(), [tmp_path / "in"], tmp_path / "out")
    assert model.batches == [16, 4]


def test_a_batch_for_which_memory_is_too_small_is_halved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Small(ColourFinder):
        def forward(self, images: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
            if len(images) > 3:
                raise torch.OutOfMemoryError("not that many")
            return super().forward(images, frames)

    monkeypatch.setattr(boxes, "build", lambda *_: small)
    small = Small()
    for number in range(9):
        save(tmp_path / "in" / f"{number}.png", picture(96, 96, ((number, 10, 50, 50), 0)))
    write_detections(artifact(), [tmp_path / "in"], tmp_path / "out")
    assert [row["bbox"][0] for row in rows_of(tmp_path / "out" / "detections.json")] == list(range(9))
    assert small.batches == [2, 2, 2, 3]


def test_large_images_make_small_batches(tmp_path: Path, model: ColourFinder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boxes, "_BYTES_AT_ONCE", 2 * 30 * 40 * 3)
    for number in range(5):
        save(tmp_path / "in" / f"{number}.png", picture(30, 40))
    write_detections(artifact(), [tmp_path / "in"], tmp_path / "out")
    assert model.batches == [2, 2, 1]


# --- what is refused --------------------------------------------------------------------------------------------------


def test_inputs_that_are_not_there_or_hold_nothing(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for given, words in [
        ([tmp_path / "nowhere"], "nowhere: no such file or folder"),
        ([tmp_path / "empty"], "empty: no images or videos found"),
        ([folder, tmp_path / "out"], "out: no such file"),
    ]:
        with pytest.raises(UsageError, match=words):
            write_detections(artifact(), given, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="is also an input"):
        write_detections(artifact(), [folder], folder)


def test_a_result_inside_the_input_is_not_taken_for_input(folder: Path) -> None:
    for _ in range(2):
        write_detections(artifact(), [folder], folder / "out")
    assert len(json.loads((folder / "out" / "images.json").read_text())["images"]) == 22


def test_a_result_around_the_input(folder: Path) -> None:
    write_detections(artifact(), [folder / "a"], folder)
    assert (folder / "labels" / "x.txt").exists()


@pytest.mark.parametrize("other", ["x.jpg", "x.c.png"])
def test_two_of_one_name(folder: Path, tmp_path: Path, other: str) -> None:
    save(folder / "a" / other, picture(20, 20))
    if other == "x.c.png":  # another name
        write_detections(artifact(), [folder / "a"], tmp_path / "out")
        assert (tmp_path / "out" / "labels" / "x.c.txt").exists()
        return
    with pytest.raises(UsageError, match=r"x\.jpg and .*x\.png: two inputs of one name"):
        write_detections(artifact(), [folder], tmp_path / "out")


def test_an_image_called_as_a_video_s_frame(folder: Path, tmp_path: Path) -> None:
    save(folder / "b" / "drive" / "000003.png", picture(20, 20))
    with pytest.raises(UsageError, match=r"drive\.mp4 and .*000003\.png"):
        write_detections(artifact(), [folder], tmp_path / "out")


def test_a_damaged_file_is_left_out_and_told_after_the_others_are_done(folder: Path, tmp_path: Path) -> None:
    (folder / "a" / "broken.png").write_bytes(b"\x89PNG and no more")
    with pytest.raises(BadDataError) as told:
        write_detections(artifact(), [folder], tmp_path / "out")
    assert "broken.png: damaged or no image" in str(told.value)
    assert f"the result of the rest is in {tmp_path / 'out'}" in str(told.value)
    assert len(json.loads((tmp_path / "out" / "images.json").read_text())["images"]) == 22
    assert len(rows_of(tmp_path / "out" / "detections.json")) == 23


def test_many_damaged_files_are_counted(folder: Path, tmp_path: Path) -> None:
    for number in range(12):
        (folder / "a" / f"broken{number:02d}.png").write_bytes(b"")
    with pytest.raises(BadDataError) as told:
        write_detections(artifact(), [folder], tmp_path / "out")
    lines = str(told.value).splitlines()
    assert lines[0].startswith("12 of 15 files are damaged; the result of the rest is in")
    assert len(lines) == 12
    assert lines[-1].strip() == "… and 2 more"


def test_where_nothing_is_sound_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("neither\n" * 100)
    with pytest.raises(BadDataError, match=r"notes\.txt: damaged or no video") as told:
        write_detections(artifact(), [tmp_path / "notes.txt"], tmp_path / "out")
    assert "the rest" not in str(told.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_place_that_cannot_be_written(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DiskError, match="--out"):
        write_detections(artifact(), [folder], tmp_path / "file" / "out")


def test_a_failure_leaves_the_result_of_before(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_detections(artifact(), [folder / "a"], tmp_path / "out")
    before = {path: path.read_bytes() for path in (tmp_path / "out").glob("*.json")}

    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("backend.boxes.yolo_lines", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        write_detections(artifact(), [folder], tmp_path / "out")
    assert {path: path.read_bytes() for path in (tmp_path / "out").glob("*.json")} == before
    assert [path.name for path in (tmp_path / "out").rglob("*.tmp")] == []


@pytest.mark.parametrize("what", ["image", "film"])
def test_a_full_disk_is_told_and_leaves_no_half_files(tmp_path: Path, what: str) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (480, 640, 3), np.uint8) for _ in range(12)]
    if what == "image":
        for number, image in enumerate(noise):
            save(tmp_path / "in" / f"{number}.png", image)
    else:
        film(tmp_path / "in" / "noise.mp4", noise * 4)
    with small_disk(tmp_path, "2m") as disk:
        with pytest.raises(DiskError, match=r"No space left on device.*--out"):
            write_detections(artifact(), [tmp_path / "in"], disk / "out")
        assert not list(disk.rglob("*.json"))
        assert not list(disk.rglob("*.tmp"))
        assert not list(disk.rglob("*.mp4"))
        for drawn in disk.rglob("*.png"):
            assert cv2.imread(str(drawn)).shape == (480, 640, 3)


def test_nothing_goes_on_working_after_a_failure(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    monkeypatch.setattr("backend.boxes.yolo_lines", lambda *_: os.fspath(None))  # type: ignore[call-overload]
    before = threading.active_count()
    with pytest.raises(TypeError):
        write_detections(artifact(), [folder], tmp_path / "out")
    assert threading.active_count() == before
