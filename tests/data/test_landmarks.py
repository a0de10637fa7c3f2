"""Landmark datasets from folders to items."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from backend.errors import BadDataError, InterruptedRunError
from backend.preprocessing.landmarks import LandmarkPreprocessing
from tests.data.landmark_dataset import faces, lungs, shapes, write_image
from tests.data.world import World
from training.data.landmarks import prepare as module
from training.data.landmarks.glance import glance_at_landmarks
from training.data.landmarks.prepare import class_counts, prepare_landmarks
from training.leaks.own import leaks_inside
from training.schemas.landmarks import AugmentationSection, LandmarkDataSection

SECTION = LandmarkDataSection(image_size=64)
NO_CHANGE = AugmentationSection(flip=0, rotation=0, brightness=0, contrast=0)


@pytest.fixture
def world(tmp_path) -> World:
    return World(lungs(tmp_path / "lungs", 24), tmp_path / "cache")


def prepare(world, seed=42, section=SECTION, augmentation=None):
    return prepare_landmarks(section, world.context, seed, augmentation)


def rows_of(world) -> dict[str, list[str]]:
    lines = next(world.source.rglob("*.csv")).read_text().splitlines()
    return {line.split(",")[-1]: line.split(",") for line in lines}


def images_of(prepared) -> dict[str, np.ndarray]:
    """Each image by its name, whatever split it is in."""
    return {
        member.name: items.item(i, None)["image"].numpy()
        for name, items in prepared.splits.items()
        for i, member in enumerate(prepared.members[name])
    }


def test_items_are_the_images_and_points_of_their_members(world):
    prepared, rows = prepare(world), rows_of(world)
    preprocessing = LandmarkPreprocessing.from_dict(prepared.preprocessing["landmarks"])
    seen = set()
    for split, items in prepared.splits.items():
        assert len(items) == len(prepared.members[split])
        for index, member in enumerate(prepared.members[split]):
            item = items.item(index, None)
            kind = member.name.rsplit("-", 1)[0].replace(" ", "_")
            image, size = preprocessing.read(world.source / "dataset" / kind / f"{member.name}.png")
            assert torch.equal(item["image"], torch.from_numpy(image)[None])
            assert item["size"].tolist() == [list(size)]
            points = np.array(rows[member.name][1:-1], float).reshape(1, 15, 2)
            np.testing.assert_allclose(item["points"] * item["size"], points, atol=1e-4)
            assert prepared.facts["classes"][item["class"].item()] == kind
            seen.add(member.name)
    assert seen == set(rows)


def test_types_and_shapes_of_an_item(world):
    item = prepare(world).splits["train"].item(0, np.random.default_rng(0))
    assert {key: (value.dtype, tuple(value.shape)) for key, value in item.items()} == {
        "image": (torch.uint8, (1, 3, 64, 64)),
        "points": (torch.float32, (1, 15, 2)),
        "size": (torch.float32, (1, 2)),
        "weight": (torch.float32, (1,)),
        "class": (torch.int64, (1,)),
    }


def test_augmentation_is_a_function_of_the_random_numbers_alone(world):
    items = prepare(world).splits["train"]
    for value in items.item(3, None).values():
        value.zero_()  # an item is the caller's own
    plain = items.item(3, None)
    assert plain["points"].any() and plain["size"].any()
    one, same, other = (items.item(3, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert torch.equal(one["image"], same["image"]) and torch.equal(one["points"], same["points"])
    assert not torch.equal(one["image"], other["image"]) and not torch.equal(one["points"], other["points"])
    assert not torch.equal(one["image"], plain["image"])
    again = items.item(3, None)
    assert torch.equal(again["image"], plain["image"]) and torch.equal(again["points"], plain["points"])
    apart = pickle.loads(pickle.dumps(items)).item(3, np.random.default_rng(5))  # noqa: S301
    assert torch.equal(apart["image"], one["image"])


def test_settings_of_augmentation_reach_the_items(world):
    still = prepare(world, augmentation=NO_CHANGE).splits["train"]
    assert torch.equal(still.item(0, np.random.default_rng(0))["image"], still.item(0, None)["image"])
    mirror = prepare(world, augmentation=NO_CHANGE.model_copy(update={"flip": 1.0})).splits["train"]
    flipped, plain = mirror.item(0, np.random.default_rng(0)), mirror.item(0, None)
    assert torch.equal(flipped["image"], plain["image"].flip(-1))
    torch.testing.assert_close(flipped["points"][0, 2, 0], 1 - plain["points"][0, 3, 0])


def test_what_is_said_of_the_split(world):
    prepared = prepare(world)
    counts = class_counts(prepared)
    assert {name: sum(counts[name].values()) for name in counts} == {"train": 18, "val": 3, "test": 3}
    assert counts["train"] == {"COVID": 6, "Normal": 6, "Viral_Pneumonia": 6}
    audit = json.loads(json.dumps(prepared.audit))
    assert audit["splits"]["train"] == {
        "images": 18,
        **dict.fromkeys(("COVID", "Normal", "Viral_Pneumonia"), "6 (33.3%)"),
    }
    assert (audit["method"], audit["seed"], audit["weak"]) == ("stratified draw", 42, False)
    assert audit["overlaps"] == {"images": 0, "groups": 0} and audit["duplicates"]["images"] == 0
    assert audit["groups"].startswith("the table has no column")
    text = "\n".join(prepared.summary)
    assert "24 images with 15 points, 3 classes" in text and "confirmed by the labels" in text
    mean = np.mean([prepared.splits["train"].item(i, None)["points"][0].numpy() for i in range(18)], axis=0)
    np.testing.assert_allclose(prepared.facts["mean_shape"], mean, atol=1e-6)
    assert prepared.facts["landmark_set"]["names"][0] == "L1" and prepared.facts["image_size"] == 64


def test_the_same_picture_and_the_same_patient_stand_in_one_split(tmp_path):
    layout = "images: images\npairs: [[left, right]]"
    root = faces(tmp_path / "faces", 12, layout, patient=[f"p{i // 2}" if i < 6 else "" for i in range(12)])
    for number in (8, 9, 10):
        write_image(root / "images" / f"face{number}.bmp", 107)  # the pixels of face7.png in another file
        (root / "images" / f"face{number}.png").unlink()
    text = (root / "points.csv").read_text()
    for number in (8, 9, 10):
        text = text.replace(f"face{number}.png", f"face{number}")
    (root / "points.csv").write_text(text)
    prepared = prepare(World(root, tmp_path / "cache"))
    side = {member.name: name for name, members in prepared.members.items() for member in members}
    for together in (("face0", "face1"), ("face2", "face3"), ("face4", "face5"), ("face7", "face8", "face9", "face10")):
        assert len({side[name] for name in together}) == 1
    assert prepared.audit["duplicates"]["same"] == [["face7", "face8", "face9", "face10"]]
    assert prepared.audit["independent"] == 6
    assert prepared.audit["groups"] == "3, each in one split; 6 images have none"
    assert prepared.audit["overlaps"] == {"images": 0, "groups": 0}
    assert not any(leaks_inside(prepared.members, 0.0))
    assert any("face7 = face8" in line for line in prepared.summary)


def test_the_seed_changes_the_split_and_the_fingerprint_but_no_image(world):
    first, second = prepare(world), prepare(world, seed=1)
    assert first.fingerprint != second.fingerprint and first.facts["cache"] == second.facts["cache"]
    assert [m.name for m in first.members["test"]] != [m.name for m in second.members["test"]]


# --- the cache --------------------------------------------------------------------------------------------------------


def test_the_order_in_which_classes_are_listed_does_not_change_the_split(world):
    before = prepare(world)
    (world.source / "landmarks.yaml").write_text("classes: [Viral_Pneumonia, Normal, COVID]\n")
    after = prepare(world)
    assert after.facts["classes"] == before.facts["classes"][::-1]
    assert after.members == before.members


def test_the_number_of_workers_and_the_place_change_nothing(world, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_FILES_PER_WORKER", 1)
    alone = prepare(world)
    shutil.copytree(world.source, tmp_path / "copy")
    together = prepare(World(tmp_path / "copy", tmp_path / "other", workers=2))
    assert alone.fingerprint == together.fingerprint and alone.audit == together.audit
    blocks = [next(cache.rglob("blocks.bin")).read_bytes() for cache in (tmp_path / "cache", tmp_path / "other")]
    assert blocks[0] == blocks[1]


def test_an_interrupted_preparation_is_continued(world, monkeypatch):
    def stop():
        if ("preparing", 9, 24) in world.progress:
            raise InterruptedRunError("stop")

    world.check_stop = stop
    with pytest.raises(InterruptedRunError):
        prepare(world)
    world.check_stop = lambda: None
    glance = glance_at_landmarks(SECTION, world.source, world.cache, 42)
    assert not glance.exact and glance.items == {"train": 18, "val": 3, "test": 3}
    world.progress.clear()
    prepared = prepare(world)
    assert ("preparing", 9, 24) in world.progress and ("preparing", 8, 24) not in world.progress
    assert any("Continuing the preparation: 9 of 24" in line for line in world.said)
    whole = prepare(World(world.source, world.cache.with_name("other")))
    assert prepared.fingerprint == whole.fingerprint
    for name, image in images_of(whole).items():
        assert np.array_equal(images_of(prepared)[name], image)


def test_an_unchanged_dataset_opens_no_image(world):
    first = prepare(world)
    for path in world.source.rglob("*.png"):
        facts = path.stat()
        path.write_bytes(b"x" * facts.st_size)
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert prepare(world).fingerprint == first.fingerprint


def test_a_mended_point_makes_another_dataset_without_preparing_anew(world):
    first = prepare(world)
    world.progress.clear()
    path = next(world.source.rglob("*.csv"))
    lines = path.read_text().splitlines()
    cells = lines[0].split(",")
    path.write_text("\n".join([",".join([cells[0], str(float(cells[1]) + 1), *cells[2:]]), *lines[1:]]))
    second = prepare(world)
    assert first.fingerprint != second.fingerprint and first.facts["cache"] == second.facts["cache"]
    assert not world.progress


@pytest.mark.parametrize("change", [{"image_size": 65}, {"clahe": False}, {"clahe_clip": 3.0}, {"clahe_tile": 2}])
def test_each_setting_of_the_preprocessing_makes_another_cache(world, change):
    other = prepare(world, section=SECTION.model_copy(update=change))
    assert other.facts["cache"] != prepare(world).facts["cache"]


# --- what is refused --------------------------------------------------------------------------------------------------


def test_all_that_is_wrong_with_images_is_told_before_any_is_prepared(world):
    (world.source / "dataset/Normal/Normal-1.png").write_bytes(b"no picture")
    path = next(world.source.rglob("*.csv"))
    lines = [line.split(",") for line in path.read_text().splitlines()]
    lines[4][5], lines[6][30] = "60.5", "-1"
    path.write_text("\n".join(",".join(cells) for cells in lines))
    with pytest.raises(BadDataError) as caught:
        prepare(world)
    told = str(caught.value).split("\n")
    assert told[0] == "3 things are wrong:"
    assert "line 2: " in told[1] and "Normal-1.png: damaged or no image" in told[1]
    assert "line 5: L3 is at (60.5, " in told[2] and "outside Normal-4, which is 60 wide and 50 high" in told[2]
    assert "line 7: L15 is at (" in told[3] and ", -1), outside COVID-6" in told[3]
    assert not [what for what, done, _ in world.progress if what == "preparing" and done]


def test_a_point_on_the_very_edge_is_inside(world):
    path = next(world.source.rglob("*.csv"))
    lines = [line.split(",") for line in path.read_text().splitlines()]
    lines[0][1:3] = ["60", "0"]
    path.write_text("\n".join(",".join(cells) for cells in lines))
    prepared = prepare(world)
    points = {
        member.name: items.item(i, None)["points"][0, 0].tolist()
        for name, items in prepared.splits.items()
        for i, member in enumerate(prepared.members[name])
    }
    assert points["COVID-0"] == [1.0, 0.0]


def test_a_point_moved_outside_is_found_although_the_images_are_prepared(world):
    prepare(world)
    path = next(world.source.rglob("*.csv"))
    path.write_text(path.read_text().replace(",", ",61", 1))
    with pytest.raises(BadDataError, match="outside COVID-0, which is 60 wide"):
        prepare(world)


def test_wrong_pairs_are_refused_before_images_are_opened(world):
    (world.source / "landmarks.yaml").write_text("pairs: [[L3, L4], [L5, L6], [L7, L8], [L12, L15], [L14, L13]]")
    with pytest.raises(BadDataError, match=r"landmarks.yaml: pairs: L1[2345] is paired with"):
        prepare(world)
    assert not world.progress


def test_fifteen_other_points_are_not_taken_for_lungs_silently(world):
    path = next(world.source.rglob("*.csv"))
    rows = [line.split(",") for line in path.read_text().splitlines()]
    path.write_text("\n".join(",".join([cells[0], *cells[3:31], *cells[1:3], cells[31]]) for cells in rows))
    with pytest.raises(BadDataError, match=r"maestro.csv \(its points are taken for .* Name in landmarks.yaml, under"):
        prepare(world)


# --- a glance ---------------------------------------------------------------------------------------------------------


def test_a_glance_opens_no_image_and_is_exact_once_prepared(world):
    before = glance_at_landmarks(SECTION, world.source, world.cache, 42)
    assert not before.exact and before.cache_bytes == 24 * 3 * 64 * 64
    assert before.items == {"train": 18, "val": 3, "test": 3}
    assert "24 images with 15 points, 3 classes" in before.found and "not prepared yet" in before.found
    prepared = prepare(world)
    after = glance_at_landmarks(SECTION, world.source, world.cache, 42)
    assert after.exact and after.facts == prepared.facts and after.cache_bytes == 0
    assert before.facts.keys() | {"cache"} == after.facts.keys()
    assert after.items == {name: len(items) for name, items in prepared.splits.items()}


def test_a_glance_without_files_knows_the_points_of_the_lungs():
    glance = glance_at_landmarks(SECTION, None, Path("nowhere"), 42)
    assert glance.items is None and len(glance.facts["landmark_set"]["names"]) == 15
    assert np.shape(glance.facts["mean_shape"]) == (15, 2)


# --- real images ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not os.environ.get("REAL_DATA"), reason="REAL_DATA is not set")
def test_real_images(tmp_path):
    world = World(Path(os.environ["REAL_DATA"], "landmarks"), tmp_path / "cache")
    prepared = prepare_landmarks(LandmarkDataSection(), world.context, 42)
    assert {name: len(items) for name, items in prepared.splits.items()} == {"train": 270, "val": 54, "test": 37}
    assert class_counts(prepared)["test"] == {"COVID": 13, "Normal": 18, "Viral_Pneumonia": 6}
    assert prepared.facts["classes"] == ["COVID", "Normal", "Viral_Pneumonia"]
    assert any("confirmed" in line for line in prepared.summary)
    item = prepared.splits["val"].item(0, None)
    assert item["size"].tolist() == [[299.0, 299.0]] and float(item["points"].min()) >= 0
    began = time.monotonic()
    again = prepare_landmarks(LandmarkDataSection(), world.context, 42)
    assert time.monotonic() - began < 1 and again.fingerprint == prepared.fingerprint
    from_mean = (prepared.splits["train"].points - np.array(prepared.facts["mean_shape"])) * 224
    assert 16 < np.linalg.norm(from_mean, axis=2).mean() < 18  # pixels of 224, as measured on the whole collection


def test_shapes_of_the_helper_are_those_of_the_lungs():
    assert shapes(3).shape == (3, 15, 2)
