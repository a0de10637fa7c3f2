"""Groups by file names, and what becomes of images that several splits have."""

from __future__ import annotations

import numpy as np
import pytest

from backend.errors import BadDataError
from training.data.detection.groups import groups_of
from training.data.detection.split import settle


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("train/images/01SL3YZ6CWS2_jpg.rf.1c07c91e.jpg", "01SL3YZ6CWS2"),
        ("train/images/street-4_png.rf.1c07c91e.jpg", "street-4"),
        ("valid/images/film_frame_0012_jpg.rf.abc.jpg", "film"),
        ("images/train/film_frame_000123.jpg", "film"),
        ("images/train/film.frame12.jpg", "film"),
        ("images/train/cam2-0000123.jpg", "cam2"),
        ("images/train/b1c66a42-6f7d68ca-0000012.jpg", "b1c66a42-6f7d68ca"),
        ("images/train/MVI_20011_img00001.jpg", "MVI_20011"),
        ("images/train/2011_09_26_drive_0001_0000000012.png", "2011_09_26_drive_0001"),
        ("images/train/b1c66a42-6f7d68ca.jpg", None),
        ("images/train/b1c66a42-12345678.jpg", None),
        ("images/train/000001.jpg", None),
        ("images/train2017/000000000139.jpg", None),
        ("images/train/image_0001.jpg", None),
        ("images/train/img12.jpg", None),
        ("images/train/frame_000123.jpg", None),
        ("images/train/scene_0001.jpg", None),
        ("images/train/COCO_train_000000000139.jpg", None),
        ("images/train/COCO_val2014_000000000139.jpg", None),
        ("images/train/2007_000027.jpg", None),
        ("images/train/IMG_20200101_120000.jpg", None),
        ("images/train/20200101_120000.jpg", None),
        ("images/train/truck.jpg", None),
    ],
)
def test_what_a_name_tells(name, group):
    assert groups_of([name]) == [group]


def test_a_folder_for_each_sequence():
    mot = ["train/MOT17-02/img1/000001.jpg", "train/MOT17-04/img1/000001.jpg", "test/MOT17-04/img1/000002.jpg"]
    assert groups_of(mot) == ["MOT17-02", "MOT17-04", "MOT17-04"]
    kitti = ["training/image_02/0000/000000.png", "training/image_02/0001/000000.png"]
    assert groups_of(kitti) == ["image_02/0000", "image_02/0001"]
    assert groups_of(["images/train/a/frame_01.jpg", "images/val/b/frame_01.jpg"]) == ["a", "b"]


def test_plain_numbers_in_the_folders_of_splits_are_one_group_nowhere():
    for pattern in ("images/{}/00000{}.jpg", "{}/images/image_000{}.jpg", "set/{}2017/00000{}.jpg", "x/{}/img{}.jpg"):
        names = [pattern.format(split, number) for number, split in enumerate(("train", "val", "test"))]
        assert groups_of(names) == [None] * 3, pattern


# --- policies: train has rows 0 to 3, val 4 to 6, test 7 and 8 --------------------------------------------------------

ROWS = {"train": np.arange(4), "val": np.arange(4, 7), "test": np.arange(7, 9)}
NAMES = [f"{number}.jpg" for number in range(9)]
NO_GROUPS = [None] * 9
PIXELS = ["a", "b", "c", "c", "d", "a", "e", "e", "b"]  # a in train and val, b in train and test, e in val and test


def settled(pixels=PIXELS, groups=NO_GROUPS, policies=("drop", "report")):
    return settle(ROWS, NAMES, pixels, groups, policies)


def rows_of(kept) -> dict[str, list[int]]:
    return {split: rows.tolist() for split, rows in kept.rows.items()}


def test_train_gives_way_to_val_and_test_and_val_to_test():
    kept = settled()
    assert rows_of(kept) == {"train": [2, 3], "val": [4, 5], "test": [7, 8]}
    assert kept.duplicates.to_json() == {
        "images": 3,
        "by_split": {"train": 2, "val": 1},
        "shared": 3,
        "within_a_split": 1,
        "examples": [["train: 0.jpg", "val: 5.jpg"], ["train: 1.jpg", "test: 8.jpg"], ["val: 6.jpg", "test: 7.jpg"]],
        "done": "left out",
    }


def test_duplicates_can_be_kept_and_are_marked():
    kept = settled(policies=("keep", "report"))
    assert rows_of(kept) == {split: rows.tolist() for split, rows in ROWS.items()}
    assert kept.duplicates.total == 3 and kept.duplicates.done.startswith("kept")


def test_duplicates_can_be_refused():
    with pytest.raises(BadDataError) as caught:
        settled(policies=("refuse", "report"))
    assert "3 images" in str(caught.value) and "train: 0.jpg and val: 5.jpg" in str(caught.value)
    assert "data.duplicates" in str(caught.value)
    assert settled(list("abcdefghi"), policies=("refuse", "refuse")).duplicates.done == "nothing"


def test_groups_are_reported_dropped_or_refused():
    groups = [None, "x", "x", "y", "x", None, "y", None, None]
    unlike = list("abcdefghi")
    report = settled(unlike, groups)
    assert rows_of(report)["train"] == [0, 1, 2, 3] and report.groups.images == {"train": 3, "val": 0}
    assert report.groups.done.startswith("kept") and report.duplicates.done == "nothing"
    dropped = settled(unlike, groups, ("drop", "drop"))
    assert rows_of(dropped) == {"train": [0], "val": [4, 5, 6], "test": [7, 8]}
    assert dropped.groups.done == "left out"
    with pytest.raises(
        BadDataError, match=r"(?s)3 images of train or val come from one picture.*train: 1.jpg and val: 4"
    ):
        settled(unlike, groups, ("drop", "refuse"))


def test_images_without_a_group_have_nothing_in_common():
    kept = settled(list("abcdefghi"), NO_GROUPS, ("drop", "refuse"))
    assert kept.groups.total == kept.groups.within == 0


@pytest.mark.parametrize(
    ("pixels", "split", "count"), [("abcdabcde", "train", 4), ("abcdxyzzz", None, 0), ("abcdxxxxx", "val", 3)]
)
def test_nothing_left_of_a_split_is_an_error_with_a_way_out(pixels, split, count):
    if split is None:
        settled(list(pixels))
        return
    with pytest.raises(BadDataError, match=rf"{split}: all of its {count} images show .* set data.duplicates=keep"):
        settled(list(pixels))
    assert rows_of(settled(list(pixels), policies=("keep", "report")))[split]


def test_nothing_left_because_of_groups():
    with pytest.raises(BadDataError, match=r"train: all of its 4 images come from the same .* data.groups=report"):
        settled(list("abcdefghi"), ["v"] * 9, ("drop", "drop"))
