"""Figures and the report of finished, unfinished, damaged and foreign runs."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.reporting.made_run import CONFIG, make_run, metadata, metric_lines, nowcast, write_lines
from training.reporting.curves import draw_curves
from training.reporting.figure_words import describe
from training.reporting.radar_figures import draw_nowcast
from training.reporting.report import write_report
from training.reporting.report_parts import goals
from training.reporting.report_scores import evaluation_part
from training.reporting.run_folder import RunFolder
from training.yaml_core import write_yaml

SENTENCE = (
    "Beats persistence at every lead for 20 dBZ, at leads 1 to 6 for 30 dBZ, and at leads 1 to 3 for 35 dBZ, but not "
    "for 40, 45 and 50 dBZ."
)
VOID = {"meta", "img", "link", "br", "hr", "input"}


class Page(HTMLParser):
    """Checks that tags are balanced, and collects text, links and sources."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        self.close()
        assert self.open == [], f"not closed: {self.open}"

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)


def report(run: Path) -> Page:
    return Page(write_report(run).read_text("utf-8"))


def test_curves_and_skill_are_drawn_as_png_and_svg(made: Path) -> None:
    names = {path.name for path in (made / "figures").iterdir()}
    stems = ("curves", "skill_val", "skill_test", "example_1")
    assert names == {f"{stem}.{kind}" for stem in stems for kind in ("png", "svg")}


def test_figures_of_the_same_numbers_have_the_same_bytes(tmp_path: Path) -> None:
    write_lines(tmp_path / "metrics.jsonl", metric_lines(60))
    before = {path.name: path.read_bytes() for path in draw_curves(tmp_path)}
    for path in draw_curves(tmp_path):
        assert path.read_bytes() == before[path.name], path.name


def test_a_run_without_numbers_has_no_curves(tmp_path: Path) -> None:
    assert draw_curves(tmp_path) == []


def test_curves_of_two_phases_with_a_metric_of_choice_and_holes(tmp_path: Path) -> None:
    lines = metric_lines(120)
    for line in lines[len(lines) // 2 :]:
        line["phase"] = "fine-tuning"
    lines[3]["loss"] = None
    lines[4]["metrics"] = {"val/csi_30": 0.2, "val/persistence_csi_30": 0.1}
    write_lines(tmp_path / "metrics.jsonl", lines)
    write_yaml(tmp_path / "config.yaml", {**CONFIG, "selection": {"metric": "val/csi_30", "mode": "max"}})
    assert [path.name for path in draw_curves(tmp_path)] == ["curves.png", "curves.svg"]
    words = describe(RunFolder(tmp_path), "curves")
    assert "The validation loss begins at" in words
    assert "val/csi_30, by which the best checkpoint is chosen, begins at 0.2 (step 20), is highest at" in words


def test_curves_of_a_single_validation_without_logged_steps(tmp_path: Path) -> None:
    write_lines(tmp_path / "metrics.jsonl", [line for line in metric_lines(20) if line["kind"] == "validation"])
    assert len(draw_curves(tmp_path)) == 2


@pytest.mark.parametrize("spacing", [None, 4.0, [3.0, 4.0]])
def test_nowcast_of_any_length_and_shape(tmp_path: Path, spacing: Any) -> None:
    inputs, truth = np.full((2, 20, 30), 12.0), np.full((1, 20, 30), 80.0)
    inputs[0, :5] = np.nan
    valid = np.ones(truth.shape, dtype=bool)
    valid[0, 3:6] = False
    files = draw_nowcast(
        tmp_path / "one",
        inputs,
        truth,
        truth * np.nan,
        valid,
        min_dbz=-29,
        max_dbz=65,
        cadence_seconds=300,
        spacing_km=spacing,
        title="one lead",
    )
    assert [path.name for path in files] == ["one.png", "one.svg"]


def test_nowcast_names_its_leads_in_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from training.reporting import figures

    monkeypatch.setitem(figures._STYLE, "svg.fonttype", "none")
    truth, forecast = nowcast(0)
    valid = np.ones(forecast[0].shape, dtype=bool)
    valid[:, :9] = False
    how: dict[str, Any] = {"min_dbz": -29, "max_dbz": 65, "cadence_seconds": 150, "spacing_km": 4, "title": "a title"}
    _, svg = draw_nowcast(tmp_path / "nowcast", truth[0, :8], truth[0, 8:], forecast[0], valid, **how)
    text = svg.read_text()
    for words in ("a title", "now", "−17.5 min", "lead 1, +2.5 min", "lead 7, +17.5 min", "persistence", "dBZ", "km"):
        assert f">{words}" in text, words


def test_the_report_says_what_matters(finished: Path) -> None:
    text = report(finished).text
    for words in (
        "This run was trained on the built-in sample.",
        "A convlstm model of 218,431 parameters, trained on the built-in sample (84 windows to train on, 8",
        "8 to test on) in 240 optimizer steps, with the preset sample.",
        SENTENCE,
        "20 dBZ better than persistence at every lead",
        "30 dBZ better than persistence at leads 1 to 6",
        "50 dBZ not better than persistence at any lead",
        "CPU hours 0.20",
        "cost, in the unit of the price 0.08",
        "of the time waiting for data 1 %",
        "Where the settings differ from the preset sample key preset here training.seed 42 7",
        "The split is weak, so this may look better than it is",
        "Weak split. This split is weak: 0.40 h lie between two of its sides",
        "The test split has been looked at twice.",
        "dBZ on 64x64 cells (area mean)",
        "interrupted twice and continued. 15 steps had to be done again, which took about 3 s; starting again took 6 s",
        "killed without a word",
        "stopped by SIGTERM; the last step was saved",
        "micro-batch (from 8, to 4, why out of memory)",
        "extended (changed training.epochs from 9 to 12)",
        "training.seed •",
        "fp32 (the CPU has no matrix units for bf16)",
        "python training/train_worker.py train --task convlstm --config model_output/convlstm/",
        "critical success index, hits / (hits + misses + false alarms)",
        "2026-10-01 00:00:00 UTC",
    ):
        assert words in text, words


def test_a_dataset_is_called_by_its_name_and_version(finished: Path) -> None:
    facts = metadata(True, False, False)
    facts["data"] = {"path": "../../storms/../radar 2026", "is_sample": False}
    write_yaml(finished / "metadata.yaml", facts)
    assert "trained on radar 2026 (84 windows" in report(finished).text
    facts["dataset"] |= {"name": "storms", "version": "2.1"}
    write_yaml(finished / "metadata.yaml", facts)
    assert "trained on storms, version 2.1 (84 windows" in report(finished).text


def test_the_page_needs_nothing_beside_it(finished: Path) -> None:
    page = report(finished)
    names = {tag for tag, _ in page.attributes}
    assert not names & {"script", "iframe", "object", "base"}
    for tag, attributes in page.attributes:
        source, target = attributes.get("src"), attributes.get("href")
        assert source is None or source.startswith("data:image/"), tag
        assert target is None or target.startswith("#") or target == "data:," or (finished / target).exists(), target
    html = (finished / "report.html").read_text("utf-8")
    assert "@import" not in html
    assert "url(" not in html
    assert not list(finished.rglob("*.tmp"))


def test_links_within_the_page_lead_somewhere(finished: Path) -> None:
    page = report(finished)
    ids = {attributes["id"] for _, attributes in page.attributes if "id" in attributes}
    for _, attributes in page.attributes:
        target = attributes.get("href") or ""
        assert not target.startswith("#") or target[1:] in ids, target


def test_the_page_can_be_read_without_seeing_it(finished: Path) -> None:
    page = report(finished)
    for tag, attributes in page.attributes:
        if tag == "img":
            assert attributes.get("alt")
        if tag == "th":
            assert attributes.get("scope") in ("row", "col")
        if attributes.get("role") == "region":
            assert attributes.get("aria-label")
            assert attributes.get("tabindex") == "0"
    assert ("html", {"lang": "en"}) in page.attributes


def test_what_comes_from_outside_is_escaped(finished: Path) -> None:
    evil = '<script>alert("x")</script>'
    facts = metadata(True, True, True)
    facts["run_id"] = facts["command"] = facts["audit"]["weak_reason"] = facts["set_by_user"][evil] = evil
    facts["dataset"]["summary"] = [evil]
    write_yaml(finished / "metadata.yaml", facts)
    (finished / "figures" / "curves.png").rename(finished / "figures" / "<b>x.png")
    assert "script" not in {tag for tag, _ in report(finished).attributes}
    assert evil in report(finished).text


@pytest.mark.parametrize("missing", [None, "config.yaml", "metadata.yaml", "metrics.jsonl", "events.jsonl"])
def test_an_unfinished_run_has_a_report(tmp_path: Path, missing: str | None) -> None:
    run = make_run(tmp_path, finished=False, is_sample=False, weak=False)
    if missing:
        (run / missing).unlink()
    text = report(run).text
    assert "This run is not finished." in text
    assert "Nothing has been evaluated yet." in text
    assert "built-in sample" not in text


@pytest.mark.parametrize("damaged", ["config.yaml", "metadata.yaml", "metrics.jsonl", "events.jsonl"])
def test_a_damaged_file_costs_its_sections_only(finished: Path, damaged: str) -> None:
    path = finished / damaged
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] + b"\xff\x00: [")
    assert "better than persistence" in report(finished).text


def test_an_empty_folder_has_a_report(tmp_path: Path) -> None:
    assert "Nothing has been evaluated yet." in report(tmp_path).text


def test_a_failed_run_says_why(tmp_path: Path) -> None:
    run = make_run(tmp_path, finished=False)
    write_yaml(run / "metadata.yaml", {**metadata(False, True, True), "state": "failed", "error": "loss is nan"})
    assert "The run failed. loss is nan" in report(run).text


def test_a_task_without_leads_shows_its_numbers(finished: Path) -> None:
    path = finished / "evaluations" / "test" / "metrics.json"
    content = json.loads(path.read_text())
    content |= {"metrics": {"test/loss": 0.25, "test/accuracy": 0.875}, "record": {"n": 8}, "item": "images"}
    path.write_text(json.dumps(content))
    text = report(finished).text
    assert "accuracy 0.875" in text
    assert "8 images" in text
    assert "No baseline was scored" in text
    assert "persistence" not in text.partition("The same on the val split")[0]


def test_skill_does_not_depend_on_what_it_does_not_show(finished: Path) -> None:
    shutil.rmtree(finished / "evaluations" / "test")
    (finished / "metrics.jsonl").unlink()
    path = finished / "evaluations" / "val" / "metrics.json"
    content = json.loads(path.read_text())
    for lost in ("counts", "definitions", "not_finite", "scale", "pixels"):
        del content["record"][lost]
    path.write_text(json.dumps(content))
    assert [file.name for file in draw_curves(finished)] == ["skill_val.png", "skill_val.svg"]


def test_an_undefined_score_is_a_dash_and_no_verdict(finished: Path) -> None:
    path = finished / "evaluations" / "test" / "metrics.json"
    content = json.loads(path.read_text())
    content["metrics"] = {name: value for name, value in content["metrics"].items() if "_50" not in name}
    path.write_text(json.dumps(content))
    part = evaluation_part(RunFolder(finished), "test")
    assert part["verdict"].rows[-1].kind == "none"
    assert part["verdict"].sentence.endswith("; 50 dBZ cannot be judged.")
    assert part["tables"][0]["rows"][-1][1][0] == {"own": "–", "other": "–", "kind": ""}


def test_scores_on_other_data_stand_apart_and_say_what_is_not_independent(finished: Path) -> None:
    folder = finished / "evaluations" / "test-77aa00bb"
    shutil.copytree(finished / "evaluations" / "test", folder)
    content = json.loads((folder / "metrics.json").read_text())
    content["metrics"] = dict.fromkeys(content["metrics"], 0.01)
    content |= {"leaks": {"tainted": 5}, "clean": {"n": 3, "metrics": {"test/csi_20": 0.123}}}
    before = goals(RunFolder(finished))
    (folder / "metrics.json").write_text(json.dumps(content))
    assert goals(RunFolder(finished)) == before
    text = report(finished).text
    assert SENTENCE in text
    own, _, other = text.partition("Other data or another checkpoint: test-77aa00bb")
    assert "not independent" not in own
    assert "Some of these windows are not independent of what the model learned from" in other
    assert "The 3 independent windows alone" in other
    assert "csi 20 0.123" in other


def test_goals_are_judged(finished: Path) -> None:
    verdicts = {goal["name"]: goal["verdict"] for goal in goals(RunFolder(finished))}
    assert verdicts == {"test/csi_35_lead_1": "reached", "test/csi_50_lead_7": "missed", "test/nothing": "not known"}


def test_the_score_cells_are_the_evaluations_numbers(finished: Path) -> None:
    metrics = json.loads((finished / "evaluations" / "test" / "metrics.json").read_text())["metrics"]
    part = evaluation_part(RunFolder(finished), "test")
    csi = dict(part["tables"][0]["rows"])
    for lead in range(1, 8):
        cell, name = csi["35"][lead - 1], f"csi_35_lead_{lead}"
        model, other = metrics[f"test/{name}"], metrics[f"test/persistence_{name}"]
        assert cell == {
            "own": f"{model:.3f}",
            "other": f"{other:.3f}",
            "kind": "better" if model > other else "worse",
        }


def test_the_report_works_in_the_dark_and_on_a_phone(finished: Path) -> None:
    html = write_report(finished).read_text("utf-8")
    assert "prefers-color-scheme: dark" in html
    assert 'name="viewport"' in html
    dark = html[html.index("prefers-color-scheme: dark") :]
    defined = set(re.findall(r"(--[\w-]+):", html[: html.index("prefers-color-scheme: dark")]))
    assert defined <= set(_names(dark)), "a colour of the light page has no dark one"


def _names(css: str) -> Iterator[str]:
    yield from re.findall(r"(--[\w-]+):", css)
