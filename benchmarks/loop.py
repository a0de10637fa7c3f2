"""What the engine's loop costs beside a bare PyTorch loop, and beside Lightning and Accelerate where installed.

All four train the same small network on the same loader's batches with AdamW, gradient clipping, a finite check and one
logged number. Rounds alternate, so that a machine that slows down slows all of them; medians and ratios are printed.

    make bench-loop            (an environment of its own with Lightning and Accelerate)
    python benchmarks/loop.py  (what is installed here)
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from torch import nn

from tests.engine.assembly import make_engine
from tests.tiny_task import TinyConfig, TinyItems, TinyTask
from training.engine.loader import Loader
from training.engine.loop import fit
from training.engine.order import epoch_keys
from training.tasks.protocol import Batch, Outputs, Phase, PrepareContext, Prepared


class LoopTask(TinyTask):
    """The tiny task with one phase, no augmentation and a network that takes about 0.9 ms a step."""

    augments = False

    def prepare(self, context: PrepareContext) -> Prepared:
        rng = np.random.default_rng(0)
        table = rng.normal(size=(self.config.training.batch_size * self.steps, 6)).astype(np.float32)
        items = TinyItems(table, 1)
        few = TinyItems(table[:32], 1)
        return Prepared("made", {"train": items, "val": few, "test": few}, {}, {}, {}, facts={})

    steps = 1000

    def phases(self) -> list[Phase]:
        return [Phase("all", 1, self.config.training.learning_rate)]

    def build_model(self, facts: Any) -> nn.Module:
        torch.manual_seed(0)
        width = self.config.model.hidden
        return TinyNetDeep(width)

    def enter_phase(self, model: nn.Module, phase: Phase) -> list[dict[str, Any]]:
        return [{"params": list(model.parameters())}]

    def counts(self, batch: Batch) -> dict[str, Any]:
        return {"squared": len(batch["y"])}

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Any]:
        from training.tasks.protocol import Term

        error = model(batch["x"]) - batch["y"]
        return {"squared": Term(error.square().sum(), len(error), 1.0)}

    def outputs(self, model: nn.Module, batch: Batch) -> Outputs:
        return {"y": model(batch["x"])}

    def score(self, outputs: Outputs, batch: Batch, scores: Any) -> dict[str, Any]:
        from training.tasks.protocol import Term

        error = outputs["y"] - batch["y"]
        return {"squared": Term(error.square().sum(), len(error), 1.0)}


class TinyNetDeep(nn.Module):
    """Three hidden layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, width),
            nn.Tanh(),
            nn.Linear(width, width),
            nn.Tanh(),
            nn.Linear(width, width),
            nn.Tanh(),
            nn.Linear(width, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x).squeeze(1)


def make_task(steps: int, width: int) -> LoopTask:
    """The task at a chosen number of steps and width."""
    config = TinyConfig.model_validate(
        {
            "training": {
                "batch_size": 16,
                "epochs": 1,
                "schedule": "constant",
                "log_every_steps": 10,
                "learning_rate": 1e-3,
            },
            "model": {"hidden": width},
            "data": {"rows_per_item": 1},
        }
    )
    task = LoopTask(config)
    task.steps = steps
    return task


def batches(task: LoopTask, items: TinyItems) -> Iterator[Batch]:
    """What every contender trains on: the engine's own loader."""
    loader = Loader(task, items, 42, 0, torch.device("cpu"))
    return loader.batches(list(epoch_keys(42, 0, 0, len(items), task.config.training.batch_size)))


def with_engine(task: LoopTask, folder: Path) -> float:
    """Seconds that `fit` spends in its training epoch, checkpoint and validation left out."""
    engine = make_engine(task, folder, folder / f"run-{time.monotonic_ns()}")
    marks: list[float] = []
    engine.observer.event = lambda name, facts: marks.append(time.perf_counter())  # type: ignore[method-assign]
    started = time.perf_counter()
    fit(engine)
    engine.metrics.close()
    return marks[0] - started  # the first event is the checkpoint at the epoch's end


def with_bare_loop(task: LoopTask, folder: Path) -> float:
    """Seconds of a plain loop with the same duties."""
    items = task.prepare(None).splits["train"]  # type: ignore[arg-type]
    model = task.build_model({})
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-5)
    log = (folder / "bare.jsonl").open("a", buffering=1)
    started = time.perf_counter()
    for step, batch in enumerate(batches(task, items)):  # type: ignore[arg-type]
        optimizer.zero_grad(set_to_none=True)
        loss = (model(batch["x"]) - batch["y"]).square().mean()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if not math.isfinite(norm.item()):
            continue
        optimizer.step()
        if step % 10 == 9:
            log.write(json.dumps({"step": step, "loss": loss.item()}) + "\n")
    seconds = time.perf_counter() - started
    log.close()
    return seconds


def with_accelerate(task: LoopTask, folder: Path) -> float:
    """Seconds of a loop through Accelerate."""
    from accelerate import Accelerator

    items = task.prepare(None).splits["train"]  # type: ignore[arg-type]
    accelerator = Accelerator(cpu=True)
    model = task.build_model({})
    model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-5))
    log = (folder / "accelerate.jsonl").open("a", buffering=1)
    started = time.perf_counter()
    for step, batch in enumerate(batches(task, items)):  # type: ignore[arg-type]
        optimizer.zero_grad(set_to_none=True)
        loss = (model(batch["x"]) - batch["y"]).square().mean()
        accelerator.backward(loss)
        norm = accelerator.clip_grad_norm_(model.parameters(), 1.0)
        if not math.isfinite(norm.item()):
            continue
        optimizer.step()
        if step % 10 == 9:
            log.write(json.dumps({"step": step, "loss": loss.item()}) + "\n")
    seconds = time.perf_counter() - started
    log.close()
    return seconds


def with_lightning(task: LoopTask, folder: Path) -> float:
    """Seconds that Lightning's Trainer spends between the first and the last batch."""
    import lightning

    items = task.prepare(None).splits["train"]  # type: ignore[arg-type]

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = task.build_model({})

        def training_step(self, batch: Batch, index: int) -> torch.Tensor:
            loss = (self.model(batch["x"]) - batch["y"]).square().mean()
            self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=1e-3, weight_decay=1e-5)

    class Clock(lightning.Callback):
        started = ended = 0.0

        def on_train_epoch_start(self, *_: Any) -> None:
            self.started = time.perf_counter()

        def on_train_epoch_end(self, *_: Any) -> None:
            self.ended = time.perf_counter()

    loader = Loader(task, items, 42, 0, torch.device("cpu"))
    loader._sampler.keys = list(epoch_keys(42, 0, 0, len(items), task.config.training.batch_size))
    clock = Clock()
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        gradient_clip_val=1.0,
        callbacks=[clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=10,
        default_root_dir=folder,
    )
    trainer.fit(Module(), loader._loader)
    return clock.ended - clock.started


def contenders() -> dict[str, Callable[[LoopTask, Path], float]]:
    """The loops that can run here."""
    found: dict[str, Callable[[LoopTask, Path], float]] = {
        "bare PyTorch loop": with_bare_loop,
        "this engine": with_engine,
    }
    for name, module, run in (
        ("Accelerate", "accelerate", with_accelerate),
        ("Lightning Trainer", "lightning", with_lightning),
    ):
        try:
            __import__(module)
            found[name] = run
        except ImportError:
            print(f"{name} is not installed here; make bench-loop brings it")
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--width", type=int, default=256)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    import logging

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    task = make_task(options.steps, options.width)
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        runs = contenders()
        for round_number in range(options.rounds + 1):
            for label, run in runs.items():
                taken = run(task, Path(name))
                if round_number:  # the first round warms up
                    seconds.setdefault(label, []).append(taken)
    bare = seconds["bare PyTorch loop"]
    print(f"torch {torch.__version__}, {options.rounds} rounds of {options.steps} steps, one thread")
    print("| loop | ms a step (median) | steps per second beside the bare loop (median of rounds) |\n|---|---|---|")
    for label, values in seconds.items():
        ratio = statistics.median(b / v for b, v in zip(bare, values, strict=True))
        print(f"| {label} | {statistics.median(values) / options.steps * 1e3:.3f} | {ratio:.1%} |")


if __name__ == "__main__":
    main()
