"""What the command line asks the pipeline for: one plain record a command."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.ensembles.spec import Spec

WORKER = "python training/train_worker.py"  # as a person calls it in the repository's folder
OUTPUT = Path("model_output")
DATASETS = Path("datasets")


@dataclass(frozen=True, kw_only=True)
class Places:
    """The two folders that every command works in."""

    output: Path = OUTPUT
    datasets: Path = DATASETS


@dataclass(frozen=True, kw_only=True)
class PrepareRequest(Places):
    """Read, check, split and cache a dataset."""

    task: str
    data: str | None = None  # a folder, or "sample"
    config: str | None = None  # a preset's name or a file
    sets: tuple[str, ...] = ()  # "key.sub=value"
    seed: int | None = None
    drive_id: str | None = None  # a Google Drive file that is the dataset's archive
    prune: bool = False  # `prepare` alone: then delete every other prepared cache beside this one


@dataclass(frozen=True, kw_only=True)
class TrainRequest(PrepareRequest):
    """Prepare, train, evaluate and report."""

    run_name: str | None = None
    resume: str = "auto"  # "auto", "never", or a run
    sync_to: str | None = None  # an rclone remote or an fsspec URL
    max_hours: float | None = None
    max_cost: float | None = None
    price_per_hour: float | None = None
    on_finish: str = "none"  # or "stop", "destroy"
    more_follow: bool = False  # other trainings of the same command: a finished one leaves the instance to them
    argv: tuple[str, ...] = field(default=(), compare=False)  # the command as given, for the record


@dataclass(frozen=True, kw_only=True)
class DoctorRequest(PrepareRequest):
    """Check the machine, the volumes, the data and the settings."""

    price_per_hour: float | None = None  # of the machine, in any currency
    as_json: bool = False


@dataclass(frozen=True, kw_only=True)
class EvaluateRequest(Places):
    """Score the best weights of one run or more on a split."""

    runs: tuple[str, ...] = ()  # each a run id or its unique beginning, a folder, or a checkpoint in one
    all_of: str | None = None  # every finished run of this task or sub-task
    predictions: Path | None = None  # kept ones, in place of a run's model
    split: str = "val"
    data: str | None = None
    config: str | None = None  # what the checkpoint's configuration is held against…
    sets: tuple[str, ...] = ()
    verify_config: bool = False
    strict: bool = False  # …where a difference is an error
    check_goals: bool = False
    keep_predictions: bool = False
    as_json: bool = False


@dataclass(frozen=True, kw_only=True)
class ImportRequest(PrepareRequest):
    """Make a run of old weights."""

    file: Path
    run_name: str | None = None
    split_known: bool = False  # they were trained on the split that these settings make of these data
    argv: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True, kw_only=True)
class AuditRequest(Places):
    """Look for leaks inside a split, or between two."""

    sides: tuple[str, ...]  # one or two: a run, or a split.json, with ":train" and the like where one split is meant
    near_hours: float | None = None  # what counts as near in time; else what the runs themselves say
    as_json: bool = False


@dataclass(frozen=True, kw_only=True)
class VerifyRequest(Places):
    """Hold a run against its record."""

    run: str
    data: str | None = None
    retrain: bool = False
    tolerance: float = 1e-4


@dataclass(frozen=True, kw_only=True)
class PredictRequest(Places):
    """Forecast from raw inputs with a run's best weights."""

    run: str
    inputs: tuple[Path, ...]
    out: Path
    confidence: float | None = None


@dataclass(frozen=True, kw_only=True)
class ExportRequest(Places):
    """A run's best weights as one file for other programs."""

    run: str
    format: str  # pth, safetensors or onnx
    out: Path | None = None  # the file; else in the run's folder


@dataclass(frozen=True, kw_only=True)
class EnsembleRequest(Places):
    """Average several landmark models."""

    spec: Spec
    split: str = "test"  # or val, train, all
    data: str | None = None
    out: Path | None = None
    allow_leaks: bool = False
    as_json: bool = False


@dataclass(frozen=True, kw_only=True)
class SweepRequest(EnsembleRequest):
    """Choose the best combination out of several landmark models."""

    sizes: tuple[int, ...] = (4,)
