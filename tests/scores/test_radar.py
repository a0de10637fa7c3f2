"""Nowcast scores against the `scores` package, and their corner cases."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest
import torch
import xarray as xr
from pytorch_msssim import ssim
from torch import Tensor

from backend.errors import ConfigError
from backend.preprocessing.radar import RadarPreprocessing
from training.scores.radar import NowcastScores
from training.scores.radar_table import _pair, higher

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from scores.categorical import BinaryContingencyManager
    from scores.continuous import mae, rmse

MIN_DBZ, MAX_DBZ = -29.0, 65.0
THRESHOLDS = (20.0, 30.0, 32.5, 50.0)
INDEPENDENT = {
    "csi": "critical_success_index",
    "pod": "probability_of_detection",
    "far": "false_alarm_ratio",
    "bias": "frequency_bias",
    "hss": "heidke_skill_score",
}

Fields = dict[str, Tensor]


def make(leads: int = 7, thresholds: tuple[float, ...] = THRESHOLDS) -> NowcastScores:
    return NowcastScores(thresholds, leads, MIN_DBZ, MAX_DBZ, "16 x 18 at 2 km")


def random_fields(seed: int, rows: int = 4, leads: int = 7, missing: float = 0.1) -> Fields:
    """Whole dBZ values (so that many lie exactly on a threshold), a forecast near the truth, random gaps."""
    rng = np.random.default_rng(seed)
    shape = (rows, leads, 16, 18)
    truth = rng.integers(-29, 66, shape).astype(np.float64)
    forecast = np.clip(truth + rng.integers(-15, 16, shape), MIN_DBZ, MAX_DBZ)
    last = rng.integers(-29, 66, (rows, 16, 18)).astype(np.float64)
    return {
        "prediction": normalise(forecast),
        "target": normalise(truth),
        "valid": torch.from_numpy(rng.random(shape) >= missing),
        "last_input": normalise(last),
        "last_valid": torch.from_numpy(rng.random(last.shape) >= missing),
    }


def normalise(dbz: np.ndarray | Tensor) -> Tensor:
    return torch.as_tensor((dbz - MIN_DBZ) / (MAX_DBZ - MIN_DBZ), dtype=torch.float32)


def dbz(field: Tensor) -> np.ndarray:
    return np.round(field.double().numpy() * (MAX_DBZ - MIN_DBZ) + MIN_DBZ, 4)


def adversarial() -> dict[str, Fields]:
    base = random_fields(3)
    empty = torch.zeros_like(base["prediction"])
    full = torch.ones_like(empty)
    return {
        "random": base,
        "all valid": random_fields(4, missing=0.0),
        "nothing valid": base | {"valid": torch.zeros_like(base["valid"])},
        "one lead without data": base | {"valid": base["valid"] & (torch.arange(7) != 2)[None, :, None, None]},
        "last input missing": base | {"last_valid": torch.zeros_like(base["last_valid"])},
        "nothing observed": base | {"target": empty},
        "nothing forecast": base | {"prediction": empty},
        "nothing at all": base | {"target": empty, "prediction": empty, "last_input": empty[:, 0]},
        "everything": base | {"target": full, "prediction": full, "last_input": full[:, 0]},
        "perfect": base | {"prediction": base["target"]},
        "garbage where invalid": base | {"target": torch.where(base["valid"], base["target"], math.nan)},
    }


def independent(fields: Fields) -> dict[str, float]:
    """The same scores from the `scores` package on dBZ fields with NaN for what does not count."""
    counts = fields["valid"] & fields["last_valid"].unsqueeze(1)
    observed = xr.DataArray(np.where(counts, dbz(fields["target"]), np.nan), dims=("row", "lead", "y", "x"))
    last = fields["last_input"].unsqueeze(1).expand(fields["target"].shape)
    out: dict[str, float] = {}
    for prefix, field in (("", fields["prediction"]), ("persistence_", last)):
        forecast = xr.DataArray(np.where(counts, dbz(field), np.nan), dims=("row", "lead", "y", "x"))
        for suffix, lead in [("", slice(None)), *((f"_lead_{n + 1}", [n]) for n in range(counts.shape[1]))]:
            fcst, obs = forecast[:, lead], observed[:, lead]
            out |= {f"{prefix}{name}{suffix}": value for name, value in _categorical(fcst, obs).items()}
            echo = obs >= 5
            for name, function in (("mae", mae), ("rmse", rmse)):
                out[f"{prefix}{name}_dbz{suffix}"] = float(function(fcst, obs))
                out[f"{prefix}{name}_echo_dbz{suffix}"] = float(function(fcst.where(echo), obs.where(echo)))
    return {name: value for name, value in out.items() if math.isfinite(value)}


def _categorical(forecast: xr.DataArray, observed: xr.DataArray) -> dict[str, float]:
    known = observed.notnull()
    out = {}
    for threshold in THRESHOLDS:
        events = [(field >= threshold).astype(float).where(known) for field in (forecast, observed)]
        manager = BinaryContingencyManager(*events).transform()
        out |= {f"{name}_{threshold:g}": float(getattr(manager, theirs)()) for name, theirs in INDEPENDENT.items()}
    return out


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("case", adversarial())
def test_agrees_with_the_scores_package(case: str) -> None:
    fields = adversarial()[case]
    scores = make()
    scores.update(**fields)
    ours = {name: value for name, value in scores.compute().items() if "ssim" not in name}
    theirs = independent(fields)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert ours[name] == pytest.approx(value, rel=1e-5, abs=1e-5), name


def test_names_are_whole_numbers_where_they_can_be() -> None:
    scores = make()
    scores.update(**random_fields(0))
    assert {"csi_30_lead_7", "persistence_csi_30_lead_7", "bias_32.5", "hss_20", "mae_echo_dbz_lead_1"} <= set(
        scores.compute()
    )


def test_a_value_on_the_threshold_is_an_event_for_every_threshold() -> None:
    for threshold in np.arange(-28.5, 65.5, 0.5):
        scores = make(1, (float(threshold),))
        field = normalise(np.full((1, 1, 8, 8), threshold))
        everywhere = torch.ones(1, 1, 8, 8, dtype=torch.bool)
        scores.update(field, field, everywhere, field[:, 0], everywhere[:, 0])
        assert scores.record()["counts"]["model"][f"{threshold:g}"]["hits"] == [64]


def test_undefined_scores_are_absent() -> None:
    fields = adversarial()["nothing at all"]
    scores = make()
    scores.update(**fields)
    assert not [name for name in scores.compute() if name.startswith(("csi", "pod", "far", "bias", "hss"))]
    assert scores.compute()["mae_dbz"] == 0
    assert "mae_echo_dbz" not in scores.compute()


def test_nothing_seen_gives_no_scores_but_a_record_and_a_table() -> None:
    scores = make()
    assert scores.compute() == {}
    assert json.loads(json.dumps(scores.record()))["pixels"] == [0] * 7
    assert "CSI" in scores.table()


def test_pooled_is_from_the_sums_and_not_a_mean_of_the_leads() -> None:
    """Lead 1: 90 hits of 100 events. Lead 2: no hit of one event. Pooled 90/101, mean of the leads 0.45."""
    target, prediction = torch.zeros(1, 2, 10, 10), torch.zeros(1, 2, 10, 10)
    target[0, 0], target[0, 1, 0, 0] = 1, 1
    prediction[0, 0, :9] = 1
    valid = torch.ones(1, 2, 10, 10, dtype=torch.bool)
    scores = make(2, (30.0,))
    scores.update(prediction, target, valid, target[:, 0], valid[:, 0])
    computed = scores.compute()
    assert computed["csi_30_lead_1"] == 0.9
    assert computed["csi_30_lead_2"] == 0
    assert computed["csi_30"] == pytest.approx(90 / 101)


def test_slicing_into_micro_batches_changes_nothing() -> None:
    fields = random_fields(5, rows=9)
    whole, sliced = make(), make()
    whole.update(**fields)
    for start, stop in ((0, 1), (1, 3), (3, 9)):
        sliced.update(**{name: value[start:stop] for name, value in fields.items()})
    assert whole.record() == sliced.record()
    for name, value in whole.compute().items():
        assert sliced.compute()[name] == pytest.approx(value, rel=1e-9, abs=1e-9), name


def test_model_and_persistence_count_the_same_pixels() -> None:
    scores = make()
    scores.update(**random_fields(6, missing=0.3))
    record = scores.record()
    for threshold in ("20", "32.5"):
        for lead in range(7):
            for by_threshold in record["counts"].values():
                assert sum(counts[lead] for counts in by_threshold[threshold].values()) == record["pixels"][lead]


def test_ssim_is_pytorch_msssims_where_all_is_valid() -> None:
    fields = random_fields(7, missing=0.0)
    scores = make()
    scores.update(**fields)
    last = fields["last_input"].unsqueeze(1).expand_as(fields["target"])
    for prefix, forecast in (("", fields["prediction"]), ("persistence_", last)):
        for lead in range(7):
            pair = (forecast[:, lead, None], fields["target"][:, lead, None])
            expected = ssim(*pair, data_range=1, win_size=7, win_sigma=1.5)
            assert scores.compute()[f"{prefix}ssim_lead_{lead + 1}"] == pytest.approx(float(expected), abs=1e-6)


def test_ssim_ignores_every_position_that_touches_no_data() -> None:
    fields = random_fields(8, missing=0.0)
    fields["valid"][:, :, :, 9:] = False
    cut = {name: value[..., :9] for name, value in fields.items()}
    masked, cropped = make(), make()
    masked.update(**fields)
    cropped.update(**cut)
    assert masked.compute()["ssim"] == pytest.approx(cropped.compute()["ssim"], abs=1e-6)
    assert masked.record()["ssim_positions"] == cropped.record()["ssim_positions"] == [4 * 10 * 3] * 7


def test_a_grid_smaller_than_the_window_has_no_ssim() -> None:
    fields = {name: value[..., :6, :6] for name, value in random_fields(9).items()}
    scores = make()
    scores.update(**fields)
    assert not [name for name in scores.compute() if "ssim" in name]
    assert "csi_20" in scores.compute()


def test_a_forecast_that_is_not_finite_has_no_scores_at_that_lead() -> None:
    fields = random_fields(10, missing=0.0)
    fields["prediction"][1, 3, 8, 8] = math.nan
    scores = make()
    scores.update(**fields)
    names = scores.compute().keys()
    assert not {"csi_20_lead_4", "csi_20", "mae_dbz_lead_4", "mae_dbz", "ssim_lead_4", "ssim"} & names
    assert {"csi_20_lead_3", "mae_dbz_lead_3", "persistence_csi_20_lead_4", "persistence_ssim"} <= names
    assert scores.record()["not_finite"] == [0, 0, 0, 1, 0, 0, 0]
    assert "not a finite number" in scores.table()


def test_counts_of_a_long_evaluation_do_not_overflow() -> None:
    from training.scores.contingency import Contingency

    table = Contingency(hits=4 * 10**12, misses=10**12, false_alarms=10**12, correct_negatives=4 * 10**12)
    assert table.scores()["hss"] == pytest.approx(0.6)


def test_half_precision_under_autocast_scores_as_float32() -> None:
    fields = random_fields(11)
    fields["prediction"] = fields["prediction"].bfloat16()
    plain, under_autocast = make(), make()
    plain.update(**fields)
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast.update(**fields)
    assert plain.compute() == under_autocast.compute()


def test_the_record_is_json_and_names_the_grid_and_the_definitions() -> None:
    scores = make()
    scores.update(**random_fields(12))
    record = json.loads(json.dumps(scores.record()))
    assert record["scale"] == "16 x 18 at 2 km"
    assert record["rows"] == 4
    assert record["thresholds_dbz"] == [20, 30, 32.5, 50]
    assert "Wilks" in record["definitions"]["literature"]
    assert sum(record["observed_pixels"]["20"]) == sum(
        record["counts"]["model"]["20"]["hits"] + record["counts"]["model"]["20"]["misses"]
    )


def test_the_table_marks_where_the_model_beats_persistence() -> None:
    fields = random_fields(13)
    scores = make()
    scores.update(**fields | {"prediction": fields["target"]})
    lines = scores.table().splitlines()
    csi_20 = lines[lines.index("CSI") + 2]
    assert csi_20.split()[0] == "20"
    assert csi_20.count("1.000|") == csi_20.count("*") == 8
    assert all(len(line) <= 150 for line in lines)


@pytest.mark.parametrize("thresholds", [(), (20.0, 20.0), (-29.0,), (70.0,)])
def test_impossible_thresholds_are_refused_in_one_line(thresholds: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match=r"^thresholds in dBZ: expected .* above -29 and up to 65; found [^\n]+$"):
        make(7, thresholds)


def test_fields_of_the_wrong_shape_are_refused() -> None:
    fields = random_fields(14)
    with pytest.raises(ValueError, match=r"expected \(4, 5, 16, 18\)"):
        make(leads=5).update(**fields)
    with pytest.raises(ValueError, match=r"expected \(4, 16, 18\)"):
        make().update(**fields | {"last_input": fields["last_input"][:, :4]})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_update_does_not_wait_for_the_gpu() -> None:
    fields = {name: value.cuda() for name, value in random_fields(15).items()}
    scores, reference = make(), make()
    scores.update(**fields)
    torch.cuda.set_sync_debug_mode("error")
    try:
        scores.update(**fields)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for _ in range(2):
        reference.update(**{name: value.cpu() for name, value in fields.items()})
    assert scores.record() == reference.record()


def test_a_value_stored_just_below_its_threshold_is_still_an_event() -> None:
    """Bytes in steps of half a dBZ, packed into 8 bits: 20 dBZ becomes 19.85, 19.5 becomes 19.48."""
    packing = RadarPreprocessing(min_dbz=MIN_DBZ, max_dbz=MAX_DBZ, bits=8)
    dbz = np.arange(-29.0, 65.5, 0.5, dtype=np.float32)
    for threshold in (20.0, 30.0, 35.0, 40.0, 45.0, 50.0):
        scores = NowcastScores((threshold,), 1, MIN_DBZ, MAX_DBZ, "made", packing.as_stored)
        stored, valid = packing.normalise(torch.from_numpy(packing.pack(dbz)).view(1, 1, 1, -1))
        scores.update(stored, stored, valid, stored[:, 0], valid[:, 0])
        assert scores.record()["observed_pixels"] == {f"{threshold:g}": [int((dbz >= threshold).sum())]}
        assert abs(scores.record()["counted_from_dbz"][f"{threshold:g}"] - threshold) <= packing.packing_error_dbz


def test_no_mark_where_both_show_the_same_number_and_no_negative_zero() -> None:
    assert _pair({"x": 0.0, "persistence_x": -0.0004}, "x", higher).split("|") == [" 0.000", " 0.000 "]
    assert _pair({"x": 0.5, "persistence_x": 0.4}, "x", higher).split("|") == [" 0.500", " 0.400*"]
    assert _pair({"x": 0.4, "persistence_x": 0.5}, "x", higher).split("|") == [" 0.400", " 0.500 "]
