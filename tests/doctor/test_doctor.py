"""The command from end to end, for every task, and the same checks before a training."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.data.conftest import START, write_event
from tests.runs import ALL_TASKS, SHORT, places, register_tiny, run_of, small_sample, train
from training.cli import main
from training.config.settle import settle
from training.doctor import checks, finding, trial, volumes
from training.doctor.estimate import estimate
from training.doctor.job import sizes_of
from training.doctor.run import job_of, preflight
from training.doctor.trial import Pace, Saving
from training.doctor.volumes import Mount
from training.requests import PrepareRequest
from training.tasks import task_class
from training.tasks.protocol import Glance, PrepareContext, Task

ROOT = Path(__file__).parent.parent.parent
NOT_ON_A_VOLUME = Mount(Path("/"), "overlay")


@pytest.fixture(autouse=True)
def every_task(monkeypatch: pytest.MonkeyPatch) -> None:
    register_tiny(monkeypatch)


def words(place: Path, task: str, *more: str) -> list[str]:
    sets = [word for text in SHORT[task] for word in ("--set", text)]
    return ["doctor", "--task", task, *places(place), "--data", "sample", *sets, *more]


def made(name: str) -> Task:
    request = PrepareRequest(task=name, data="sample", sets=tuple(SHORT[name]))
    return task_class(name)(settle(request, {})[0].config)


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, content: str) -> None:
        raise OSError(30, os.strerror(30), str(path))

    monkeypatch.setattr(volumes, "write_atomic", refuse)


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL_TASKS)
def test_json_tells_every_check_and_nothing_else(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(tmp_path, name, "--json", "--price-per-hour", "0.5")) == 0
    told = json.loads(capsys.readouterr().out)
    found = {check["name"]: check for check in told["checks"]}
    assert (told["format"], told["task"], told["exit_code"]) == (1, name, 0)
    assert told["state"] in ("note", "warning")  # warning: on a small machine
    assert {"GPU", "output", "datasets", "disk", "memory", "/dev/shm", "clock", "dataset"} <= set(found)
    assert found["trial step"]["facts"]["row_seconds"] > 0
    assert found["trial step"]["facts"]["share_of_row_timed"] == 1
    assert found["trial checkpoint"]["facts"]["bytes"] > 0
    assert list((tmp_path / "out").iterdir()) == []


def test_people_get_a_line_for_each_check_and_a_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(tmp_path, "tiny")) == 0
    out = capsys.readouterr().out
    assert "trial checkpoint" in out
    assert "train" in out.splitlines()[-1]
    assert max(map(len, out.splitlines())) <= 80


def test_a_failed_check_gives_its_exit_code_and_no_trial(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], read_only: None
) -> None:
    assert main(words(tmp_path, "tiny", "--json")) == 74
    told = json.loads(capsys.readouterr().out)
    found = {check["name"]: check for check in told["checks"]}
    assert (told["state"], told["exit_code"]) == ("failed", 74)
    assert found["output"]["state"] == "failed"
    assert found["trial"]["state"] == "note"
    assert "trial step" not in found


def test_bad_data_is_a_failed_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    for content in ([], ["note.txt"]):
        for file in content:
            (tmp_path / "data" / file).touch()
        argv = ["doctor", "--json", *places(tmp_path), "--data", str(tmp_path / "data")]
        assert main(argv) == 65
        checks_told = json.loads(capsys.readouterr().out)["checks"]
        assert [check["name"] for check in checks_told if check["state"] == "failed"] == ["dataset"]


def test_a_dataset_may_be_named_by_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (file,) = small_sample("detection").glob("*.yaml")
    assert main(words(tmp_path, "detection", "--json", "--data", str(file))) == 0
    told = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert told["dataset"]["state"] == "ok" and told["dataset"]["facts"]["items"]["train"] > 0


def test_settings_that_do_not_fit_the_data_are_failed_checks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_event(tmp_path / "data", "day", START, 2)
    size = ["--set", "data.downsample_size=[5000, 5000]"]
    assert main(["doctor", "--json", *places(tmp_path), "--data", str(tmp_path / "data"), *size]) == 78
    told = json.loads(capsys.readouterr().out)["checks"]
    assert [check["name"] for check in told if check["state"] == "failed"] == ["settings", "dataset"]


def test_wrong_settings_end_it_as_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(tmp_path, "tiny", "--set", "training.sed=1")) == 78
    said = capsys.readouterr()
    assert said.out == ""
    assert "did you mean training.seed?" in said.err


def test_cuda_without_a_gpu_is_a_failed_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(words(tmp_path, "tiny", "--json", "--set", "training.device=cuda")) == 78
    first = json.loads(capsys.readouterr().out)["checks"][0]
    assert (first["name"], first["state"]) == ("GPU", "failed")
    assert "training.device is cuda" in first["found"]


def test_the_first_failed_check_decides_the_exit_code() -> None:
    disk, data = finding.failed("a", "x", "y", code=74), finding.failed("b", "x", "y", code=65)
    assert finding.exit_code([finding.ok("o", ""), disk, data]) == 74
    assert finding.exit_code([data, disk]) == 65
    assert finding.exit_code([finding.warning("w", "", "")]) == 0
    assert finding.worst_state([finding.note("n", ""), finding.warning("w", "", "")]) == "warning"


# --- before a training ------------------------------------------------------------------------------------------------


def test_the_commands_own_lines_end_in_a_file_of_any_encoding(tmp_path: Path) -> None:
    command = [sys.executable, "training/train_worker.py", *words(tmp_path, "convlstm")]
    environ = {**os.environ, "PYTHONIOENCODING": "ascii", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environ)
    assert (done.returncode, done.stderr) == (0, "")
    assert "checks in" in done.stdout.splitlines()[-1]


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
    (line,) = said.err.strip().splitlines()
    return line


def test_a_read_only_output_ends_with_74_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], read_only: None
) -> None:
    assert train(tmp_path, "tiny") == 74
    assert "output folder" in (line := one_line(capsys))
    assert "Read-only file system" in line
    assert not (tmp_path / "out").exists()


def test_cuda_without_a_gpu_ends_with_78_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert train(tmp_path, "tiny", sets=("training.device=cuda",)) == 78
    assert "training.device is cuda" in one_line(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("allowed", "code"), [("", 78), ("1", 0)])
def test_in_the_image_an_output_that_is_no_volume_is_refused_unless_allowed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, allowed: str, code: int
) -> None:
    monkeypatch.setattr(volumes, "mount_of", lambda folder: NOT_ON_A_VOLUME)
    monkeypatch.setenv("TRAIN_WORKER_IMAGE", "1")
    monkeypatch.setenv("TRAIN_WORKER_UNMOUNTED_OK", allowed)
    assert train(tmp_path, "tiny", sets=("training.epochs=1",)) == code
    if code:
        assert f'-v "$PWD/out:{tmp_path / "out"}"' in one_line(capsys)
        assert not (tmp_path / "out").exists()


def test_outside_the_image_nothing_need_be_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volumes, "mount_of", lambda folder: NOT_ON_A_VOLUME)
    assert train(tmp_path, "tiny", sets=("training.epochs=1",)) == 0


def test_warnings_stand_in_the_runs_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.host, "newest_time", lambda output: 4e9)
    assert train(tmp_path, "tiny", sets=("training.epochs=1",)) == 0
    assert "warning: clock: " in (run_of(tmp_path, "tiny") / "train.log").read_text()


def test_a_finished_run_is_told_without_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert train(tmp_path, "tiny", sets=("training.epochs=1",)) == 0
    monkeypatch.setattr(volumes, "write_atomic", lambda path, content: pytest.fail("something was written"))
    assert train(tmp_path, "tiny", sets=("training.epochs=1",)) == 0


def test_preparation_is_checked_for_space(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task, request = made("tiny"), PrepareRequest(task="tiny", output=tmp_path, datasets=tmp_path)
    assert preflight(job_of(task, request, None, None, {}), training=False) == []


# --- the parts of the protocol that it needs --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL_TASKS)
def test_glance_and_trial_item_tell_beforehand_what_preparation_makes(name: str, tmp_path: Path) -> None:
    task, data, cache = made(name), small_sample(name), tmp_path / "cache"
    before = task.glance(data, cache)
    context = PrepareContext(data, cache, 1, lambda line: None, lambda *_: None, lambda: None)
    prepared = task.prepare(context)
    after = task.glance(data, cache)
    assert before.items is not None
    sizes = sizes_of(task, prepared.facts, torch.float32, "cpu")
    for facts in (before.facts, after.facts):
        assert sizes_of(task, facts, torch.float32, "cpu") == sizes
    without_files = sizes_of(task, task.glance(None, cache).facts, torch.float32, "cpu")
    assert without_files.weights == pytest.approx(sizes.weights, rel=0.05)  # how many classes there are is not known
    assert before.cache_bytes == sum(path.stat().st_size for path in cache.glob("*/blocks.bin"))
    assert after.cache_bytes == 0
    if after.exact:
        assert after.items == {split: len(items) for split, items in prepared.splits.items()}
    real, tried = prepared.splits["train"].item(0, None), task.trial_item(before.facts, np.random.default_rng(0))
    assert set(real) == set(tried)
    for key, value in real.items():
        assert isinstance(tried[key], type(value))
        if isinstance(value, torch.Tensor):
            assert (tried[key].shape, tried[key].dtype) == (value.shape, value.dtype)


@pytest.mark.parametrize("name", ALL_TASKS)
def test_a_checkpoint_has_the_size_that_was_foretold(name: str, tmp_path: Path) -> None:
    task = made(name)
    facts = task.glance(None, tmp_path).facts
    bench = trial.Bench(task, facts, torch.device("cpu"), 2)
    bench.step()
    tensors = trial.model_tensors(bench.model, bench.ema, bench.optimizer)
    real = sum(tensor.nbytes for named in tensors.values() for tensor in named.values())
    assert sizes_of(task, facts, torch.float32, "cpu").checkpoint == pytest.approx(real, rel=0.1)


@pytest.mark.parametrize("share", [0.5, 0.05])
def test_a_smaller_job_has_about_the_share_of_the_arithmetic(share: float, tmp_path: Path) -> None:
    request = PrepareRequest(task="convlstm", data="sample", config="default", sets=("model.hidden_dims=[8]",))
    task = task_class("convlstm")(settle(request, {})[0].config)
    facts = task.glance(None, tmp_path).facts
    small, small_facts = task.smaller(facts, share)
    assert trial._flops(small, small_facts) / trial._flops(task, facts) == pytest.approx(share, rel=0.15)
    assert trial.Bench(small, small_facts, torch.device("cpu"), 1).step() > 0


def test_what_a_cpu_cannot_afford_is_scaled_and_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_STEP_SECONDS", 0.0)
    monkeypatch.setattr(trial, "_CALIBRATION_FLOPS", 1e5)
    request = PrepareRequest(task="convlstm", data="sample", config="sample", output=tmp_path, datasets=tmp_path)
    task = task_class("convlstm")(settle(request, {})[0].config)
    job = job_of(task, request, None, None, {})
    pace, bench = trial.try_steps(job, lambda: None)
    assert bench is None
    assert 0 < pace.share < 1
    assert pace.batch_rows == 4
    saved = trial.try_saving(job, bench)
    assert saved.size > job.sizes.checkpoint
    assert "scaled from" in checks._pace(job, pace).found


def test_the_end_is_extrapolated_from_steps_validations_and_checkpoints() -> None:
    task: Any = made("tiny")  # 4 epochs over 2 phases, batches of 8 pairs of 2 rows
    pace = Pace(rows=16, batch_rows=16, row_seconds=1.0, share=1.0, finite=True)
    items = {"train": 80, "val": 24, "test": 24}
    found = estimate(task, Glance({}, "", items, exact=True), pace, Saving(1, 3.0, 1.0), 0.5)
    assert found is not None
    steps = 4 * 10
    seconds = steps * 16 + (4 * 24 + 48) * 2 / 3
    assert found.steps == steps
    assert found.seconds == pytest.approx(seconds + (seconds / 600 + 4) * 3.0)
    assert found.money == pytest.approx(found.seconds / 3600 * 0.5)
    assert "extrapolated" in str(found)
    assert "estimated" not in str(found)
    assert "estimated" in str(estimate(task, Glance({}, "", items), pace, None, None))
    assert estimate(task, Glance({}, ""), pace, None, None) is None


# --- a dataset that is still to be fetched ----------------------------------------------------------------------------


def doctor_of_manifest(place: Path, capsys: pytest.CaptureFixture[str], content: str) -> dict[str, Any]:
    """What doctor finds, by name; with a manifest of ``content``."""
    (place / "far.yaml").write_text(f"sources: [{{https: 'https://example.com/far.tar'}}]\n{content}", "utf-8")
    settings = ["data.manifest=" + str(place / "far.yaml"), *SHORT["convlstm"]]
    sets = [word for text in settings for word in ("--set", text)]
    main(["doctor", "--task", "convlstm", *places(place), *sets, "--json"])
    return {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}


def test_the_disk_is_checked_with_what_is_still_to_be_fetched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = doctor_of_manifest(tmp_path, capsys, "size: 1000\nunpacked_size: 5000")
    assert found["disk"]["facts"]["needs"]["download and unpacking"] == 6000
    assert "download" not in found
    begun = tmp_path / "datasets" / ".downloads" / "far" / "https-1" / "part"
    begun.parent.mkdir(parents=True)
    begun.write_bytes(bytes(400))
    found = doctor_of_manifest(tmp_path, capsys, "size: 1000\nunpacked_size: 5000")
    assert found["disk"]["facts"]["needs"]["download and unpacking"] == 5600
    found = doctor_of_manifest(tmp_path, capsys, f"size: {1 << 60}")
    assert found["disk"]["state"] == "failed"


def test_a_dataset_of_unknown_size_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "unpacked_size" in doctor_of_manifest(tmp_path, capsys, "")["download"]["todo"]
