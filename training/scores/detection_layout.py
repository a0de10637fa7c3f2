"""How detection scores are shown in reports, and what each of them is, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from training.scores.layout import Layout, Row, Table

BY_CLASS, ALL_CLASSES = "Scores by class", "all classes"
CONFUSIONS = "What true boxes were taken for"
_MOST_CLASSES = 20  # of which the whole matrix is shown
_MOST_PAIRS = 20
_OVERALL = {
    "map": "average precision (AP), overlaps from 0.5 to 0.95",
    "map_50": "AP at an overlap of 0.5",
    "map_75": "AP at an overlap of 0.75",
    "map_small": "AP of small boxes",
    "map_medium": "AP of medium boxes",
    "map_large": "AP of large boxes",
    "mar_100": "average recall (AR), 100 boxes an image",
}
_AT_CONFIDENCE = {"precision": "precision", "recall": "recall", "f1": "F1"}
_BEST = {
    "best_f1": "largest F1 at any score, chosen on this split",
    "best_f1_confidence": "the score from which it is reached",
}
_COUNTS = ("images", "boxes", "small", "medium", "large", "crowd")
_COUNT_HEADS = ("images", "true boxes", "small", "medium", "large", "regions of many")
_FATES = ("detections", "found", "false", "missed")


def detection_layout(record: Mapping[str, Any]) -> Layout:
    """The layout of what `DetectionScores.record` says."""
    broken = record["not_finite"]
    return Layout(
        tables=[_overall(record), _by_class(record)],
        counts=[_boxes(record), _fates(record), _confusions(record)],
        warnings=[f"{broken:,} detections have a number that is not finite; they count as false ones."]
        if broken
        else [],
    )


def _at(record: Mapping[str, Any]) -> str:
    return f"score of at least {record['confidence']:g}, overlap of at least {record['iou']:g}"


def _overall(record: Mapping[str, Any]) -> Table:
    rows = [Row(title, [name], "max") for name, title in {**_OVERALL, **_AT_CONFIDENCE}.items()]
    rows += [Row(title, [name]) for name, title in _BEST.items()]
    about = f"AP and AR are COCO's, means over the classes that occur; precision, recall and F1 are at a {_at(record)}"
    return Table("Scores over all classes", ["value"], rows, about=about, corner="score")


def _by_class(record: Mapping[str, Any]) -> Table:
    def cells(ending: str) -> list[str]:
        return [f"{name}{ending}" for name in ("map", "map_50", "precision", "recall", "f1")]

    rows = [Row(name, cells(f"_{stem}"), "max") for stem, name in record["classes"].items()]
    return Table(
        title=BY_CLASS,
        columns=["AP", "AP at 0.5", "precision", "recall", "F1"],
        rows=[*rows, Row(ALL_CLASSES, cells(""), "max")] if len(rows) > 1 else rows,
        about=f"precision, recall and F1 at a {_at(record)}; of all classes AP is the mean",
        corner="class",
    )


def _counted(record: Mapping[str, Any], names: Sequence[str]) -> list[Row]:
    counts = record["counts"]
    rows = [Row(name, [counts[name][what] for what in names]) for name in counts]
    return [*rows, Row(ALL_CLASSES, [record["all_counts"][what] for what in names])] if len(rows) > 1 else rows


def _boxes(record: Mapping[str, Any]) -> Table:
    about = "small: an area below 32 x 32 pixels, large: from 96 x 96; images: those with such a box"
    return Table("Images and true boxes", list(_COUNT_HEADS), _counted(record, _COUNTS), about=about, corner="class")


def _fates(record: Mapping[str, Any]) -> Table:
    about = f"detections: of any score; the others at a {_at(record)}; in regions of many neither found nor false"
    return Table("Boxes found and missed", list(_FATES), _counted(record, _FATES), about=about, corner="class")


def _confusions(record: Mapping[str, Any]) -> Table:
    names, matrix = [*record["classes"].values()], record["confusion"]
    about = f"{_at(record)}; boxes and detections paired by overlap alone, whatever their classes"
    if len(names) <= _MOST_CLASSES:
        rows = [Row(name, list(row)) for name, row in zip([*names, "background"], matrix, strict=True)]
        rows[-1] = Row("background", [*matrix[-1][:-1], None])
        return Table(CONFUSIONS, [*names, "not found"], rows, about=about, corner="true class")
    pairs = [
        (count, true, taken)
        for true, row in enumerate(matrix[:-1])
        for taken, count in enumerate(row[:-1])
        if count and true != taken
    ]
    most = sorted(pairs, reverse=True)[:_MOST_PAIRS]
    rows = [Row(f"{names[true]} taken for {names[taken]}", [count]) for count, true, taken in most]
    about += f"; the {_MOST_PAIRS} most frequent, scores.csv has them all"
    return Table(CONFUSIONS, ["boxes"], rows, about=about)


def detection_definitions(record: Mapping[str, Any]) -> dict[str, str]:
    """What each score is. ``<class>`` stands for a class's name."""
    at = _at(record)
    return {
        "map": "COCO's average precision (Lin et al. 2014): area under the interpolated curve of precision over recall "
        "(101 recalls), mean over overlaps (intersection over union) of 0.5, 0.55 … 0.95 and over classes with a true "
        "box; at most 100 detections of a class in an image; regions of many are ignored",
        "map_50, map_75": "the same at an overlap of 0.5, or 0.75, alone",
        "map_small, map_medium, map_large": "the same for true boxes of an area up to 32 x 32 pixels, between, and "
        "from 96 x 96, in pixels of the image as it came",
        "map_<class>, map_50_<class>": "average precision of one class",
        "mar_100": "largest recall with 100 detections of a class in an image, mean over the same overlaps and classes",
        "precision": f"found / (found + false), over all boxes, at a {at}: the surest detection first, each takes the "
        "true box of its class that it overlaps most, of those that are left",
        "recall": "found / true boxes, likewise",
        "f1": "2 * found / (detections + true boxes), likewise",
        "best_f1, best_f1_confidence": "the largest F1 over all scores, and the score from which it is reached; chosen "
        "on this split, so no model is ranked by it",
        "confusions": "detections and true boxes in pairs, the largest overlap first and whatever their classes; so a "
        "class's found ones may be others than those behind its recall",
        "undefined": "a score that cannot be computed is absent: of a class without a true box, or precision where "
        "nothing was detected",
    }
