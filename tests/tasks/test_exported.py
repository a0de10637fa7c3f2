"""How far apart two sets of detections are: what a rounding may do, and what it may not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from training.tasks.exported import DETECTION_LIMITS, DetectionsApart, largest_difference

APART = DetectionsApart(min_score=0.1, nms_iou=0.5)
ROOM = 4


def found(*rows: list[float]) -> Tensor:
    nothing = [0.0, 0.0, 0.0, 0.0, 0.0, -1.0]
    return torch.tensor([[*rows, *[nothing] * (ROOM - len(rows))]])


A, B, C = [0.0, 0, 50, 50, 0.9, 0], [100.0, 0, 150, 80, 0.8, 1], [10.0, 200, 90, 280, 0.7, 0]


def test_the_same_in_another_order() -> None:
    assert APART(found(A, B, C), found(B, C, A)) == {"box": 0, "score": 0, "unmatched": 0, "borderline": 0}
    assert APART(found(), found()) == dict.fromkeys(DETECTION_LIMITS, 0)


def test_what_is_near_is_measured() -> None:
    moved, surer = [0.0, 0.05, 50, 50, 0.9, 0], [100.0, 0, 150, 80, 0.8005, 1]
    apart = APART(found(A, B), found(moved, surer))
    assert apart["box"] == pytest.approx(0.05) and apart["score"] == pytest.approx(0.0005, rel=1e-3)
    assert apart["unmatched"] == apart["borderline"] == 0


@pytest.mark.parametrize("other", [[0.0, 0.2, 50, 50, 0.9, 0], [0.0, 0, 50, 50, 0.85, 0], [0.0, 0, 50, 50, 0.9, 1]])
def test_another_place_score_or_class_is_no_match(other: list[float]) -> None:
    assert APART(found(A, B), found(other, B))["unmatched"] == 2, "one in each"


def test_one_that_is_lacking_counts() -> None:
    assert APART(found(A, B, C), found(A, C))["unmatched"] == 1
    assert APART(found(), found(A))["unmatched"] == 1
    worst = APART(torch.cat([found(A, B), found(A, B, C)]), torch.cat([found(A), found()]))
    assert worst["unmatched"] == 3, "of the worst image"


def test_at_the_edges_a_rounding_may_decide() -> None:
    unsure = [0.0, 0, 50, 50, 0.1005, 0]
    assert APART(found(B, unsure), found(B))["unmatched"] == 0, "just over min_score"
    full = [[200.0 * n, 0, 200.0 * n + 50, 50, 0.5, 0] for n in range(ROOM)]
    other = [*full[:-1], [900.0, 0, 950, 50, 0.5004, 0]]
    assert APART(found(*full), found(*other))["unmatched"] == 0, "both are the last that there is room for"
    assert APART(found(*full[:-1], A), found(*other))["unmatched"] == 1, "A is not"


def test_an_overlap_at_the_limit_is_borderline() -> None:
    below = [0.0, 0, 50, 25.02, 0.8, 0]  # overlaps with A by 0.5004
    assert APART(found(A, below), found(A)) == {"box": 0, "score": 0, "unmatched": 0, "borderline": 1}
    chain = [0.0, 0, 50, 16, 0.7, 0]  # which that one suppresses, and A does not
    assert APART(found(A, below), found(A, chain))["borderline"] == 2
    assert APART(found(A, [0.0, 0, 50, 40, 0.8, 0]), found(A))["unmatched"] == 1, "that is no question of rounding"
    assert DetectionsApart(0.1, None)(found(A, below), found(A))["unmatched"] == 1, "nothing suppresses there"


def test_the_largest_difference() -> None:
    assert largest_difference(torch.tensor([1.0, 2.0]), torch.tensor([1.5, 1.9])) == {"difference": 0.5}
    nothing = largest_difference(torch.tensor([1.0]), torch.tensor([float("nan")]))["difference"]
    assert nothing != nothing
