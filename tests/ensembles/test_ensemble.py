"""`ensemble`: what is averaged, what is told of it, and that nothing a member has learned from counts."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.ensembles.conftest import MEMBERS, make_member
from tests.ensembles.pool import Pool
from training.cli import main
from training.data.landmarks.prepare import PREPARATION_VERSION
from training.engine.answers import ModelAnswers
from training.ensembles import answers
from training.tasks.landmarks import LandmarkTask


def said(pool: Pool, name: str, kind: str = "tta") -> np.ndarray:
    """What is kept of a member's predictions, in the order of a's test split."""
    (file,) = (pool.run(name) / "points").iterdir()
    return load_file(file)[kind]


def errors_at_224(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return np.hypot(*((prediction - truth) * 224).transpose(2, 0, 1))


def test_the_numbers_are_those_of_the_mean(pool: Pool, capsys: pytest.CaptureFixture[str]) -> None:
    assert pool.call("ensemble", "ab") == 0
    truth = np.stack([pool.truth()[name] for name in pool.split("a", "test")])
    expected = errors_at_224((said(pool, "a") + said(pool, "b")) / 2, truth)
    told = pool.result()
    assert told["images"]["clean"] == told["images"]["n"] == len(truth) == 10
    assert told["mean"] == pytest.approx(expected.mean(), abs=2e-3)
    assert told["median"] == told["percentiles"]["p50"] == pytest.approx(np.median(expected), abs=2e-3)
    assert told["std"] == pytest.approx(expected.std(), abs=2e-3)
    assert told["per_landmark"]["L3"]["mean"] == pytest.approx(expected[:, 2].mean(), abs=2e-3)
    plain = told["clean"]["members"][1]["plain"]["px_224"]["mean"]
    assert plain == pytest.approx(errors_at_224(said(pool, "b", "plain"), truth).mean(), abs=2e-3)
    native = np.hypot(*(((said(pool, "a") + said(pool, "b")) / 2 - truth) * (60, 50)).transpose(2, 0, 1))
    assert told["clean"]["ensemble"]["tta"]["px_native"]["mean"] == pytest.approx(native.mean(), abs=2e-3)
    assert "not_independent" not in told
    out = capsys.readouterr().out
    assert f"no member saw any of the 10 images of test of {pool.run('a').name} in training or in selection" in out
    (line,) = [line.split() for line in out.splitlines() if line.startswith("together ")]
    assert float(line[3]) == pytest.approx(told["mean"], abs=0.01)
    assert told["splits_taken_on_trust"] == pool.ids("ab")
    assert f"the split of {', '.join(pool.ids('ab'))} is what was said with --split-known" in out


def test_a_row_for_each_image(pool: Pool) -> None:
    assert pool.call("ensemble", "ad") == 0
    rows, seen = pool.rows(), {*pool.split("d", "train"), *pool.split("d", "val")}
    assert [row["image"] for row in rows] == pool.split("a", "test")
    assert [row["contaminated"] for row in rows] == ["yes" if row["image"] in seen else "no" for row in rows]
    truth, together = pool.truth(), (said(pool, "a") + said(pool, "d")) / 2
    for row, prediction, alone in zip(rows, together, said(pool, "d"), strict=True):
        assert row["class"] == row["image"].rpartition("-")[0].replace(" ", "_")
        true = truth[row["image"]]
        expected = errors_at_224(prediction[None], true[None]).mean()
        assert float(row["error_px_224"]) == pytest.approx(expected, abs=2e-3)
        alone_error = errors_at_224(alone[None], true[None]).mean()
        assert float(row[f"{pool.run('d').name}_px_224"]) == pytest.approx(alone_error, abs=2e-3)
        assert float(row["L2_y"]) == pytest.approx(prediction[1, 1] * 50, abs=2e-3)
    clean = [float(row["error_px_224"]) for row in rows if row["contaminated"] == "no"]
    assert pool.result()["mean"] == pytest.approx(np.mean(clean), abs=1e-3)


def test_contamination_is_counted_and_the_clean_rest_is_the_headline(
    pool: Pool, capsys: pytest.CaptureFixture[str]
) -> None:
    test = pool.split("a", "test")
    tainted = {*test} & {*pool.split("d", "train"), *pool.split("d", "val")}
    assert 0 < len(tainted) < len(test)
    assert pool.call("ensemble", "ad") == 0
    told = pool.result()
    assert (told["images"]["contaminated"], told["images"]["clean"]) == (len(tainted), len(test) - len(tainted))
    assert [one["tainted"] for one in told["audit"]] == [0, len(tainted)]
    assert told["clean"]["images"] == len(test) - len(tainted)
    assert told["mean"] == told["clean"]["ensemble"]["tta"]["px_224"]["mean"]
    assert told["not_independent"]["images"] == len(test)
    out = capsys.readouterr().out
    assert f"{len(tainted)} of the {len(test)} images of test of {pool.run('a').name} are CONTAMINATED" in out
    kinds = f"the same item {len(tainted)}, identical content {len(tainted)}"
    assert f"  {len(tainted)} of {len(test)}  {pool.run('d').name} ({kinds})\n" in out
    assert f"  0 of {len(test)}  {pool.run('a').name}\n" in out
    assert f"warning: {len(test) - len(tainted)} image" in out
    marked = out[out.index("NOT INDEPENDENT (*)") :]
    numbers = [
        line.split()[1:] for line in marked.splitlines() if line.startswith(("together ", "a ", "d ", "mean shape "))
    ]
    assert len(numbers) == 4
    assert all(word.endswith("*") for line in numbers for word in line if word != "shape")


@pytest.mark.parametrize("split", ["train", "all"])
def test_training_images_are_never_clean(pool: Pool, split: str) -> None:
    learned = len(pool.split("a", "train")) + (len(pool.split("a", "val")) if split == "all" else 0)
    assert pool.call("ensemble", "ab", "--split", split) == (1 if split == "train" else 0)
    if split == "all":
        assert (pool.result()["images"]["contaminated"], pool.result()["images"]["clean"]) == (learned, 10)


def test_val_was_looked_at_and_is_told_so(pool: Pool, capsys: pytest.CaptureFixture[str]) -> None:
    assert pool.call("ensemble", "ab", "--split", "val") == 0
    out = capsys.readouterr().out
    assert "no member trained on any of the 13 images of val" in out
    assert "checkpoints were chosen by val" in out
    assert pool.call("ensemble", "ad", "--split", "val") == 0
    tainted = {*pool.split("a", "val")} & {*pool.split("d", "train")}
    assert pool.result()["images"]["contaminated"] == len(tainted)


def test_none_clean_is_refused_and_marked_where_it_is_told_to_go_on(
    pool: Pool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pool.call("ensemble", "ab", "--split", "train") == 1
    said = capsys.readouterr()
    (line,) = said.err.strip().splitlines()
    assert line.startswith("error: no image is known to be clean")
    assert "mean error" not in said.out
    assert not (pool.place / "out/ensembles").exists()
    assert pool.call("ensemble", "ab", "--split", "train", "--allow-leaks") == 0
    told = pool.result()
    assert "mean" not in told
    assert "clean" not in told
    assert told["not_independent"]["images"] == told["images"]["contaminated"] == len(pool.split("a", "train"))
    assert "NOT INDEPENDENT (*)" in capsys.readouterr().out


def test_a_member_of_which_nothing_is_known(pool: Pool, capsys: pytest.CaptureFixture[str]) -> None:
    assert pool.call("ensemble", "ae") == 1
    said = capsys.readouterr()
    assert f"nobody knows what {pool.run('e').name} learned from" in said.out
    assert "--split-known" in said.err
    assert pool.call("ensemble", "ae", "--allow-leaks") == 0
    assert {row["contaminated"] for row in pool.rows()} == {"unknown"}


def test_weights_count(pool: Pool, capsys: pytest.CaptureFixture[str]) -> None:
    assert pool.call("ensemble", "ab", "--weights", "3,1") == 0
    truth = np.stack([pool.truth()[name] for name in pool.split("a", "test")])
    expected = errors_at_224(0.75 * said(pool, "a") + 0.25 * said(pool, "b"), truth).mean()
    assert pool.result()["mean"] == pytest.approx(expected, abs=2e-3)
    assert "a (weight 3)" in capsys.readouterr().out
    assert pool.call("ensemble", "ab", "--weights", "1,0") == 0
    assert pool.result()["clean"]["worth_px_224"]["tta"][0] is None


def test_a_member_that_alone_counts_has_the_numbers_of_evaluate(pool: Pool) -> None:
    assert pool.call("ensemble", "ab", "--weights", "1,0") == 0
    assert pool.call("evaluate", "a", "--split", "test") == 0
    metrics = json.loads((pool.run("a") / "evaluations/test/metrics.json").read_text("utf-8"))["metrics"]
    told = pool.result()["clean"]["ensemble"]
    for way, prefix in (("plain", ""), ("tta", "tta_")):
        for scale in ("224", "native"):
            found = told[way][f"px_{scale}"]
            names = {"mean": "error", "std": "std", "median": "median", "p95": "p95"}
            ours = {name: metrics[f"test/{prefix}{theirs}_px_{scale}"] for name, theirs in names.items()}
            assert {name: found[name] for name in names} == pytest.approx(ours, abs=1e-4)


def test_without_tta(pool: Pool) -> None:
    assert pool.call("ensemble", "ab", "--no-tta") == 0
    truth = np.stack([pool.truth()[name] for name in pool.split("a", "test")])
    together = (said(pool, "a", "plain") + said(pool, "b", "plain")) / 2
    told = pool.result()
    assert told["mean"] == pytest.approx(errors_at_224(together, truth).mean(), abs=2e-3)
    assert not told["ensemble_info"]["tta_enabled"]
    assert "tta" not in told["clean"]["ensemble"]


def test_members_are_asked_once(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    answer = ModelAnswers.to

    def count(self, batch, rows):
        asked.append(rows)
        return answer(self, batch, rows)

    monkeypatch.setattr(ModelAnswers, "to", count)
    assert pool.call("ensemble", "ab") == 0
    assert sum(asked) == 20
    first, asked[:] = pool.result(), []
    assert pool.call("ensemble", "ba") == 0
    assert asked == []
    assert pool.result()["mean"] == first["mean"]
    assert pool.call("ensemble", "ab", "--split", "val") == 0
    assert sum(asked) == 26  # val alone: test is known
    mine, other = (next((pool.run(name) / "points").iterdir()) for name in "ab")
    content, asked[:] = bytearray(mine.read_bytes()), []
    content[-3] ^= 1
    mine.write_bytes(content)
    assert pool.call("ensemble", "ab") == 0
    assert sum(asked) == 10  # a damaged file is worth nothing
    shutil.copy(mine, other)
    assert pool.call("ensemble", "ab") == 0
    assert sum(asked) == 20  # nor is another model's
    assert pool.result()["mean"] == first["mean"]
    monkeypatch.setattr(answers, "FORMAT", f"{answers.FORMAT} or later")
    asked.clear()
    assert pool.call("ensemble", "ab") == 0
    assert sum(asked) == 20  # nor what was said to images that were prepared in another way


def test_how_images_are_prepared_is_part_of_what_is_kept() -> None:
    assert str(PREPARATION_VERSION) in answers.FORMAT.split()


def test_a_stop_keeps_what_was_said(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[int] = []
    outputs = LandmarkTask.outputs

    def stop_in_the_second(self, model, batch):
        asked.append(len(batch["image"]))
        if len(asked) == 2:
            os.kill(os.getpid(), 15)
        return outputs(self, model, batch)

    monkeypatch.setattr(LandmarkTask, "outputs", stop_in_the_second)
    words = ("--split", "train", "--allow-leaks")
    assert pool.call("ensemble", "ab", *words) == 75
    assert "run the same command to continue" in capsys.readouterr().err
    assert not (pool.place / "out/ensembles").exists()
    before = sum(asked)
    asked[:] = [0, 0]
    assert pool.call("ensemble", "ab", *words) == 0
    assert 0 < before < sum(asked)
    assert before + sum(asked) == 2 * len(pool.split("a", "train"))


def test_json_is_all_that_is_printed(pool: Pool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert pool.call("ensemble", "ad", "--json", "--out", str(tmp_path / "new/it.json"), "--name", "a/b c") == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert json.loads(said.out) == pool.result() == json.loads((tmp_path / "new/it.json").read_text())
    assert pool.newest().name.startswith("a_b_c_2")


def test_from_a_file(pool: Pool, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = pool.ids("ab")
    content = {"name": "best 3.61", "models": [a, f"out/landmarks/{b}/best_model.pth"], "tta": True, "clahe": True}
    file = pool.place / "best.json"
    file.write_text(json.dumps(content))
    assert pool.call("ensemble", "", "--config", str(file)) == 0
    told = pool.result()
    assert (told["name"], told["ensemble_info"]["runs"]) == ("best 3.61", [a, b])
    assert pool.call("ensemble", "", "--config", str(file), "--clahe-tile", "8") == 78
    file.write_text(json.dumps({**content, "clahe_tile": 8}))
    assert pool.call("ensemble", "", "--config", str(file), "--clahe") == 78  # what the file claims is checked still
    assert "clahe_tile is said to be 8, but the members were trained with 4" in capsys.readouterr().err


BAD_FILES = {
    '{"model": ["a", "b"]}': "did you mean models?",
    '{"models": "a"}': "expected a list of runs",
    '{"models": ["a", "b"], "tta": 1}': "expected true or false",
    '{"models": ["a", "b"], "weights": [1, true]}': "expected a list of numbers",
    '{"models": ["a", "b"], "members": ["a", "b"]}': "two words for one list",
    "[1]": "expected models",
}


@pytest.mark.parametrize(("content", "words"), BAD_FILES.items())
def test_a_file_that_is_none(
    content: str, words: str, pool: Pool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.json").write_text(content)
    assert pool.call("ensemble", "", "--config", str(tmp_path / "x.json")) == 78
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "x.json" in line
    assert words in line


REFUSED = {
    "a": ((), 2, "two members or more, not 1"),
    "ab": (("--weights", "1"), 2, "1 weights for 2 members"),
    "ba": (("--weights", "1,nan"), 2, "expected 0 or more"),
    "cb": (("--weights", "1,x"), 2, "expected numbers"),
    "aa": ((), 2, "are the same model"),
    "af": ((), 78, "clahe False, not True"),
    "ag": ((), 65, "finds other points (4: left, right, nose"),
    "ac": (("--no-clahe",), 78, "clahe is said to be False"),
    "bc": (("--config", "x.json"), 2, "name no runs beside it"),
    "ca": (("--out", "."), 2, "is a folder"),
    "ad": (("--split-seed", "4294967296"), 2, "less than 4294967296"),
}


@pytest.mark.parametrize(("names", "refusal"), REFUSED.items())
def test_what_cannot_be_averaged(
    names: str, refusal: tuple[tuple[str, ...], int, str], pool: Pool, capsys: pytest.CaptureFixture[str]
) -> None:
    words, code, why = refusal
    assert pool.call("ensemble", names, *words) == code
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert why in line


def test_points_without_mirror_pairs_have_no_tta(pool: Pool, capsys: pytest.CaptureFixture[str]) -> None:
    make_member(pool.place, "h", 99, MEMBERS["g"])
    assert pool.call("ensemble", "gh", "--tta") == 2
    assert "mirror pairs are not known" in capsys.readouterr().err
    assert pool.call("ensemble", "gh") == 0
    assert pool.result()["way"] == "plain"


def test_two_checkpoints_of_one_run_are_two_models(pool: Pool) -> None:
    one = pool.run("a")
    shutil.copytree(pool.run("b") / "checkpoints/step-00000000", one / "checkpoints/step-00000005")
    both = [str(one / "checkpoints" / step) for step in ("step-00000000", "step-00000005")]
    assert pool.call("ensemble", "", *both) == 0
    assert pool.result()["ensemble_info"]["runs"] == [f"{one.name}/step-00000000", f"{one.name}/step-00000005"]
    assert len(list((one / "points").iterdir())) == 2


def test_an_image_under_two_names_is_caught(pool: Pool) -> None:
    """b is said to have learned from a test image by another name: content tells."""
    path = pool.run("b") / "split.json"
    told = json.loads(path.read_text())["splits"]
    image = told["test"]["content"][0]
    told["train"]["names"][0], told["train"]["content"][0] = "another name", image
    path.write_text(json.dumps({**json.loads(path.read_text()), "splits": told}))
    assert pool.call("ensemble", "ab") == 0
    assert [row["contaminated"] for row in pool.rows()] == ["yes", *["no"] * 9]


def test_data_that_are_gone_and_data_that_are_named(pool: Pool, capsys: pytest.CaptureFixture[str]) -> None:
    moved = pool.place / "elsewhere"
    (pool.place / "lungs").rename(moved)
    assert pool.call("ensemble", "ab") == 65
    assert "is not at" in capsys.readouterr().err
    assert pool.call("ensemble", "ab", "--data", str(moved)) == 0
    assert pool.call("ensemble", "ab", "--data", str(pool.place / "faces")) == 78


def test_another_split_may_be_evaluated(pool: Pool) -> None:
    assert pool.call("ensemble", "ab", "--split-seed", "4") == 0
    told = pool.result()
    assert told["images"]["of"] == "test of split seed 4"
    learned = {*pool.split("a", "train"), *pool.split("a", "val")}
    assert told["images"]["contaminated"] == len({*pool.split("d", "test")} & learned) > 0


def test_where_nothing_can_be_kept_the_numbers_are_told_all_the_same(
    pool: Pool, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        (pool.run(name) / "points").write_text("no folder")
    (pool.place / "out/ensembles").write_text("no folder")
    assert pool.call("ensemble", "ab") == 0
    said = capsys.readouterr()
    assert "together" in said.out
    assert "nothing is kept" in said.err
    assert "it is computed again next time" in said.out


def test_points_that_are_not_finite_are_not_averaged(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = LandmarkTask.outputs
    monkeypatch.setattr(
        LandmarkTask, "outputs", lambda *words: {name: points / 0 for name, points in outputs(*words).items()}
    )
    assert pool.call("ensemble", "ab") == 65
    assert f"{pool.run('a').name}: its points are not finite" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_told(pool: Pool, capsys: pytest.CaptureFixture[str]) -> None:
    (weights,) = pool.run("b").glob("checkpoints/step-*/model.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert pool.call("ensemble", "ab") == 65
    assert "its content is not what was written" in capsys.readouterr().err


def test_results_are_no_runs(pool: Pool, capsys: pytest.CaptureFixture[str]) -> None:
    assert pool.call("ensemble", "ab", "--name", "20200101_000000_x") == 0
    out = pool.place / "out"
    (out / "logs").mkdir()
    (out / "logs/20200101_000000_train.log").touch()
    capsys.readouterr()
    assert main(["runs", "list", "--output", str(out)]) == 0
    assert main(["runs", "rebuild", "--output", str(out)]) == 0
    said = capsys.readouterr().out
    assert "20200101" not in said
    assert "7 runs" in said
