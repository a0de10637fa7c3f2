"""A small schema, and how the tests load it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest

from backend.errors import ConfigError
from training.config import LoadedConfig, load_config
from training.schemas.shared import RunConfig, Section, TrainingSection, setting


class SplitSection(Section):
    method: Literal["gap", "day", "cut"] = setting("gap", "How groups are made.")
    min_gap_hours: float = setting(6.0, "Hours between groups.", gt=0, when={"data.split.method": ["gap"]})
    fractions: tuple[float, float, float] = setting((0.7, 0.15, 0.15), "Shares of train, val and test.")


class DataSection(Section):
    size: tuple[int, int] | None = setting((250, 250), "Rows and columns; null keeps the grid.")
    reduce: Literal["mean", "max"] = setting("mean", "How cells are joined.", unless={"data.size": [None]})
    cache_dir: str | None = setting(None, "Where the cache lies.", neutral=True)
    split: SplitSection = setting(SplitSection, "The split.")


class SmallConfig(RunConfig):
    data: DataSection = setting(DataSection, "The data.")
    training: TrainingSection = setting(lambda: TrainingSection(epochs=7, learning_rate=0.5), "How to train.")


def load(
    text: str | None = None,
    *sets: str,
    environ: dict[str, str] | None = None,
    flags: dict[str, Any] | None = None,
    config: str | None = None,
) -> LoadedConfig:
    if text is not None:
        Path("my.yaml").write_text(text, "utf-8")
        config = "my.yaml"
    return load_config("small", preset_or_file=config, sets=list(sets), flags=flags or {}, environ=environ or {})


def refused(text: str | None = None, *sets: str, **rest: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(text, *sets, **rest)
    return str(caught.value)


def training(loaded: LoadedConfig) -> TrainingSection:
    return loaded.config.training
