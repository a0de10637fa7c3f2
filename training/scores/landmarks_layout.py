"""How landmark scores are shown in reports, and what each of them is, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from training.scores.landmark_errors import PIXELS, SUMMARY
from training.scores.layout import Baseline, Judged, Layout, Row, Table, Way

BY_CLASS = "Mean error"
BY_POINT = "Mean error by landmark"
_TITLES = {
    "error": "mean",
    "median": "median",
    "std": "standard deviation",
    "p75": "75th percentile",
    "p90": "90th percentile",
    "p95": "95th percentile",
    "image_median": "median of the images' means",
    "image_std": "standard deviation of the images' means",
}


def landmark_layout(record: Mapping[str, Any]) -> Layout:
    """The layout of what `LandmarkScores.record` says."""
    tables = [_by_class(record), _overall(record), _success(record), _by_point(record), _relative(record)]
    broken = record["not_finite"]
    return Layout(
        tables=[table for table in tables if table is not None],
        counts=[_counts(record)],
        baseline=Baseline(
            "the mean shape", "puts every point where it lies on average in the training split", "mean_shape_", "tta_"
        ),
        judged=Judged(
            table=BY_CLASS,
            measure=f"the mean error in pixels of {PIXELS} x {PIXELS}, without test-time augmentation",
            rows="{} images",
            column="scale",
            counted="images",
            counts=[record["images"], *(record["class_images"][name] for name in _shown_classes(record).values())],
            columns=1,
        ),
        warnings=[f"A predicted point is not a finite number in {broken:,} images; there is no score."]
        if broken
        else [],
    )


def _columns(record: Mapping[str, Any]) -> list[str]:
    heads = [f"px at {PIXELS}", "native px"]
    return [*heads, *(f"{head}, TTA" for head in heads)] if record["tta"] else heads


def _cells(record: Mapping[str, Any], name: str) -> list[str]:
    """A metric on both scales, then the same with test-time augmentation; ``name`` has a place for the scale."""
    cells = [name.format(scale="224"), name.format(scale="native")]
    return [*cells, *(f"tta_{cell}" for cell in cells)] if record["tta"] else cells


def _shown_classes(record: Mapping[str, Any]) -> dict[str, str]:
    """Classes by stem, where there are several."""
    return dict(record["classes"]) if len(record["classes"]) > 1 else {}


def _table(record: Mapping[str, Any], title: str, about: str, corner: str, rows: Sequence[Row]) -> Table:
    return Table(title=title, about=about, corner=corner, columns=_columns(record), rows=rows)


def _by_class(record: Mapping[str, Any]) -> Table:
    stems = {"error": "all", **_shown_classes(record)}
    rows = [Row(name, _cells(record, f"{stem}_px_{{scale}}"), "min") for stem, name in stems.items()]
    return _table(record, BY_CLASS, "distance to the true point, mean over points and images", "images", rows)


def _overall(record: Mapping[str, Any]) -> Table:
    rows = [Row(title, _cells(record, f"{name}_px_{{scale}}"), "min") for name, title in _TITLES.items()]
    if record["bootstrap"]["resamplings"]:
        rows[1:1] = [
            Row(f"mean, {end} end of its 95 % interval", _cells(record, f"error_px_{{scale}}_{name}"))
            for name, end in (("low", "lower"), ("high", "upper"))
        ]
    return _table(record, "Distribution of errors", "over all points of all images", "", rows)


def _success(record: Mapping[str, Any]) -> Table:
    rows = [Row(f"{t:g} px", _cells(record, f"found_{t:g}px_{{scale}}"), "max") for t in record["success_px"]]
    return _table(record, "Success rates", "share of points whose error is at most that", "within", rows)


def _by_point(record: Mapping[str, Any]) -> Table:
    rows = [Row(name, _cells(record, f"{stem}_px_{{scale}}"), "min") for stem, name in record["points"].items()]
    return _table(record, BY_POINT, "mean over images", "landmark", rows)


def _relative(record: Mapping[str, Any]) -> Table:
    names: dict[str, tuple[str, Way]] = {
        f"nme_{name}": (f"NME, {name}, %", "min") for name in (*record["spans"], "box")
    }
    if record["mm_per_px"] is not None:
        names["error_mm"] = ("mean error in mm", "min")
        names |= {f"found_{t:g}mm": (f"found within {t:g} mm", "max") for t in record["success_mm"]}
    prefixes = ("", "tta_") if record["tta"] else ("",)
    return Table(
        title="Errors that do not depend on pixels",
        about="normalised mean errors (NME) in percent of a length",
        columns=["plain", "TTA"][: len(prefixes)],
        rows=[Row(title, [f"{p}{name}" for p in prefixes], better) for name, (title, better) in names.items()],
    )


def _counts(record: Mapping[str, Any]) -> Table:
    rows = [Row(name, [count, count * len(record["points"])]) for name, count in record["class_images"].items()]
    whole = Row("all", [record["images"], record["images"] * len(record["points"])])
    return Table(title="Images and points", corner="class", columns=["images", "points"], rows=[*rows, whole])


def landmark_definitions(record: Mapping[str, Any]) -> dict[str, str]:
    """What each score is. ``<landmark>`` and ``<class>`` stand for their names."""
    found = {
        "_224": f"in pixels of an image whose axes both go from 0 to {PIXELS}, whatever its size and the model's",
        "_native": "in pixels of the image as it came",
        **{f"{name}_px": f"distance between predicted and true point, {text}" for name, text in SUMMARY.items()},
        "found_<t>px": "share of all points whose distance to the true point is at most t pixels",
        "<landmark>_px": "mean over images of one landmark's distance",
        "<class>_px": "mean over a class's images of each image's mean distance",
        "nme_<length>": "mean over images of (mean distance / length), in percent, in pixels of the image as it came",
        "nme_box": "the same with sqrt(width * height) of the box around the true points as length",
        "mean_shape": "the same scores of the training split's mean points as prediction for every image",
        "undefined": "a score that cannot be computed is absent",
    }
    if record["tta"]:
        found["tta"] = "the same scores of the mean of an image's prediction and its mirror image's, mirrored back"
    if record["bootstrap"]["resamplings"]:
        found["error_px_low, error_px_high"] = (
            f"95 % interval of the mean: percentiles of {record['bootstrap']['resamplings']:,} bootstrap means over "
            "images (Efron and Tibshirani 1993)"
        )
    if record["mm_per_px"] is not None:
        found["error_mm"] = (
            f"mean distance in millimetres, at {record['mm_per_px']:g} mm a pixel of the image as it came"
        )
        found["found_<t>mm"] = "share of all points whose distance to the true point is at most t millimetres"
    return found
