"""The command line: what reaches the pipeline, and the exit code and the line that every failure has."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

import training
import training.commands
import training.reporting
from backend import errors
from training.cli import app, main
from training.requests import DoctorRequest, EvaluateRequest, PredictRequest, PrepareRequest, TrainRequest
from training.tasks import TASKS, Places

ROOT = Path(__file__).parent.parent
WORKER = ROOT / "training" / "train_worker.py"


class Made(str):
    """What the recorder's functions return."""


class Recorder(types.ModuleType):
    """Stands where the pipeline stands: notes each call, or fails as told."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.error: BaseException | None = None

    def __getattr__(self, name: str) -> Callable[..., Made]:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args: Any) -> Made:
            self.calls.append((name, args))
            if self.error:
                raise self.error
            return Made("made")

        return call


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder("training.commands.train")
    for package, name in [
        (training.commands, "train"),
        (training.commands, "dataset"),
        (training.commands, "predict"),
        (training.commands, "evaluate"),
        (training.reporting, "anew"),
    ]:
        monkeypatch.setitem(sys.modules, f"{package.__name__}.{name}", recorder)
        monkeypatch.setattr(package, name, recorder, raising=False)
    monkeypatch.delenv("TASK", raising=False)
    return recorder


def run(command: str) -> int:
    return main(command.split())


def request_of(pipeline: Recorder) -> Any:
    assert len(pipeline.calls) == 1
    return pipeline.calls[0][1][0]


def test_train_carries_every_flag(pipeline: Recorder) -> None:
    command = (
        "train --task landmarks --data d --drive-id i --config c --set a.b=1 --config-override c=[2] "
        "--run-name n --seed 7 --output o --datasets s --resume never"
    )
    assert run(command) == errors.DONE
    assert pipeline.calls[0][0] == "train"
    assert request_of(pipeline) == TrainRequest(
        task="landmarks",
        data="d",
        drive_id="i",
        config="c",
        sets=("a.b=1", "c=[2]"),
        run_name="n",
        seed=7,
        output=Path("o"),
        datasets=Path("s"),
        resume="never",
    )
    assert request_of(pipeline).argv == tuple(command.split())


def test_the_output_folder_comes_by_flag_else_environment(pipeline: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAIN_WORKER_OUTPUT_DIR", "there")
    for argv, output in ([], "there"), (["--output", "here"], "here"):
        for command in ("train", "fetch", "prepare", "evaluate r", "predict r i --out o"):
            assert main([*command.split(), *argv]) == errors.DONE
            assert pipeline.calls[-1][1][0].output == Path(output), command
    monkeypatch.setenv("TRAIN_WORKER_OUTPUT_DIR", "")
    assert main([]) == errors.DONE
    assert pipeline.calls[-1][1][0].output == Path("model_output")


def test_every_command_with_an_output_folder_takes_it_from_the_environment() -> None:
    found: list[Any] = [typer.main.get_command(app)]
    options = []
    while found:
        command = found.pop()
        found += list(getattr(command, "commands", {}).values())
        options += [parameter for parameter in command.params if "--output" in parameter.opts]
    assert len(options) > 6
    assert {option.envvar for option in options} == {"TRAIN_WORKER_OUTPUT_DIR"}


@pytest.mark.parametrize("argv", [[], ["--seed", "3"], ["train"]])
def test_no_command_means_train(pipeline: Recorder, argv: list[str]) -> None:
    assert main(argv) == errors.DONE
    assert pipeline.calls[0][0] == "train"
    request = request_of(pipeline)
    assert (request.task, request.output, request.datasets, request.resume) == (
        "convlstm",
        Path("model_output"),
        Path("datasets"),
        "auto",
    )


def test_the_task_comes_by_flag_else_environment_else_config_file(
    pipeline: Recorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("task: video\n")
    for argv, environ, task in [
        (["--config", str(config)], None, "video"),
        (["--config", str(config)], "particles", "particles"),
        (["--config", str(config), "--task", "landmarks"], "particles", "landmarks"),
    ]:
        monkeypatch.setenv("TASK", environ) if environ else monkeypatch.delenv("TASK", raising=False)
        pipeline.calls.clear()
        assert main(argv) == errors.DONE
        assert request_of(pipeline).task == task


def test_the_other_commands_reach_their_functions(pipeline: Recorder, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fetch --drive-id i --set a=1 --datasets s") == 0
    assert run("prepare --data sample --set a=1 --seed 2") == 0
    assert run("prepare --prune") == 0
    assert run("predict 2026 a b --out r") == 0
    assert run("report 2026 --output o") == 0
    assert run("report --all") == 0
    assert pipeline.calls == [
        ("fetch", (PrepareRequest(task="convlstm", drive_id="i", sets=("a=1",), datasets=Path("s")),)),
        ("prepare", (PrepareRequest(task="convlstm", data="sample", sets=("a=1",), seed=2),)),
        ("prepare", (PrepareRequest(task="convlstm", prune=True),)),
        ("predict", (PredictRequest(run="2026", inputs=(Path("a"), Path("b")), out=Path("r")),)),
        ("write_anew", (Path("o"), "2026", False)),
        ("write_anew", (Path("model_output"), None, True)),
    ]
    assert capsys.readouterr().out.split() == list("made") * 2  # each path that it yields, on a line


def test_doctor_carries_every_flag_and_returns_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder("training.doctor.run")
    monkeypatch.setitem(sys.modules, "training.doctor.run", recorder)
    recorder.doctor = lambda request: recorder.calls.append(("doctor", (request,))) or 74  # type: ignore[attr-defined]
    assert run("doctor --task t --data d --config c --set a=1 --seed 3 --output o --datasets s") == 74
    assert run("doctor --price-per-hour 0.4 --json") == 74
    assert run("doctor --price-per-hour -1") == errors.USAGE
    assert [request for _, (request,) in recorder.calls] == [
        DoctorRequest(task="t", data="d", config="c", sets=("a=1",), seed=3, output=Path("o"), datasets=Path("s")),
        DoctorRequest(task="convlstm", price_per_hour=0.4, as_json=True),
    ]


def test_evaluate_carries_every_flag_and_returns_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder("training.commands.evaluate")
    monkeypatch.setitem(sys.modules, "training.commands.evaluate", recorder)
    recorder.evaluate = lambda request: recorder.calls.append(("evaluate", (request,))) or 1  # type: ignore[attr-defined]
    assert run("evaluate r") == 1
    assert run("evaluate 2026 r --split test --data d --keep-predictions --check-goals --json --output o") == 1
    assert run("evaluate r --verify-config --strict --config c --set a=1") == 1
    assert run("evaluate --all --task t") == 1
    assert run("evaluate --predictions p") == 1
    assert [request for _, (request,) in recorder.calls] == [
        EvaluateRequest(runs=("r",), split="val"),
        EvaluateRequest(
            runs=("2026", "r"),
            split="test",
            data="d",
            keep_predictions=True,
            check_goals=True,
            as_json=True,
            output=Path("o"),
        ),
        EvaluateRequest(runs=("r",), verify_config=True, strict=True, config="c", sets=("a=1",)),
        EvaluateRequest(all_of="t"),
        EvaluateRequest(predictions=Path("p")),
    ]


WORKER_ERRORS = [
    (errors.UsageError, 2),
    (errors.BadDataError, 65),
    (errors.SourceUnavailableError, 69),
    (errors.DiskError, 74),
    (errors.InterruptedRunError, 75),
    (errors.DivergedError, 76),
    (errors.ConfigError, 78),
]


@pytest.mark.parametrize(("kind", "code"), WORKER_ERRORS)
def test_a_known_failure_is_one_line_and_its_code(
    pipeline: Recorder, capsys: pytest.CaptureFixture[str], kind: type[errors.WorkerError], code: int
) -> None:
    pipeline.error = kind("file x: found y, expected z")
    assert main([]) == code
    word = "" if kind is errors.InterruptedRunError else "error: "  # to be stopped is no error
    assert capsys.readouterr().err == f"{word}file x: found y, expected z\n"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO, errno.EDQUOT])
def test_a_disk_failure_is_one_line(pipeline: Recorder, capsys: pytest.CaptureFixture[str], number: int) -> None:
    pipeline.error = OSError(number, os.strerror(number), "/some/file")
    assert main([]) == errors.IO_ERROR
    err = capsys.readouterr().err
    assert "/some/file" in err
    assert "--output" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("error", [ValueError("what"), FileNotFoundError(errno.ENOENT, "gone", "f")])
def test_a_bug_shows_its_traceback_and_asks_for_a_report(
    pipeline: Recorder, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    pipeline.error = error
    assert main([]) == errors.BUG
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert str(error) in err
    assert "please report it" in err.splitlines()[-1]


def test_ctrl_c_ends_with_130(pipeline: Recorder) -> None:
    pipeline.error = KeyboardInterrupt()
    assert main([]) == 130


def test_a_missing_torch_says_what_to_do(pipeline: Recorder, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline.error = ModuleNotFoundError("No module named 'torch'", name="torch")
    assert main([]) == errors.CONFIG
    assert "make setup" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("tran", "Did you mean 'train'?"),
        ("train --bogus 1", "--bogus"),
        ("train extra", "extra"),
        ("train --seed x", "--seed"),
        ("train --seed -1", "--seed"),
        ("evaluate r --strict", "--verify-config"),
        ("evaluate r --split train", "--split"),
        ("predict r", "inputs"),
        ("predict r i", "--out"),
    ],
)
def test_usage_errors(pipeline: Recorder, capsys: pytest.CaptureFixture[str], argv: str, words: str) -> None:
    assert run(argv) == errors.USAGE
    err = capsys.readouterr().err
    assert words.lower() in err.lower()
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert pipeline.calls == []


SMALL = Places("nowhere:SmallTask", "training.schemas.shared:RunConfig")


def test_print_config_shows_every_setting_and_its_meaning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(TASKS, "small", SMALL)
    argv = ["--task", "small", "--print-config", "--set", "training.seed=5", "--datasets", str(tmp_path)]
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert "seed: 5\n" in out
    assert "# Seed of initialisation, order and augmentation." in out


def test_bad_settings_end_before_anything_is_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(TASKS, "small", SMALL)
    assert main(["--task", "small", "--print-config", "--set", "training.sed=5"]) == errors.CONFIG
    assert "did you mean training.seed?" in capsys.readouterr().err


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from training.cli import main; main(['train', '--help']); print(sorted(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for heavy in ("torch", "numpy", "xarray", "pandas", "matplotlib", "ruamel.yaml"):
        assert f"'{heavy}'" not in printed
    assert "--print-config" in printed


@pytest.mark.parametrize("folder", [".", "training", "tests", "/"])
def test_the_worker_starts_from_any_folder(folder: str) -> None:
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, str(WORKER), "--help"]
    done = subprocess.run(command, cwd=ROOT / folder, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "evaluate" in done.stdout


def test_the_worker_takes_its_own_folder_off_the_import_path() -> None:
    code = (
        f"import runpy, sys; sys.path.insert(0, {str(WORKER.parent)!r}); "
        f"runpy.run_path({str(WORKER)!r}, run_name='__mp_main__'); print(*sys.path, sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True, check=True)
    paths = done.stdout.splitlines()
    assert paths[0] == str(ROOT)
    assert str(WORKER.parent) not in paths
