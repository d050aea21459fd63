"""Settings of the span-behaviour detector."""

from __future__ import annotations

from pydantic import Field

from detectors.config import Settings


class SpanBehaviourConfig(Settings):
    """What spans do given their operation (``detectors.span_behaviour``)."""

    window_buckets: int = Field(default=3, ge=1, description="Buckets that are compared with history")
    min_history: int = Field(default=30, ge=1, description="Spans of an operation learnt before it is judged")
    min_window: int = Field(default=5, ge=1, description="Spans of an operation in the window before it is judged")
    min_lines: int = Field(default=20, ge=1, description="Log lines of a service in the window before they are judged")
    min_effect: float = Field(default=0.05, gt=0, lt=1, description="Least change of a share that is evidence")
    effect_z: float = Field(default=0.0, ge=0, description="Width of the interval a change must clear, in deviations")
    significance_cap: float = Field(default=60.0, gt=0, description="Significance beyond which only size counts")
    hold_score: float = Field(default=6.0, gt=0, description="Score from which a service's buckets are not learnt")
    max_hold_buckets: int = Field(default=180, ge=1, description="Held buckets after which the new normal is learnt")
    warmup_buckets: int = Field(default=30, ge=1, description="Buckets of a service that are always learnt")
    half_life_hours: float = Field(default=24.0, gt=0, description="History's weight halves after this many hours")
    tail_margin_bins: int = Field(default=1, ge=0, description="Histogram bins (19 % each) above the 95th percentile")
    max_operations: int = Field(default=200_000, ge=1, description="Operations remembered by one shard")
    max_behaviours: int = Field(default=1_000_000, ge=1, description="Behaviours remembered by one shard")
