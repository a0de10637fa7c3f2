"""Detection datasets from folders to items."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from backend.errors import BadDataError, InterruptedRunError
from backend.preprocessing.detection import DetectionPreprocessing, to_network
from tests.data.detection_dataset import (
    COUNTS,
    DATA_YAML,
    SIZE,
    change_json,
    coco,
    label,
    name_of,
    picture,
    write_image,
    yolo,
)
from tests.data.world import World
from tests.turned import turned_jpeg
from training.data.detection import prepare as module
from training.data.detection.glance import glance_at_detection
from training.data.detection.prepare import class_counts, prepare_detection
from training.leaks.own import leaks_inside
from training.schemas.detection import DetectionAugmentationSection, DetectionDataSection

SECTION = DetectionDataSection(image_size=64)
STILL = DetectionAugmentationSection(
    flip=0, scale=[1, 1], shift=0, brightness=0, contrast=0, saturation=0, hue=0, mosaic=0, min_visible=0
)


@pytest.fixture
def world(tmp_path) -> World:
    return World(yolo(tmp_path / "set"), tmp_path / "cache")


def prepare(world, augmentation=None, **changes):
    return prepare_detection(SECTION.model_copy(update=changes), world.context, augmentation)


def sizes(prepared) -> dict[str, int]:
    return {split: len(items) for split, items in prepared.splits.items()}


# --- items ------------------------------------------------------------------------------------------------------------


def test_items_are_the_images_and_boxes_of_their_members(world):
    prepared = prepare(world)
    preprocessing = DetectionPreprocessing.from_dict(prepared.preprocessing["detection"])
    assert sizes(prepared) == COUNTS
    for split, items in prepared.splits.items():
        for index, member in enumerate(prepared.members[split]):
            assert member.name == f"images/{split}/{name_of(split, index)}.png"
            item = items.item(index, None)
            image, frame = preprocessing.read(world.source / member.name)
            assert torch.equal(item["image"], torch.from_numpy(image)[None])
            assert item["frame"].tolist() == [frame.tolist()] and frame[4:].tolist() == list(SIZE)
            rows = np.loadtxt(label(world.source, split, index), ndmin=2)
            half = rows[:, 3:] / 2
            boxes = np.concatenate([rows[:, 1:3] - half, rows[:, 1:3] + half], axis=1) * np.tile(SIZE, 2)
            np.testing.assert_allclose(item["boxes"][0], boxes, atol=1e-4)
            assert item["labels"][0].tolist() == rows[:, 0].tolist() and item["draw"].tolist() == [index]
            np.testing.assert_allclose(item["area"][0], (rows[:, 3:] * SIZE).prod(axis=1), rtol=1e-5)


@pytest.mark.parametrize("random", [False, True])
def test_types_and_shapes_of_an_item(world, random):
    label(world.source).write_text("")
    items = prepare(world).splits["train"]
    for index, boxes in ((0, 0), (1, 2)):
        item = items.item(index, np.random.default_rng(0) if random else None)
        count = len(item["boxes"][0])
        assert count == boxes or random
        assert {
            key: (value.dtype, tuple(value.shape)) for key, value in item.items() if not isinstance(value, list)
        } == {
            "image": (torch.uint8, (1, 3, 64, 64)),
            "frame": (torch.float32, (1, 6)),
            "draw": (torch.int64, (1,)),
        }
        ragged = {
            key: [(v.dtype, tuple(v.shape)) for v in value] for key, value in item.items() if isinstance(value, list)
        }
        assert ragged == {
            "boxes": [(torch.float32, (count, 4))],
            "labels": [(torch.int64, (count,))],
            "crowd": [(torch.bool, (count,))],
            "area": [(torch.float32, (count,))],
        }


def same(one, other) -> bool:
    return all(
        torch.equal(a, b)
        for key in one
        for a, b in zip(
            *(item[key] if isinstance(item[key], list) else [item[key]] for item in (one, other)), strict=True
        )
    )


@pytest.mark.parametrize("mosaic", [0, 1])
def test_augmentation_is_a_function_of_the_random_numbers_alone(world, mosaic):
    items = prepare(world, DetectionAugmentationSection(mosaic=mosaic)).splits["train"]
    for value in items.item(3, None).values():
        for tensor in value if isinstance(value, list) else [value]:
            tensor.zero_()  # an item is the caller's own
    plain = items.item(3, None)
    assert plain["boxes"][0].any() and plain["frame"].any()
    one, again, other = (items.item(3, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert same(one, again) and not same(one, other) and one["draw"] != other["draw"]
    assert not torch.equal(one["image"], plain["image"]) and same(items.item(3, None), plain)
    assert one["frame"].tolist() == [[1, 1, 0, 0, 64, 64]]
    apart = pickle.loads(pickle.dumps(items))  # noqa: S301
    assert same(apart.item(3, np.random.default_rng(5)), one)


def test_without_changes_an_augmented_item_is_the_letterboxed_picture(world):
    items = prepare(world, STILL).splits["train"]
    plain, augmented = items.item(1, None), items.item(1, np.random.default_rng(0))
    assert torch.equal(plain["image"], augmented["image"])
    there = to_network(plain["boxes"][0].numpy(), plain["frame"][0].numpy())
    np.testing.assert_allclose(augmented["boxes"][0], there, atol=1e-4)
    scale = plain["frame"][0, :2].prod()
    torch.testing.assert_close(augmented["area"][0], plain["area"][0] * scale)


def test_boxes_of_coco_and_its_areas_and_crowds_reach_the_items(tmp_path):
    world = World(coco(tmp_path / "set"), tmp_path / "cache")
    change_json(
        world.source / "valid" / "_annotations.coco.json", lambda found: found["annotations"][1].update(iscrowd=1)
    )
    prepared = prepare(world)
    item = prepared.splits["val"].item(0, None)
    assert item["boxes"][0].tolist() == [[10, 5, 30, 35], [30, 10, 40.5, 30]] and item["labels"][0].tolist() == [0, 1]
    assert item["area"][0].tolist() == [300, 105] and item["crowd"][0].tolist() == [False, True]
    assert prepared.facts["category_ids"] == [1, 3, 7] and prepared.facts["classes"] == ["car", "bus", "person"]
    assert prepared.members["val"][0].name == "valid/val-a.png"
    change_json(
        world.source / "train" / "_annotations.coco.json",
        lambda found: found["annotations"][0].update(bbox=[11, 5, 20, 30]),
    )
    assert prepare(world).fingerprint != prepared.fingerprint  # its area is the file's, and as it was


def test_a_picture_that_the_camera_noted_to_be_turned_is_upright(world):
    path = picture(world.source)
    path.unlink()
    turned_jpeg(path.with_suffix(".jpg"), 6)
    item = prepare(world).splits["train"].item(0, None)
    assert item["frame"][0, 4:].tolist() == [16, 32]
    assert item["boxes"][0][1].tolist() == pytest.approx([2.4, 3.2, 5.6, 12.8])
    image = item["image"][0].numpy()
    assert image[:, 5:25, 32].min() > 200 and image[:, 40:60, 32].max() < 60


# --- what is said -----------------------------------------------------------------------------------------------------


def test_what_is_said_of_the_splits(world):
    label(world.source).write_text("")
    prepared = prepare(world)
    audit = json.loads(json.dumps(prepared.audit))
    assert audit["splits"]["train"] == {
        "images": 6,
        "boxes": 10,
        "background images": 1,
        "boxes of car": 6,
        "boxes of bus": 2,
        "boxes of person": 2,
    }
    assert class_counts(prepared)["train"] == {"car": 6, "bus": 2, "person": 2}
    assert audit["method"] == "the dataset itself (as YOLO lists it)"  # reports and cards say: split by …
    assert audit["weak"] is False and audit["overlaps"] == {"duplicates": 0, "groups": 0}
    text = "\n".join(prepared.summary)
    assert "11 images in the YOLO layout, 3 classes (car, bus, person)" in text
    assert "train       6 images (1 without boxes), 10 boxes" in text
    assert prepared.facts["image_size"] == 64 and prepared.facts["category_ids"] == [0, 1, 2]


def test_duplicates_are_left_out_and_told_and_can_be_kept(world):
    write_image(picture(world.source, "train", 2), 6)  # the pixels of the first image of val
    write_image(picture(world.source, "val", 1), 9)  # and of test
    prepared = prepare(world)
    assert sizes(prepared) == {"train": 5, "val": 2, "test": 2}
    assert "images/train/train-c.png" not in [member.name for member in prepared.members["train"]]
    assert prepared.audit["duplicates"]["images"] == 2 and prepared.audit["overlaps"]["duplicates"] == 0
    assert any("1 of train, 1 of val show the same pixels" in line for line in prepared.summary)
    assert not any(leaks_inside(prepared.members, 0.0))
    kept = prepare(world, duplicates="keep")
    assert sizes(kept) == COUNTS and "1 of train, 1 of val show" in kept.audit["weak_reason"]
    assert kept.audit["weak"] and kept.audit["overlaps"]["duplicates"] == 2
    assert any(leaks_inside(kept.members, 0.0))
    assert kept.fingerprint != prepared.fingerprint and kept.facts["cache"] == prepared.facts["cache"]
    with pytest.raises(BadDataError, match=r"train-c.png and val: images/val/val-a.png"):
        prepare(world, duplicates="refuse")


def test_the_same_picture_in_another_format_is_a_duplicate(world):
    pixels = cv2.imread(str(picture(world.source, "val", 0)))
    path = picture(world.source, "train", 1)
    path.with_suffix(".bmp").write_bytes(cv2.imencode(".bmp", pixels)[1].tobytes())
    path.unlink()
    assert sizes(prepare(world))["train"] == 5


def test_groups_are_known_to_members_and_handled(world):
    for split, index, name in (("train", 0, "cam2-00001"), ("train", 1, "cam2-00002"), ("val", 0, "cam2-00003")):
        picture(world.source, split, index).rename(picture(world.source, split).with_name(f"{name}.png"))
        label(world.source, split, index).rename(label(world.source, split).with_name(f"{name}.txt"))
    prepared = prepare(world)
    assert sizes(prepared) == COUNTS and prepared.audit["weak"]
    assert [member.group for member in prepared.members["val"]] == ["cam2", None, None]
    assert prepared.audit["groups"]["known"] == 1 and prepared.audit["groups"]["by_split"] == {"train": 2, "val": 0}
    assert any("2 of train come from one picture or video" in line for line in prepared.summary)
    assert sizes(prepare(world, groups="drop")) == {**COUNTS, "train": 4}


def test_one_folder_for_train_and_val_is_refused_with_a_way_out(world):
    (world.source / "data.yaml").write_text(DATA_YAML.replace("images/val", "images/train"))
    with pytest.raises(BadDataError, match=r"train: all of its 6 images show .* set data.duplicates=keep"):
        prepare(world)
    prepared = prepare(world, duplicates="keep")
    assert sizes(prepared) == {"train": 6, "val": 6, "test": 2} and prepared.audit["weak"]
    assert prepared.members["train"] == prepared.members["val"]


# --- classes ----------------------------------------------------------------------------------------------------------


def test_classes_can_be_chosen_and_images_stay(world):
    prepared = prepare(world, classes=["person", "car"])
    assert prepared.facts["classes"] == ["person", "car"] and prepared.facts["category_ids"] == [2, 0]
    assert sizes(prepared) == COUNTS
    assert prepared.splits["train"].item(2, None)["labels"][0].tolist() == [0, 1]
    assert prepared.splits["train"].item(1, None)["labels"][0].tolist() == [1]
    assert any("4 boxes of other classes were left out (bus 4)" in line for line in prepared.summary)
    assert prepared.audit["labels"]["boxes_of_other_classes"] == 4
    whole = prepare(world)
    assert whole.fingerprint != prepared.fingerprint and whole.facts["cache"] == prepared.facts["cache"]


def test_a_sub_task_takes_the_classes_that_there_are(world):
    (world.source / "data.yaml").write_text(DATA_YAML.replace("bus", "Bus"))
    assert prepare(world, subtask="vehicle").facts["classes"] == ["car", "Bus"]
    assert prepare(world, subtask="pedestrian").facts["classes"] == ["person"]
    with pytest.raises(BadDataError, match=r"no class of boat \(ship\), it has car, Bus, person; .*data.subtasks.boat"):
        prepare(world, subtask="boat", subtasks={"boat": ["ship"]})


@pytest.mark.parametrize(("name", "near"), [("cars", "car"), ("Car", "car"), ("PERSON", "person"), ("xyz", None)])
def test_an_unknown_class_is_refused_with_the_nearest(world, name, near):
    with pytest.raises(BadDataError) as caught:
        prepare(world, classes=[name])
    assert f"no class {name}, it has car, bus, person" in str(caught.value)
    assert (f"did you mean {near}?" in str(caught.value)) == (near is not None)


# --- the cache --------------------------------------------------------------------------------------------------------


def test_the_number_of_workers_and_the_place_change_nothing(world, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_FILES_PER_WORKER", 1)
    alone = prepare(world)
    shutil.copytree(world.source, tmp_path / "copy")
    together = prepare(World(tmp_path / "copy", tmp_path / "other", workers=2))
    assert alone.fingerprint == together.fingerprint and alone.audit == together.audit
    blocks = [next(cache.rglob("blocks.bin")).read_bytes() for cache in (tmp_path / "cache", tmp_path / "other")]
    assert blocks[0] == blocks[1]


def test_each_image_is_read_once_and_never_again(world, monkeypatch):
    reads = []
    whole = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: reads.append(path) or whole(path))
    first = prepare(world)
    assert sorted(path for path in reads if path.suffix == ".png") == sorted(world.source.rglob("*.png"))
    reads.clear()
    assert prepare(world).fingerprint == first.fingerprint
    assert not [path for path in reads if path.suffix == ".png"]


def test_an_interrupted_preparation_is_continued(world):
    def stop():
        if ("preparing", 4, 11) in world.progress:
            raise InterruptedRunError("stop")

    world.check_stop = stop
    with pytest.raises(InterruptedRunError):
        prepare(world)
    world.check_stop = lambda: None
    world.progress.clear()
    prepared = prepare(world)
    assert ("preparing", 4, 11) in world.progress and ("preparing", 3, 11) not in world.progress
    assert prepared.fingerprint == prepare(World(world.source, world.cache.with_name("other"))).fingerprint


def test_what_changes_the_fingerprint_and_what_does_not(world):
    first = prepare(world)
    path = label(world.source, "test", 0)
    path.write_text(path.read_text().replace("0 0.25 0.25", "0 0.3 0.25"))
    assert prepare(world).fingerprint != first.fingerprint  # a box of the same size elsewhere
    label(world.source, "test", 1).write_text("1 0.5 0.5 0.2 0.2\n")
    mended = prepare(world)
    assert mended.fingerprint != first.fingerprint and mended.facts["cache"] == first.facts["cache"]
    (world.source / "data.yaml").write_text(DATA_YAML.replace("bus", "coach"))
    renamed = prepare(world)
    assert renamed.fingerprint != mended.fingerprint and renamed.facts["cache"] == first.facts["cache"]
    (world.source / "data.yaml").write_text(f"path: {world.source}\n{DATA_YAML.replace('bus', 'coach')}")
    assert prepare(world, groups="drop").fingerprint == renamed.fingerprint  # nothing was dropped
    assert prepare(world, DetectionAugmentationSection(flip=0)).fingerprint == renamed.fingerprint
    assert prepare(world, image_size=96).facts["cache"] != first.facts["cache"]
    write_image(picture(world.source), 77)
    assert prepare(world).facts["cache"] != first.facts["cache"]


@pytest.mark.parametrize(
    "change",
    [{"bbox": [31, 10, 10.5, 20]}, {"category_id": 7}, {"iscrowd": 1}, {"area": 7}, {"image_id": 101}],
    ids=["box", "class", "crowd", "area", "image"],
)
def test_all_that_an_annotation_says_is_part_of_the_fingerprint(tmp_path, change):
    world = World(coco(tmp_path / "set"), tmp_path / "cache")
    first = prepare(world)
    path = world.source / "train" / "_annotations.coco.json"
    change_json(path, lambda found: found["annotations"][1].update(info="no part of it"))
    assert prepare(world).fingerprint == first.fingerprint
    change_json(path, lambda found: found["annotations"][1].update(change))  # the second and last box of train-a.png
    assert prepare(world).fingerprint != first.fingerprint


def test_another_split_of_the_same_images_is_another_dataset(world):
    first = prepare(world)
    (world.source / "data.yaml").write_text(DATA_YAML.replace("val: images/val\ntest: images/test", "val: images/test"))
    other = prepare(world)
    assert sizes(other) == {"train": 6, "val": 2, "test": 0} and first.fingerprint != other.fingerprint
    with pytest.raises(IndexError):
        other.splits["test"].item(0, None)


# --- what is refused --------------------------------------------------------------------------------------------------


def test_all_images_that_are_none_are_told_at_once_and_again_until_they_are_mended(world):
    for index in (1, 3):
        picture(world.source, "train", index).write_bytes(b"no picture")
    for _ in range(2):
        with pytest.raises(BadDataError) as caught:
            prepare(world)
        told = str(caught.value).split("\n")
        assert told[0] == "2 things are wrong:" and "train-b.png: damaged or no image" in told[1]
        assert "train-d.png: damaged" in told[2]
    for index in (1, 3):
        write_image(picture(world.source, "train", index), index)
    mended = prepare(world)
    assert any("9 of 11 are done" in line or "11 of 11" in line for line in world.said)
    assert mended.fingerprint == prepare(World(world.source, world.cache.with_name("other"))).fingerprint


def test_images_of_another_size_than_the_annotations_say(tmp_path):
    world = World(coco(tmp_path / "set"), tmp_path / "cache")
    write_image(world.source / "train" / "train-b.png", 50, (40, 60))
    with pytest.raises(
        BadDataError, match=r"train-b.png: is 40 wide and 60 high, but the annotations say 60 and 40 \("
    ):
        prepare(world)


def test_wrong_labels_are_told_before_images_are_opened(world):
    label(world.source).write_text("9 0.5 0.5 0.1 0.1")
    with pytest.raises(BadDataError, match=r"train-a\.txt, line 1"):
        prepare(world)
    assert not world.progress


def test_a_split_without_any_box_is_refused(world):
    for index in range(3):
        label(world.source, "val", index).write_text("1 0.5 0.5 0.2 0.2\n")
    assert sizes(prepare(world)) == COUNTS
    with pytest.raises(
        BadDataError, match=r"val: none of its 3 images has a box of car, person; nothing can be scored"
    ):
        prepare(world, classes=["car", "person"])


# --- a glance ---------------------------------------------------------------------------------------------------------


def test_a_glance_opens_no_image_and_is_exact_once_prepared(world):
    write_image(picture(world.source, "train", 2), 6)
    before = glance_at_detection(SECTION, world.source, world.cache)
    assert not before.exact and before.cache_bytes == 11 * 3 * 64 * 64 and before.items == COUNTS
    assert "11 images in the YOLO layout, 3 classes" in before.found and "not prepared yet" in before.found
    prepared = prepare(world)
    after = glance_at_detection(SECTION, world.source, world.cache)
    assert after.exact and after.facts == prepared.facts and after.cache_bytes == 0
    assert before.facts.keys() | {"cache"} == after.facts.keys()
    assert after.items == {"train": 5, "val": 3, "test": 2}


def test_a_glance_without_files_takes_the_classes_of_the_settings():
    for section, classes in (
        (DetectionDataSection(classes=["a", "b"]), ["a", "b"]),
        (DetectionDataSection(subtask="pedestrian"), ["person", "pedestrian", "people", "rider"]),
    ):
        glance = glance_at_detection(section, None, Path("nowhere"))
        assert glance.items is None and glance.facts["classes"] == classes and glance.facts["image_size"] == 640


# --- real images ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not os.environ.get("REAL_DATA"), reason="REAL_DATA is not set")
def test_real_images(tmp_path):
    world = World(Path(os.environ["REAL_DATA"], "detection"), tmp_path / "cache")
    section = DetectionDataSection()
    prepared = prepare_detection(section, world.context)
    assert sizes(prepared) == {"train": 105, "val": 10, "test": 5}
    assert class_counts(prepared) == {split: {"trucks": count} for split, count in sizes(prepared).items()}
    assert sum("is not there; taken from" in line for line in prepared.summary) == 3
    assert prepared.audit["groups"] | {"examples": []} == {
        "known": 50,
        "images": 0,
        "by_split": {"train": 0, "val": 0},
        "shared": 0,
        "within_a_split": 70,
        "examples": [],
        "done": "nothing",
    }
    assert prepared.audit["duplicates"]["images"] == 0 and not prepared.audit["weak"]
    item = prepared.splits["val"].item(0, None)
    assert item["frame"].tolist()[0][4:] == [640, 640] and item["image"].float().std() > 20
    began = time.monotonic()
    again = prepare_detection(section, world.context)
    assert time.monotonic() - began < 1 and again.fingerprint == prepared.fingerprint
    assert prepare_detection(DetectionDataSection(subtask="vehicle"), world.context).facts["classes"] == ["trucks"]
