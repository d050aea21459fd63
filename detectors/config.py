"""Settings of the detectors, composed into the application's settings by ``flows``."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field


class ConfigError(ValueError):
    """A setting that cannot work; the message names the key and says what to do."""


class Settings(BaseModel):
    """Base of this room's settings: frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class CalibrationConfig(Settings):
    """Raw scores to tail probabilities (``detectors.calibrate``)."""

    prior_points: int = Field(default=2000, ge=1, description="Weight of the prior tail, in points")
    half_life_days: float = Field(default=14.0, gt=0, description="A point's weight halves after this many days")
    tail_fraction: float = Field(default=0.02, gt=0, lt=0.5, description="Share of points the tail fit rests on")
    epoch_s: float = Field(default=60.0, gt=0, description="Event time between updates of the tail table, seconds")


class BankConfig(Settings):
    """The vectorised detector that screens every series (``detectors.bank``)."""

    warmup_points: int = Field(default=30, ge=12, description="Points of a series before it is scored")
    fast_points: int = Field(default=24, ge=2, description="Span of the short mean, points")
    middle_points: int = Field(default=100, ge=2, description="Span of the medium mean, points")
    slow_points: int = Field(default=500, ge=2, description="Span of the long mean, points")
    spread_points: int = Field(default=1000, ge=10, description="Span of the mean and variance that studentise, points")
    memory_points: int = Field(
        default=3000, ge=10, description="Points a view's deviation remembers; full surprise then"
    )
    pause_views: float = Field(default=2.0, gt=0, le=5, description="Views beyond their records that pause learning")
    hold_points: float = Field(
        default=10.0,
        gt=0,
        description="Longest pause, in points of a minute or more (closer points count in proportion)",
    )
    record_half_life_days: float = Field(default=365.0, gt=0, description="Records shrink by half towards the mean")


class SeriesConfig(Settings):
    """Screening of all metric and golden-signal series (``detectors.series``)."""

    max_series: int = Field(default=100_000, ge=1, description="Series held; the longest unseen is dropped beyond it")
    max_pools: int = Field(default=512, ge=1, description="Metric names calibrated on their own; others share a pool")
    silent_intervals: float = Field(default=5.0, gt=1, description="Missed points after which a series has vanished")
    bank: BankConfig = BankConfig()
    calibration: CalibrationConfig = CalibrationConfig()


class RiverStepConfig(Settings):
    """A River transformer in front of a model."""

    model: str = Field(description="Dotted name below river., e.g. river.preprocessing.StandardScaler")
    parameters: dict[str, Any] = Field(default_factory=dict, description="Keyword arguments of the class")


class RiverModelConfig(Settings):
    """One River model, built for each service it watches."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_.-]+$", description="Name of the detector in anomalies")]
    model: str = Field(description="Dotted name below river., e.g. river.anomaly.HalfSpaceTrees or river.drift.ADWIN")
    parameters: dict[str, Any] = Field(
        default_factory=dict,
        description="Keyword arguments of the class; {model, parameters} makes a nested River object",
    )
    preprocess: list[RiverStepConfig] = Field(default_factory=list, description="Transformers in front, in order")
    features: list[str] = Field(default_factory=list, description="Columns it sees; empty = all golden signals")
    scale: bool = Field(default=False, description="Normalise features online into [0, 1] (HalfSpaceTrees needs it)")
    unit_scores: bool = Field(
        default=True, description="Scores lie in [0, 1], as HalfSpaceTrees' and GaussianScorer's do"
    )

    @property
    def is_drift(self) -> bool:
        """Whether the model is a drift detector, by its module."""
        return self.model.startswith("river.drift.")


class RiverConfig(Settings):
    """River models on the golden signals of services (``detectors.river_models``)."""

    models: list[RiverModelConfig] = Field(
        default=[
            RiverModelConfig(
                name="half_space_trees",
                model="river.anomaly.HalfSpaceTrees",
                parameters={"n_trees": 10, "height": 6, "window_size": 120, "seed": 7},
                scale=True,
            ),
            RiverModelConfig(name="gaussian_errors", model="river.anomaly.GaussianScorer", features=["error_ratio"]),
            RiverModelConfig(name="gaussian_latency", model="river.anomaly.GaussianScorer", features=["latency_p95"]),
            RiverModelConfig(name="adwin_latency", model="river.drift.ADWIN", features=["latency_p50"]),
        ],
        description="Models run for each service",
    )
    max_entities: int = Field(
        default=10_000, ge=1, description="Services held; the longest unseen is dropped beyond it"
    )
    warmup_points: int = Field(default=60, ge=2, description="Buckets of a service before its models score")
    min_rate: float = Field(default=0.5, ge=0, description="Requests/s below which a bucket is no evidence")
    pause_score: float = Field(default=0.999, gt=0, le=1, description="Calibrated score at which learning pauses")
    hold_points: int = Field(default=30, ge=1, description="Buckets that learning may pause in a row")
    calibration: CalibrationConfig = CalibrationConfig()


class TemplateConfig(Settings):
    """Log template mining (``detectors.templates``)."""

    similarity: float = Field(default=0.75, gt=0, le=1, description="Share of equal tokens to join a template")
    depth: int = Field(default=2, ge=1, description="Leading tokens that must be equal where they hold no parameter")
    max_templates_per_service: int = Field(default=1000, ge=1, description="Templates held per service")
    max_templates: int = Field(default=50_000, ge=1, description="Templates held in all")
    max_cached_lines: int = Field(default=200_000, ge=0, description="Masked lines whose template is remembered")
    max_line_chars: int = Field(default=1000, ge=16, description="Longer lines are cut here before mining")
    max_tokens: int = Field(default=200, ge=1, description="Tokens of a line that are looked at")
    extra_masks: list[str] = Field(default_factory=list, description="Regular expressions (Rust syntax) of parameters")


class DetectorsConfig(Settings):
    """All settings of this room."""

    series: SeriesConfig = SeriesConfig()
    river: RiverConfig = RiverConfig()
    templates: TemplateConfig = TemplateConfig()
