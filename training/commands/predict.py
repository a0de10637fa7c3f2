"""`predict`: a run's best weights applied to raw files."""

from __future__ import annotations

import sys
from pathlib import Path

from backend.artifact import is_checkpoint
from training.registry.names import run_folder
from training.requests import PredictRequest
from training.runs.publish import model_of
from training.runs.run import Run


def predict(request: PredictRequest) -> None:
    """Forecast from raw inputs; says where the result is."""
    from backend.predict import Choices
    from backend.predict import predict as forecast

    named = Path(request.run)
    model = named if is_checkpoint(named) else model_of(Run(run_folder(request.output, request.run)), named)
    choices = Choices(request.confidence, lambda line: print(line, file=sys.stderr))  # noqa: T201
    print(forecast(model, request.inputs, request.out, choices))  # noqa: T201
