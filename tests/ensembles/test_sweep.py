"""`sweep`: chosen on clean validation images, reported once on test."""

from __future__ import annotations

import json
import os
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from tests.ensembles.pool import Pool


def said_by_image(pool: Pool, name: str, image: str) -> np.ndarray:
    """What is kept of a member's prediction for one image, with TTA."""
    (file,) = (pool.run(name) / "points").iterdir()
    with safe_open(file, "numpy") as opened:
        contents = [tuple(one) for one in json.loads(opened.metadata()["contents"])]
    splits = json.loads((pool.run(name) / "split.json").read_text())["splits"]
    content = {n: tuple(c) for split in splits.values() for n, c in zip(split["names"], split["content"], strict=True)}
    found: np.ndarray = load_file(file)["tta"][contents.index(content[image])]
    return found


def error_of(pool: Pool, members: str, images: list[str]) -> float:
    truth = pool.truth()
    distances = [
        np.hypot(*((np.mean([said_by_image(pool, m, image) for m in members], axis=0) - truth[image]) * 224).T)
        for image in images
    ]
    return float(np.mean(distances))


def test_the_best_on_val_is_reported_on_test(pool: Pool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "all.txt"
    assert pool.call("sweep", "abc", "--k", "2,3", "--out", str(out)) == 0
    val, test = pool.split("a", "val"), pool.split("a", "test")
    named = {"".join(one): error_of(pool, "".join(one), val) for size in (2, 3) for one in combinations("abc", size)}
    order = sorted(named, key=lambda one: named[one])
    head, *lines, best = out.read_text().splitlines()
    assert head.startswith("#")
    assert [line.split(" | ")[1].split() for line in lines] == [pool.ids(one) for one in order]
    assert [float(line.split()[0]) for line in lines] == pytest.approx([named[one] for one in order], abs=2e-3)
    assert best == f"BEST: {lines[0]}"
    told = pool.result()
    assert told["best"]["runs"] == pool.ids(order[0])
    assert told["mean"] == pytest.approx(error_of(pool, order[0], test), abs=2e-3)
    assert (told["chosen_on"]["images"], told["reported_on"]["images"]) == (13, 10)
    assert told["best_of_each_size"]["3"]["val_px_224"] == pytest.approx(named["abc"], abs=2e-3)
    pool_told = {one["run"]: one for one in told["pool"]}
    a = pool_told[pool.ids("a")[0]]
    assert a["val_px_224"] == pytest.approx(error_of(pool, "a", val), abs=2e-3)
    assert a["split_taken_on_trust"] is True  # members of the pool are imported
    assert a["worth_on_val_px_224"] == pytest.approx(named["bc"] - named["abc"], abs=2e-3)
    shown = capsys.readouterr().out
    assert shown.count("BEST") == 1
    assert f"the same again: python training/train_worker.py ensemble {' '.join(pool.ids(order[0]))}" in shown


def test_only_images_clean_for_the_whole_pool_count(pool: Pool) -> None:
    assert pool.call("sweep", "abd", "--k", "2") == 0
    told, learned = pool.result(), {*pool.split("d", "train")}
    assert told["chosen_on"]["images"] == len({*pool.split("a", "val")} - learned)
    assert told["reported_on"]["images"] == len({*pool.split("a", "test")} - learned - {*pool.split("d", "val")})


def test_the_pool_is_asked_about_val_and_only_the_best_about_test(pool: Pool) -> None:
    assert pool.call("sweep", "abc", "--k", "2") == 0
    best = pool.result()["best"]["runs"]
    for name in "abc":
        (file,) = (pool.run(name) / "points").iterdir()
        assert len(load_file(file)["plain"]) == (13 + 10 if pool.run(name).name in best else 13)


REFUSED = [
    ("abc", ("--k", "4"), 2, "expected 2 to 3"),
    ("abc", ("--k", "1"), 2, "expected 2 to 3"),
    ("abc", ("--k", "x"), 2, "expected whole numbers"),
    ("a", ("--k", "2"), 2, "two members or more"),
    ("ae", ("--k", "2"), 1, "no image of val is clean"),
    ("af", ("--k", "2"), 78, "see images in different ways"),
]


@pytest.mark.parametrize(("names", "words", "code", "why"), REFUSED)
def test_what_cannot_be_searched(
    names: str, words: tuple[str, ...], code: int, why: str, pool: Pool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pool.call("sweep", names, *words) == code
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert why in line
    assert not (pool.place / "out/ensembles").exists()


def test_weights_of_a_file_are_refused(pool: Pool, capsys: pytest.CaptureFixture[str]) -> None:
    file = pool.place / "x.json"
    file.write_text(json.dumps({"models": pool.ids("ab"), "weights": [1, 2]}))
    assert pool.call("sweep", "", "--config", str(file), "--k", "2") == 2
    assert "weigh their members alike" in capsys.readouterr().err


def test_looks_at_test_are_counted(pool: Pool, capsys: pytest.CaptureFixture[str]) -> None:
    assert pool.call("ensemble", "ab", "--split", "val") == 0
    assert "looks" not in pool.result()
    assert pool.call("ensemble", "ab") == 0
    assert pool.call("ensemble", "ac", "--split-seed", "4", "--allow-leaks") == 0
    assert pool.result()["looks"] == 1  # other images
    assert pool.call("sweep", "abc", "--k", "2") == 0
    assert pool.result()["looks"] == 2
    assert "look 2 at these test images" in capsys.readouterr().out


def test_the_name_is_the_files(pool: Pool) -> None:
    file = pool.place / "x.yaml"
    file.write_text(f"models: [{', '.join(pool.ids('ab'))}]\nname: mine\n")
    assert pool.call("sweep", "", "--config", str(file), "--k", "2") == 0
    assert pool.newest().name.startswith("mine_")


def test_a_stop_ends_the_search(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(predictions, truth, chosen, progress):
        os.kill(os.getpid(), 15)
        progress(1, 2)

    monkeypatch.setattr("training.ensembles.sweep.combination_errors", stopped)
    assert pool.call("sweep", "abc", "--k", "2") == 75


def test_json_is_all_that_is_printed(pool: Pool, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert pool.call("sweep", "abc", "--k", "2", "--json") == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert json.loads(said.out) == pool.result()
