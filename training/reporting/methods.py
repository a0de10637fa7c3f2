"""The methods paragraph of a model card: what was done, in the past tense, made only from what the run recorded."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any

from training.reporting import references as papers
from training.reporting.report_parts import heading
from training.reporting.report_story import step_seconds, used
from training.reporting.run_folder import RunFolder
from training.reporting.units import hours, significant
from training.tasks.card import Card


def methods(run: RunFolder, card: Card) -> str:
    """One paragraph; what is not known is left out rather than guessed."""
    sentences = [*_data(run), *card.method, *_optimisation(run), *_course(run), *_selection(run), *_effort(run)]
    return " ".join(sentences)


def precision(run: RunFolder) -> str:
    """What `training.amp` became: ``fp32``, ``bf16`` or ``fp16``; ``unknown`` where it was not recorded."""
    became = str((run.metadata.get("automatic") or {}).get("training.amp", ""))
    word = became.split()[0].rstrip(";,:") if became.split() else ""
    return {"off": "fp32"}.get(word, word) or "unknown"


def _data(run: RunFolder) -> list[str]:
    head, audit = heading(run), run.metadata.get("audit") or {}
    if not head["items"]:
        return []
    parts = [f"{count:,} for {name}" for name, count in _purposes(head["items"]).items()]
    method = audit.get("method_used") or audit.get("method")
    text = f"The data gave {', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else f"The data gave {parts[0]}"
    text = text.replace(" for", f" {head['item']} for", 1)
    text += f", split by {method}" if method else ""
    if head["is_sample"]:
        text += "; they were the built-in sample, which is made up"
    return [f"{text}."]


def _purposes(items: Mapping[str, int]) -> dict[str, int]:
    words = {"train": "training", "val": "validation", "test": "testing"}
    return {words.get(name, name): count for name, count in items.items()}


def _optimisation(run: RunFolder) -> list[str]:
    training = run.config.get("training") or {}
    if not training:
        return []
    item = heading(run)["item"]
    rate, decay = training.get("learning_rate", "unknown"), training.get("weight_decay", "unknown")
    text = (
        f"The model was trained with AdamW ({papers.ADAMW.short}) in batches of {training.get('batch_size')} {item}, "
        f"with a learning rate of {rate} ({_schedule(training)}) and a weight decay of {decay}"
    )
    if training.get("clip_grad_norm") is not None:
        text += f"; the norm of the gradient was limited to {training['clip_grad_norm']:g} ({papers.CLIPPING.short})"
    sentences = [f"{text}."]
    if training.get("ema_decay") is not None:
        decay = f"decay {training['ema_decay']:g}; {papers.AVERAGING.short}"
        sentences.append(f"A moving average of the weights ({decay}) was evaluated.")
    kind = precision(run)
    paper = {"bf16": papers.BF16, "fp16": papers.FP16}.get(kind)
    if kind != "unknown":
        sentences.append(f"Arithmetic ran in {kind}{f' ({paper.short})' if paper else ''}.")
    return sentences


def _schedule(training: Mapping[str, Any]) -> str:
    factor = training.get("lr_factor")
    words = {
        "constant": "constant",
        "plateau": f"multiplied by {factor} after {training.get('lr_patience')} validations without improvement",
        "cosine": f"falling as half a cosine, {papers.COSINE.short}",
        "linear": "falling linearly",
        "step": f"multiplied by {factor} every {training.get('lr_step_epochs')} epochs",
    }.get(str(training.get("schedule")), "schedule unknown")
    warmup = training.get("warmup_steps")
    return f"after a linear warm-up over {warmup} steps {words}" if warmup else words


def _course(run: RunFolder) -> list[str]:
    """Steps and epochs that were really taken, in each phase."""
    spans = [(str(name), list(group)) for name, group in groupby(run.metrics, key=lambda r: r.get("phase"))]
    epochs = [(name, max((r.get("epoch") or 0 for r in records), default=0)) for name, records in spans]
    if not epochs:
        return []
    steps = max(record["step"] for record in run.metrics)
    if len(epochs) == 1:
        return [f"Training took {steps:,} optimizer steps in {_epochs(epochs[0][1])}, with seed {_seed(run)}."]
    listed = ", ".join(f"{_epochs(count)} of phase {name}" for name, count in epochs)
    return [f"Training took {steps:,} optimizer steps ({listed}), with seed {_seed(run)}."]


def _epochs(count: int) -> str:
    return f"{count} epoch{'' if count == 1 else 's'}"


def _seed(run: RunFolder) -> Any:
    return run.metadata.get("seed", "unknown")


def _selection(run: RunFolder) -> list[str]:
    head = heading(run)
    chosen = head["selection"]
    if head["best_step"] is None or not chosen["metric"]:
        return []
    way = {"min": "lowest", "max": "highest"}.get(chosen["mode"], "best")
    number = f" ({chosen['words']})" if chosen["words"] else ""
    return [f"The weights of step {head['best_step']:,} were kept, which had the {way} {chosen['metric']}{number}."]


def _effort(run: RunFolder) -> list[str]:
    spent, step = used(run), step_seconds(run)
    if spent["hours"] is None:
        return []
    pace = f", {significant(step)} s a step" if step else ""
    device = heading(run)["device"] or "an unknown device"
    return [f"All of it took {hours(spent['hours'])} {spent['kind']} hours ({device}){pace}."]
