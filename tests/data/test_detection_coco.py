"""The COCO layout: where annotations and images are found, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from backend.errors import BadDataError
from tests.data.detection_dataset import COUNTS, change_json, coco, document, write_image
from training.data.detection.folder import list_dataset


@pytest.fixture
def root(tmp_path) -> Path:
    return coco(tmp_path / "set")


@pytest.mark.parametrize(
    "layout", ["roboflow", "{split}2017", "images/{split}2017", "images/{split}", "{split}", "images", "{split}_set"]
)
def test_every_place_of_images(tmp_path, layout):
    listing = list_dataset(coco(tmp_path, layout=layout))
    assert listing.layout == "COCO" and {split: len(rows) for split, rows in listing.rows.items()} == COUNTS
    assert listing.classes == ["car", "bus", "person"] and listing.category_ids == [1, 3, 7]
    truth = listing.read_truth()
    assert truth.offsets.tolist() == list(range(0, 23, 2)) and truth.labels.tolist() == [0, 1] * 11
    np.testing.assert_allclose(truth.boxes[:2], [[10, 5, 30, 35], [30, 10, 40.5, 30]])
    assert truth.area[:2].tolist() == [300, 105] and truth.sizes.tolist() == [[60, 40]] * 11
    assert not truth.crowd.any() and not truth.notes and not listing.notes


def test_boxes_find_their_images_in_any_order_and_crowds_are_kept(root):
    def shuffle(found):
        found["annotations"] = found["annotations"][::-1]
        found["annotations"][0]["iscrowd"] = 1
        del found["annotations"][1]["area"]

    change_json(root / "train" / "_annotations.coco.json", shuffle)
    truth = list_dataset(root).read_truth()
    assert truth.offsets[:4].tolist() == [0, 2, 4, 6]
    assert np.flatnonzero(truth.crowd).tolist() == [10] and truth.counts["crowds"] == 1
    assert np.flatnonzero(np.isnan(truth.area)).tolist() == [11]
    assert truth.labels[10:12].tolist() == [1, 0]  # the file's order


def test_shapes_without_a_box(root):
    def strip(found):
        found["annotations"][0].pop("bbox")
        found["annotations"][0]["segmentation"] = [[1, 2, 9, 2, 9, 12], [4, 20, 5, 30, 6, 30]]

    change_json(root / "train" / "_annotations.coco.json", strip)
    truth = list_dataset(root).read_truth()
    assert truth.boxes[0].tolist() == [1, 2, 9, 30] and truth.counts["polygons"] == 1
    assert any("1 shapes without bbox" in line for line in truth.notes)


def test_a_box_may_reach_a_pixel_beyond_by_rounding(root):
    change_json(
        root / "train" / "_annotations.coco.json", lambda found: found["annotations"][0].update(bbox=[-1, 0, 62, 40])
    )
    truth = list_dataset(root).read_truth()
    assert truth.boxes[0].tolist() == [0, 0, 60, 40] and any("1 boxes reached" in line for line in truth.notes)


def test_boxes_without_width_or_height_are_left_out_and_told(root):
    def flatten(found):
        first, second, third, fourth = found["annotations"][:4]
        first["bbox"][2] = 0
        second.update(bbox=[30, 90, 10.5, 0.0], iscrowd=1)  # wherever it lies
        third["bbox"] = None
        third["segmentation"] = [[1, 2, 9, 2, 5, 2]]
        fourth["bbox"][3] = 0.25  # thin, but a box

    before = list_dataset(root).read_truth()
    change_json(root / "train" / "_annotations.coco.json", flatten)
    truth = list_dataset(root).read_truth()
    assert truth.offsets.tolist() == [0, 0, *range(1, 21, 2)] and len(truth.boxes) == 19
    assert truth.boxes[0].tolist() == [30, 10, 40.5, 10.25] and truth.labels[0] == 1
    np.testing.assert_array_equal(truth.boxes[1:], before.boxes[4:])
    assert truth.counts == {"polygons": 0, "clipped_by_rounding": 0, "without_width_or_height": 3, "crowds": 0}
    assert list(truth.notes) == ["3 boxes without width or height were left out (id 1000, id 1001, id 1002)"]


def test_what_stands_twice_counts_twice(root):
    def repeat(found):
        found["annotations"].append({**found["annotations"][0], "id": 7})

    change_json(root / "train" / "_annotations.coco.json", repeat)
    truth = list_dataset(root).read_truth()
    assert truth.offsets[1] == 3 and truth.boxes[0].tolist() == truth.boxes[2].tolist() and not truth.notes


def test_images_that_no_file_names_are_told(root):
    for place in ("train/b-more.png", "train/deep/a.png", "valid/c.png", "valid/d.png", "train/.hidden.png", "e.png"):
        write_image(root / place, 1)
    (root / "train" / "notes.txt").write_text("no image")
    listing = list_dataset(root)
    assert {split: len(rows) for split, rows in listing.rows.items()} == COUNTS
    told = "4 images are named by no annotation file (train/b-more.png, train/deep/a.png, valid/c.png … and 1 more)"
    assert list(listing.notes) == [f"{told}: not used"]


def test_images_that_another_split_names_are_not_told(tmp_path):
    root = coco(tmp_path, layout="images")
    assert not list_dataset(root).notes

    def roundabout(found):
        found["images"][0]["file_name"] = "../images/train-a.png"

    change_json(root / "annotations" / "instances_train2017.json", roundabout)
    assert not list_dataset(root).notes
    (root / "annotations" / "instances_test2017.json").unlink()
    absent, unnamed = list_dataset(root).notes
    assert "test split is empty" in absent and unnamed.startswith("2 images are named by no annotation file (images/te")


def test_roboflows_placeholder_is_left_out_unless_boxes_have_it(root):
    def add(found):
        found["categories"] = [{"id": 0, "name": "street", "supercategory": "none"}, *found["categories"]]
        for entry in found["categories"][1:]:
            entry["supercategory"] = "street"

    for path in root.rglob("*.json"):
        change_json(path, add)
    listing = list_dataset(root)
    assert listing.classes == ["car", "bus", "person"] and any("street" in line for line in listing.notes)
    assert listing.read_truth().labels.max() == 1
    change_json(root / "test" / "_annotations.coco.json", lambda found: found["annotations"][0].update(category_id=0))
    assert list_dataset(root).classes == ["street", "car", "bus", "person"]


def test_an_unused_category_zero_of_another_kind_stays(root):
    for path in root.rglob("*.json"):
        change_json(path, lambda found: found["categories"].append({"id": 0, "name": "van"}))
    assert list_dataset(root).classes == ["van", "car", "bus", "person"]


def test_a_missing_test_split_is_told(tmp_path):
    listing = list_dataset(coco(tmp_path, {"train": 2, "val": 1}))
    assert len(listing.rows["test"]) == 0 and any("test split is empty" in line for line in listing.notes)
    path = tmp_path / "test" / "_annotations.coco.json"
    path.parent.mkdir()
    path.write_text(json.dumps({**document("test", 1), "images": [], "annotations": []}))
    assert len(list_dataset(tmp_path).rows["test"]) == 0


# --- what is refused --------------------------------------------------------------------------------------------------


def first(key, **values):
    return lambda found: found[key][0].update(values)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (first("images", file_name="none.png"), "images[0]: there is no image none.png"),
        (lambda found: found["images"][1].update(file_name="none.png"), "images[1]: there is no image"),
        (first("images", file_name=3), "images[0]: file_name is 3"),
        (first("images", id=101), "images[1]: id 101 stands twice"),
        (first("images", file_name="train-b.png"), "file_name 'train-b.png' stands twice"),
        (first("images", file_name="x" * 300), "images[0]: there is no image x"),
        (first("images", width=1e300), "(train-a.png): width and height are 1e+300 and 40"),
        (first("images", width=None), "(train-a.png): width and height are None and 40"),
        (lambda found: found.update(images=[]), "images: lists no images"),
        (lambda found: found.update(categories=[]), "categories: lists no categories"),
        (lambda found: found.update(annotations={}), "annotations: expected a list of objects"),
        (first("categories", id=1), "categories[1]: id 1 stands twice"),
        (first("categories", name="car"), "categories[1]: name 'car' stands twice"),
        (first("categories", name=""), "categories[0]: expected a whole number as id, and a name"),
        (first("categories", name="coach"), "its categories are others than those of"),
        (first("categories", id=4), "differing: 3 bus, 4 bus"),
    ],
)
def test_wrong_files(root, change, told):
    change_json(root / "train" / "_annotations.coco.json", change)
    with pytest.raises(BadDataError) as caught:
        list_dataset(root)
    assert told in str(caught.value) and "_annotations.coco.json" in str(caught.value)


def test_lists_without_end_are_no_annotations(root):
    (root / "train" / "_annotations.coco.json").write_text("[" * 100_000)
    with pytest.raises(BadDataError, match="not readable as JSON"):
        list_dataset(root)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"image_id": 7}, "there is no image with the id 7"),
        ({"category_id": 2}, "there is no category with the id 2"),
        ({"category_id": None}, "expected id, image_id and category_id"),
        ({"id": 1001}, "annotations[1] (id 1001): its id stands twice"),
        ({"bbox": [50, 5, 20, 30]}, "reaches outside the image (x from 50 to 70, y from 5 to 35; the image is 60 wide"),
        ({"bbox": [60, 5, 0.5, 30]}, "reaches outside"),
        ({"bbox": [10, 5, -2, 30]}, "its box is -2 wide and 30 high, expected no less than 0"),
        ({"bbox": [10, 5, 0, -1]}, "its box is 0 wide and -1 high"),
        ({"bbox": [10, 5, 0, float("inf")]}, "expected four finite numbers"),
        ({"bbox": [10, 5, 0, 30], "category_id": 2}, "there is no category with the id 2"),
        ({"bbox": [10, 5, 20]}, "bbox is [10, 5, 20], expected four"),
        ({"bbox": [10, 5, 20, "3"]}, "expected four finite numbers"),
        ({"bbox": [10, 5, 20, float("nan")]}, "expected four finite numbers"),
        ({"bbox": None}, "has neither bbox nor polygons"),
        ({"bbox": [], "segmentation": {"counts": [3], "size": [4, 4]}}, "has neither bbox nor polygons"),
        ({"bbox": [], "segmentation": [[1, 2, 3]]}, "three points at least"),
        ({"iscrowd": 2}, "iscrowd is 2"),
        ({"area": -1}, "area is -1"),
    ],
)
def test_wrong_boxes(root, change, told):
    change_json(root / "train" / "_annotations.coco.json", first("annotations", **change))
    with pytest.raises(BadDataError) as caught:
        list_dataset(root).read_truth()
    assert told in str(caught.value) and "_annotations.coco.json: annotations[" in str(caught.value)


def test_no_json(root):
    (root / "train" / "_annotations.coco.json").write_text("{")
    with pytest.raises(BadDataError, match="not readable as JSON"):
        list_dataset(root)


def test_a_missing_split_and_two_files_for_one(tmp_path, root):
    with pytest.raises(BadDataError, match=r"has no annotations of val; expected val/_annotations\.coco\.json"):
        list_dataset(coco(tmp_path / "short", {"train": 2}))
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_train2017.json").write_text("{}")
    with pytest.raises(BadDataError, match="train has 2 files of annotations"):
        list_dataset(root)
