"""Verification of radar nowcasts, each score beside persistence on the identical pixels.

A pixel counts where the target and the last input frame both have data, for the model and for persistence alike.
Counts and sums are kept on the batch's device and read once, in `NowcastScores.compute`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from backend.errors import ConfigError
from training.losses.ssim import ssim_map, ssim_valid
from training.scores import contingency
from training.scores.contingency import Contingency
from training.scores.radar_layout import nowcast_layout
from training.scores.radar_table import CATEGORICAL, CONTINUOUS, Better, higher, lower, nearer_one, render

ECHO_DBZ = 5.0
"""Echo pixels are those observed at or above this reflectivity, the lowest colour of common radar displays."""

THRESHOLD_TOLERANCE_DBZ = 1e-4
"""Keeps a value stored exactly on a threshold an event, whatever the rounding of its normalised form."""

FORECASTS = ("", "persistence_")
WINDOW, SIGMA = 7, 1.5

# Larger temporaries than the caches hold, given back to the system each time, double the time on a CPU.
_CPU_PIXELS_AT_ONCE = 2**16

DEFINITIONS = {
    **contingency.DEFINITIONS,
    "mae_dbz": "mean absolute error in dBZ over all pixels",
    "rmse_dbz": "root mean square error in dBZ over all pixels",
    "mae_echo_dbz": f"mean absolute error in dBZ over echo pixels (observed at {ECHO_DBZ:g} dBZ or more)",
    "rmse_echo_dbz": f"root mean square error in dBZ over echo pixels (observed at {ECHO_DBZ:g} dBZ or more)",
    "ssim": f"structural similarity (Wang et al. 2004) of the normalised field, Gaussian window {WINDOW}, sigma "
    f"{SIGMA:g}, range 1, mean over map positions whose window touches no missing pixel",
    "event": "a pixel whose reflectivity is at or above the threshold as it is stored (counted_from_dbz)",
    "pooling": "scores without a lead are made from the sums over all leads; they are not means of the leads' scores",
    "persistence": "the last input frame as forecast for every lead, on the same pixels",
    "undefined": "a score whose denominator is zero is absent",
    "literature": "Wilks, Statistical Methods in the Atmospheric Sciences, forecast verification; WMO Joint Working "
    "Group on Forecast Verification Research",
}


@dataclass
class _Sums:
    """What is accumulated: F forecasts (model, persistence), K thresholds, T leads. int64 counts, float64 sums."""

    hits: Tensor  # [F, K, T]
    forecast: Tensor  # [F, K, T]
    observed: Tensor  # [K, T]
    pixels: Tensor  # [T]
    echo_pixels: Tensor  # [T]
    finite: Tensor  # [T], pixels where the model's forecast is a number
    errors: Tensor  # [F, 4, T]: |e| and e^2 over all pixels, |e| and e^2 over echo pixels; normalised
    ssim: Tensor  # [F, T]
    ssim_positions: Tensor  # [T]

    @classmethod
    def zeros(cls, thresholds: int, leads: int, device: torch.device) -> _Sums:
        def counts(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.int64, device=device)

        def sums(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        n = len(FORECASTS)
        return cls(
            hits=counts(n, thresholds, leads),
            forecast=counts(n, thresholds, leads),
            observed=counts(thresholds, leads),
            pixels=counts(leads),
            echo_pixels=counts(leads),
            finite=counts(leads),
            errors=sums(n, 4, leads),
            ssim=sums(n, leads),
            ssim_positions=counts(leads),
        )

    def to(self, device: torch.device) -> _Sums:
        return _Sums(**{name: value.to(device) for name, value in vars(self).items()})


class NowcastScores:
    """CSI, POD, FAR, frequency bias, HSS, MAE, RMSE and SSIM per lead and pooled, for the model and persistence.

    Names are ``csi_30_lead_7`` and, pooled over the leads, ``csi_30``; persistence's have ``persistence_`` in front.
    Leads count from 1. `DEFINITIONS` says what each is.

    Args:
        thresholds_dbz: event thresholds in dBZ, within the range of the normalised field.
        prediction_steps: number of leads, T.
        min_dbz: the reflectivity that is 0 in the normalised field.
        max_dbz: the reflectivity that is 1 in the normalised field.
        scale: the grid that is scored, in words, such as ``250 x 250 at 2 km``.
        stored: what becomes of a reflectivity when it is packed and unpacked. Packing is monotonic, so counting from
            the stored threshold on keeps everything that was at or above the threshold before.

    Raises:
        ConfigError: a threshold is outside the range or stands there twice, or there is none.
    """

    def __init__(
        self,
        thresholds_dbz: Sequence[float],
        prediction_steps: int,
        min_dbz: float,
        max_dbz: float,
        scale: str,
        stored: Callable[[float], float] = float,
    ) -> None:
        self.thresholds = _checked(thresholds_dbz, min_dbz, max_dbz)
        self.leads = prediction_steps
        self.min_dbz, self.max_dbz, self.scale = float(min_dbz), float(max_dbz), scale
        self.counted_from = {dbz: stored(dbz) for dbz in (*self.thresholds, ECHO_DBZ)}
        self.rows = 0
        self._sums = _Sums.zeros(len(self.thresholds), self.leads, torch.device("cpu"))

    @torch.no_grad()
    def update(self, prediction: Tensor, target: Tensor, valid: Tensor, last_input: Tensor, last_valid: Tensor) -> None:
        """Add a batch. Nothing waits for the device, and nothing of the batch is kept.

        Args:
            prediction: [rows, T, H, W], normalised to [0, 1].
            target: as ``prediction``; what stands where ``valid`` is False does not matter.
            valid: [rows, T, H, W], bool, where the target has data.
            last_input: [rows, H, W], the newest input frame, normalised.
            last_valid: [rows, H, W], bool, where the newest input frame has data.
        """
        self._check_shapes(prediction, target, valid, last_input, last_valid)
        self._sums = self._sums.to(prediction.device)
        self.rows += len(prediction)
        at_once = (
            len(prediction) if prediction.is_cuda else max(1, _CPU_PIXELS_AT_ONCE // math.prod(prediction.shape[1:]))
        )
        batch = (prediction, target, valid, last_input, last_valid)
        with torch.autocast(prediction.device.type, enabled=False):
            for part in zip(*(field.split(at_once) for field in batch), strict=True):
                self._add(*part)

    def _add(self, prediction: Tensor, target: Tensor, valid: Tensor, last_input: Tensor, last_valid: Tensor) -> None:
        valid = valid & last_valid.unsqueeze(1)
        target = target.float()
        forecasts = (prediction.float(), last_input.float().unsqueeze(1))
        self._sums.finite += _count(forecasts[0].isfinite() & valid)
        self._count_events(forecasts, target, valid)
        self._sum_errors(forecasts, target, valid)
        self._sum_ssim(forecasts, target, valid)

    def _check_shapes(
        self, prediction: Tensor, target: Tensor, valid: Tensor, last: Tensor, last_valid: Tensor
    ) -> None:
        rows, _, height, width = prediction.shape
        wanted = (rows, self.leads, height, width)
        if not prediction.shape == target.shape == valid.shape == wanted:
            raise ValueError(f"expected {wanted}, got {prediction.shape}, {target.shape} and {valid.shape}")
        if not last.shape == last_valid.shape == (rows, height, width):
            raise ValueError(f"expected {(rows, height, width)}, got {last.shape} and {last_valid.shape}")

    def _normalised(self, dbz: float) -> float:
        return (self.counted_from[dbz] - THRESHOLD_TOLERANCE_DBZ - self.min_dbz) / (self.max_dbz - self.min_dbz)

    def _count_events(self, forecasts: Sequence[Tensor], target: Tensor, valid: Tensor) -> None:
        sums = self._sums
        sums.pixels += _count(valid)
        for k, threshold in enumerate(map(self._normalised, self.thresholds)):
            observed = (target >= threshold) & valid
            sums.observed[k] += _count(observed)
            for f, forecast in enumerate(forecasts):
                event = forecast >= threshold
                sums.hits[f, k] += _count(observed & event)
                sums.forecast[f, k] += _count(valid & event)

    def _sum_errors(self, forecasts: Sequence[Tensor], target: Tensor, valid: Tensor) -> None:
        echo = (target >= self._normalised(ECHO_DBZ)) & valid
        self._sums.echo_pixels += _count(echo)
        for f, forecast in enumerate(forecasts):
            error = torch.where(valid, forecast - target, 0.0)
            in_echo = torch.where(echo, error, 0.0)
            self._sums.errors[f] += torch.stack([_sum_power(e, power) for e in (error, in_echo) for power in (1, 2)])

    def _sum_ssim(self, forecasts: Sequence[Tensor], target: Tensor, valid: Tensor) -> None:
        if min(target.shape[-2:]) < WINDOW:
            return
        counted = ssim_valid(valid, WINDOW)
        self._sums.ssim_positions += _count(counted)
        target = target.masked_fill(~valid, 0)
        for f, forecast in enumerate(forecasts):
            similarity = ssim_map(forecast.masked_fill(~valid, 0), target, WINDOW, SIGMA)
            self._sums.ssim[f] += similarity.masked_fill(~counted, 0).sum((0, 2, 3), dtype=torch.float64)

    def tables(self) -> dict[str, dict[float, list[Contingency]]]:
        """Contingency tables by forecast (``model``, ``persistence``) and threshold, a list over the leads."""
        sums = self._sums
        hits, forecast, observed = sums.hits.tolist(), sums.forecast.tolist(), sums.observed.tolist()
        pixels = sums.pixels.tolist()
        return {
            who: {
                threshold: [
                    Contingency.from_margins(*margins)
                    for margins in zip(hits[f][k], forecast[f][k], observed[k], pixels, strict=True)
                ]
                for k, threshold in enumerate(self.thresholds)
            }
            for f, who in enumerate(("model", "persistence"))
        }

    def compute(self) -> dict[str, float]:
        """All scores that are defined. The model has none at a lead where a forecast pixel is not a finite number."""
        return {name: value for name, value in self._scores() if math.isfinite(value)}

    def _scores(self) -> Iterator[tuple[str, float]]:
        broken = set(self._broken_leads())
        tables = self.tables()
        for prefix, by_threshold in zip(FORECASTS, tables.values(), strict=True):
            for threshold, leads in by_threshold.items():
                for suffix, group in _lead_groups(leads, set() if prefix else broken):
                    pooled = sum(group[1:], group[0])
                    for score, value in pooled.scores().items():
                        yield f"{prefix}{score}_{threshold:g}{suffix}", value
        yield from self._continuous_scores()

    def _continuous_scores(self) -> Iterator[tuple[str, float]]:
        sums = self._sums
        span = self.max_dbz - self.min_dbz
        counts = (sums.pixels.tolist(), sums.echo_pixels.tolist(), sums.ssim_positions.tolist())
        for prefix, errors, ssim in zip(FORECASTS, sums.errors.tolist(), sums.ssim.tolist(), strict=True):
            leads = list(zip(*errors, ssim, *counts, strict=True))
            for suffix, group in _lead_groups(leads, set()):
                absolute, squared, echo_absolute, echo_squared, similarity, n, n_echo, n_ssim = map(
                    math.fsum, zip(*group, strict=True)
                )
                if n:
                    yield f"{prefix}mae_dbz{suffix}", span * absolute / n
                    yield f"{prefix}rmse_dbz{suffix}", span * math.sqrt(squared / n)
                if n_echo:
                    yield f"{prefix}mae_echo_dbz{suffix}", span * echo_absolute / n_echo
                    yield f"{prefix}rmse_echo_dbz{suffix}", span * math.sqrt(echo_squared / n_echo)
                if n_ssim:
                    yield f"{prefix}ssim{suffix}", similarity / n_ssim

    def _broken_leads(self) -> list[int]:
        missing = (self._sums.pixels - self._sums.finite).tolist()
        return [lead for lead, count in enumerate(missing, start=1) if count]

    def names(self) -> dict[str, str | None]:
        """Names of all scores, with the way that is better; a frequency bias and what persistence reaches have none."""
        ways: dict[Better, str | None] = {higher: "max", lower: "min", nearer_one: None}
        suffixes = [f"_lead_{lead}" for lead in range(1, self.leads + 1)] + [""]
        stems = {f"{score}_{t:g}": ways[better] for score, (_, better) in CATEGORICAL.items() for t in self.thresholds}
        stems |= {name: ways[better] for name, (_, better) in CONTINUOUS.items()}
        return {
            f"{who}{stem}{suffix}": None if who else way
            for who in FORECASTS
            for stem, way in stems.items()
            for suffix in suffixes
        }

    def record(self) -> dict[str, Any]:
        """Scale, sizes, thresholds, definitions and the counts behind the scores; counts are listed over the leads."""
        sums = self._sums
        tables = {
            who: {f"{threshold:g}": _by_count(leads) for threshold, leads in by_threshold.items()}
            for who, by_threshold in self.tables().items()
        }
        record: dict[str, Any] = {
            "kind": "nowcast",
            "scale": self.scale,
            "rows": self.rows,
            "leads": self.leads,
            "thresholds_dbz": list(self.thresholds),
            "counted_from_dbz": {f"{dbz:g}": round(value, 4) for dbz, value in self.counted_from.items()},
            "range_dbz": [self.min_dbz, self.max_dbz],
            "echo_dbz": ECHO_DBZ,
            "pixels": sums.pixels.tolist(),
            "echo_pixels": sums.echo_pixels.tolist(),
            "ssim_positions": sums.ssim_positions.tolist(),
            "observed_pixels": dict(zip((f"{t:g}" for t in self.thresholds), sums.observed.tolist(), strict=True)),
            "not_finite": (sums.pixels - sums.finite).tolist(),
            "counts": tables,
            "definitions": dict(DEFINITIONS),
        }
        return {**record, "layout": nowcast_layout(record).to_json()}

    def table(self) -> str:
        """Thresholds by leads, model beside persistence, with the counts that the scores are made of."""
        return render(self.compute(), self.record())

    def frame(self) -> pd.DataFrame:
        """A row for each forecast, threshold and lead: the four counts, then the scores that are defined."""
        return pd.DataFrame(
            [
                {"forecast": who, "threshold_dbz": threshold, "lead": lead, **table.counts(), **table.scores()}
                for who, by_threshold in self.tables().items()
                for threshold, leads in by_threshold.items()
                for lead, table in enumerate(leads, start=1)
            ]
        )


def _checked(thresholds: Sequence[float], low: float, high: float) -> tuple[float, ...]:
    wrong = [f"{t:g}" for t in thresholds if not low < t <= high]
    if not thresholds or wrong or len(set(thresholds)) < len(thresholds):
        found = f"found {', '.join(wrong)}" if wrong else f"found {[float(t) for t in thresholds]}"
        raise ConfigError(f"thresholds in dBZ: expected different values above {low:g} and up to {high:g}; {found}")
    return tuple(sorted(float(t) for t in thresholds))


def _count(mask: Tensor) -> Tensor:
    """True values per lead of [rows, T, H, W]: [T], int64. Summing bytes is twice as fast as summing bools."""
    return mask.view(torch.uint8).sum((2, 3), dtype=torch.int32).sum(0, dtype=torch.int64)


def _sum_power(error: Tensor, power: int) -> Tensor:
    """Sum of |error| ** power per lead of [rows, T, H, W]: [T], float64, without a float64 copy of the error."""
    return (torch.linalg.vector_norm(error.flatten(2), power, dim=2, dtype=torch.float64) ** power).sum(0)


def _lead_groups(leads: Sequence[Any], without: set[int]) -> Iterator[tuple[str, Sequence[Any]]]:
    """Each lead with its suffix, then all together with none; a group with a lead in ``without`` is left out."""
    for lead, content in enumerate(leads, start=1):
        if lead not in without:
            yield f"_lead_{lead}", [content]
    if not without:
        yield "", leads


def _by_count(leads: Sequence[Contingency]) -> dict[str, list[int]]:
    rows = [table.counts() for table in leads]
    return {name: [row[name] for row in rows] for name in rows[0]}
