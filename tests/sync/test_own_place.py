"""Two runs of one id reach for one place, with what they do in every order and however slow each step is."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from training.runs.run import Run
from training.sync import own_place as protocol
from training.sync.own_place import own_place
from training.sync.remote_run import RemoteRun
from training.sync.stores import Stored
from training.yaml_core import parse_yaml, write_yaml

RUN = "20261125_140000_run"


class Shelf:
    """A store of which every step waits for its turn."""

    shown = "shelf"

    def __init__(self) -> None:
        self.there: dict[str, bytes] = {}
        self.turns: dict[str, threading.Semaphore] = {}
        self.stands = threading.Semaphore(0)  # released by a machine that waits for its turn, or is done

    def step(self) -> None:
        self.stands.release()
        assert self.turns[threading.current_thread().name].acquire(timeout=20)

    def write(self, path: str, content: bytes) -> None:
        self.step()
        self.there[path] = content

    def read(self, path: str) -> bytes | None:
        self.step()
        return self.there.get(path)

    def files(self, folder: str) -> dict[str, Stored]:
        self.step()
        return {path.removeprefix(f"{folder}/"): Stored(1) for path in self.there if path.startswith(f"{folder}/")}

    def remove_file(self, path: str) -> None:
        self.step()
        self.there.pop(path, None)


def made(place: Path, token: str) -> Run:
    folder = place / "tiny" / RUN
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("task: tiny\n")
    write_yaml(folder / "metadata.yaml", {"run_id": RUN, "run_name": "run", "token": token, "task": "tiny"})
    return Run(folder)


def both_reach(place: Path, order: Iterator[str]) -> tuple[Shelf, dict[str, str]]:
    """The store and each machine's run id, when the machines a and b take their steps in ``order``."""
    shelf, ids = Shelf(), {}

    def reach(machine: str) -> None:
        try:
            run = made(place / machine, f"token-{machine}")
            found = own_place(
                lambda run: RemoteRun(shelf, "tiny", run.run_id), run, lambda _: shelf.step(), lambda _: None
            )
            ids[machine] = found.run_id
        finally:
            shelf.stands.release()

    threads = {name: threading.Thread(target=reach, args=(name,), name=name, daemon=True) for name in "ab"}
    for name, thread in threads.items():
        shelf.turns[name] = threading.Semaphore(0)
        thread.start()
        assert shelf.stands.acquire(timeout=20)
    while len(ids) < 2:
        name = next(order)
        if name not in ids:
            shelf.turns[name].release()
            assert shelf.stands.acquire(timeout=20)
    return shelf, ids


def one_inside_the_other(before: int, first: str) -> Iterator[str]:
    """``before`` steps of one, all of the other's as far as it comes, the rest in turns."""
    second = "b" if first == "a" else "a"
    yield from first * before + second * 12
    while True:
        yield from (first, second)


def at_random(seed: int) -> Iterator[str]:
    draw = random.Random(seed)
    while True:
        yield from draw.choice("ab") * draw.randint(1, 4)


ORDERS = [
    *(pytest.param(one_inside_the_other(before, name), id=f"{name}{before}") for name in "ab" for before in range(9)),
    *(pytest.param(at_random(seed), id=f"seed{seed}") for seed in range(30)),
]


@pytest.mark.parametrize("order", ORDERS)
def test_each_has_a_place_and_its_own_metadata_there(tmp_path: Path, order: Iterator[str]) -> None:
    shelf, ids = both_reach(tmp_path, order)
    assert {RUN} < set(ids.values())
    for machine, run_id in ids.items():
        told = parse_yaml(shelf.there[f"tiny/{run_id}/metadata.yaml"].decode(), "test")
        assert (told["run_id"], told["token"]) == (run_id, f"token-{machine}")
    assert Counter(path.rpartition("/")[2] for path in shelf.there) == {"config.yaml": 2, "metadata.yaml": 2}


class Alone(Shelf):
    def step(self) -> None:
        pass


def test_a_claim_of_a_machine_that_died_is_waited_for_and_left(tmp_path: Path) -> None:
    shelf, waited = Alone(), []
    shelf.there[f"tiny/{RUN}/.claims/token-z"] = b"z"
    run = own_place(
        lambda run: RemoteRun(shelf, "tiny", run.run_id), made(tmp_path, "token-a"), waited.append, lambda _: None
    )
    assert run.run_id == f"{RUN}_2"
    assert sum(waited) == protocol._LONGEST_WAIT_SECONDS
