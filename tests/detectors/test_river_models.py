"""River models watch the golden signals of services, by name from the configuration."""

import pickle

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from detectors.config import ConfigError, RiverConfig, RiverModelConfig, RiverStepConfig
from detectors.river_models import FEATURES, PANEL, RiverPanel

BUCKET = 10_000_000_000

GAUSSIAN = RiverModelConfig(name="errors", model="river.anomaly.GaussianScorer", features=["error_ratio"])
ADWIN = RiverModelConfig(name="adwin", model="river.drift.ADWIN", features=["latency_p50"])
TREES = RiverModelConfig(
    name="trees",
    model="river.anomaly.HalfSpaceTrees",
    parameters={"n_trees": 5, "height": 4, "window_size": 60, "seed": 3},
    scale=True,
)


def buckets(steps, services=2, first=0, seed=0, **fixed):
    rng = np.random.default_rng([seed, first])
    n = steps * services
    columns = {
        "rate": rng.normal(50.0, 2.0, n),
        "error_ratio": rng.beta(2, 100, n),
        "latency_p50": rng.normal(0.1, 0.005, n),
        "latency_p95": rng.normal(0.3, 0.02, n),
        "saturation": rng.normal(0.5, 0.02, n),
    }
    columns.update({name: np.full(n, value) for name, value in fixed.items()})
    return pl.DataFrame(
        {
            "environment": ["prod"] * n,
            "namespace": ["shop"] * n,
            "service": [f"service-{i}" for i in range(services)] * steps,
            "time_ns": (first + np.repeat(np.arange(steps), services)) * BUCKET,
            **columns,
        }
    )


def panel(*models, **settings):
    return RiverPanel(RiverConfig(models=list(models), **settings)) if models else RiverPanel(RiverConfig(**settings))


def test_each_bucket_of_each_service_gets_one_row_per_model():
    out = panel().process(buckets(3, services=4))
    assert out.schema == PANEL
    assert out.height == 3 * 4 * len(RiverConfig().models)
    assert set(out["detector"]) == {model.name for model in RiverConfig().models}


def test_an_empty_frame_gives_an_empty_answer():
    assert panel().process(buckets(0)).schema == PANEL


@pytest.mark.parametrize("model", [GAUSSIAN, TREES], ids=lambda model: model.name)
def test_errors_far_above_the_services_own_score_higher_than_all_before(model):
    watched = panel(model)
    calm = watched.process(buckets(400))
    out = watched.process(buckets(1, first=400, error_ratio=0.9, latency_p50=2.0, latency_p95=5.0))
    assert out["score"].min() > calm["score"].quantile(0.99)


def test_direction_says_whether_the_feature_rose_or_fell():
    watched = panel(GAUSSIAN.model_copy(update={"features": ["rate"]}))
    watched.process(buckets(200))
    assert watched.process(buckets(1, first=200, rate=500.0))["direction"].to_list() == [1, 1]
    assert watched.process(buckets(1, first=201, rate=1.0))["direction"].to_list() == [-1, -1]


def test_a_drift_detector_scores_one_at_a_shift_and_nothing_otherwise():
    watched = panel(ADWIN)
    assert watched.process(buckets(300))["score"].max() == 0.0
    shifted = watched.process(buckets(100, first=300, latency_p50=0.5))
    fired = shifted.filter(pl.col("score") == 1.0)
    assert set(fired["service"]) == {"service-0", "service-1"}
    assert set(fired["direction"]) == {1}


def test_nothing_scores_before_the_warm_up_ends():
    assert panel(warmup_points=50).process(buckets(50))["score"].max() == 0.0


def test_a_bucket_with_hardly_any_requests_is_no_evidence():
    watched = panel(GAUSSIAN, min_rate=1.0)
    watched.process(buckets(200))
    quiet = watched.process(buckets(5, first=200, rate=0.3, error_ratio=1.0))
    assert quiet["score"].max() == 0.0
    assert watched.process(buckets(1, first=205, error_ratio=1.0))["score"].min() > 0.99


def test_missing_values_score_nothing_and_do_no_harm():
    watched, twin = panel(GAUSSIAN, TREES), panel(GAUSSIAN, TREES)
    for each in (watched, twin):
        each.process(buckets(100))
    gap = dict.fromkeys(FEATURES, float("nan"))
    assert watched.process(buckets(1, first=100, **gap))["score"].max() == 0.0
    later = buckets(50, first=101)
    assert_frame_equal(watched.process(later), twin.process(later))


def test_an_incident_is_not_learnt_at_once_but_a_new_normal_is_adopted():
    watched = panel(GAUSSIAN, hold_points=10)
    watched.process(buckets(400))
    long = watched.process(buckets(600, first=400, error_ratio=0.5))
    assert long.head(16)["score"].min() > 0.99
    assert long.tail(2)["score"].max() < 0.95


def test_the_result_is_the_same_however_frames_are_cut_between_times():
    points = buckets(120)
    whole = panel().process(points)
    cut = panel()
    parts = [cut.process(points.filter(pl.col("time_ns") // BUCKET % 120 // 7 == i)) for i in range(18)]
    keys = ["time_ns", "service", "detector"]
    assert_frame_equal(pl.concat(parts).sort(keys), whole.sort(keys), check_exact=True)


def test_a_restored_panel_goes_on_as_if_nothing_had_happened():
    watched = panel()
    watched.process(buckets(100))
    twin = pickle.loads(pickle.dumps(watched))  # noqa: S301 - our own bytes
    later = buckets(60, first=100)
    assert_frame_equal(watched.process(later), twin.process(later), check_exact=True)


def test_the_longest_unseen_service_gives_way_at_the_limit():
    watched = panel(GAUSSIAN, max_entities=2)
    watched.process(buckets(2, services=5))
    assert len(watched) == 2
    assert watched.counters["entities_dropped"] == 8


def test_any_river_pipeline_can_be_named():
    scaled = RiverModelConfig(
        name="loda",
        model="river.anomaly.HalfSpaceTrees",
        parameters={"seed": 1, "n_trees": 3, "height": 3, "window_size": 50},
        preprocess=[RiverStepConfig(model="river.preprocessing.MinMaxScaler")],
    )
    assert panel(scaled).process(buckets(100))["score"].is_between(0, 1).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "os.system"}, r"models\[x\].model: 'os.system' is not below river"),
        ({"model": "river.anomaly.__builtins__"}, "not below river"),
        ({"model": "river.anomaly.NoSuch"}, "check the spelling"),
        ({"model": "river.nomodule.NoSuch"}, "check the spelling"),
        ({"model": "river.anomaly.gaussian.math"}, "name a class|check the spelling"),
        ({"model": "river.anomaly.HalfSpaceTrees", "parameters": {"trees": 5}}, r"x\].parameters: .*trees"),
        ({"model": "river.drift.ADWIN"}, "features: a drift detector watches one feature"),
        ({"model": "river.anomaly.GaussianScorer"}, "name one feature"),
        ({"model": "river.preprocessing.StandardScaler"}, "gives no scores"),
        (
            {"model": "river.anomaly.HalfSpaceTrees", "preprocess": [{"model": "river.drift.ADWIN"}]},
            "transforms nothing",
        ),
    ],
)
def test_a_model_that_cannot_work_is_refused_at_the_start_with_its_key(settings, message):
    with pytest.raises(ConfigError, match=message):
        RiverPanel(RiverConfig(models=[RiverModelConfig(name="x", **settings)]))
