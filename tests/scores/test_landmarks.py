"""Landmark scores against numbers made by hand or by another library, on both scales, and as they are shown."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from backend.preprocessing.landmark_set import LandmarkSet, Span
from training.reporting.report_scores import evaluation_part
from training.reporting.verdict import verdict_of
from training.schemas.landmarks import LandmarkEvaluationSection
from training.scores.landmark_errors import box_lengths, intervals, nme, point_errors, span_lengths, summarise
from training.scores.landmarks import LandmarkScores
from training.scores.layout import layout_of

POINTS = LandmarkSet(("top", "left", "right"), ((1, 2),), (Span("width", (1,), (2,)),), mm_per_px=0.1)
CLASSES = ("COVID", "Viral Pneumonia", "Normal")
SHAPE = np.array([[0.5, 0.2], [0.3, 0.6], [0.7, 0.6]])


def made(n: int = 8, spread: float = 0.02, seed: int = 0) -> dict[str, Any]:
    """Predictions near true points that stand well away from the mean shape; Normal has no image."""
    generator = np.random.default_rng(seed)
    target = SHAPE + generator.uniform(-0.1, 0.1, (n, 3, 2))
    plain, tta = (target + generator.normal(0, s, target.shape) for s in (spread, spread / 2))
    size = np.stack([generator.integers(200, 400, n), generator.integers(200, 400, n)], axis=1)
    return {"plain": plain, "tta": tta, "target": target, "size": size, "labels": np.arange(n) % 2}


def scored(data: dict[str, Any], at_once: int = 3, **keys: Any) -> LandmarkScores:
    scores = LandmarkScores(POINTS, CLASSES, SHAPE, tta=data["tta"] is not None, **keys)
    tensors: dict[str, Tensor | None] = {k: None if v is None else torch.from_numpy(v) for k, v in data.items()}
    for start in range(0, len(data["plain"]), at_once):
        part = {k: None if v is None else v[start : start + at_once] for k, v in tensors.items()}
        scores.update(part["plain"], part["tta"], part["target"], part["size"], part["labels"])  # type: ignore[arg-type]
    return scores


class TestArrays:
    def test_one_step_of_each_scale(self) -> None:
        """0.03 to the right and 0.04 down: a triangle of 3, 4 and 5."""
        target = np.full((2, 1, 2), 0.5)
        prediction = target + np.array([0.03, 0.04])
        np.testing.assert_allclose(point_errors(prediction, target), [[0.05 * 224]] * 2)
        native = point_errors(prediction, target, np.array([[100, 100], [100, 200]]))
        np.testing.assert_allclose(native, [[5.0], [np.hypot(3, 8)]])

    def test_one_shape_for_all_images(self) -> None:
        target = made()["target"]
        np.testing.assert_array_equal(point_errors(SHAPE, target), point_errors(np.stack([SHAPE] * 8), target))

    def test_summary_is_numpys(self) -> None:
        errors = np.random.default_rng(0).gamma(2, 2, (7, 5))
        found = summarise(errors, (3.0, 5.5))
        images = errors.mean(1)
        expected = {"error": errors.mean(), "median": np.median(errors), "std": errors.std()}
        expected |= {f"p{q}": np.percentile(errors, q) for q in (75, 90, 95)}
        expected |= {"image_median": np.median(images), "image_std": images.std()}
        expected |= {"found_3": (errors <= 3).mean(), "found_5.5": (errors <= 5.5).mean()}
        assert found == pytest.approx(expected)
        assert summarise(np.zeros((0, 5)), (3.0,)) == {}

    def test_an_error_on_the_threshold_is_found(self) -> None:
        assert summarise(np.array([[5.0, 5.1, 4.9]]), (5.0,))["found_5"] == pytest.approx(2 / 3)

    def test_intervals_are_those_of_all_resamplings(self) -> None:
        """Five images can be drawn in 5 ** 5 ways, all of which are equally likely."""
        values = np.array([[1.0, 9.0], [2.5, 0.0], [4.0, 3.7], [8.0, 1.1], [9.5, 2.0]])
        means = values[list(product(range(5), repeat=5))].mean(1)
        np.testing.assert_allclose(intervals(values, 50_000), np.percentile(means, (2.5, 97.5), axis=0), atol=0.1)
        np.testing.assert_allclose(
            intervals(values, 50_000, level=0.5), np.percentile(means, (25, 75), axis=0), atol=0.1
        )

    def test_intervals_are_those_of_a_normal_mean(self) -> None:
        """By the central limit theorem, and in several blocks of resamplings."""
        values = np.random.default_rng(2).normal(10, 2, (10_000, 1))
        low, high = intervals(values, 400)
        half = 1.959964 * values.std() / 100
        assert (low[0], high[0]) == pytest.approx((values.mean() - half, values.mean() + half), abs=half / 5)
        np.testing.assert_array_equal(intervals(values, 400), (low, high))
        assert intervals(values, 400, seed=1)[0, 0] != low[0]

    def test_normalised_errors_by_hand(self) -> None:
        target = np.array([[[0.0, 0.0], [0.3, 0.4], [0.1, 0.1]]])
        size = np.array([[100, 50]])
        assert span_lengths(target, size, Span("a", (0,), (1,))) == pytest.approx([np.hypot(30, 20)])
        assert span_lengths(target, size, Span("b", (0, 1), (2,))) == pytest.approx([np.hypot(5, 5)])
        assert box_lengths(target, size) == pytest.approx([np.sqrt(30 * 20)])
        assert nme(np.array([[1.0, 3.0], [5.0, 5.0]]), np.array([10.0, 0.0])) == pytest.approx(20)
        assert nme(np.array([[1.0]]), np.array([0.0])) is None


class TestScores:
    def test_the_batches_do_not_matter(self) -> None:
        data = made()
        assert scored(data, 3).compute() == scored(data, 8).compute()

    def test_numbers_of_both_scales_and_all_prefixes(self) -> None:
        data = made()
        found = scored(data).compute()
        for prefix, forecast in (("", data["plain"]), ("tta_", data["tta"]), ("mean_shape_", SHAPE)):
            for scale, size in (("224", 224), ("native", data["size"])):
                errors = point_errors(np.float32(forecast), np.float32(data["target"]), size)
                name = f"{prefix}{{}}_px_{scale}".format
                assert found[name("error")] == pytest.approx(errors.mean(), rel=1e-5)
                assert found[name("p90")] == pytest.approx(np.percentile(errors, 90), rel=1e-5)
                assert found[name("left")] == pytest.approx(errors[:, 1].mean(), rel=1e-5)
                assert found[name("COVID")] == pytest.approx(errors[::2].mean(), rel=1e-5)
                assert found[name("Viral_Pneumonia")] == pytest.approx(errors[1::2].mean(), rel=1e-5)
                assert found[f"{prefix}found_8px_{scale}"] == pytest.approx((errors <= 8).mean())
                low, high = (found[f"{prefix}error_px_{scale}_{end}"] for end in ("low", "high"))
                assert low < found[name("error")] < high
        assert found["tta_error_px_224"] < found["error_px_224"] < found["mean_shape_error_px_224"]

    def test_lengths_and_millimetres(self) -> None:
        data = made()
        found = scored(data).compute()
        errors = point_errors(data["plain"], data["target"], data["size"])
        width = span_lengths(data["target"], data["size"], POINTS.spans[0])
        assert found["nme_width"] == pytest.approx(100 * (errors.mean(1) / width).mean(), rel=1e-5)
        assert found["error_mm"] == pytest.approx(errors.mean() / 10, rel=1e-5)
        assert found["found_2.5mm"] == (errors <= 25).mean()

    def test_names_are_those_that_come(self) -> None:
        scores = scored(made())
        names, found = scores.names(), scores.compute()
        missing = {name for name in names if name not in found}
        assert missing == {f"{p}Normal_px_{s}" for p in ("", "tta_", "mean_shape_") for s in ("224", "native")}
        assert set(found) <= set(names)
        assert (names["error_px_224"], names["tta_found_5px_native"]) == ("min", "max")
        assert names["error_px_224_low"] is names["mean_shape_error_px_224"] is None

    def test_what_is_switched_off_is_absent(self) -> None:
        scores = scored({**made(), "tta": None}, bootstrap=0)
        assert not [name for name in (*scores.compute(), *scores.names()) if "tta" in name or name.endswith("_low")]
        headlines = scores.record()["headlines"]
        assert "error_px_224" in headlines and set(headlines) <= {*scores.names()}
        assert not {f"{stem}_px_224" for stem in scores.point_stems} & {*headlines}
        layout = layout_of(scores.record())
        assert layout is not None
        assert not [name for name in layout.metrics() if "tta" in name or name.endswith("_low")]

    def test_no_score_from_what_is_no_number(self) -> None:
        data = made()
        data["plain"][2, 1, 0] = np.nan
        scores = scored(data)
        found = scores.compute()
        assert "error_px_224" not in found
        assert "nme_width" not in found
        assert found["tta_error_px_224"] > 0
        assert "not a finite number in 1 images" in scores.table()

    def test_they_follow_settings_and_facts(self) -> None:
        facts = {"landmark_set": POINTS.to_json(), "classes": list(CLASSES), "mean_shape": SHAPE.tolist()}
        settings = LandmarkEvaluationSection(tta=False, success_px=[3.0], bootstrap=0)
        names = LandmarkScores.of(settings, facts).names()
        expected = LandmarkScores(POINTS, CLASSES, SHAPE, success_px=[3.0], bootstrap=0).names()
        assert names == expected
        assert "found_3px_224" in names

    def test_nothing_scored(self) -> None:
        scores = LandmarkScores(POINTS, CLASSES, SHAPE)
        assert scores.compute() == {}
        assert len(scores.frame()) == 0
        assert scores.record()["images"] == 0
        assert scores.table()

    def test_names_that_would_be_one_are_told_apart(self) -> None:
        points = LandmarkSet(("error", "a b", "tta_x"))
        scores = LandmarkScores(points, ("a_b", "p75"), SHAPE)
        assert scores.point_stems == ["point_error", "a_b", "point_tta_x"]
        assert scores.class_stems == ["class_a_b", "class_p75"]

    def test_a_wrong_shape_is_a_mistake_of_the_caller(self) -> None:
        with pytest.raises(ValueError, match="expected points"):
            scored({**made(), "target": np.zeros((8, 4, 2))})
        with pytest.raises(ValueError, match="mean shape"):
            LandmarkScores(POINTS, CLASSES, SHAPE[:2])


class TestShown:
    @staticmethod
    def evaluation(data: dict[str, Any]) -> dict[str, Any]:
        scores = scored(data)
        metrics = {f"test/{name}": value for name, value in scores.compute().items()}
        return {"split": "test", "metrics": metrics, "record": scores.record(), "n": 8, "item": "images"}

    def test_the_verdict(self) -> None:
        data = self.evaluation(made())
        verdict = verdict_of(data)
        assert verdict is not None
        assert verdict.sentence == (
            "Beats the mean shape for all, COVID and Viral Pneumonia images; Normal images cannot be judged."
        )
        assert [(row.kind, row.count) for row in verdict.rows] == [("good", 8), ("good", 4), ("good", 4), ("none", 0)]
        error, shape = (data["metrics"][f"test/{name}error_px_224"] for name in ("", "mean_shape_"))
        assert verdict.words(verdict.rows[0]) == f"better than the mean shape: {error:.4g} against {shape:.4g}"
        worse = verdict_of(self.evaluation(made(spread=0.5)))
        assert worse is not None
        assert worse.sentence.startswith("Does not beat the mean shape for all, COVID and Viral Pneumonia images;")

    def test_the_report_shows_every_score_and_the_mean_shape_beside_plain_ones(self) -> None:
        evaluation = self.evaluation(made())
        run: Any = type("Run", (), {"evaluations": {"test": evaluation}})
        part = evaluation_part(run, "test")
        assert part["numbers"] == []
        plain, native, tta, tta_native = dict(part["tables"][0]["rows"])["all"]
        assert plain["kind"] == native["kind"] == "better"
        assert plain["other"] != "–"
        assert tta["other"] == tta_native["other"] == ""

    def test_the_table(self) -> None:
        text = scored(made()).table()
        found = scored(made()).compute()
        line = next(line for line in text.splitlines() if line.startswith("all "))
        assert f"{found['error_px_224']:.3f}| {found['mean_shape_error_px_224']:.2f}*" in line
        assert "8 images of 3 points" in text

    def test_a_row_for_each_image(self) -> None:
        data = made()
        frame = scored(data).frame()
        errors = point_errors(data["plain"], data["target"])
        np.testing.assert_allclose(frame["error_px_224"], errors.mean(1), rtol=1e-4)
        assert list(frame["worst_landmark"]) == [POINTS.names[i] for i in errors.argmax(1)]
        assert list(frame["class"][:2]) == ["COVID", "Viral Pneumonia"]
        np.testing.assert_array_equal(frame[["width", "height"]], data["size"])
