"""Stopping or destroying the instance: only after the copy was verified, and never silently without effect."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from backend.errors import BUDGET_SPENT, CONFIG, SOURCE_UNAVAILABLE, ConfigError
from tests.runs import register_tiny, run_of, train
from training.rented import on_finish
from training.rented.on_finish import API, Instance, InstanceError, instance_for
from training.sync import push
from training.sync.fsspec_store import FsspecStore
from training.sync.remote_run import RemoteRun
from training.sync.stores import StoreError, open_store

KEY = "key-that-nobody-may-see"
HERE = {"CONTAINER_ID": "4711", "CONTAINER_API_KEY": KEY}


class Api:
    """Vast.ai's API on this machine: answers as told, and notes what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any, str | None]] = []
        self.answers: list[tuple[int, Any]] = []  # those before it says yes
        self.looks: list[Any] = []
        self.look = lambda: None
        api = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                body = json.loads(content) if content else None
                api.asked.append((self.command, self.path, body, self.headers.get("Authorization")))
                api.looks.append(api.look())
                status, said = api.answers.pop(0) if api.answers else (200, {"success": True})
                text = json.dumps(said).encode()
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "http://127.0.0.1:9/elsewhere")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_PUT = do_DELETE = answer

            def log_message(self, *_: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    api = Api()
    thread = threading.Thread(target=api.server.serve_forever, daemon=True)
    thread.start()
    for name, value in {**HERE, "VAST_API_URL": api.url}.items():
        monkeypatch.setenv(name, value)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    register_tiny(monkeypatch)
    monkeypatch.setattr(push, "_LONGEST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(on_finish, "_TRIES", 1)
    yield api
    api.server.shutdown()
    api.server.server_close()
    thread.join()


def finishing(tmp_path: Path, action: str, *words: str) -> int:
    return train(tmp_path, "tiny", "--sync-to", f"file://{tmp_path}/remote", "--on-finish", action, *words)


@pytest.mark.parametrize(
    ("action", "request_"), [("stop", ("PUT", {"state": "stopped"})), ("destroy", ("DELETE", None))]
)
def test_it_acts_once_everything_is_verified_in_the_store(
    action: str, request_: tuple[str, Any], api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def differing() -> list[str]:
        run = run_of(tmp_path, "tiny")
        assert "state: finished" in (run / "metadata.yaml").read_text()
        return RemoteRun(open_store(f"file://{tmp_path}/remote"), "tiny", run.name).differing(run)

    api.look = differing  # type: ignore[assignment]
    assert finishing(tmp_path, action) == 0
    method, body = request_
    assert api.asked == [(method, "/api/v0/instances/4711/", body, f"Bearer {KEY}")]
    assert api.looks == [[]]
    told = capsys.readouterr()
    assert f"now the instance is to {action}" in told.out
    assert KEY not in told.out + told.err
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_of_several_seeds_the_last_one_ends_it(api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seeds = ("--seeds", "1,2", "--set", "training.max_steps=2")
    api.look = lambda: len(list((tmp_path / "out/tiny").glob("*_seed2/report.html")))  # type: ignore[assignment]
    assert finishing(tmp_path, "stop", *seeds) == 0
    assert api.looks == [1]
    assert capsys.readouterr().out.count("the instance is needed for what follows") == 1


def test_a_budget_spent_by_the_first_of_several_seeds_ends_it(api: Api, tmp_path: Path) -> None:
    assert finishing(tmp_path, "stop", "--seeds", "1,2", "--max-hours", "1e-9") == BUDGET_SPENT
    assert len(api.asked) == 1


def test_it_is_refused_before_the_first_of_several_seeds(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CONTAINER_ID")
    assert finishing(tmp_path, "stop", "--seeds", "1,2") == CONFIG
    assert not list(tmp_path.glob("out/tiny/*"))


def test_a_finished_run_is_seen_to_again(api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    api.answers = [(500, {})]
    assert finishing(tmp_path, "destroy") == SOURCE_UNAVAILABLE
    err = capsys.readouterr().err
    assert "GOES ON COSTING" in err
    assert "the API answers 500" in err
    assert KEY not in err
    assert err.count("\n") == 1
    assert finishing(tmp_path, "destroy") == 0  # the restart loop's next try
    assert [asked[0] for asked in api.asked] == ["DELETE", "DELETE"]


def test_what_was_damaged_in_the_store_goes_there_again_first(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    api.answers = [(500, {})]
    assert finishing(tmp_path, "destroy") == SOURCE_UNAVAILABLE
    run = run_of(tmp_path, "tiny")
    copy = tmp_path / "remote" / "tiny" / run.name
    weights = next(copy.glob("checkpoints/*/model.safetensors"))
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    (copy / "metrics.jsonl").write_bytes(b"damaged")
    assert finishing(tmp_path, "destroy") == 0
    assert "is not there as it is here; it goes there again" in capsys.readouterr().out
    assert weights.read_bytes() == whole
    assert (copy / "metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()


def test_it_never_acts_when_the_copy_is_not_whole(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(store: FsspecStore, *_: Any) -> None:
        raise StoreError(f"{store.shown}: full")

    monkeypatch.setattr(FsspecStore, "upload", refuse)
    assert finishing(tmp_path, "destroy") == SOURCE_UNAVAILABLE
    assert "is whole here, but not in" in capsys.readouterr().err
    assert api.asked == []


def test_it_never_acts_on_a_run_that_failed(api: Api, tmp_path: Path) -> None:
    assert finishing(tmp_path, "destroy", "--set", "selection.metric=val/none") == CONFIG
    assert api.asked == []


def test_a_spent_budget_ends_the_instance_too(api: Api, tmp_path: Path) -> None:
    for number in (1, 2):
        assert finishing(tmp_path, "stop", "--max-hours", "1e-9") == BUDGET_SPENT
        assert len(api.asked) == number
    run = run_of(tmp_path, "tiny")
    assert RemoteRun(open_store(f"file://{tmp_path}/remote"), "tiny", run.name).differing(run) == []


@pytest.mark.parametrize("missing", ["CONTAINER_ID", "CONTAINER_API_KEY", "--sync-to"])
def test_it_is_refused_at_the_start_where_it_cannot_work(
    missing: str, api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(missing, raising=False)
    if missing == "--sync-to":
        assert train(tmp_path, "tiny", "--on-finish", "stop") == CONFIG
    else:
        assert finishing(tmp_path, "stop") == CONFIG
    err = capsys.readouterr().err
    assert missing in err
    assert KEY not in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({**HERE, "CONTAINER_ID": "../users"}, "expected the instance's number"),
        ({**HERE, "VAST_API_URL": "http://example.com"}, "VAST_API_URL"),
        ({**HERE, "VAST_API_URL": "https://example.com"}, "VAST_API_URL"),
        ({**HERE, "VAST_API_URL": "http://127.0.0.1@example.com"}, "VAST_API_URL"),
    ],
)
def test_the_key_goes_to_no_other_place(environ: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        instance_for("stop", "file:///x", environ)
    assert KEY not in str(caught.value)


def test_the_real_api_is_the_default() -> None:
    instance = instance_for("stop", "file:///x", HERE)
    assert instance == Instance("4711", KEY, API)
    assert KEY not in repr(instance)
    assert instance_for("none", None, {}) is None


def test_passing_trouble_is_tried_again_and_a_refusal_is_not(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_finish, "_TRIES", 6)
    pauses: list[float] = []
    api.answers = [(503, {}), (429, {}), (200, {"success": False})]
    Instance("4711", KEY, api.url).end("stop", pauses.append)
    assert (len(api.asked), pauses) == (4, [1, 2, 4])
    for status in (401, 404, 302):
        api.answers, api.asked = [(status, {"msg": "no"})], []
        with pytest.raises(InstanceError, match=f"could not be destroyed .the API answers {status}"):
            Instance("4711", KEY, api.url).end("destroy", pauses.append)
        assert len(api.asked) == 1
    with pytest.raises(InstanceError, match="cannot be reached") as caught:
        Instance("4711", KEY, "http://127.0.0.1:9").end("destroy", pauses.append)
    assert KEY not in str(caught.value)
