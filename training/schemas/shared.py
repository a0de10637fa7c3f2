"""The settings that every task shares, and how a setting is declared.

A task's schema is a subclass of `RunConfig` whose sections hold only the keys that the task reads.
Each key is declared with `setting(...)`: its default, one sentence, its limits, and facts that the
config loader acts on:

* ``neutral=True``: the key does not change the result (paths, workers, logging); it stays out of the config hash.
* ``content=True``: the key names a file whose content decides the result; its sha256 is part of a run's identity.
* ``when={"a.b": [values]}`` / ``unless={"a.b": [values]}``: the key has an effect only then. Setting it in a
  config where it has none is an error, because a setting that is silently ignored is a lie in the record.
"""

from __future__ import annotations

import math
import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Auto = Literal["auto"]
SCHEMA_VERSION = 1


class Section(BaseModel):
    """A group of settings: no unknown keys, no silent conversions, not changed after loading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, validate_default=True)


def setting(
    default: Any = ...,
    about: str = "",
    *,
    neutral: bool = False,
    content: bool = False,
    when: dict[str, list[Any]] | None = None,
    unless: dict[str, list[Any]] | None = None,
    **limits: Any,
) -> Any:
    """Declare one key. ``limits`` are pydantic's (gt, ge, lt, le, min_length, …)."""
    marks: Any = {"neutral": neutral, "content": content, "when": when or {}, "unless": unless or {}}
    if callable(default):
        return Field(default_factory=default, description=about, json_schema_extra=marks, **limits)
    return Field(default, description=about, json_schema_extra=marks, **limits)


def check_fractions(fractions: list[float]) -> list[float]:
    """Shares of a split. Raises ValueError where they are not positive or do not sum to 1."""
    if min(fractions) <= 0 or not math.isclose(sum(fractions), 1, abs_tol=1e-6):
        raise ValueError("expected three positive numbers that sum to 1")
    return fractions


class TrainingSection(Section):
    """How the engine trains; the same for all tasks."""

    epochs: int = setting(50, "Passes over the training split, over all phases where a task has only one.", ge=1)
    max_steps: int | None = setting(None, "Stop after this many optimizer steps even inside an epoch.", ge=1)
    batch_size: int = setting(8, "Effective batch: items that one optimizer step sees.", ge=1)
    micro_batch_size: int | Auto = setting(
        "auto",
        "Rows (the smallest units the model takes) held by the device at once; auto halves it when memory runs out.",
        neutral=True,
    )
    learning_rate: float = setting(1e-4, "AdamW's learning rate before warm-up and schedule.", gt=0)
    weight_decay: float = setting(1e-5, "AdamW's decoupled weight decay.", ge=0)
    schedule: Literal["constant", "plateau", "cosine", "linear", "step"] = setting(
        "plateau", "How the learning rate falls after warm-up."
    )
    warmup_steps: int = setting(0, "Optimizer steps over which the learning rate rises linearly from zero.", ge=0)
    lr_factor: float = setting(0.5, "Factor of each fall.", gt=0, lt=1, when={"training.schedule": ["plateau", "step"]})
    lr_patience: int = setting(
        3, "Validations without improvement before a fall.", ge=0, when={"training.schedule": ["plateau"]}
    )
    lr_step_epochs: int = setting(10, "Epochs between falls.", ge=1, when={"training.schedule": ["step"]})
    min_learning_rate: float = setting(
        1e-7, "The schedule never goes below it.", ge=0, unless={"training.schedule": ["constant"]}
    )
    clip_grad_norm: float | None = setting(1.0, "Largest norm of the whole gradient; null switches clipping off.", gt=0)
    amp: Literal["auto", "off", "bf16", "fp16"] = setting(
        "auto", "Mixed precision: auto takes bf16 where the hardware has it, else fp16 on a GPU and off on a CPU."
    )
    ema_decay: float | None = setting(
        None,
        "Decay of an exponential moving average of the weights, which is then what is evaluated; in the first steps "
        "less: (1 + n) / (10 + n) after n of them.",
        gt=0,
        lt=1,
    )
    patience: int | None = setting(
        None, "Early stopping: validations without improvement before a phase ends; null trains to the end.", ge=1
    )
    min_delta: float = setting(
        0.0, "What counts as an improvement for early stopping.", ge=0, unless={"training.patience": [None]}
    )
    max_skipped_steps: int = setting(5, "Non-finite steps in a row before the run ends.", ge=1)
    seed: int = setting(42, "Seed of initialisation, order and augmentation.", ge=0)
    deterministic: bool = setting(False, "Only deterministic operations on the GPU (the CPU is so anyway); slower.")
    device: Literal["auto", "cuda", "cpu"] = setting("auto", "Where to train.", neutral=True)
    num_workers: int | Auto = setting("auto", "Loader processes; the data order does not depend on it.", neutral=True)
    checkpoint_minutes: float = setting(
        10.0, "Longest time between two checkpoints inside an epoch.", ge=0, neutral=True
    )
    keep_checkpoints: int = setting(2, "Newest checkpoints kept, besides the best.", ge=1, neutral=True)
    keep_every_epochs: int | None = setting(
        None, "Also keep every k-th epoch's checkpoint, and write checkpoint_epoch_N.pth then.", ge=1, neutral=True
    )
    log_every_steps: int = setting(10, "Optimizer steps between two lines of metrics.", ge=1, neutral=True)

    @field_validator("micro_batch_size", "num_workers")
    @classmethod
    def _check_counts(cls, count: int | str, info: ValidationInfo) -> int | str:
        lowest = 0 if info.field_name == "num_workers" else 1
        if isinstance(count, int) and count < lowest:
            raise ValueError(f"expected auto or at least {lowest}")
        return count


class SelectionSection(Section):
    """Which checkpoint is the best: an explicit metric of the validation split, and which way is better."""

    metric: str = setting("val/loss", "A validation metric; test metrics are refused.", pattern=r"^val/.+")
    mode: Literal["min", "max"] = setting("min", "Whether lower or higher is better.")


class EvaluationSection(Section):
    """When and on how much validation runs during training."""

    every_epochs: int = setting(1, "Epochs between validations; the last epoch is always validated.", ge=1)
    max_samples: int | None = setting(
        None, "Validate on this many items, evenly spaced and always the same; reports mark it.", ge=1
    )


class TrackingSection(Section):
    """Where the curves go besides the run folder and TensorBoard."""

    mlflow: bool = setting(
        False, "Also to MLflow: the server of MLFLOW_TRACKING_URI, else mlflow.db in the output folder.", neutral=True
    )
    wandb: Literal["off", "offline", "online"] = setting(
        "off", "Also to Weights & Biases; offline keeps it in the run folder, for `wandb sync`.", neutral=True
    )
    project: str = setting(
        "train-worker", "Experiment in MLflow, project in Weights & Biases.", min_length=1, neutral=True
    )


class RunConfig(Section):
    """A complete, resolved configuration of one run."""

    task: str = setting(about="The task that this configuration is for.")
    training: TrainingSection = setting(TrainingSection, "How to train.")
    selection: SelectionSection = setting(SelectionSection, "Which checkpoint is the best.")
    evaluation: EvaluationSection = setting(EvaluationSection, "When to validate, and on how much.")
    tracking: TrackingSection = setting(TrackingSection, "Where the curves go besides the run folder and TensorBoard.")
    goals: dict[str, str] = setting(
        dict, "Metric to condition, such as {'test/csi_35_lead_1': '>0.4'}; verdicts in the report.", neutral=True
    )

    @classmethod
    def of_file(cls, content: Any, origin: str) -> Any:
        """A file's content as settings of this schema; tasks that people come to with files of another form convert.

        Raises:
            ConfigError: it is of that form, and wrong.
        """
        return content

    @field_validator("goals")
    @classmethod
    def _check_goals(cls, goals: dict[str, str]) -> dict[str, str]:
        for name, condition in goals.items():
            if not re.fullmatch(r"\s*(>=|<=|>|<)\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*", condition):
                raise ValueError(f"{name}: expected a condition such as '>0.4' or '<= 2', not {condition!r}")
        return goals
