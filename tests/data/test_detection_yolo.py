"""The YOLO layout: where images and labels are found, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from backend.errors import BadDataError
from tests.data.detection_dataset import COUNTS, DATA_YAML, label, picture, write_image, write_text, yolo
from training.data.detection.folder import list_dataset
from training.data.detection.listing import Listing

BOX = "1 0.5 0.5 0.2 0.2\n"


@pytest.fixture
def root(tmp_path) -> Path:
    return yolo(tmp_path / "set")


def counts(listing: Listing) -> dict[str, int]:
    return {split: len(rows) for split, rows in listing.rows.items()}


def read(root: Path, rows: str):
    """The truth of a dataset whose first label file has ``rows``; its own boxes alone."""
    label(root).write_text(rows)
    truth = list_dataset(root).read_truth()
    count = truth.offsets[1]
    return truth, truth.labels[:count].tolist(), truth.boxes[:count]


# --- where things are -------------------------------------------------------------------------------------------------


def test_a_plain_dataset(root):
    listing = list_dataset(root)
    assert listing.layout == "YOLO" and listing.classes == ["car", "bus", "person"]
    assert counts(listing) == COUNTS and listing.notes == []
    assert listing.sources[0].relative == "images/train/train-a.png"
    truth = listing.read_truth()
    assert truth.offsets.tolist() == list(range(0, 23, 2)) and truth.notes == []
    assert truth.labels.tolist()[:4] == [0, 0, 1, 0]
    np.testing.assert_allclose(truth.boxes[:2], [[0.45, 0.375, 0.55, 0.625], [0.15, 0.1, 0.35, 0.4]])
    assert truth.sizes is None and np.isnan(truth.area).all() and not truth.crowd.any()


@pytest.mark.parametrize(
    ("yaml", "note"),
    [
        ("path: .\n" + DATA_YAML, None),
        ("path: ../set\n" + DATA_YAML, None),
        (DATA_YAML.replace("images/", "../images/"), "train: ../images/train is not there; taken from images/train"),
        ("path: /no/where\n" + DATA_YAML, "path: there is no folder /no/where"),
        ("path: images\n" + DATA_YAML, "val: images/val is not there; taken from images/val"),
        ("path: images\ntrain: train\nval: val\ntest: test\nnames: [car, bus, person]", None),
        (DATA_YAML.replace("val:", "valid:"), None),
        (DATA_YAML.replace("images/train", "[images/train, images/train]"), None),
        (DATA_YAML.replace("[car, bus, person]", "{2: person, 0: car, 1: bus}") + "nc: 3", None),
        (DATA_YAML.replace("[car, bus, person]", "{'0': car, '1': bus, '2': person}"), None),
    ],
)
def test_other_ways_to_write_the_same(root, yaml, note):
    (root / "data.yaml").write_text(yaml)
    listing = list_dataset(root)
    assert counts(listing) == COUNTS and listing.classes == ["car", "bus", "person"]
    assert listing.read_truth().offsets[-1] == 22
    if note is None:
        assert listing.notes == []
    else:
        assert any(note in line for line in listing.notes)


def test_another_name_of_the_file_and_a_folder_around_it_all(tmp_path):
    root = yolo(tmp_path / "outer" / "inner")
    (root / "data.yaml").rename(root / "street.yml")
    (root / "hyper.yaml").write_text("lr0: 0.1\n")
    assert counts(list_dataset(tmp_path / "outer")) == COUNTS


def test_lists_of_images(root):
    names = sorted((root / "images" / "train").iterdir())
    lines = [f"./images/train/{names[0].name}", "", f"images/train/{names[1].name}", str(names[2])]
    write_text(root / "lists" / "train.txt", "\n".join(lines))
    (root / "data.yaml").write_text(DATA_YAML.replace("train: images/train", "train: lists/train.txt"))
    listing = list_dataset(root)
    assert counts(listing) == {**COUNTS, "train": 3}
    assert listing.read_truth().offsets[3] == 6  # labels of images that no split names are no orphans
    write_text(root / "lists" / "train.txt", "images/train/none.png\nimages/train/train-a.png\ndata.yaml")
    with pytest.raises(BadDataError) as caught:
        list_dataset(root)
    assert "train.txt, line 1: there is no image images/train/none.png" in str(caught.value)
    assert "train.txt, line 3: data.yaml is no image" in str(caught.value)


@pytest.mark.parametrize("place", ["{split}/labels/{name}.txt", "labels/{split}/{name}.txt", "{split}/{name}.txt"])
def test_labels_of_images_that_lie_directly_in_the_split(tmp_path, place):
    yaml = DATA_YAML.replace("images/", "")
    root = yolo(tmp_path, yaml=yaml, image="{split}/{name}.png")
    for path in sorted(root.glob("*/*.txt")):
        target = root / place.format(split=path.parent.name, name=path.stem)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    listing = list_dataset(root)
    assert counts(listing) == COUNTS and listing.read_truth().offsets[-1] == 22


def test_the_last_folder_images_counts_and_none_above_the_dataset(tmp_path):
    root = yolo(tmp_path / "images" / "set", image="images/{split}/images/{name}.png", yaml=DATA_YAML)
    assert (root / "images" / "train" / "labels").is_dir()
    assert list_dataset(root).read_truth().offsets[-1] == 22


def test_images_without_rows_or_without_a_file_are_background(root):
    label(root, index=0).write_text("\n  \n")
    label(root, index=1).unlink()
    truth = list_dataset(root).read_truth()
    assert truth.offsets[:4].tolist() == [0, 0, 0, 2]
    assert truth.counts["images_without_label"] == 1
    assert any("1 images have no label file (train-b.png)" in line for line in truth.notes)


def test_a_missing_test_split_is_told(root):
    for yaml, told in (
        (DATA_YAML.replace("test: images/test\n", ""), "names no test images"),
        (DATA_YAML.replace("test: images/test", "test:"), "names no test images"),
        (DATA_YAML.replace("images/test", "../elsewhere"), "test: there is no ../elsewhere"),
    ):
        (root / "data.yaml").write_text(yaml)
        listing = list_dataset(root)
        assert len(listing.rows["test"]) == 0 and any(told in line for line in listing.notes), yaml
        assert all("test split is empty" in line for line in listing.notes)


def test_coco_files_beside_a_data_yaml_are_told_and_not_read(root):
    write_text(root / "annotations" / "instances_train.json", "{")
    assert any("COCO" in line for line in list_dataset(root).notes)


# --- rows -------------------------------------------------------------------------------------------------------------


def test_polygons_become_boxes(root):
    truth, labels, boxes = read(root, "2 0.1 0.2 0.5 0.3 0.4 0.9\n" + BOX)
    assert labels == [2, 1] and truth.counts["polygons"] == 1
    np.testing.assert_allclose(boxes[0], [0.1, 0.2, 0.5, 0.9])
    assert any("1 polygons became" in line for line in truth.notes)


def test_the_same_row_counts_once(root):
    truth, labels, _ = read(root, BOX * 3 + "0 0.5 0.5 0.2 0.2\n")
    assert labels == [1, 0] and truth.counts["repeated_rows"] == 2
    assert any("2 rows stood twice" in line for line in truth.notes)


def test_rounding_is_clipped_and_told_if_it_is_more_than_six_decimals(root):
    truth, _, boxes = read(root, "0 0.4996 0.5 1.0 1.0\n")
    np.testing.assert_allclose(boxes[0], [0, 0, 0.9996, 1])
    assert truth.counts["clipped_by_rounding"] == 1 and any("clipped" in line for line in truth.notes)
    truth, _, boxes = read(root, "0 0.0499998 0.5 0.1 0.2\n")
    assert boxes[0, 0] == 0 and truth.counts["clipped_by_rounding"] == 0


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("0 0.5 0.5 0.2", "has 4 numbers, expected 5"),
        ("0 0.5 0.5 0.2 0.2 0.9", "has 6 numbers"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "has 8 numbers"),
        ("0.0 0.5 0.5 0.2 0.2", "its class is '0.0', expected a whole number from 0 to 2"),
        ("-1 0.5 0.5 0.2 0.2", "its class is '-1'"),
        ("car 0.5 0.5 0.2 0.2", "its class is 'car'"),
        ("3 0.5 0.5 0.2 0.2", "its class is 3, but there are the classes 0 to 2"),
        ("0 0.5 0.5 1.2 0.2", "reaches outside the image (x from -0.1 to 1.1"),
        ("0 0.5 1.5 0.2 0.2", "reaches outside the image"),
        ("0 320 240 64 48", "reaches outside the image"),
        ("0 0.1 0.1 0.5 1.2 0.4 0.9", "reaches outside the image"),
        ("0 0.5 0.5 0 0.2", "its box is 0 wide"),
        ("0 0.5 0.5 0.2 -0.1", "-0.1 high"),
        ("0 0.1 0.1 0.1 0.2 0.1 0.3", "its box is 0 wide"),
        ("0 nan 0.5 0.2 0.2", "expected finite numbers"),
        ("0 0.5 0.5 inf 0.2", "expected finite numbers"),
        ("0 0.5 half 0.2 0.2", "expected numbers"),
        ("0 0,5 0.5 0.2 0.2", "expected numbers"),
    ],
)
def test_wrong_rows_are_named(root, row, told):
    label(root).write_text(BOX + row + "\n")
    with pytest.raises(BadDataError) as caught:
        list_dataset(root).read_truth()
    assert f"{label(root)}, line 2: " in str(caught.value) and told in str(caught.value)


def test_all_wrong_rows_are_told_at_once(root):
    label(root).write_text("x\n9 0.5 0.5 0.2 0.2\n")
    label(root, "val").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadDataError) as caught:
        list_dataset(root).read_truth()
    assert str(caught.value).startswith("3 things are wrong:") and "val-a.txt: no text" in str(caught.value)


# --- what is refused --------------------------------------------------------------------------------------------------


def test_a_label_file_without_an_image(root):
    write_text(root / "labels" / "val" / "nobody.txt", BOX)
    write_text(root / "labels" / "val" / "classes.txt", "car\n")
    with pytest.raises(BadDataError, match=r"val/nobody.txt: there is no image of this name in .*images/val$"):
        list_dataset(root).read_truth()


def test_two_images_with_one_label_file(root):
    write_image(picture(root).with_suffix(".jpg"), 99)
    with pytest.raises(BadDataError, match=r"train-a.txt: belongs to train-a.jpg and to train-a.png"):
        list_dataset(root).read_truth()


def test_a_split_without_any_label(root):
    (root / "labels" / "val").rename(root / "elsewhere")
    with pytest.raises(BadDataError, match=r"val: none of its 3 images has a label file; .*labels/val/val-a.txt"):
        list_dataset(root).read_truth()


@pytest.mark.parametrize(
    ("yaml", "told"),
    [
        ("train: images/train\nval: images/val\n", "names: expected a list"),
        (DATA_YAML.replace("[car, bus, person]", "[]"), "names: expected a list"),
        (DATA_YAML.replace("person", "car"), "names: car stands twice"),
        (DATA_YAML.replace("[car, bus, person]", "{0: car, 2: bus}"), "names: has the numbers 0, 2, expected 0, 1"),
        (DATA_YAML.replace("[car, bus, person]", "{a: car}"), "names: expected numbers and names"),
        (DATA_YAML.replace("[car, bus, person]", "{null: car}"), "names: expected numbers and names"),
        (DATA_YAML.replace("images/train", "x" * 300), "train: there is no x"),
        (DATA_YAML + "nc: 4", "nc is 4, but names has 3"),
        (DATA_YAML.replace("train: images/train\n", ""), "has no train; name the folder"),
        (DATA_YAML.replace("val: images/val\n", ""), "has no val or valid"),
        (DATA_YAML.replace("images/train", "3"), "train: expected a folder"),
        (DATA_YAML.replace("images/train", "nowhere"), "train: there is no nowhere; expected a folder of images"),
        ("path: /lost\n" + DATA_YAML.replace("images/train", "nowhere"), "(and path /lost points nowhere)"),
        ("path: 3\n" + DATA_YAML, "path is 3"),
        (DATA_YAML.replace("images/train", "labels/train"), "labels/train holds no images"),
        (DATA_YAML.replace("images/val", "labels/val"), "labels/val holds no images"),
        ("names: [car\n", "data.yaml, line"),
        ("- car\n", "expected keys and values"),
    ],
)
def test_wrong_descriptions(root, yaml, told):
    (root / "data.yaml").write_text(yaml)
    with pytest.raises(BadDataError) as caught:
        list_dataset(root)
    assert told in str(caught.value) and str(root / "data.yaml") in str(caught.value)


def test_several_descriptions(root):
    write_text(root / "other.yaml", DATA_YAML)
    with pytest.raises(BadDataError, match=r"holds 2 files that describe a dataset \(data.yaml, other.yaml\)"):
        list_dataset(root)


def test_no_dataset_at_all(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(BadDataError, match=r"expected a data.yaml with names, train and val \(YOLO\)"):
            list_dataset(folder)
