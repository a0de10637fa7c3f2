"""Every kind of store does the same, and no failure shows what opens it."""

from __future__ import annotations

import base64
import hashlib
import shutil
import threading
from pathlib import Path

import pytest

from backend.errors import ConfigError
from training.shown import without_secrets
from training.sync.fsspec_store import _hashes
from training.sync.rclone_store import RcloneStore
from training.sync.stores import Store, StoreError, holds, open_store


def test_files_go_there_and_come_back(store: Store, tmp_path: Path) -> None:
    assert (store.folders("task"), store.files("task"), store.read("task/x")) == ([], {}, None)
    big = tmp_path / "big"
    big.write_bytes(bytes(range(256)) * 40_000)
    store.upload(big, "task/run/in/big")
    store.write("task/run/x", b"first")
    store.write("task/run/x", b"second")
    store.write("task/run/empty", b"")
    assert store.folders("task") == ["run"]
    assert {name: found.size for name, found in store.files("task/run").items()} == {
        "x": 6,
        "empty": 0,
        "in/big": big.stat().st_size,
    }
    assert (store.read("task/run/x"), store.read("task/run/empty")) == (b"second", b"")
    assert b"".join(store.chunks("task/run/in/big")) == big.read_bytes()
    store.download("task/run/in/big", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == big.read_bytes()


def test_removing_is_thorough_and_forgives(store: Store) -> None:
    for name in ("a/1", "a/b/2", "c"):
        store.write(f"task/{name}", b"x")
    store.remove_file("task/c")
    store.remove_folder("task/a/b")
    assert list(store.files("task")) == ["a/1"]
    store.remove_folder("task/a")
    store.remove_folder("task/a")
    store.remove_file("task/c")
    assert store.files("task") == {}


def test_what_is_gone_is_told_in_a_line(store: Store, tmp_path: Path) -> None:
    for action in (lambda: list(store.chunks("task/none")), lambda: store.download("task/none", tmp_path / "x")):
        with pytest.raises(StoreError) as caught:
            action()
        assert "task/none" in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(StoreError):
        store.upload(tmp_path / "no such file", "task/x")


def test_damage_of_the_same_size_is_seen(store: Store, tmp_path: Path) -> None:
    local = tmp_path / "local"
    local.write_bytes(b"as it was sent")
    digest = hashlib.sha256(local.read_bytes()).hexdigest()
    for content, same in ((b"as it was sent", True), (b"as it was SENT", False), (b"as it was", False)):
        store.write("x", content)
        stored = store.files("")["x"]
        assert holds(store, "x", stored, local, len(b"as it was sent"), digest) is same
        assert holds(store, "x", stored, local, len(b"as it was sent")) is same


def test_checksums_that_stores_keep_themselves() -> None:
    md5 = hashlib.md5(b"x")
    assert _hashes({"md5Hash": base64.b64encode(md5.digest()).decode()}) == {"md5": md5.hexdigest()}
    assert _hashes({"ETag": f'"{md5.hexdigest()}"'}) == {"md5": md5.hexdigest()}
    assert _hashes({"ETag": f'"{md5.hexdigest()}-3"'}) == {}  # sent in parts: a hash of hashes
    assert _hashes({}) == {}


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("/mnt/backup", "write file:///mnt/backup"),
        ("backup", "expected an rclone remote"),
        ("gs://me:secret@bucket/x?key=secret", "pip install s3fs, gcsfs"),
        ("nonsense://x", "nonsense"),
    ],
)
def test_addresses_that_cannot_work(address: str, words: str) -> None:
    with pytest.raises(ConfigError, match="--sync-to") as caught:
        open_store(address)
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)


def test_without_rclone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="the rclone command is not installed here"):
        open_store("there:runs")


def test_an_unknown_remote_is_no_matter_of_trying_again(rclone: Path) -> None:
    with pytest.raises(ConfigError, match="rclone knows no such remote"):
        open_store("unknown:runs").files("x")


def test_closing_ends_what_rclone_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "rclone"
    program.write_text("#!/bin/sh\necho begun\nexec sleep 600\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    store = RcloneStore("there:x")
    errors: list[str] = []

    def read() -> None:
        try:
            store.read("x")
        except StoreError as error:
            errors.append(str(error))

    reading = threading.Thread(target=read)
    reading.start()
    while not store._running:
        pass
    store.close()
    reading.join(60)
    assert not reading.is_alive()
    assert "rclone cat failed" in errors[0]
    with pytest.raises(StoreError, match="is closed"):
        store.read("x")


@pytest.mark.skipif(shutil.which("rclone") is None, reason="rclone is not installed")
def test_the_real_rclone(tmp_path: Path) -> None:
    store = open_store(f":local:{tmp_path}/runs")
    test_files_go_there_and_come_back(store, tmp_path)
    store.remove_folder("task")
    test_removing_is_thorough_and_forgives(store)
    test_what_is_gone_is_told_in_a_line(store, tmp_path)
    test_damage_of_the_same_size_is_seen(store, tmp_path)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ftp://me:pass@host/a", "ftp://host/a"),
        ("ftp://me:p@ss@host/a", "ftp://host/a"),
        ("https://host/a?sig=1&x=2 failed", "https://host/a failed"),
        ("--sync-to=s3://key:secret@b/c", "--sync-to=s3://b/c"),
        (":s3,access_key_id=A,secret_access_key=B:bucket/x", ":s3:bucket/x"),
        ('there,pass="a:b,c":path', "there:path"),
        ("training.epochs=3", "training.epochs=3"),
        ("data.size=[1,2]", "data.size=[1,2]"),
        ("file:///a@b/c", "file:///a@b/c"),
        ("there:a/b", "there:a/b"),
    ],
)
def test_addresses_are_shown_without_what_opens_them(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
