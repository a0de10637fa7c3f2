"""Two machines never work on one run: the second is refused while the first renews its note, and not much longer."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from backend.errors import CONFIG, ConfigError, TakenOverError
from tests.runs import register_tiny, run_of, train
from training.engine.interruption import StopRequest
from training.sync import lease as lease_module
from training.sync.lease import AT_WORK, LEFT, Lease, worker_id
from training.sync.session import Sync
from training.sync.stores import Store, open_store

PATH = "tiny/run/owner.json"


def note(store: Store) -> dict[str, Any]:
    return json.loads(store.read(PATH) or b"{}")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(f"file://{tmp_path}/remote")


def test_a_free_run_is_taken_and_left(store: Store) -> None:
    lease = Lease(store, PATH, "me")
    assert lease.take(str, float) == {}
    assert (note(store)["worker"], note(store)["state"]) == ("me", AT_WORK)
    lease.leave(10)
    assert note(store)["state"] == LEFT
    assert Lease(store, PATH, "you").take(str, float)["worker"] == "me"
    assert note(store)["worker"] == "you"


def test_a_machine_that_still_renews_is_not_robbed(store: Store) -> None:
    first = Lease(store, PATH, "first")
    first.take(str, float)
    lines: list[str] = []
    with pytest.raises(ConfigError, match="is at work on this run"):
        Lease(store, PATH, "second").take(lines.append, lambda seconds: first._write(AT_WORK))
    assert "waiting up to 150 s" in lines[0]
    assert note(store)["worker"] == "first"


def test_a_machine_that_is_gone_is_followed_and_its_hours_are_kept(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Lease(store, PATH, "first")
    first.take(str, float)
    first.facts = lambda: {"usage": {"seconds": 5.0}}
    first._write(AT_WORK)
    waited: list[float] = []
    now = [0.0]
    monkeypatch.setattr(lease_module.time, "monotonic", lambda: now[0])

    def pause(seconds: float) -> None:
        waited.append(seconds)
        now[0] += seconds

    assert Lease(store, PATH, "second").take(str, pause)["usage"] == {"seconds": 5.0}
    assert sum(waited) == lease_module.STALE_SECONDS
    assert (note(store)["worker"], note(store)["usage"]) == ("second", {"seconds": 5.0})


@pytest.mark.parametrize(
    "before",
    [
        {"worker": "me", "state": AT_WORK},  # this machine, killed and started again
        {"worker": "first", "state": AT_WORK, "time": "2020-01-01T00:00:00Z"},
        {"worker": "first", "state": LEFT, "time": "2100-01-01T00:00:00Z"},
        [],
    ],
)
def test_nobody_waits_where_nobody_can_be_at_work(store: Store, before: Any) -> None:
    store.write(PATH, json.dumps(before).encode())

    def pause(seconds: float) -> None:
        raise AssertionError("waited")

    Lease(store, PATH, "me").take(str, pause)
    assert note(store)["worker"] == "me"


def test_whoever_is_taken_over_notices(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "RENEW_SECONDS", 0.01)
    lost, noticed = threading.Event(), []

    def on_loss(host: str) -> None:
        noticed.append(host)
        lost.set()

    first = Lease(store, PATH, "first")
    first.take(str, float)
    first.keep(on_loss)
    for _ in range(3000):  # a store cannot compare and write at once: the first one's note may come after this
        store.write(PATH, json.dumps({"worker": "second", "host": "elsewhere", "state": AT_WORK}).encode())
        if lost.wait(0.02):
            break
    assert lost.is_set()
    first.leave(10)
    assert noticed == ["elsewhere"]
    assert note(store)["worker"] == "second"  # it is not ours to leave


def test_the_training_ends_then_and_pushes_nothing_more(store: Store, tmp_path: Path) -> None:
    stop = StopRequest()
    Sync(store, "tiny", tmp_path, stop)._taken_over("elsewhere")
    with pytest.raises(TakenOverError, match="elsewhere has taken this run over; it goes on there") as caught:
        stop.check()
    assert caught.value.exit_code == CONFIG


def test_a_machine_knows_itself_again(tmp_path: Path) -> None:
    assert worker_id(tmp_path / "out") == worker_id(tmp_path / "out")
    assert worker_id(tmp_path / "out") != worker_id(tmp_path / "other")


def test_a_second_machine_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    register_tiny(monkeypatch)
    words = ("--sync-to", f"file://{tmp_path}/remote")
    assert train(tmp_path / "a", "tiny", *words) == 0
    copy = tmp_path / "remote" / "tiny" / run_of(tmp_path / "a", "tiny").name
    text = (copy / "metadata.yaml").read_text().replace("state: finished", "state: running")
    (copy / "metadata.yaml").write_text(text)
    first = Lease(open_store(words[1]), f"tiny/{copy.name}/owner.json", "first")
    first.take(str, float)
    monkeypatch.setattr(Sync, "_pause", lambda sync, seconds: first._write(AT_WORK))
    capsys.readouterr()
    assert train(tmp_path / "b", "tiny", *words) == CONFIG
    err = capsys.readouterr().err
    assert "is at work on this run" in err
    assert err.count("\n") == 1
    assert list((tmp_path / "b" / "out" / "tiny").glob("[!.]*")) == []
