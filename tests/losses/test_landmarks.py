"""Landmark losses are the formulas of their papers, and micro-batches of them add up."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from backend.errors import ConfigError
from backend.preprocessing.landmark_set import LUNGS, LandmarkSet
from training.losses import landmarks as losses
from training.losses.landmarks import check_loss, landmark_counts, landmark_loss, loss_terms
from training.schemas.landmarks import LandmarkLossSection
from training.tasks.protocol import Batch, Term

CLASSES = ("COVID", "Normal", "Viral_Pneumonia")
KINDS = ("wing", "weighted_wing", "combined", "adaptive_wing", "soft_wing")


def section(**keys: Any) -> LandmarkLossSection:
    return LandmarkLossSection(**keys)


def points(seed: int, n: int = 6) -> Tensor:
    return torch.rand((n, 15, 2), generator=torch.Generator().manual_seed(seed))


def batch(target: Tensor, weight: Tensor | None = None) -> Batch:
    return {"points": target, "weight": torch.ones(len(target)) if weight is None else weight}


def total(terms: dict[str, Term]) -> Tensor:
    return sum((term.weight * term.sum / term.count for term in terms.values()), torch.zeros(()))


def loss(prediction: Tensor, target: Tensor, **keys: Any) -> float:
    return float(total(landmark_loss(prediction, batch(target), section(**keys))))


def test_wing_by_hand() -> None:
    target = torch.full((1, 15, 2), 0.5)
    near, far = target.clone(), target.clone()
    near[0, 3, 0] += 4 / 224  # below omega
    far[0, 3, 0] += 30 / 224
    constant = 10 - 10 * math.log(1 + 10 / 2)
    assert loss(near, target) == pytest.approx(10 * math.log(1 + 4 / 2) / 224 / 30, rel=1e-5)
    assert loss(far, target) == pytest.approx((30 - constant) / 224 / 30, rel=1e-5)
    assert loss(near, target, omega=3.0, epsilon=1.0) == pytest.approx((4 - 3 + 3 * math.log(4)) / 224 / 30, rel=1e-5)


def test_named_weights_make_a_weighted_mean() -> None:
    target, prediction = points(0, 1), points(0, 1)
    prediction[0, 13, 1] += 3 / 224
    plain = 10 * math.log(1 + 3 / 2) / 224 / 2
    for name, weight, of in (("uniform", 1, 15), ("inverse_variance", 0.71, 14.99), ("custom", 2, 20.5)):
        found = loss(prediction, target, kind="weighted_wing", point_weights=name)
        assert found == pytest.approx(plain * weight / of, rel=1e-4), name
    own = [0.0] * 15
    own[13] = 7.0
    assert loss(prediction, target, kind="weighted_wing", point_weights=own) == pytest.approx(plain, rel=1e-4)


def test_central_and_symmetry_by_hand() -> None:
    """An upright axis at x = 0.5: distances to it are differences in x."""
    shape = torch.full((1, 15, 2), 0.5)
    shape[0, 0], shape[0, 1] = torch.tensor([0.5, 0.1]), torch.tensor([0.5, 0.9])
    shape[0, 8, 0], shape[0, 10, 0] = 0.5 + 0.03, 0.5 - 0.06
    shape[0, 2, 0], shape[0, 3, 0] = 0.5 - 0.2, 0.5 + 0.3
    shape[0, 4, 0], shape[0, 5, 0] = 0.5 - 0.2, 0.5 + 0.2 + 5 / 224  # within the margin
    terms = landmark_loss(shape, batch(shape), section(kind="combined"))
    assert float(terms["wing"].sum) == 0
    assert float(terms["central"].sum) == pytest.approx(0.09 / 3, rel=1e-5)
    assert float(terms["symmetry"].sum) == pytest.approx((0.1 - 6 / 224) ** 2 / 5, rel=1e-4)
    assert (terms["wing"].weight, terms["central"].weight, terms["symmetry"].weight) == (1, 1, 0.5)


def test_central_does_not_depend_on_how_the_axis_lies() -> None:
    """Against a second formulation: what is left of a point when its part along the axis is taken away."""
    shapes = points(4)
    axis = shapes[:, 1] - shapes[:, 0]
    axis = axis / axis.norm(dim=1, keepdim=True)
    away = shapes[:, [8, 9, 10]] - shapes[:, :1]
    rest = away - (away * axis[:, None]).sum(2, keepdim=True) * axis[:, None]
    torch.testing.assert_close(losses.central(shapes), rest.norm(dim=2).mean(1))


def test_adaptive_wing_is_the_papers() -> None:
    """With the paper's names, in pixels, on both sides of theta."""
    omega, epsilon, theta, alpha, y = 14.0, 1.0, 0.5, 2.1, 1.0
    a = omega * (1 / (1 + (theta / epsilon) ** (alpha - y))) * (alpha - y) * (theta / epsilon) ** (alpha - y - 1)
    c = theta * a / epsilon - omega * math.log(1 + (theta / epsilon) ** (alpha - y))
    for error, expected in ((0.2, omega * math.log(1 + (0.2 / epsilon) ** (alpha - y))), (3.0, a / epsilon * 3.0 - c)):
        prediction = torch.full((1, 15, 2), 0.25)
        target = prediction + error / 224
        assert loss(prediction, target, kind="adaptive_wing") == pytest.approx(expected / 224, rel=1e-4)


def test_soft_wing_is_the_papers() -> None:
    b = 2 - 20 * math.log(1 + 2 / 0.5)
    for error, expected in ((1.5, 1.5), (9.0, 20 * math.log(1 + 9 / 0.5) + b)):
        prediction = torch.full((1, 15, 2), 0.25)
        assert loss(prediction, prediction + error / 224, kind="soft_wing") == pytest.approx(expected / 224, rel=1e-4)


@pytest.mark.parametrize("name", ["wing", "adaptive_wing", "soft_wing"])
def test_the_pieces_meet(name: str) -> None:
    settings = {
        "wing": {"omega": 10 / 224, "epsilon": 2 / 224},
        "adaptive_wing": losses.ADAPTIVE_WING,
        "soft_wing": losses.SOFT_WING,
    }[name]
    function = getattr(losses, name)
    errors = torch.linspace(0, 0.2, 20001, dtype=torch.float64)
    values = function(errors, **settings)
    assert float(values[0]) == 0
    steps = values.diff()
    assert (steps > 0).all()
    assert float(steps.max()) < 0.2 / 20000 * 1e2, "there is a jump"


@pytest.mark.parametrize("kind", KINDS)
def test_micro_batches_give_what_one_batch_gives(kind: str) -> None:
    settings = section(kind=kind)
    prediction, target, weight = points(0, 7).requires_grad_(), points(1, 7), torch.tensor([2, 2, 2, 1, 1.2, 1, 2])
    whole = total(landmark_loss(prediction, batch(target, weight), settings))
    (gradient,) = torch.autograd.grad(whole, prediction)
    counts = landmark_counts(batch(target, weight), settings)
    assert list(counts) == loss_terms(settings)
    parts = []
    for cut in (slice(0, 2), slice(2, 5), slice(5, 7)):
        terms = landmark_loss(prediction[cut], batch(target[cut], weight[cut]), settings)
        parts.append(sum((t.weight * t.sum / counts[name] for name, t in terms.items()), torch.zeros(())))
    together = torch.stack(parts).sum()
    torch.testing.assert_close(together, whole)
    torch.testing.assert_close(torch.autograd.grad(together, prediction)[0], gradient)
    assert gradient.isfinite().all()


def test_an_image_counts_what_it_weighs() -> None:
    prediction, target = points(0, 2), points(1, 2)
    alone = [loss(prediction[i : i + 1], target[i : i + 1]) for i in (0, 1)]
    weight = torch.tensor([3.0, 1.0])
    weighed = float(total(landmark_loss(prediction, batch(target, weight), section())))
    assert weighed == pytest.approx((3 * alone[0] + alone[1]) / 4, rel=1e-5)


def test_gradients_are_numbers_where_an_error_is_zero_or_the_axis_a_point() -> None:
    for kind in KINDS:
        prediction = torch.full((2, 15, 2), 0.5, requires_grad=True)
        terms = landmark_loss(prediction, batch(prediction.detach()), section(kind=kind))
        (gradient,) = torch.autograd.grad(total(terms), prediction)
        assert gradient.isfinite().all(), kind


def test_half_precision_is_widened() -> None:
    prediction, target = points(0).bfloat16(), points(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = landmark_loss(prediction, batch(target), section(kind="combined"))
    assert {term.sum.dtype for term in terms.values()} == {torch.float32}


def test_a_term_that_weighs_nothing_is_left_out() -> None:
    assert loss_terms(section(kind="combined", central_weight=0.0)) == ["wing", "symmetry"]
    assert loss_terms(section(kind="soft_wing")) == ["soft_wing"]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"kind": "combined"}, "loss.kind: combined is made for the 15 points"),
        ({"kind": "weighted_wing"}, "loss.point_weights: inverse_variance is made for"),
        ({"kind": "weighted_wing", "point_weights": [1.0, 2.0]}, "has 2 values, but the dataset has 3 points"),
        ({"class_weights": {"Covid": 2.0}}, "names Covid, but the dataset's classes are COVID, Normal"),
    ],
)
def test_what_does_not_fit_the_dataset_is_refused(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_loss(LandmarkSet(("a", "b", "c")), CLASSES, section(**keys))


def test_what_fits_passes() -> None:
    for kind in KINDS:
        check_loss(LUNGS, CLASSES, section(kind=kind, class_weights={"Normal": 2.0}))
    check_loss(LandmarkSet(("a", "b", "c")), CLASSES, section(kind="weighted_wing", point_weights=[1.0] * 3))
