"""Detection scores beside the reference evaluator, and beside plain versions of everything that it does not have."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from training.schemas.detection import DetectionEvaluationSection
from training.scores.detection import DetectionScores
from training.scores.detection_coco import OVERALL
from training.scores.layout import layout_of

Box = tuple[float, float, float, float]


@dataclass
class Scene:
    """One image: true boxes as (box, label, crowd, area or None) and detections as (box, score, label)."""

    true: list[tuple[Box, int, bool, float | None]] = field(default_factory=list)
    found: list[tuple[Box, float, int]] = field(default_factory=list)


def area_of(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def detections_of(scenes: Sequence[Scene]) -> Tensor:
    """[n, D, 6] as a model gives them: sorted by score, the rest with score 0 and label -1."""
    most = max([len(scene.found) for scene in scenes], default=0) + 2
    rows = torch.zeros(len(scenes), most, 6)
    rows[..., 5] = -1
    for row, scene in zip(rows, scenes, strict=True):
        for place, (box, score, label) in enumerate(sorted(scene.found, key=lambda one: -one[1])):
            row[place] = torch.tensor([*box, score, label])
    return rows


def scored(scenes: Sequence[Scene], classes: int, confidence: float = 0.5, iou: float = 0.5) -> DetectionScores:
    scores = DetectionScores([f"c{label}" for label in range(classes)], confidence, iou)
    for first in range(0, len(scenes), 3):
        part = scenes[first : first + 3]
        scores.update(
            detections_of(part),
            [torch.tensor([one[0] for one in scene.true]).reshape(-1, 4) for scene in part],
            [torch.tensor([one[1] for one in scene.true], dtype=torch.int64) for scene in part],
            [torch.tensor([one[2] for one in scene.true], dtype=torch.bool) for scene in part],
            [torch.tensor([area_of(o[0]) if o[3] is None else o[3] for o in scene.true]) for scene in part],
        )
    return scores


def single(value: float) -> float:
    """The float32 that tensors hold."""
    return float(np.float32(value))


def xywh(box: Box) -> list[float]:
    x, y, right, bottom = (single(value) for value in box)
    return [x, y, right - x, bottom - y]


def reference(scenes: Sequence[Scene], classes: int) -> dict[str, float]:
    """The same numbers by pycocotools."""
    truth, found = COCO(), COCO()
    images = [{"id": number} for number in range(len(scenes))]
    categories = [{"id": label} for label in range(classes)]
    true = [
        {"image_id": number, "bbox": xywh(box), "category_id": label, "iscrowd": int(crowd),
         "area": single(area_of(box) if area is None else area)}
        for number, scene in enumerate(scenes)
        for box, label, crowd, area in scene.true
    ]  # fmt: skip
    told = [
        {"image_id": number, "bbox": xywh(box), "category_id": label, "score": single(score), "iscrowd": 0,
         "area": xywh(box)[2] * xywh(box)[3]}
        for number, scene in enumerate(scenes)
        for box, score, label in sorted(scene.found, key=lambda one: -one[1])
    ]  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        for dataset, annotations in ((truth, true), (found, told)):
            numbered = [{**one, "id": number} for number, one in enumerate(annotations, start=1)]
            dataset.dataset = {"images": images, "annotations": numbered, "categories": categories}
            dataset.createIndex()
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    stats = [*evaluation.stats[:6], evaluation.stats[8]]
    numbers = dict(zip(OVERALL, map(float, stats), strict=True))
    precision = evaluation.eval["precision"]
    for label in range(classes):
        for name, part in (("map", precision[:, :, label, 0, -1]), ("map_50", precision[0, :, label, 0, -1])):
            known = part[part > -1]
            numbers[f"{name}_c{label}"] = float(known.mean()) if known.size else -1.0
    return {name: value for name, value in numbers.items() if value > -1}


def check(scenes: Sequence[Scene], classes: int) -> dict[str, float]:
    scores = scored(scenes, classes)
    found, expected = scores.compute(), reference(scenes, classes)
    names = {*OVERALL, *(f"{name}_c{label}" for name in ("map", "map_50") for label in range(classes))}
    assert {name: value for name, value in found.items() if name in names} == pytest.approx(expected, abs=1e-6)
    check_curves(scores, classes)
    return found


def check_curves(scores: DetectionScores, classes: int) -> None:
    """Our own matching gives COCO's AP at 0.5: two roads to one number.

    Not where COCO leaves out what comes after 100 boxes, and not where scores are equal: it takes those one by one.
    """
    every = scores.matched().scores
    if any(len(picture.scores) > 100 for picture in scores.pictures()) or len(np.unique(every)) < len(every):
        return
    for label in range(classes):
        curve = scores.curve(label)
        if curve is None:
            assert f"map_50_c{label}" not in scores.compute()
        else:
            assert curve.interpolated().mean() == pytest.approx(scores.compute()[f"map_50_c{label}"], abs=1e-6)


def made(seed: int, images: int, classes: int, most: int = 12, digits: int = 1) -> list[Scene]:
    """Boxes of all sizes, found more or less well, some twice, some not, some where nothing is, some crowds.

    Scores have so many ``digits``: with few, many are equal.
    """
    rng = np.random.default_rng(seed)
    scenes = []
    for _ in range(images):
        scene = Scene()
        for _ in range(rng.integers(0, most)):
            corner, size = rng.uniform(0, 300, 2), np.exp(rng.uniform(1, 5.5, 2))
            box = (*corner, *(corner + size))
            label, crowd = int(rng.integers(classes)), bool(rng.random() < 0.15)
            scene.true.append((box, label, crowd, area_of(box) * rng.uniform(0.5, 1) if rng.random() < 0.5 else None))
            for _ in range(rng.integers(0, 3)):
                moved = np.array(box) + rng.normal(0, 0.06, 4) * np.tile(size, 2)
                near = (*moved[:2], *np.maximum(moved[2:], moved[:2]))
                told = label if rng.random() < 0.8 else int(rng.integers(classes))
                scene.found.append((near, round(float(rng.uniform(0.06, 1)), digits), told))
        for _ in range(rng.integers(0, 4)):
            corner = rng.uniform(0, 300, 2)
            box = (*corner, *(corner + rng.uniform(0, 90, 2)))
            scene.found.append((box, float(rng.uniform(0.01, 1)), int(rng.integers(classes))))
        scenes.append(scene)
    return scenes


@pytest.mark.parametrize(("seed", "classes"), [(0, 1), (1, 3), (2, 8), (3, 80)])
def test_average_precision_is_the_reference_evaluators(seed: int, classes: int) -> None:
    found = check(made(seed, 25, classes, digits=1 + seed % 2 * 7), classes)
    assert 0.05 < found["map"] < 0.95


A: Box = (10, 10, 42, 42)  # 32 x 32: COCO's border between small and medium
B: Box = (100, 100, 196, 196)  # 96 x 96, the next border
HALF: Box = (10, 10, 42, 26)  # an overlap of exactly 0.5 with A
THREE_QUARTERS: Box = (10, 10, 42, 34)
NOTHING: Box = (5, 5, 5, 5)

ADVERSARIAL = {
    "ties in score": [Scene([(A, 0, False, None), (B, 0, False, None)], [(A, 0.5, 0), (NOTHING, 0.5, 0), (B, 0.5, 0)])],
    "ties across images": [Scene([(A, 0, False, None)], [(B, 0.5, 0)]), Scene([(A, 0, False, None)], [(A, 0.5, 0)])],
    "duplicates": [Scene([(A, 0, False, None)], [(A, 0.9, 0), (A, 0.8, 0), (A, 0.7, 0)])],
    "the same box twice in truth": [Scene([(A, 0, False, None)] * 2, [(A, 0.9, 0), (HALF, 0.8, 0)])],
    "boxes that touch": [Scene([(A, 0, False, None)], [((42, 10, 74, 42), 0.9, 0), ((42, 42, 60, 60), 0.8, 0)])],
    "an overlap of exactly 0.5": [Scene([(A, 0, False, None)], [(HALF, 0.9, 0)])],
    "an overlap of exactly 0.75": [Scene([(A, 0, False, None)], [(THREE_QUARTERS, 0.9, 0)])],
    "corners that float32 rounds": [Scene([((0.1, 0.1, 0.7, 0.7), 0, False, None)], [((0.1, 0.1, 0.7, 0.4), 0.9, 0)])],
    "crowds": [
        Scene([(B, 0, True, None), (A, 0, False, None)], [((110, 110, 130, 130), 0.9, 0), (A, 0.8, 0), (B, 0.7, 0)]),
        Scene([(B, 0, True, None)], [((90, 90, 140, 140), 0.9, 0), ((96, 100, 104, 196), 0.8, 0)]),
    ],
    "a crowd of another class": [Scene([(B, 1, True, None), (A, 0, False, None)], [((110, 110, 130, 130), 0.9, 0)])],
    "a crowd over a true box": [Scene([(A, 0, True, None), (A, 0, False, None)], [(A, 0.9, 0), (A, 0.8, 0)])],
    "no truth at all": [Scene([], [(A, 0.9, 0)]), Scene()],
    "nothing found": [Scene([(A, 0, False, None)]), Scene()],
    "nothing at all": [Scene(), Scene()],
    "empty images": [Scene(), Scene([(A, 0, False, None)], [(A, 0.9, 0)]), Scene([], [(A, 0.95, 0)]), Scene()],
    "a class that is never there": [Scene([(A, 2, False, None)], [(A, 0.9, 0), (A, 0.8, 2)])],
    "area borders": [
        Scene([(A, 0, False, None), (B, 1, False, None)], [(A, 0.9, 0), (B, 0.8, 1)]),
        Scene([(A, 0, False, 1024.1), (B, 1, False, 9216.9)], [(HALF, 0.9, 0), (B, 0.8, 1)]),
        Scene([(A, 0, False, 9216.0), (B, 1, False, 1024.0)], [(A, 0.3, 0), (B, 0.2, 1)]),
    ],
    "boxes without area": [Scene([(A, 0, False, None)], [(NOTHING, 0.9, 0), ((5, 5, 30, 5), 0.8, 0), (A, 0.7, 0)])],
    "true boxes without area": [Scene([(NOTHING, 0, False, None), (A, 0, False, None)], [(NOTHING, 0.9, 0)])],
    "more than 100 of one class": [
        Scene([(A, 0, False, None), (B, 1, False, None)], [*((B, 0.99 - n / 999, 0) for n in range(120)), (A, 0.5, 0)]),
        Scene([(B, 1, False, None)], [(A, 0.99 - n / 1000, n % 2) for n in range(150)] + [(B, 0.1, 1)]),
    ],
    "many classes": [Scene([(A, n, False, None) for n in range(80)], [(A, 0.5, n) for n in range(0, 80, 2)])],
}  # fmt: skip


@pytest.mark.parametrize("scenes", ADVERSARIAL.values(), ids=ADVERSARIAL)
def test_hard_cases_are_decided_as_the_reference_evaluator_decides_them(scenes: list[Scene]) -> None:
    check(scenes, 80 if any(one[1] > 2 for scene in scenes for one in scene.true) else 3)


corners = st.integers(0, 12).map(float)
boxes = st.tuples(corners, corners, st.integers(0, 12), st.integers(0, 12)).map(
    lambda c: (c[0], c[1], c[0] + c[2], c[1] + c[3])
)
labels = st.integers(0, 2)
scenes_of_boxes = st.lists(
    st.builds(
        Scene,
        st.lists(st.tuples(boxes, labels, st.booleans() | st.just(False), st.none()), max_size=5),
        st.lists(st.tuples(boxes, st.sampled_from([0.2, 0.4, 0.5, 0.6, 0.9]), labels), max_size=7),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(scenes_of_boxes)
def test_boxes_on_a_small_grid_full_of_ties(scenes: list[Scene]) -> None:
    check(scenes, 3)


def overlap_of(box: Box, other: Box, crowd: bool) -> float:
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    inside = width * height
    return inside / (area_of(box) if crowd else area_of(box) + area_of(other) - inside)


def as_single(box: Box) -> Box:
    return tuple(single(value) for value in box)  # type: ignore[return-value]


def plain_counts(scenes: Sequence[Scene], classes: int, confidence: float, iou: float) -> list[list[int]]:
    """Found, false and missed of each class, box by box."""
    counts = [[0, 0, 0] for _ in range(classes)]
    for scene in scenes:
        for label in range(classes):
            left = [as_single(box) for box, of, crowd, _ in scene.true if of == label and not crowd]
            crowds = [as_single(box) for box, of, crowd, _ in scene.true if of == label and crowd]
            sure = [one for one in scene.found if one[2] == label and single(one[1]) >= confidence]
            for box, _, _ in sorted(sure, key=lambda one: -one[1]):
                best = None
                for place, true in enumerate(left):
                    overlap = overlap_of(as_single(box), true, False)
                    if overlap >= iou and (best is None or overlap >= best[0]):
                        best = (overlap, place)
                if best is not None:
                    counts[label][0] += 1
                    left.pop(best[1])
                elif not any(overlap_of(as_single(box), crowd, True) >= iou for crowd in crowds):
                    counts[label][1] += 1
            counts[label][2] += len(left)
    return counts


def plain_confusion(scenes: Sequence[Scene], classes: int, confidence: float, iou: float) -> list[list[int]]:
    """Take the largest overlap of all, cross out its row and column, until none is left."""
    matrix = [[0] * (classes + 1) for _ in range(classes + 1)]
    for scene in scenes:
        found = sorted((one for one in scene.found if single(one[1]) >= confidence), key=lambda one: -one[1])
        true = [(as_single(box), label) for box, label, crowd, _ in scene.true if not crowd]
        crowds = [(as_single(box), label) for box, label, crowd, _ in scene.true if crowd]
        rows, columns = list(range(len(found))), list(range(len(true)))
        while True:
            pairs = [
                (overlap_of(as_single(found[row][0]), true[col][0], False), found[row][2] == true[col][1], -row, -col)
                for row in rows
                for col in columns
            ]
            overlap, _, row, column = max(pairs, default=(0.0, False, 0, 0))
            if overlap < iou:
                break
            matrix[true[-column][1]][found[-row][2]] += 1
            rows.remove(-row)
            columns.remove(-column)
        for column in columns:
            matrix[true[column][1]][classes] += 1
        for row in rows:
            box, _, label = found[row]
            if not any(of == label and overlap_of(as_single(box), crowd, True) >= iou for crowd, of in crowds):
                matrix[classes][label] += 1
    return matrix


def check_plain(scenes: Sequence[Scene], classes: int, confidence: float, iou: float) -> DetectionScores:
    scores = scored(scenes, classes, confidence, iou)
    found, record = scores.compute(), scores.record()
    expected = plain_counts(scenes, classes, confidence, iou)
    told = [[record["counts"][f"c{n}"][what] for what in ("found", "false", "missed")] for n in range(classes)]
    assert told == expected
    assert record["confusion"] == plain_confusion(scenes, classes, confidence, iou)
    pooled = np.sum(expected, axis=0).tolist()
    for ending, (hit, false, missed) in {"": pooled, **{f"_c{n}": expected[n] for n in range(classes)}}.items():
        for name, above, below in (
            ("precision", hit, hit + false),
            ("recall", hit, hit + missed),
            ("f1", 2 * hit, 2 * hit + false + missed),
        ):
            assert found.get(name + ending) == (pytest.approx(above / below) if below else None), name + ending
    return scores


@pytest.mark.parametrize(("confidence", "iou"), [(0.5, 0.5), (0.3, 0.7), (0.05, 0.1)])
def test_counts_and_confusions_are_those_of_a_plain_version(confidence: float, iou: float) -> None:
    scores = check_plain(made(5, 30, 4), 4, confidence, iou)
    assert scores.record()["all_counts"]["found"] > 20
    off_diagonal = scores.confusion()[:-1, :-1]
    assert off_diagonal.sum() > np.trace(off_diagonal)  # some were taken for others


@settings(max_examples=60, deadline=None)
@given(scenes_of_boxes)
def test_counts_on_a_small_grid_are_those_of_a_plain_version(scenes: list[Scene]) -> None:
    check_plain(scenes, 3, 0.5, 0.5)


def test_the_best_f1_is_the_largest_of_all_thresholds() -> None:
    scenes = made(7, 20, 3)
    found = scored(scenes, 3).compute()
    thresholds = sorted({single(score) for scene in scenes for _, score, _ in scene.found}, reverse=True)
    every = {t: scored(scenes, 3, t).compute()["f1"] for t in thresholds}
    assert found["best_f1"] == pytest.approx(max(every.values()))
    assert every[found["best_f1_confidence"]] == pytest.approx(found["best_f1"])


def test_the_matrix_is_sklearns_where_every_box_has_one_partner() -> None:
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    rng = np.random.default_rng(0)
    true, told = rng.integers(0, 4, (2, 50))
    told = np.where(rng.random(50) < 0.6, true, told)
    spots: list[Box] = [(40.0 * n, 0.0, 40.0 * n + 30, 30.0) for n in range(50)]
    scene = Scene(
        [(spot, int(label), False, None) for spot, label in zip(spots, true, strict=True)],
        [(spot, 0.9, int(label)) for spot, label in zip(spots, told, strict=True)],
    )
    scores = scored([scene], 4)
    assert (scores.confusion()[:4, :4] == confusion_matrix(true, told)).all()
    expected = precision_recall_fscore_support(true, told)
    found = scores.compute()
    for name, values in zip(("precision", "recall", "f1"), expected, strict=False):
        assert [found[f"{name}_c{label}"] for label in range(4)] == pytest.approx(list(values))


def test_only_what_has_a_score_above_zero_is_a_detection() -> None:
    scores = DetectionScores(["car"])
    found = torch.tensor([[[*A, 0.9, 0], [*B, 0.0, 0], [0, 0, 0, 0, 0, -1]]])
    scores.update(found, [torch.tensor([A])], [torch.tensor([0])], [torch.tensor([False])], [torch.tensor([1024.0])])
    assert scores.record()["counts"]["car"]["detections"] == 1
    assert scores.compute()["map"] == pytest.approx(1.0)


def test_no_image_has_no_score_and_still_a_record_and_a_table() -> None:
    scores = DetectionScores(["car", "bus"])
    assert scores.compute() == {}
    assert scores.record()["all_counts"] == dict.fromkeys(scores.record()["all_counts"], 0)
    assert "0 images with 0 true boxes of 2 classes" in scores.table()
    assert scores.frame()["class"].tolist() == ["car", "bus", "background"]


def test_every_score_has_a_name_and_every_name_is_reached() -> None:
    scores = scored(made(1, 30, 3), 3)
    assert set(scores.compute()) == set(scores.names())
    assert {name for name, way in scores.names().items() if way is None} == {"best_f1", "best_f1_confidence"}


def test_what_cannot_be_divided_is_absent() -> None:
    found = scored([Scene([(A, 0, False, None)], [(A, 0.4, 0), (B, 0.9, 1)])], 3).compute()
    assert found["recall_c0"] == 0.0
    assert found["precision_c1"] == 0.0
    assert {
        "precision_c0",
        "recall_c1",
        "map_c1",
        "map_c2",
        "precision_c2",
        "recall_c2",
        "f1_c2",
        "map_large",
    }.isdisjoint(found)


def test_a_number_that_is_not_finite_is_a_false_detection_and_told() -> None:
    scores = DetectionScores(["car"])
    rows = torch.tensor([[[*A, 0.9, 0], [math.nan, 0, 9, 9, 0.8, 0], [*A, math.nan, 0], [*A, math.inf, 0]]])
    scores.update(rows, [torch.tensor([A])], [torch.tensor([0])], [torch.tensor([False])], [torch.tensor([1024.0])])
    counts = scores.record()["counts"]["car"]
    assert (counts["found"], counts["false"]) == (1, 3)
    assert scores.compute()["map"] == pytest.approx(1 / 3, abs=1e-6)  # two of those are surer than the true one
    assert "3 detections have a number that is not finite" in scores.table()


def test_class_names_that_would_make_one_name_of_two_scores_are_told_apart() -> None:
    names = ["small", "50", "car", "50_car", "traffic light", "traffic-light", "f1", ""]
    scores = DetectionScores(names)
    told = scores.names()
    assert len(told) == len(OVERALL) + 3 + 2 + 5 * len(names)
    assert {"map_class_small", "map_class_50", "map_car", "map_class_50_car", "map_traffic_light"} <= set(told)
    assert scores.record()["classes"]["class_traffic_light"] == "traffic-light"


def test_half_precision_and_lists_of_nothing_are_taken() -> None:
    scores = DetectionScores(["car"])
    none = torch.zeros(0)
    detections = torch.zeros(2, 3, 6, dtype=torch.bfloat16)
    scores.update(detections, [none.reshape(0, 4)] * 2, [none.long()] * 2, [none.bool()] * 2, [none] * 2)
    assert scores.compute() == {}
    assert scores.record()["images"] == 2


@pytest.mark.parametrize(
    ("detections", "boxes", "labels"),
    [
        (torch.zeros(2, 3, 6), 1, 1),
        (torch.zeros(1, 3, 5), 1, 1),
        (torch.zeros(1, 3, 6), 2, 1),
    ],
)
def test_what_does_not_fit_together_is_refused(detections: Tensor, boxes: int, labels: int) -> None:
    scores = DetectionScores(["car"])
    with pytest.raises(ValueError, match="expected"):
        scores.update(
            detections,
            [torch.zeros(boxes, 4)],
            [torch.zeros(labels, dtype=torch.int64)],
            [torch.zeros(boxes, dtype=torch.bool)],
            [torch.zeros(boxes)],
        )


def test_a_label_that_is_no_class_is_refused() -> None:
    scores = DetectionScores(["car"])
    scores.update(torch.tensor([[[*A, 0.9, 1.0]]]), [torch.zeros(0, 4)], *([torch.zeros(0)],) * 3)
    with pytest.raises(ValueError, match="labels of detections from 0 to 0"):
        scores.compute()


def tables_of(scores: DetectionScores) -> dict[str, Any]:
    layout = layout_of(scores.record())
    assert layout is not None
    assert layout.metrics() <= set(scores.names())
    return {table.title: table for table in [*layout.tables, *layout.counts]}


def test_the_layout_shows_scores_and_counts_of_each_class() -> None:
    scores = scored(made(1, 30, 3), 3)
    tables = tables_of(scores)
    assert [row.name for row in tables["Scores by class"].rows] == ["c0", "c1", "c2", "all classes"]
    counts = {row.name: list(row.cells) for row in tables["Images and true boxes"].rows}
    boxes = sum(not crowd for scene in made(1, 30, 3) for _, _, crowd, _ in scene.true)
    assert counts["all classes"][:2] == [30, boxes]
    assert sum(counts["c1"][2:5]) == counts["c1"][1]
    matrix = tables["What true boxes were taken for"]
    assert ([*matrix.columns], matrix.rows[-1].name) == (["c0", "c1", "c2", "not found"], "background")
    assert set(scores.record()["headlines"]) <= set(scores.names())
    assert set(scores.record()["definitions"])


def test_of_many_classes_the_layout_has_the_most_frequent_confusions() -> None:
    scores = scored([Scene([(A, 3, False, None)], [(A, 0.9, 7)])] * 4, 80)
    tables = tables_of(scores)
    pairs = tables["What true boxes were taken for"].rows
    assert [(row.name, list(row.cells)) for row in pairs] == [("c3 taken for c7", [4])]
    assert "map_c3" not in scores.record()["headlines"]
    frame = scores.frame()
    assert frame.loc[3, "taken_for_c7"] == frame.loc[3, "missed"] == 4


def test_the_settings_reach_the_scores() -> None:
    evaluation = DetectionEvaluationSection(confidence=0.25, iou=0.6)
    scores = DetectionScores.of(evaluation, {"classes": ["car"]})
    assert (scores.confidence, scores.iou, scores.classes) == (0.25, 0.6, ("car",))
