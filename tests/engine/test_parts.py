"""Schedule, precision, device, interruption: the loop's small parts."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path

import pytest
import torch

from backend.errors import ConfigError, InterruptedRunError
from training import machine
from training.engine import device as device_module
from training.engine import gpu as gpu_module
from training.engine.device import Precision, choose_device
from training.engine.ema import Ema
from training.engine.interruption import StopRequest
from training.engine.schedule import Schedule
from training.engine.state import is_better
from training.schemas.shared import TrainingSection
from training.tasks.protocol import Phase


def schedule(**settings: object) -> Schedule:
    training = TrainingSection.model_validate({"min_learning_rate": 1e-6, **settings})
    return Schedule(training, Phase("only", 10, 1e-2), steps_per_epoch=10, mode="min")


def test_a_phase_may_have_a_schedule_of_its_own() -> None:
    training = TrainingSection.model_validate({"schedule": "cosine"})
    made = Schedule(training, Phase("frozen", 10, 1e-2, schedule="constant"), steps_per_epoch=10, mode="min")
    assert {made.factor(step) for step in (0, 50, 99, 100)} == {1.0}


def test_warmup_rises_to_one() -> None:
    made = schedule(schedule="constant", warmup_steps=10)
    assert made.factor(0) == pytest.approx(0.1)
    assert made.factor(9) == made.factor(50) == 1.0


def test_cosine_and_linear_fall_to_the_floor() -> None:
    for kind in ("cosine", "linear"):
        made = schedule(schedule=kind)
        assert made.factor(0) == 1.0
        assert made.factor(50) == pytest.approx(0.5)
        assert made.factor(100) == pytest.approx(1e-4)  # min_learning_rate / learning_rate
    assert schedule(schedule="cosine").factor(25) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))


def test_no_group_falls_below_the_floor() -> None:
    for kind in ("cosine", "linear", "step"):
        made = schedule(schedule=kind, **({"lr_step_epochs": 1, "lr_factor": 0.1} if kind == "step" else {}))
        assert [made.rate(0, scale) for scale in (1, 0.1)] == pytest.approx([1e-2, 1e-3])
        assert [made.rate(100, scale) for scale in (1, 0.1, 1e-5)] == pytest.approx([1e-6, 1e-6, 1e-7])
    assert schedule(schedule="cosine").rate(50, 0.1) == pytest.approx(5e-4)
    assert schedule(schedule="constant").rate(100, 0.1) == pytest.approx(1e-3)


def test_step_falls_every_so_many_epochs() -> None:
    made = schedule(schedule="step", lr_step_epochs=2, lr_factor=0.1)
    assert [made.factor(step) for step in (0, 19, 20, 40)] == pytest.approx([1, 1, 0.1, 0.01])


def test_plateau_falls_after_patience_and_survives_a_round_trip() -> None:
    made = schedule(schedule="plateau", lr_patience=1, lr_factor=0.5)
    for value in (1.0, 1.0):
        made.validated(value)
    copy = schedule(schedule="plateau", lr_patience=1, lr_factor=0.5)
    copy.load_state_dict(made.state_dict())
    for one in (made, copy):
        one.validated(1.0)
        assert one.factor(5) == 0.5
    made.validated(math.nan)
    assert made.factor(5) == 0.5


@pytest.mark.parametrize(
    ("value", "best", "mode", "delta", "expected"),
    [
        (1.0, None, "min", 0, True),
        (0.9, 1.0, "min", 0, True),
        (1.0, 1.0, "min", 0, False),
        (0.95, 1.0, "min", 0.1, False),
        (1.1, 1.0, "max", 0, True),
        (0.9, 1.0, "max", 0, False),
        (math.nan, None, "min", 0, False),
        (-math.inf, 1.0, "min", 0, False),
    ],
)
def test_better(value: float, best: float | None, mode: str, delta: float, expected: bool) -> None:
    assert is_better(value, best, mode, delta) is expected


def test_a_gpu_in_sight_that_does_not_work_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(gpu_module, "nvidia_in_sight", lambda: True)
    with pytest.raises(ConfigError, match=r"training\.device=cpu"):
        choose_device("auto")
    assert choose_device("cpu")[0].type == "cpu"
    monkeypatch.setattr(gpu_module, "nvidia_in_sight", lambda: False)
    assert choose_device("auto")[0].type == "cpu"
    with pytest.raises(ConfigError, match="finds no CUDA device"):
        choose_device("cuda")


def test_a_gpu_hidden_by_the_user_is_not_in_sight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not machine.nvidia_in_sight()


def test_precision_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    for has, dtype in ((True, torch.bfloat16), (False, None)):
        monkeypatch.setattr(device_module, "has_bf16_matrix_units", lambda has=has: has)
        assert Precision("auto", cpu).dtype is dtype
    assert Precision("bf16", cpu).dtype is torch.bfloat16
    assert Precision("off", cpu).scaler is None
    with pytest.raises(ConfigError, match="needs a GPU"):
        Precision("fp16", cpu)


def test_the_first_signal_asks_and_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        stop.check()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
        with pytest.raises(InterruptedRunError, match="SIGTERM"):
            stop.check()
    assert signal.getsignal(signal.SIGTERM) is before


def test_no_name_of_a_task_stands_in_the_engine() -> None:
    engine = Path(device_module.__file__).parent
    for path in engine.glob("*.py"):
        text = path.read_text().lower()
        assert not [word for word in ("convlstm", "radar", "dbz", "landmark", "yolo", "particle") if word in text], path


def test_an_average_does_not_cling_to_the_first_weights() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    ema, by_hand = Ema(model, 0.9), 0.0
    for step in range(200):
        model.weight.data.fill_(float(step))
        ema.update(model)
        decay = min(0.9, (1 + step) / (10 + step)) if step else 0.0
        by_hand = decay * by_hand + (1 - decay) * step
        assert ema.tensors()["weight"].item() == pytest.approx(by_hand)
    assert ema.updates == 200
    slow = Ema(model, 0.9999)
    for value in (0.0, *[1.0] * 1000):
        model.weight.data.fill_(value)
        slow.update(model)
    assert slow.tensors()["weight"].item() > 0.99
