"""Loading batches: torch's DataLoader driven by batch keys, so that no process holds a position or a random state."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from training.engine.interruption import heed_only_the_parent
from training.engine.order import BatchKey, item_rng
from training.engine.ragged import Ragged, packed, unpacked
from training.tasks.protocol import Batch, ItemSource, Task


class _Batches(Dataset[Batch]):
    """Builds the batch that a key describes."""

    def __init__(self, task: Task, items: ItemSource, seed: int) -> None:
        self.task, self.items, self.seed = task, items, seed

    def __getitem__(self, key: BatchKey) -> Batch:
        return packed(self.task.collate([self._item(key, offset) for offset in range(len(key.indices))]))

    def _item(self, key: BatchKey, offset: int) -> Batch:
        augment = self.task.augments and key.epoch >= 0
        rng = item_rng(self.seed, key.phase, key.epoch, key.start + offset) if augment else None
        return self.items.item(key.indices[offset], rng)


class _Keys(Sampler[BatchKey]):
    """The keys of the next pass; the loader (and its processes) stay, the keys change."""

    def __init__(self) -> None:
        self.keys: Iterable[BatchKey] = ()

    def __iter__(self) -> Iterator[BatchKey]:
        return iter(self.keys)


def _identity(batch: Any) -> Any:
    return batch


def _init_worker(worker: int) -> None:
    heed_only_the_parent()
    if "cv2" in sys.modules:
        # each worker has a core to itself; 0 is OpenCV's word for no threads, and 1 hangs in a forked process whose
        # parent had used them
        sys.modules["cv2"].setNumThreads(0)


class Loader:
    """Batches for a list of keys, on the device.

    With worker processes they build batches ahead; without, and with a GPU, one thread does, so that the GPU does
    not wait for slicing and copying.
    """

    def __init__(self, task: Task, items: ItemSource, seed: int, workers: int, device: torch.device) -> None:
        self.device = device
        self._threaded = workers == 0 and device.type == "cuda"
        self._sampler = _Keys()
        self._loader: DataLoader[Batch] = DataLoader(
            _Batches(task, items, seed),
            batch_size=None,
            sampler=self._sampler,
            num_workers=workers,
            collate_fn=_identity,
            pin_memory=device.type == "cuda",
            persistent_workers=workers > 0,
            worker_init_fn=_init_worker,
            # a generator of its own: making an iterator must not draw from the one that training uses
            generator=torch.Generator(),
        )

    def batches(self, keys: Iterable[BatchKey]) -> Iterator[Batch]:
        self._sampler.keys = keys
        source: Iterator[Batch] = iter(self._loader)
        if self._threaded:
            source = _ahead(source)
        if self.device.type == "cpu":
            return (unpacked(batch) for batch in source)
        return (unpacked(to_device(batch, self.device)) for batch in source)

    def close(self) -> None:
        """End the worker processes now, also while an error's traceback still holds what iterates over them."""
        iterator = self._loader._iterator
        if iterator is not None:
            iterator._shutdown_workers()  # type: ignore[attr-defined]


def to_device(value: Any, device: torch.device) -> Any:
    """Tensors inside dicts, lists and what was packed, on ``device``."""
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Ragged):
        return value._replace(rows=to_device(value.rows, device))
    if isinstance(value, dict):
        return {key: to_device(part, device) for key, part in value.items()}
    if isinstance(value, list):
        return [to_device(part, device) for part in value]
    return value


def _ahead(source: Iterator[Batch], depth: int = 2) -> Iterator[Batch]:
    """Run ``source`` in a thread, ``depth`` batches ahead; its exceptions are raised here."""
    ready: queue.Queue[tuple[str, Any]] = queue.Queue(depth)
    closed = threading.Event()

    def offer(kind: str, value: Any) -> bool:
        while not closed.is_set():
            try:
                ready.put((kind, value), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def fill() -> None:
        try:
            for batch in source:
                if not offer("batch", batch):
                    return
            offer("end", None)
        except BaseException as error:
            offer("error", error)

    threading.Thread(target=fill, daemon=True, name="loader").start()
    try:
        while True:
            kind, value = ready.get()
            if kind == "batch":
                yield value
            elif kind == "error":
                raise value
            else:
                return
    finally:
        closed.set()
