from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from backend.errors import BadDataError
from training.data.landmarks.split import SPLITS, split_images, split_sizes, units_of

FRACTIONS = [0.75, 0.15, 0.10]


def classes(*counts: int) -> np.ndarray:
    """Numbers of classes in a mixed order."""
    return np.random.default_rng(7).permutation(np.repeat(np.arange(len(counts)), counts))


def alone(count: int) -> list[list[str]]:
    return [[f"picture {i}"] for i in range(count)]


def split(class_of, keys=None, fractions=FRACTIONS, seed=42, memory=None):
    return split_images(class_of, alone(len(class_of)) if keys is None else keys, fractions, seed, memory)


@pytest.mark.parametrize("seed", [0, 42, 2**32 - 1])
@pytest.mark.parametrize(
    ("counts", "fractions", "held_out", "last"),
    [
        ((306, 468, 183), FRACTIONS, 0.25, 0.4),
        ((20, 30, 11), [0.7, 0.15, 0.15], 0.3, 0.5),
        ((37, 40), [0.6, 0.2, 0.2], 0.4, 0.5),
    ],
)
def test_single_images_are_split_as_by_the_two_calls(counts, fractions, held_out, last, seed):
    labels = classes(*counts)
    rows = np.arange(len(labels))
    train, rest = train_test_split(rows, test_size=held_out, stratify=labels, random_state=seed)
    val, test = train_test_split(rest, test_size=last, stratify=labels[rest], random_state=seed)
    found = split(labels, fractions=fractions, seed=seed)
    for name, members in zip(SPLITS, (train, val, test), strict=True):
        assert found.members(name).tolist() == sorted(members.tolist())
    assert not found.notes


def test_the_whole_collection_gives_the_old_sizes():
    found = split(classes(306, 468, 183))
    assert [len(found.members(name)) for name in SPLITS] == [717, 144, 96]


def test_rounding_of_fractions_moves_no_image():
    assert split_sizes(10, [0.7, 0.1, 0.2]) == {"train": 7, "val": 1, "test": 2}  # 0.1 + 0.2 is a little over 0.3
    assert split_sizes(3, [0.98, 0.01, 0.01]) == {"train": 1, "val": 1, "test": 1}


def test_images_that_share_a_key_stay_together():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 40, 200)
    keys = [[("picture", i if i % 20 else 0), ("group", int(group))] for i, group in enumerate(groups)]
    found = split(classes(100, 100), keys)
    for group in np.unique(groups):
        assert len(set(found.sides[groups == group])) == 1
    assert len(set(found.sides[::20])) == 1
    assert set(found.sides) == {0, 1, 2}


def test_units_follow_chains_of_keys_and_are_numbered_as_they_come():
    assert units_of([["a"], ["b"], ["c", "d"], ["d", "a"], ["e"]]).tolist() == [0, 1, 0, 0, 2]
    assert units_of([[], ["x"], []]).tolist() == [0, 1, 2]


@pytest.mark.parametrize(("counts", "words"), [((30, 1), "only one"), ((2,) * 12, "cannot hold all 12 classes")])
def test_classes_too_small_are_drawn_without_regard_to_them_and_told(counts, words):
    found = split(classes(*counts))
    assert words in found.notes[0] and found.notes[0].startswith("train from val and test was drawn without")
    assert min(len(found.members(name)) for name in SPLITS) > 0
    rows = np.arange(sum(counts))
    train, _ = train_test_split(rows, test_size=0.25, random_state=42)
    assert found.members("train").tolist() == sorted(train.tolist())


@pytest.mark.parametrize("count", [3, 4, 5, 7])
def test_few_images_fill_all_three(count):
    found = split(classes(count))
    assert min(len(found.members(name)) for name in SPLITS) >= 1


def test_fewer_than_three_independent_images_are_refused():
    with pytest.raises(BadDataError, match="5 images make 2 that are independent"):
        split(classes(5), [["a"], ["a"], ["b"], ["b"], ["b"]])


def test_a_draw_is_remembered_and_a_damaged_memory_drawn_anew(tmp_path, monkeypatch):
    labels = classes(30, 1)
    first = split(labels, memory=tmp_path)
    (kept,) = tmp_path.iterdir()
    monkeypatch.setitem(sys.modules, "sklearn.model_selection", None)  # whoever draws now fails
    again = split(labels, memory=tmp_path)
    assert again.sides.tolist() == first.sides.tolist() and again.notes == first.notes
    with pytest.raises(ImportError):
        split(labels, memory=tmp_path, seed=1)
    monkeypatch.undo()
    record = json.loads(kept.read_text())
    kept.write_text(json.dumps({**record, "sides": record["sides"][::-1]}))
    assert split(labels, memory=tmp_path).sides.tolist() == first.sides.tolist()
