"""River models on the golden signals of services, named in the configuration by their dotted names.

One model per service and entry of the configuration; scores are calibrated per entry over all services. Python per
point, so this is for services (a few thousand models per 10 s bucket), not for every metric series.
"""

from __future__ import annotations

from collections import Counter
from importlib.metadata import version
from typing import Any, Final

import numpy as np
import polars as pl

from detectors.calibrate import TailCalibrator
from detectors.config import RiverConfig, RiverModelConfig
from detectors.river_build import build

ENTITY: Final = ("environment", "namespace", "service")
FEATURES: Final = ("rate", "error_ratio", "latency_p50", "latency_p95", "saturation")

#: What ``RiverPanel.process`` returns: one row per input row and model.
PANEL: Final = pl.Schema(
    {
        **dict.fromkeys(ENTITY, pl.String),
        "time_ns": pl.Int64,
        "detector": pl.String,  # the model's name in the configuration
        "version": pl.String,  # River's
        "feature": pl.String,  # the only feature it sees, "" for several
        "value": pl.Float64,  # that feature, NaN for several
        "score": pl.Float64,  # 1 - p, calibrated over all services; 1 where a drift detector fires
        "direction": pl.Int8,  # +1 above, -1 below the feature's mean, 0 for several features or unscored
    }
)
_VERSION: Final = version("river")
_CAP: Final = 15.0  # surprise of a score that is 1 to the last bit, in decades


class _Watch:
    """One model of one service: its estimator, feature statistics and guards."""

    __slots__ = ("_config", "_held", "_mean", "_model", "_seen", "_square")

    def __init__(self, config: RiverModelConfig) -> None:
        self._config = config
        self._model: Any = build(config)
        self._seen = 0
        self._held = 0
        self._mean: dict[str, float] = {}
        self._square: dict[str, float] = {}

    @property
    def seen(self) -> int:
        return self._seen

    def score(self, x: dict[str, float]) -> float:
        """Surprise >= 0 of an anomaly detector."""
        score = float(self._model.score_one(self._scaled(x)))
        if not np.isfinite(score):
            return 0.0
        if not self._config.unit_scores:
            return max(score, 0.0)
        return float(min(-np.log10(max(1.0 - score, 10.0**-_CAP)), _CAP)) if score > 0 else 0.0

    def shifted(self, x: float) -> bool:
        """Whether a drift detector fires; it learns at the same time."""
        self._model.update(x)
        return bool(self._model.drift_detected)

    def direction(self, feature: str, x: float) -> int:
        mean = self._mean.get(feature)
        return 0 if mean is None or mean == x else 1 if x > mean else -1

    def learn(self, x: dict[str, float], *, extreme: bool, hold_points: int) -> None:
        """Learn, unless the point is extreme and the hold has not run out."""
        if extreme and self._held < hold_points:
            self._held += 1
            return
        if not extreme:
            self._held = 0
        if not self._config.is_drift:
            self._model.learn_one(self._scaled(x))
        self._seen += 1
        rate = max(1.0 / self._seen, 1.0 / 500.0)
        for feature, value in x.items():
            mean = self._mean.get(feature, value)
            self._mean[feature] = mean + rate * (value - mean)
            square = self._square.get(feature, 0.0)
            self._square[feature] = square + rate * ((value - mean) ** 2 - square)

    def _scaled(self, x: dict[str, float]) -> dict[str, float]:
        if not self._config.scale:
            return x
        scaled = {}
        for feature, value in x.items():
            mean = self._mean.get(feature, value)
            deviation = self._square.get(feature, 0.0) ** 0.5 + 1e-9 + 1e-3 * abs(mean)
            scaled[feature] = 0.5 + 0.5 * float(np.tanh((value - mean) / (4.0 * deviation)))
        return scaled


class RiverPanel:
    """The configured River models for every service.

    ``process`` takes buckets in order of time. Models do not score before ``warmup_points`` buckets, nor in buckets
    with less than ``min_rate`` requests per second, which teach nothing either; both give score 0.

    Raises:
        ConfigError: a model of the configuration cannot be built.
    """

    def __init__(self, config: RiverConfig | None = None) -> None:
        self._config = config or RiverConfig()
        for model in self._config.models:
            build(model)  # fail at start, not at the first point
        self._calibrator = TailCalibrator(self._config.calibration, prior_scale=0.5)
        self._pools = [self._calibrator.add_pool() for _ in self._config.models]
        self._watches: dict[tuple[str, str, str], list[_Watch]] = {}
        self.counters: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._watches)

    def process(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Score one row per service and bucket.

        Columns: ``environment``, ``namespace``, ``service``, ``time_ns`` and those of ``FEATURES`` (float, NaN where
        missing; a column may be absent), rows sorted by time. Returns the schema ``PANEL``.
        """
        parts = [self._bucket(part) for part in frame.partition_by("time_ns", maintain_order=True)]
        return pl.concat(parts) if parts else pl.DataFrame(schema=PANEL)

    def _bucket(self, frame: pl.DataFrame) -> pl.DataFrame:
        """All services at one moment; calibrated scores decide what is learnt, with tables of closed epochs only."""
        self._calibrator.advance(int(frame["time_ns"][0]))
        features: list[str] = [name for name in FEATURES if name in frame.columns]
        entities = list(frame.select(ENTITY).iter_rows())
        values = [
            {name: value for name, value in zip(features, row, strict=True) if value is not None and np.isfinite(value)}
            for row in frame.select(features).iter_rows()
        ]
        columns: list[pl.DataFrame] = []
        watches = [self._watched(entity) for entity in entities]
        for number, model in enumerate(self._config.models):
            scored = self._model(number, model, [watch[number] for watch in watches], values)
            columns.append(
                frame.select(*ENTITY, "time_ns").with_columns(
                    detector=pl.lit(model.name),
                    version=pl.lit(_VERSION),
                    feature=pl.lit(model.features[0] if len(model.features) == 1 else ""),
                    **scored,
                )
            )
        if not columns:
            return pl.DataFrame(schema=PANEL)
        return pl.concat(columns).select(pl.col(name).cast(dtype) for name, dtype in PANEL.items())

    def _model(
        self, number: int, config: RiverModelConfig, watches: list[_Watch], values: list[dict[str, float]]
    ) -> dict[str, pl.Series]:
        n = len(watches)
        raw, direction, value = np.zeros(n), np.zeros(n, dtype=np.int8), np.full(n, np.nan)
        seen = [self._visible(config, row) for row in values]
        single = config.features[0] if len(config.features) == 1 else ""
        for i, (watch, x) in enumerate(zip(watches, seen, strict=True)):
            if single and single in x:
                value[i] = x[single]
                direction[i] = watch.direction(single, x[single])
            if not x:
                continue
            if config.is_drift:
                raw[i] = watch.shifted(x[single]) and watch.seen >= self._config.warmup_points
            elif watch.seen >= self._config.warmup_points:
                raw[i] = watch.score(x)
        if config.is_drift:
            score = raw
        else:
            pools = np.full(n, self._pools[number])
            score = self._calibrator.score(raw, pools)
            known = np.array(
                [bool(x) and watch.seen >= self._config.warmup_points for x, watch in zip(seen, watches, strict=True)]
            )
            self._calibrator.observe(raw[known], pools[known])
            score[~known] = 0.0
        for watch, x, s in zip(watches, seen, score.tolist(), strict=True):
            if x:
                watch.learn(x, extreme=s >= self._config.pause_score, hold_points=self._config.hold_points)
        direction[score == 0.0] = 0
        return {"score": pl.Series(score), "direction": pl.Series(direction), "value": pl.Series(value)}

    def _visible(self, config: RiverModelConfig, row: dict[str, float]) -> dict[str, float]:
        if row.get("rate", np.inf) < self._config.min_rate:
            return {}
        if not config.features:
            return row
        return {name: row[name] for name in config.features if name in row}

    def _watched(self, entity: tuple[str, str, str]) -> list[_Watch]:
        watches = self._watches.pop(entity, None)
        if watches is None:
            watches = [_Watch(model) for model in self._config.models]
            if len(self._watches) >= self._config.max_entities:
                del self._watches[next(iter(self._watches))]
                self.counters["entities_dropped"] += 1
        self._watches[entity] = watches  # last again: the order of the dictionary is the order of last sight
        return watches
