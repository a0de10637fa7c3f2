"""One optimizer step: counts of the whole batch first, then micro-batches, then one decision to take it or not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from backend.errors import ConfigError
from training.engine.device import Precision
from training.engine.ema import Ema
from training.engine.order import step_seed
from training.tasks.protocol import Batch, Task, Term

_NO_ROOM = ("CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED", "unable to find an engine to execute")


class PartialStepDropped(Exception):  # noqa: N818 - a signal, not a failure
    """A stop was asked for between two micro-batches; weights and buffers are those of the last boundary."""


@dataclass(slots=True)
class StepResult:
    """What one optimizer step did; ``terms`` and ``counts`` are read only when logged."""

    loss: float
    grad_norm: float
    taken: bool
    overflow: bool  # refused by the fp16 scaler, which is ordinary
    terms: dict[str, Tensor]
    counts: dict[str, Any]

    def means(self) -> dict[str, float]:
        """Each term's mean over the batch."""
        return {name: float(total) / (float(self.counts[name]) or 1.0) for name, total in self.terms.items()}


class Stepper:
    """Takes optimizer steps for one phase.

    Args:
        micro: rows per micro-batch, or None for the whole batch; halved when memory runs out.
        should_stop: polled between micro-batches.
        on_micro: told the new micro-batch size after each halving.
    """

    def __init__(
        self,
        task: Task,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        precision: Precision,
        *,
        seed: int,
        clip: float | None,
        ema: Ema | None,
        micro: int | None,
        should_stop: Callable[[], bool],
        on_micro: Callable[[int, int], None],
    ) -> None:
        self.task, self.model, self.optimizer, self.precision = task, model, optimizer, precision
        self.seed, self.ema, self.micro = seed, ema, micro
        self.clip = math.inf if clip is None else clip
        self.should_stop, self.on_micro = should_stop, on_micro
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.buffers = _Snapshot(list(model.buffers()))
        self.scales = [float(group.get("lr_scale", 1.0)) for group in optimizer.param_groups]

    def take(self, batch: Batch, step: int, rates: Sequence[float]) -> StepResult:
        """Step number ``step`` on ``batch``; redone with smaller micro-batches while memory runs out.

        ``rates`` are the groups' learning rates.

        Raises:
            PartialStepDropped: a stop was asked for before the last micro-batch.
            ConfigError: a single row does not fit.
        """
        rows = row_count(batch)
        self.buffers.take()
        while True:
            micro = min(self.micro or rows, rows)
            try:
                seed_step(self.seed, step)
                loss, terms, counts = self._accumulate(batch, rows, micro)
                break
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if micro == 1:
                    raise out_of_memory() from error
            # outside the handler, so that the failed graph is no longer referenced
            self._forget()
            self.micro = -(-micro // 2)
            self.on_micro(micro, self.micro)
        try:
            return self._decide(loss, terms, counts, rates)
        except RuntimeError as error:  # the optimizer's own state is made at its first step
            if is_out_of_memory(error):
                raise out_of_memory() from error
            raise

    def _accumulate(self, batch: Batch, rows: int, micro: int) -> tuple[Tensor, dict[str, Tensor], dict[str, Any]]:
        self.optimizer.zero_grad(set_to_none=True)
        counts = self.task.counts(batch)
        total: Tensor | None = None
        sums: dict[str, Tensor] = {}
        for part in split_rows(batch, rows, micro):
            if total is not None and self.should_stop():
                self._forget()
                raise PartialStepDropped
            with self.precision.autocast():
                terms = self.task.loss(self.model, part)
            loss = combine(terms, counts)
            scaler = self.precision.scaler
            (loss if scaler is None else scaler.scale(loss)).backward()
            detached = loss.detach()
            total = detached if total is None else total + detached
            for name, term in terms.items():
                value = term.sum.detach()
                sums[name] = sums[name] + value if name in sums else value
        assert total is not None
        return total, sums, counts

    def _decide(
        self, loss: Tensor, terms: dict[str, Tensor], counts: dict[str, Any], rates: Sequence[float]
    ) -> StepResult:
        scaler = self.precision.scaler
        if scaler is not None:
            scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.clip)
        loss_value, norm_value = _both(loss, norm)
        taken = math.isfinite(loss_value) and math.isfinite(norm_value)
        if taken:
            for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
            if scaler is None:
                self.optimizer.step()
            else:
                scaler.step(self.optimizer)
            if self.ema is not None:
                self.ema.update(self.model)
        else:
            self._forget()
        if scaler is not None:
            scaler.update()
        overflow = scaler is not None and not taken and math.isfinite(loss_value) and scaler.get_scale() >= 1.0
        return StepResult(loss_value, norm_value, taken, overflow, terms, counts)

    def _forget(self) -> None:
        """Back to the last boundary: no gradients, buffers as they were."""
        self.optimizer.zero_grad(set_to_none=True)
        self.buffers.restore()
        if self.parameters and self.parameters[0].is_cuda:
            torch.cuda.empty_cache()


def _both(loss: Tensor, norm: Tensor) -> tuple[float, float]:
    """The two numbers that decide about a step: one wait for a GPU; on the CPU two reads cost less than a stack."""
    if not loss.is_cuda:
        return loss.item(), norm.item()
    loss_value, norm_value = torch.stack((loss.float(), norm.float())).tolist()
    return loss_value, norm_value


def combine(terms: dict[str, Term], counts: dict[str, Any]) -> Tensor:
    """The batch loss that these rows contribute: sum over terms of weight * sum / (count over the whole batch)."""
    loss: Tensor | None = None
    for name, term in terms.items():
        count = counts[name]
        divisor = torch.where(count > 0, count, 1) if isinstance(count, Tensor) else count or 1  # of nothing: zero
        part = term.sum * (term.weight / divisor)
        loss = part if loss is None else loss + part
    assert loss is not None, "a task gave no loss term"
    return loss


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether memory ran out: torch's own error, or what cuDNN and cuBLAS say when they find no room to work in."""
    said = str(error)
    return isinstance(error, torch.OutOfMemoryError) or any(words in said for words in _NO_ROOM)


def out_of_memory() -> ConfigError:
    """What to say when not even one row fits."""
    return ConfigError(
        "the GPU's memory does not hold a single row of a batch; make the input or the model smaller, switch gradient "
        "checkpointing on where the task has it (model.gradient_checkpointing=true), or take a GPU with more memory"
    )


def row_count(batch: Batch) -> int:
    """Rows of a batch."""
    return len(next(iter(batch.values())))


def split_rows(batch: Batch, rows: int, micro: int) -> Iterator[Batch]:
    """Slices of a batch along its rows."""
    if micro >= rows:
        yield batch
        return
    for start in range(0, rows, micro):
        yield {key: value[start : start + micro] for key, value in batch.items()}


def seed_step(seed: int, step: int) -> None:
    """Seed torch's generators for one step, so that no checkpoint needs to carry a random state."""
    value = step_seed(seed, step)
    torch.default_generator.manual_seed(value)
    if torch.cuda.is_initialized():  # cheap, unlike is_available
        torch.cuda.manual_seed(value)


class _Snapshot:
    """The model's buffers at the last boundary (batch-norm statistics move in the forward pass)."""

    def __init__(self, buffers: list[Tensor]) -> None:
        self.buffers = buffers
        self.saved = [torch.empty_like(buffer) for buffer in buffers]

    def take(self) -> None:
        if self.buffers:
            torch._foreach_copy_(self.saved, self.buffers)

    def restore(self) -> None:
        if self.buffers:
            torch._foreach_copy_(self.buffers, self.saved)
