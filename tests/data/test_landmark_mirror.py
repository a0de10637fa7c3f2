from __future__ import annotations

import numpy as np
import pytest

from backend.errors import BadDataError, ConfigError
from backend.preprocessing.landmark_set import LUNGS, LandmarkSet
from tests.data.landmark_dataset import LUNG_SHAPE, shapes
from training.data.landmarks.augment import rotated
from training.data.landmarks.mirror import check_mirroring, check_pairs
from training.schemas.landmarks import LandmarkConfig


def lungs(*pairs) -> LandmarkSet:
    return LandmarkSet(LUNGS.names, pairs)


PAIRS = LUNGS.pairs


def test_right_pairs_are_confirmed():
    (line,) = check_pairs(LUNGS, shapes(30) * 299)
    assert "confirmed" in line


def test_rotation_place_and_size_of_the_objects_do_not_matter():
    rng = np.random.default_rng(0)
    turned = [rotated(shape, rng.uniform(-180, 180)) for shape in shapes(30)]
    points = np.stack([shape * rng.uniform(0.1, 3) + rng.uniform(-9, 9) for shape in turned])
    assert "confirmed" in check_pairs(LUNGS, points)[0]


@pytest.mark.parametrize(
    ("pairs", "named"),
    [
        (((3, 2), (4, 6), (5, 7), (11, 12), (13, 14)), "L[5678]"),  # all partners on the same side
        (((2, 5), (4, 3), (6, 7), (11, 12), (13, 14)), "L[3456]"),  # two partners exchanged
        (PAIRS[:4], "L1[45]"),  # one pair forgotten
        ((*PAIRS, (0, 1)), "L[12]"),  # points of the axis exchanged
        (PAIRS[:1], "L[0-9]+"),
        (((0, 1), (2, 4)), "L[0-9]+"),
    ],
)
def test_wrong_pairs_are_refused_and_the_worst_is_named(pairs, named):
    with pytest.raises(BadDataError, match=rf"pairs: {named} (is paired with|has no partner).*falls on"):
        check_pairs(lungs(*pairs), shapes(30) * 299)


def test_neighbours_confused_among_many_points_are_found():
    half = np.column_stack([0.5 + 0.4 * np.sin(np.linspace(0.1, 3, 30)), np.linspace(0, 1, 30)])
    shape = np.concatenate([half, [1, 0] + [-1, 1] * half])
    names = tuple(str(i) for i in range(60))
    right = [(i, i + 30) for i in range(30)]
    assert "confirmed" in check_pairs(LandmarkSet(names, tuple(right)), shapes(20, shape, 0.005) * 100)[0]
    wrong = [*right[:10], (10, 45), *right[11:15], (15, 40), *right[16:]]
    with pytest.raises(BadDataError, match=r"pairs: (10|15|40|45) "):
        check_pairs(LandmarkSet(names, tuple(wrong)), shapes(20, shape, 0.005) * 100)


def test_objects_that_are_not_symmetric_are_told_and_not_refused():
    hand = np.array([[0.1, 0.9], [0.3, 0.1], [0.45, 0.02], [0.6, 0.05], [0.75, 0.2], [0.95, 0.7], [0.5, 0.3]])
    names = tuple("abcdefg")
    for pairs in ((), ((0, 6),)):
        (line,) = check_pairs(LandmarkSet(names, pairs), shapes(20, hand) * 100)
        assert "cannot confirm" in line and "augmentation.flip=0" in line


def test_an_empty_list_of_pairs_is_refused_where_the_labels_show_pairs():
    with pytest.raises(BadDataError, match=r"has no partner, but in the mirrored mean shape it falls on L\d+"):
        check_pairs(lungs(), shapes(20) * 299)


def test_a_set_without_pairs_or_shape_is_left_alone():
    assert check_pairs(LandmarkSet(("a", "b", "c"), mirrors=False), np.ones((4, 3, 2))) == []
    assert check_pairs(LandmarkSet(("a", "b", "c")), np.ones((4, 3, 2))) == []
    assert check_pairs(LandmarkSet(("a",)), np.ones((4, 1, 2))) == []


def test_the_lungs_without_swap_are_far_off():
    with pytest.raises(BadDataError):
        check_pairs(lungs(PAIRS[4]), LUNG_SHAPE[None].repeat(3, 0) * 299)


@pytest.mark.parametrize(
    ("flip", "tta", "words"),
    [(0.5, False, "augmentation.flip is 0.5, but"), (0, True, "evaluation.tta is true, but"), (1, True, "1 and eval")],
)
def test_mirroring_without_known_pairs_is_refused(flip, tta, words):
    config = LandmarkConfig.model_validate({"augmentation": {"flip": flip}, "evaluation": {"tta": tta}})
    with pytest.raises(ConfigError, match=words) as caught:
        check_mirroring(LandmarkSet(("a", "b"), mirrors=False), config)
    assert "landmarks.yaml" in str(caught.value)
    check_mirroring(LUNGS, config)


def test_without_mirroring_no_pairs_are_needed():
    config = LandmarkConfig.model_validate({"augmentation": {"flip": 0}, "evaluation": {"tta": False}})
    check_mirroring(LandmarkSet(("a", "b"), mirrors=False), config)
