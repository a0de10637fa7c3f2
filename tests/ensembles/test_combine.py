"""Combinations as one product of matrices against a plain loop over them."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from training.ensembles import combine
from training.ensembles.combine import all_combinations, combination_errors, count_combinations, mean_prediction, worth

RNG = np.random.default_rng(0)
TRUTH = RNG.random((7, 5, 2)) * 224
SAID = TRUTH + RNG.normal(0, 6, (6, 7, 5, 2))


def error_of(members: tuple[int, ...], weights: list[float] | None = None) -> float:
    """Point by point."""
    weights = weights or [1.0] * len(members)
    distances = []
    for image in range(7):
        for point in range(5):
            x, y = (
                sum(w * SAID[m, image, point, axis] for m, w in zip(members, weights, strict=True)) / sum(weights)
                for axis in (0, 1)
            )
            distances.append(np.hypot(x - TRUTH[image, point, 0], y - TRUTH[image, point, 1]))
    return float(np.mean(distances))


@pytest.mark.parametrize("chunk_bytes", [1, 1000, 1 << 25])
def test_all_combinations_at_once_are_the_same_as_one_by_one(chunk_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(combine, "_CHUNK_BYTES", chunk_bytes)
    chosen = all_combinations(6, (2, 3))
    assert chosen == [*combinations(range(6), 2), *combinations(range(6), 3)]
    assert len(chosen) == count_combinations(6, (2, 3)) == 35
    seen: list[tuple[int, int]] = []
    found = combination_errors(SAID, TRUTH, chosen, lambda done, total: seen.append((done, total)))
    assert found == pytest.approx([error_of(members) for members in chosen], rel=1e-4)
    assert seen[-1] == (35, 35)


def test_weights_are_shares() -> None:
    found = np.linalg.norm(mean_prediction(SAID[:3], [2, 0, 1]) - TRUTH, axis=-1).mean()
    assert found == pytest.approx(error_of((0, 1, 2), [2, 0, 1]))
    assert found == pytest.approx(error_of((0, 2), [2, 1]))


def test_a_members_worth_is_the_error_without_it() -> None:
    found = worth(SAID[:3], TRUTH, [1, 2, 3])
    whole = error_of((0, 1, 2), [1, 2, 3])
    rest = [error_of((1, 2), [2, 3]), error_of((0, 2), [1, 3]), error_of((0, 1), [1, 2])]
    assert found == pytest.approx([one - whole for one in rest])
    assert np.isnan(worth(SAID[:2], TRUTH, [1, 0])[0])
