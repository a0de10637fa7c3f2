"""Order and augmentation as pure functions, and the loader that carries them out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.tiny_task import TinyConfig, TinyItems, TinyTask
from training.engine.loader import Loader, _ahead
from training.engine.order import batches_in_epoch, epoch_keys, evaluation_keys, item_rng, permutation, step_seed
from training.tasks.protocol import Batch

ROOT = Path(__file__).resolve().parent.parent.parent


def test_an_epoch_visits_every_item_once() -> None:
    seen = [index for key in epoch_keys(1, 0, 3, 23, 5) for index in key.indices]
    assert sorted(seen) == list(range(23))
    assert len(list(epoch_keys(1, 0, 3, 23, 5))) == batches_in_epoch(23, 5) == 5


def test_epochs_phases_and_seeds_differ() -> None:
    orders = {tuple(permutation(seed, phase, epoch, 50)) for seed in (1, 2) for phase in (0, 1) for epoch in (0, 1)}
    assert len(orders) == 8


@pytest.mark.parametrize("first", [0, 1, 3, 5])
def test_resuming_inside_an_epoch_continues_its_order(first: int) -> None:
    whole = list(epoch_keys(7, 1, 2, 23, 5))
    assert list(epoch_keys(7, 1, 2, 23, 5, first_batch=first)) == whole[first:]


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_processes_share_every_batch(world: int) -> None:
    alone = list(epoch_keys(7, 0, 0, 23, 6))
    shares = [list(epoch_keys(7, 0, 0, 23, 6, rank=rank, world=world)) for rank in range(world)]
    for number, batch in enumerate(alone):
        parts = [shares[rank][number] for rank in range(world)]
        assert sum((part.indices for part in parts), ()) == batch.indices
        assert all(part.start == batch.start + alone_offset(parts, part) for part in parts if part.indices)


def alone_offset(parts: list, part: object) -> int:
    return sum(len(other.indices) for other in parts[: parts.index(part)])


def test_augmentation_belongs_to_the_position() -> None:
    assert item_rng(1, 0, 2, 5).random() == item_rng(1, 0, 2, 5).random()
    assert len({item_rng(1, 0, epoch, position).random() for epoch in (0, 1) for position in range(9)}) == 18


def test_step_seeds_differ_and_fit_torch() -> None:
    seeds = {step_seed(seed, step) for seed in range(20) for step in range(200)}
    assert len(seeds) == 4000
    assert 0 <= min(seeds) <= max(seeds) < 2**63


def test_an_evaluation_subset_is_spread_and_always_the_same() -> None:
    chosen = [index for key in evaluation_keys(100, 4, 10) for index in key.indices]
    assert chosen == list(range(0, 100, 10))
    assert [i for key in evaluation_keys(7, 4, 10) for i in key.indices] == list(range(7))


def loader_of(workers: int) -> Loader:
    task = TinyTask(TinyConfig())
    table = np.arange(20 * 6, dtype=np.float32).reshape(20, 6)
    return Loader(task, TinyItems(table, 2), 5, workers, torch.device("cpu"))


def test_processes_give_the_same_batches_in_the_same_order() -> None:
    keys = list(epoch_keys(5, 0, 1, 10, 3))
    alone, helped = (list(loader_of(workers).batches(keys)) for workers in (0, 2))
    assert [sorted(batch) for batch in alone] == [sorted(batch) for batch in helped]
    for mine, theirs in zip(alone, helped, strict=True):
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


HELD_AT_EXIT = """
from tests.engine.test_order_and_loader import loader_of
from training.engine.order import epoch_keys
held = loader_of(2)
batches = held.batches(list(epoch_keys(5, 0, 1, 10, 3)))
next(batches)
"""


def test_a_process_that_still_holds_a_loader_can_exit() -> None:
    """An error's traceback may hold one; multiprocessing then terminates its processes and waits for them."""
    subprocess.run([sys.executable, "-c", HELD_AT_EXIT], cwd=ROOT, check=True, timeout=60)


def helpers_of(loader: Loader) -> list[BaseProcess]:
    next(loader.batches(list(epoch_keys(5, 0, 1, 10, 3))))
    return list(loader._loader._iterator._workers)  # type: ignore[union-attr]


def test_a_closed_loader_has_no_processes() -> None:
    loader = loader_of(2)
    helpers = helpers_of(loader)
    assert all(helper.is_alive() for helper in helpers)
    loader.close()
    assert not any(helper.is_alive() for helper in helpers)


def test_loader_processes_heed_only_their_parent() -> None:
    loader = loader_of(1)
    (helper,) = helpers_of(loader)
    assert helper.pid is not None
    for name in ("SIGTERM", "SIGINT"):  # sent by somebody else, as `docker stop` or Ctrl-C reach a whole group
        subprocess.run(["kill", f"-{name}", str(helper.pid)], check=True)
    keys = list(epoch_keys(5, 0, 2, 10, 3))
    assert len(list(loader.batches(keys))) == len(keys)
    assert helper.is_alive()
    os.kill(helper.pid, signal.SIGTERM)
    helper.join(30)
    assert helper.exitcode == 0


class OpenCVThreads:
    """Items that tell how many threads OpenCV uses where they are made."""

    def __len__(self) -> int:
        return 4

    def item(self, index: int, rng: np.random.Generator | None) -> Batch:
        return {"threads": torch.tensor([cv2.getNumThreads()])}


def test_loader_processes_use_opencv_without_threads() -> None:
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    try:
        loader = Loader(TinyTask(TinyConfig()), OpenCVThreads(), 5, 1, torch.device("cpu"))
        told = [batch["threads"].tolist() for batch in loader.batches(list(evaluation_keys(4, 4)))]
        assert told == [[1] * 4] and cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(before)


class Lists:
    """Items with lists of tensors that differ in length, as boxes do, and one that no tensor can hold."""

    def __len__(self) -> int:
        return 300

    def item(self, index: int, rng: np.random.Generator | None) -> Batch:
        some = torch.full((index % 3, 4), float(index))
        return {"x": torch.tensor([index]), "some": [some], "labels": [some[:, 0].long()], "name": [str(index)]}


MANY_LISTS = """
import resource
import torch
from tests.engine.test_order_and_loader import Lists
from tests.tiny_task import TinyConfig, TinyTask
from training.engine.loader import Loader
from training.engine.order import evaluation_keys
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
(batch,) = Loader(TinyTask(TinyConfig()), Lists(), 5, 1, torch.device("cpu")).batches(evaluation_keys(300, 300))
assert [len(one) for one in batch["some"]] == [len(one) for one in batch["labels"]] == [0, 1, 2] * 100
assert all((one == number).all() for number, one in enumerate(batch["some"]))
assert batch["labels"][299].tolist() == [299, 299] and batch["name"][7] == "7"
"""


def test_lists_of_many_rows_take_few_open_files() -> None:
    done = subprocess.run([sys.executable, "-c", MANY_LISTS], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_loader_draws_nothing_from_the_training_generator() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    list(loader_of(0).batches(list(epoch_keys(5, 0, 1, 10, 3))))
    assert torch.equal(torch.rand(1), expected)


def numbers(count: int) -> Iterator[Batch]:
    for number in range(count):
        yield {"x": torch.tensor([number])}


def test_reading_ahead_keeps_order_and_ends() -> None:
    assert [int(batch["x"]) for batch in _ahead(numbers(20))] == list(range(20))


def test_reading_ahead_hands_on_errors() -> None:
    def failing() -> Iterator[Batch]:
        yield from numbers(2)
        raise ValueError("broken item")

    ahead = _ahead(failing())
    assert len([next(ahead), next(ahead)]) == 2
    with pytest.raises(ValueError, match="broken item"):
        next(ahead)


def test_reading_ahead_can_be_left_early(tmp_path: Path) -> None:
    ahead = _ahead(numbers(1000))
    next(ahead)
    ahead.close()  # type: ignore[attr-defined]
