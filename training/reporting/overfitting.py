"""Where training and validation part ways: the validation loss rises while the training loss goes on falling."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from training.reporting.run_folder import Record

_FEWEST_AFTER = 3  # validations after the lowest one, before anything is said
_LEAST_RISE = 0.02
_LEAST_FALL = 0.01
_NOISES = 4.0  # the lowest of many noisy losses lies deviations below the others by itself


@dataclass(frozen=True)
class Parting:
    """What is known of it: losses at the lowest validation (``at``) and near the end of training (``now``)."""

    phase: str
    epoch: int
    step: int
    val_at: float
    val_now: float
    train_at: float
    train_now: float

    @property
    def rise(self) -> float:
        """Of the validation loss, as a share of its lowest."""
        return (self.val_now - self.val_at) / abs(self.val_at)


def parting(validations: Sequence[Record]) -> Parting | None:
    """Whether the run's last phase overfits, and since when.

    The lowest point is that of the medians of three neighbours, so that one lucky validation is none. The end is the
    median of the later half of what followed. It has to lie above the lowest by 2 % and by four times the noise of the
    losses from one validation to the next.
    """
    points = _last_phase(validations)
    val, train = [p["metrics"]["val/loss"] for p in points], [p["train_loss"] for p in points]
    smooth = [statistics.median(val[i : i + 3]) for i in range(len(val) - 2)]  # around the point after i
    if not smooth:
        return None
    first = min(range(len(smooth)), key=smooth.__getitem__)
    lowest, low = smooth[first], min(range(first, first + 3), key=val.__getitem__)
    after = len(points) - low - 1
    if after < _FEWEST_AFTER or lowest == 0:
        return None
    late = max(_FEWEST_AFTER, after // 2)
    val_now, train_now = statistics.median(val[-late:]), statistics.median(train[-late:])
    train_at = statistics.median(train[max(low - 1, 0) : low + 2])
    rose = val_now - lowest > max(_LEAST_RISE * abs(lowest), _NOISES * _noise(val))
    fell = train_at - train_now > _LEAST_FALL * abs(train_at)
    if not (rose and fell):
        return None
    at = points[low]
    return Parting(str(at.get("phase")), at["epoch"], at["step"], lowest, val_now, train_at, train_now)


def _last_phase(validations: Sequence[Record]) -> list[Record]:
    whole = [v for v in validations if _finite(v.get("train_loss")) and _finite(v["metrics"].get("val/loss"))]
    return [v for v in whole if v.get("phase") == whole[-1].get("phase")]


def _noise(values: Sequence[float]) -> float:
    """Standard deviation of the scatter around a smooth course, from second differences, whatever the course."""
    bends = [abs(a - 2 * b + c) for a, b, c in zip(values, values[1:], values[2:], strict=False)]
    return 1.4826 * statistics.median(bends) / math.sqrt(6) if bends else 0.0


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
