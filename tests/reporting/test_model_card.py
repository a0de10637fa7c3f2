"""Model cards: what they say, of what, and what they leave unknown."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from tests.reporting.made_run import CONFIG, make_run, metadata, write_lines
from training.config import load_config
from training.reporting.model_card import render_model_card, write_model_card
from training.reporting.report import write_report
from training.reporting.run_folder import RunFolder
from training.tasks.card import Card, Reference, card_from
from training.tasks.convlstm import ConvLSTMTask
from training.yaml_core import write_yaml


@pytest.fixture
def run(finished: Path) -> Path:
    return finished


def card(run: Path) -> str:
    path = write_model_card(run)
    assert path == run / "MODEL_CARD.md"
    return path.read_text("utf-8")


def section(text: str, name: str) -> str:
    return text.split(f"\n## {name}\n")[1].split("\n## ")[0]


def cited(text: str) -> set[str]:
    return set(re.findall(r"@\w+{(\w+),", text))


def test_the_card_says_what_was_done_with_numbers(run: Path) -> None:
    text = card(run)
    training = section(text, "Training")
    for words in (
        "The data gave 84 windows for training, 8 for validation and 8 for testing, split by cut",
        "they were the built-in sample, which is made up",
        "The model was a convolutional LSTM (Shi et al. 2015).",
        "The model was trained with AdamW (Loshchilov and Hutter 2019) in batches of 4 windows",
        "with a learning rate of 0.002",
        "(after a linear warm-up over 10 steps falling as half a cosine, Loshchilov and Hutter 2017)",
        "and a weight decay of 1e-05",
        "the norm of the gradient was limited to 1 (Pascanu et al. 2013)",
        "Arithmetic ran in fp32.",
        "Training took 240 optimizer steps in 12 epochs, with seed 7.",
        "The weights of step 200 were kept, which had the lowest val/loss (0.0819).",
        "All of it took 0.20 CPU hours (CPU, 2 threads)",
        "interrupted twice and continued; 15 steps were done again",
    ):
        assert words in training, words
    assert "Beats persistence at every lead for 20 dBZ" in section(text, "Evaluation")
    assert "| 20, model | 25,667 |" in section(text, "Evaluation")
    assert "The test split has been looked at twice." in text
    assert "| `test/csi_50_lead_7` >=0.5 | 0 | missed |" in text
    assert "**The split is weak.**" in section(text, "Data")
    assert "licence | unknown" in text


def test_a_value_of_a_part_of_the_split_is_not_shown_as_a_score(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    write_lines(run / "metrics.jsonl", [line | {"n": 3} if line["kind"] == "validation" else line for line in lines])
    text = card(run)
    assert "| chosen by | val/loss = 0.0819 on 3 of 8 windows, 0.0712 on all 8, on the validation split |" in text
    assert "which had the lowest val/loss (0.0819 on 3 of 8 windows, 0.0712 on all 8)." in section(text, "Training")
    assert "step 200 (0.0819 on 3 of 8 windows, 0.0712 on all 8)" in write_report(run).read_text("utf-8")
    (run / "evaluations/val/metrics.json").unlink()
    assert "| val/loss = 0.0819 on 3 of 8 windows, on the validation split |" in card(run)


def test_only_what_was_used_is_cited(run: Path) -> None:
    shared = {"loshchilov2019adamw", "paszke2019pytorch"}
    assert cited(card(run)) == {*shared, "shi2015convlstm", "loshchilov2017sgdr", "pascanu2013difficulty"}
    training = {**CONFIG["training"], "schedule": "plateau", "clip_grad_norm": None, "ema_decay": 0.999}
    write_yaml(run / "config.yaml", {**CONFIG, "training": training, "model": {"gradient_checkpointing": True}})
    content = metadata(True, True, True)
    content["automatic"]["training.amp"] = "bf16 (the GPU has it, and it needs no loss scaling)"
    write_yaml(run / "metadata.yaml", content)
    (run / "card.json").unlink()
    text = card(run)
    assert cited(text) == {*shared, "kalamkar2019bfloat16", "polyak1992averaging", "chen2016sublinear"}
    assert "A moving average of the weights (decay 0.999; Polyak and Juditsky 1992) was evaluated." in text


def test_every_paper_named_in_the_text_is_in_the_list(run: Path) -> None:
    text = card(run)
    for name, year in re.findall(r"\(?([A-Z]\w+)(?: et al\.| and \w+)? (\d{4})\b", section(text, "Training")):
        assert re.search(rf"@\w+{{{name.lower()}{year}", text), (name, year)


def test_the_card_is_sound_markdown(run: Path) -> None:
    text = card(run)
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    heads = [token.tag for token in tokens if token.type == "heading_open"]
    assert heads[0] == "h1"
    assert heads.count("h1") == 1
    tables = [token for token in tokens if token.type == "table_open"]
    assert len(tables) >= 9
    inline = [token.content for token in tokens if token.type == "inline"]
    assert [content for content in inline if content.startswith("|") or "---|" in content] == []  # a broken table
    assert "\n\n\n" not in text


def test_an_unfinished_run_has_no_card(tmp_path: Path) -> None:
    run = make_run(tmp_path, finished=False)
    assert write_model_card(run) is None
    assert not (run / "MODEL_CARD.md").exists()


@pytest.mark.parametrize("lost", ["config.yaml", "metadata.yaml", "metrics.jsonl", "events.jsonl", "evaluations/test"])
def test_what_is_not_known_is_called_unknown(run: Path, lost: str) -> None:
    path = run / lost
    if path.is_dir():
        (path / "metrics.json").unlink()
    else:
        path.unlink()
    text = render_model_card(RunFolder(run))
    assert "None" not in text
    assert "unknown" in text


def test_a_card_of_nothing_but_a_name(tmp_path: Path) -> None:
    text = render_model_card(RunFolder(tmp_path))
    assert "How it was trained is unknown." in text
    assert "The model has not been evaluated." in text
    assert "None" not in text


# --- what the radar task says ---------------------------------------------------------------------------------------

FACTS = {"cadence_seconds": 300.0, "grid": "250x250 cells of 2.00 km", "levels": 18, "image_size": [250, 250]}


def radar(*sets: str) -> Card:
    return ConvLSTMTask(load_config("convlstm", sets=list(sets)).config).card(FACTS)


def keys(found: Card) -> set[str]:
    return {reference.key for reference in found.references}


def test_the_radar_card_follows_its_configuration() -> None:
    usual = radar()
    assert keys(usual) >= {
        "shi2015convlstm",
        "ba2016layernorm",
        "huber1964robust",
        "wang2004ssim",
        "wilks2011statistical",
    }
    text = " ".join(usual.method)
    assert "Windows of 18 input and 7 target frames (one frame every 300 s) began every 5 frames" in text
    assert "on 250x250 cells of 2.00 km, brought there by the mean over their area in dBZ" in text
    assert "3 layers with 128, 128, 128 hidden channels and 3x3 kernels, layer normalisation" in text
    assert "0.5 times the Huber loss" in text
    other = radar("model.norm=group", "loss.ssim_weight=1", "data.fill_means=no_data")
    assert "wu2018groupnorm" in keys(other)
    assert not keys(other) & {"ba2016layernorm", "huber1964robust"}
    assert "1 layer with 8 hidden channels" in " ".join(radar("model.hidden_dims=[8]").method)
    assert "Huber" not in " ".join(other.method)
    assert "fill values counted as missing" in " ".join(other.method)
    assert "ssim" not in " ".join(radar("loss.ssim_weight=0").method).lower().partition("verified by")[0]


def test_every_source_in_its_sentences_is_among_its_references() -> None:
    for found in (radar(), radar("model.norm=group"), radar("loss.ssim_weight=1"), radar("model.norm=none")):
        text = " ".join(found.method)
        assert all(reference.short in text for reference in found.references)


def test_a_card_survives_its_file() -> None:
    assert card_from(json.loads(json.dumps(radar().to_json()))).method == radar().method


@pytest.mark.parametrize("found", [{}, {"what": "x", "more": 1}, {"references": [{"key": "x"}]}])
def test_a_card_that_is_not_understood_is_an_empty_one(found: Any) -> None:
    assert card_from(found) == Card()


def test_bibtex_is_what_bibtex_reads() -> None:
    reference = Reference("key2020", "Key 2020", "article", "Key, A.", "A Title", 2020, {"pages": "1--2"})
    assert reference.bibtex() == (
        "@article{key2020,\n  author = {Key, A.},\n  title = {{A Title}},\n  year = {2020},\n  pages = {1--2}\n}"
    )
