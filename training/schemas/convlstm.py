"""The settings of a nowcasting run: which volumes, what becomes of them, the network, the loss, what is scored."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import ValidationInfo, field_validator, model_validator

from training.schemas.shared import Auto, EvaluationSection, RunConfig, Section, check_fractions, setting


class RadarSplitSection(Section):
    """How windows are divided into train, val and test; always in the order of time."""

    method: Literal["gap", "day", "cut"] = setting(
        "gap", "Where sides may part: at long gaps, at midnights (UTC) moved to breaks, or anywhere (a weak split)."
    )
    min_gap_hours: float = setting(
        6.0, "Shortest time without frames between two groups.", gt=0, when={"data.split.method": ["gap"]}
    )
    fractions: list[float] = setting(
        lambda: [0.7, 0.15, 0.15], "Shares of the windows for train, val and test.", min_length=3, max_length=3
    )

    @field_validator("fractions")
    @classmethod
    def _check_fractions(cls, fractions: list[float]) -> list[float]:
        return check_fractions(fractions)


class RadarDataSection(Section):
    """Which radar volumes, and what becomes of them."""

    manifest: str | None = setting(None, "A manifest of files to fetch.", neutral=True)
    cache_dir: str | None = setting(None, "Where prepared data lie; null chooses a place.", neutral=True)
    variable: str = setting("DBZ", "The reflectivity variable in the files.", min_length=1)
    fill_means: Literal["no_echo", "no_data"] = setting(
        "no_echo", "What the files' fill value means: no echo is the lowest dBZ and counts, no data is masked."
    )
    input_steps: int = setting(18, "Frames that the model sees.", ge=1)
    prediction_steps: int = setting(7, "Frames that it predicts.", ge=1)
    stride: int = setting(5, "Frames from one window's start to the next one's.", ge=1)
    gap_tolerance: float = setting(
        0.5, "How much longer than the cadence a step may be, as a share of it, before it is a break.", ge=0
    )
    split: RadarSplitSection = setting(RadarSplitSection, "Train, val and test.")
    grid: Literal["strict", "crop"] = setting(
        "strict", "Events on different grids: refuse them, or crop all to one common extent in km."
    )
    downsample_size: list[int] | None = setting(
        lambda: [250, 250], "Rows and columns that the model sees; null keeps the files' grid."
    )
    downsample_method: Literal["area", "area_linear_z", "linear", "maximum"] = setting(
        "area", "Mean over the area in dBZ or in linear Z, linear interpolation, or maximum."
    )
    levels: Literal["all", "max"] | list[int] = setting(
        "all", "Each level a sequence of its own, the maximum over them, or the indices of some."
    )
    min_dbz: float = setting(-29.0, "Lowest reflectivity; what is below, and no echo, becomes it.", allow_inf_nan=False)
    max_dbz: float = setting(65.0, "Highest reflectivity; what is above becomes it.", allow_inf_nan=False)
    pack_bits: Literal[8, 16] = setting(8, "Bits of a prepared value: 8 are off by at most 1/508 of the range.")
    prepare_workers: int | Auto = setting("auto", "Processes that prepare the data.", neutral=True)

    @field_validator("downsample_size")
    @classmethod
    def _check_size(cls, size: list[int] | None) -> list[int] | None:
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise ValueError("expected two positive integers, rows and columns, or null")
        return size

    @field_validator("levels")
    @classmethod
    def _check_levels(cls, levels: str | list[int]) -> str | list[int]:
        if isinstance(levels, list) and (not levels or min(levels) < 0 or len(set(levels)) < len(levels)):
            raise ValueError("expected all, max, or a list of different level indices from 0")
        return levels

    @field_validator("max_dbz")
    @classmethod
    def _check_range(cls, highest: float, info: ValidationInfo) -> float:
        lowest = info.data.get("min_dbz", -math.inf)
        if not lowest < highest:
            raise ValueError(f"expected more than data.min_dbz, which is {lowest:g}")
        return highest

    @field_validator("prepare_workers")
    @classmethod
    def _check_workers(cls, workers: int | str) -> int | str:
        if isinstance(workers, int) and workers < 1:
            raise ValueError("expected auto or at least 1")
        return workers

    @property
    def window(self) -> int:
        """Frames in a window."""
        return self.input_steps + self.prediction_steps


class ConvLSTMSection(Section):
    """The network."""

    hidden_dims: list[int] = setting(lambda: [128, 128, 128], "Hidden channels of each layer.", min_length=1)
    kernel_size: int = setting(3, "Size of the gates' convolution; odd.", ge=1)
    norm: Literal["layer", "group", "none"] = setting(
        "layer",
        "Between layers: LayerNorm over [C, H, W] as in the seed, GroupNorm (not tied to the image size), none.",
    )
    gradient_checkpointing: bool = setting(
        False, "Recompute activations in the backward pass: less memory, about a third more time.", neutral=True
    )
    init_from: str | None = setting(None, "A .pth file of weights to start from.", content=True)

    @field_validator("hidden_dims")
    @classmethod
    def _check_dims(cls, dims: list[int]) -> list[int]:
        if min(dims) < 1:
            raise ValueError("expected a list of positive whole numbers")
        return dims

    @field_validator("kernel_size")
    @classmethod
    def _check_kernel(cls, size: int) -> int:
        if size % 2 == 0:
            raise ValueError("expected an odd number, so that frames keep their size")
        return size


class RadarLossSection(Section):
    """What the radar loss weighs, on the normalised scale (0 is data.min_dbz, 1 is data.max_dbz)."""

    ssim_weight: float = setting(0.5, "w in (1-w) * Huber + w * (1-SSIM); 0 and 1 leave one of them out.", ge=0, le=1)
    huber_delta: float = setting(
        1.0, "Where Huber turns from quadratic to linear.", gt=0, unless={"loss.ssim_weight": [1.0]}
    )
    high_threshold: float = setting(
        0.4,
        "Normalised value above which a true pixel counts high_penalty_weight times.",
        ge=0,
        lt=1,
        unless={"loss.ssim_weight": [1.0], "loss.high_penalty_weight": [1.0]},
    )
    high_penalty_weight: float = setting(
        10.0,
        "Weight of true pixels above high_threshold; 1 weighs all alike.",
        gt=0,
        unless={"loss.ssim_weight": [1.0]},
    )
    ssim_window: int = setting(
        7, "Side of SSIM's Gaussian window in pixels, odd.", ge=3, unless={"loss.ssim_weight": [0.0]}
    )
    ssim_sigma: float = setting(
        1.5, "Standard deviation of that window in pixels.", gt=0, unless={"loss.ssim_weight": [0.0]}
    )
    lead_weights: list[float] | None = setting(
        None, "A weight per forecast frame, earliest first; null weighs all alike.", min_length=1
    )

    @model_validator(mode="after")
    def _check(self) -> RadarLossSection:
        if self.ssim_window % 2 == 0:
            raise ValueError(f"ssim_window must be odd, so that it has a centre; it is {self.ssim_window}")
        weights = self.lead_weights
        if weights is not None and (min(weights) < 0 or sum(weights) == 0):
            raise ValueError("lead_weights must not be negative, nor all zero")
        return self


class NowcastEvaluationSection(EvaluationSection):
    """Validation, and the events that are scored."""

    thresholds_dbz: list[float] = setting(
        lambda: [20.0, 30.0, 35.0, 40.0, 45.0, 50.0],
        "An event is an observation at or above the threshold.",
        min_length=1,
    )


class ConvLSTMConfig(RunConfig):
    """Everything that a nowcasting run reads."""

    task: Literal["convlstm"] = setting("convlstm", "The task that this configuration is for.")
    data: RadarDataSection = setting(RadarDataSection, "Which volumes, and what becomes of them.")
    model: ConvLSTMSection = setting(ConvLSTMSection, "The network.")
    loss: RadarLossSection = setting(RadarLossSection, "What is minimised.")
    evaluation: NowcastEvaluationSection = setting(NowcastEvaluationSection, "When to validate, and what is scored.")
