"""The radar loss is the formula it says, adds up over micro-batches, and never looks at no-data pixels."""

from __future__ import annotations

from typing import Any

import pydantic
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from backend.errors import ConfigError
from training.losses.radar import radar_counts, radar_loss
from training.losses.ssim import ssim_map, ssim_valid
from training.schemas.convlstm import RadarLossSection
from training.tasks.protocol import Term

SHAPE = (4, 3, 16, 15)


def frames(seed: int, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def holes() -> Tensor:
    """Three rows with no-data pixels and one without."""
    valid = frames(9) > 0.02
    valid[1] = True
    return valid


def total(terms: dict[str, Term]) -> Tensor:
    return sum((t.weight * t.sum / t.count for t in terms.values()), torch.zeros(()))


class TestFormula:
    def test_on_valid_frames(self) -> None:
        x, y, valid = frames(0), frames(1), torch.ones(SHAPE, dtype=torch.bool)
        weights = torch.where(y > 0.4, 10.0, 1.0)
        expected = 0.5 * (F.huber_loss(x, y, reduction="none") * weights).mean() + 0.5 * (1 - ssim_map(x, y)).mean()
        torch.testing.assert_close(total(radar_loss(x, y, valid, RadarLossSection())), expected)

    def test_no_data_is_left_out(self) -> None:
        x, y, valid = frames(0), frames(1), holes()
        terms = radar_loss(x, y, valid, RadarLossSection())
        weights = torch.where(y > 0.4, 10.0, 1.0)
        torch.testing.assert_close(terms["huber"].sum, (F.huber_loss(x, y, reduction="none") * weights)[valid].sum())
        assert terms["huber"].count == valid.sum()
        where = ssim_valid(valid)
        torch.testing.assert_close(terms["ssim"].sum, (1 - ssim_map(x, y))[where].sum())
        assert terms["ssim"].count == where.sum()

    def test_settings_take_effect(self) -> None:
        x, y, valid = 3 * frames(0), frames(1), torch.ones(SHAPE, dtype=torch.bool)
        settings = RadarLossSection(ssim_weight=0.0, huber_delta=0.5, high_threshold=0.7, high_penalty_weight=4.0)
        weights = torch.where(y > 0.7, 4.0, 1.0)
        expected = (F.huber_loss(x, y, reduction="none", delta=0.5) * weights).mean()
        torch.testing.assert_close(total(radar_loss(x, y, valid, settings)), expected)
        settings = RadarLossSection(ssim_weight=1.0, ssim_window=5, ssim_sigma=1.0)
        expected = (1 - ssim_map(x, y, 5, 1.0)).mean()
        torch.testing.assert_close(total(radar_loss(x, y, valid, settings)), expected)

    def test_lead_weights(self) -> None:
        x, y, valid = frames(0), frames(1), holes()
        terms = radar_loss(x, y, valid, RadarLossSection(lead_weights=[1.0, 2.0, 0.5]))
        single = [radar_loss(*(v[:, t : t + 1] for v in (x, y, valid)), RadarLossSection()) for t in range(3)]
        for name, term in terms.items():
            weighted = list(zip([1.0, 2.0, 0.5], [s[name] for s in single], strict=True))
            torch.testing.assert_close(term.sum, sum(w * s.sum for w, s in weighted))
            torch.testing.assert_close(term.count, sum(w * s.count for w, s in weighted))

    @pytest.mark.parametrize(("weight", "names"), [(0.0, {"huber"}), (1.0, {"ssim"}), (0.3, {"huber", "ssim"})])
    def test_a_term_that_weighs_nothing_is_not_computed(self, weight: float, names: set[str]) -> None:
        settings = RadarLossSection(ssim_weight=weight)
        assert set(radar_loss(frames(0), frames(1), holes(), settings)) == names
        assert set(radar_counts(holes(), settings)) == names

    def test_small_frames_need_no_window_without_ssim(self) -> None:
        x, y = frames(0, (1, 3, 4, 4)), frames(1, (1, 3, 4, 4))
        valid = torch.ones_like(x, dtype=torch.bool)
        assert total(radar_loss(x, y, valid, RadarLossSection(ssim_weight=0.0))) > 0
        with pytest.raises(ConfigError, match="ssim_window"):
            radar_loss(x, y, valid, RadarLossSection())


class TestMicroBatches:
    @pytest.mark.parametrize("leads", [None, [1.0, 2.0, 0.5]])
    def test_sums_and_counts_add_up(self, leads: list[float] | None) -> None:
        settings = RadarLossSection(lead_weights=leads)
        x, y, valid = frames(0), frames(1), holes()
        whole = radar_loss(x, y, valid, settings)
        parts = [radar_loss(x[at], y[at], valid[at], settings) for at in (slice(0, 1), slice(1, 4))]
        counts = radar_counts(valid, settings)
        for name, term in whole.items():
            torch.testing.assert_close(sum(p[name].sum for p in parts), term.sum)
            torch.testing.assert_close(sum(p[name].count for p in parts), term.count)
            torch.testing.assert_close(torch.as_tensor(counts[name]), torch.as_tensor(term.count))

    def test_nothing_valid_counts_nothing(self) -> None:
        terms = radar_loss(frames(0), frames(1), torch.zeros(SHAPE, dtype=torch.bool), RadarLossSection())
        assert all(term.sum == 0 and term.count == 0 for term in terms.values())


class TestPrecision:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("autocast", [False, True])
    def test_half_precision_predictions(self, dtype: torch.dtype, autocast: bool) -> None:
        x = frames(0).to(dtype).requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            terms = radar_loss(x, frames(1), holes(), RadarLossSection())
        exact = radar_loss(x.detach().float(), frames(1), holes(), RadarLossSection())
        assert all(term.sum.dtype == torch.float32 for term in terms.values())
        torch.testing.assert_close(total(terms), total(exact))
        total(terms).backward()
        assert x.grad is not None
        assert x.grad.isfinite().all()

    @pytest.mark.parametrize("level", [0.0, 1.0])
    def test_flat_frames(self, level: float) -> None:
        x = torch.full(SHAPE, level, requires_grad=True)
        total(radar_loss(x, torch.full(SHAPE, level), holes(), RadarLossSection())).backward()
        assert x.grad is not None
        assert x.grad.isfinite().all()

    def test_no_data_takes_and_gives_nothing(self) -> None:
        """Not even a NaN that stands there reaches the loss or the gradient."""
        valid = holes()
        x = frames(0).masked_fill(~valid, torch.nan).requires_grad_()
        y = frames(1).masked_fill(~valid, torch.nan)
        loss = total(radar_loss(x, y, valid, RadarLossSection()))
        loss.backward()
        assert x.grad is not None
        assert loss.isfinite()
        assert x.grad.isfinite().all()
        assert x.grad[~valid].abs().max() == 0
        assert (x.grad[valid] != 0).any()


class TestSettings:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"ssim_window": 6}, "odd"),
            ({"ssim_weight": 1.5}, "less than or equal"),
            ({"huber_delta": 0.0}, "greater than 0"),
            ({"lead_weights": [1.0, -1.0]}, "negative"),
            ({"lead_weights": [0.0, 0.0]}, "zero"),
            ({"lead_weights": []}, "at least 1"),
            ({"delta": 1.0}, "Extra"),
        ],
    )
    def test_impossible_values(self, options: dict[str, Any], words: str) -> None:
        with pytest.raises(pydantic.ValidationError, match=words):
            RadarLossSection(**options)

    def test_lead_weights_that_do_not_fit(self) -> None:
        with pytest.raises(ConfigError, match=r"has 2 values, but 3 frames"):
            radar_counts(holes(), RadarLossSection(lead_weights=[1.0, 1.0]))

    def test_idle_keys_name_what_makes_them_idle(self) -> None:
        marks = {
            name: field.json_schema_extra["unless"]  # type: ignore[index,call-overload]
            for name, field in RadarLossSection.model_fields.items()
        }
        assert marks["ssim_window"] == {"loss.ssim_weight": [0.0]}
        assert marks["high_threshold"] == {"loss.ssim_weight": [1.0], "loss.high_penalty_weight": [1.0]}
