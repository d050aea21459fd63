"""Settings of a simulation and its schedule of faults, checked before anything runs.

Every message names the key that is wrong. Not here: what a fault does (``simulator.effects``).
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Kind = Literal[
    "latency",
    "error",
    "cpu_saturation",
    "memory_leak",
    "dependency_outage",
    "bad_deploy",
    "config_change",
    "traffic_spike",
    "harmless_deploy",
    "network_loss",
    "log_storm",
    "gray_failure",
]

#: Which optional keys each kind reads; any other is refused rather than ignored.
KEYS_OF_KIND: dict[str, frozenset[str]] = {
    "latency": frozenset({"service", "instance", "latency_ms"}),
    "error": frozenset({"service", "instance", "error_rate"}),
    "cpu_saturation": frozenset({"service", "instance", "cpu_left"}),
    "memory_leak": frozenset({"service", "instance"}),
    "dependency_outage": frozenset({"service", "mode"}),
    "bad_deploy": frozenset({"service", "latency_ms", "error_rate"}),
    "config_change": frozenset({"service", "mode"}),
    "traffic_spike": frozenset({"factor"}),
    "harmless_deploy": frozenset({"service"}),
    "network_loss": frozenset({"service", "caller", "loss", "latency_ms"}),
    "log_storm": frozenset({"service", "instance", "lines_per_s"}),
    "gray_failure": frozenset({"service", "instance", "latency_ms", "error_rate"}),
}
_MODES = {"dependency_outage": {"refused", "timeout"}, "config_change": {"skip_call", "other_path"}}


class ScheduleError(ValueError):
    """A schedule or setting that cannot be used; the message names the key and says what would do."""


class FaultSpec(BaseModel):
    """One entry of a schedule: what goes wrong, where and when."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind = Field(description="What goes wrong")
    start: float = Field(ge=0, description="Seconds after the start of the simulation")
    duration: float = Field(gt=0, description="Seconds; a harmless deploy ends by itself and may end earlier")
    service: str = Field(default="", description="Service, store or broker; for network_loss the callee")
    instance: int | None = Field(default=None, ge=0, description="Index of the one instance affected; all without it")
    caller: str = Field(default="", description="network_loss: the calling side of the edge")
    latency_ms: float | None = Field(default=None, gt=0, description="Added median latency of a request")
    error_rate: float | None = Field(default=None, gt=0, le=1, description="Share of requests that fail")
    cpu_left: float = Field(default=0.25, gt=0, lt=1, description="cpu_saturation: share of the processor that is left")
    mode: str = Field(
        default="", description="dependency_outage: refused, timeout; config_change: skip_call, other_path"
    )
    factor: float = Field(default=2.2, gt=1, description="traffic_spike: arrivals relative to before")
    loss: float = Field(default=0.15, ge=0, le=1, description="network_loss: share of calls that never arrive")
    lines_per_s: float = Field(default=80.0, gt=0, description="log_storm: log lines per second and instance")

    @model_validator(mode="after")
    def _keys_fit_the_kind(self) -> FaultSpec:
        given = self.model_fields_set - {"kind", "start", "duration"}
        for key in sorted(given - KEYS_OF_KIND[self.kind]):
            allowed = ", ".join(sorted(KEYS_OF_KIND[self.kind]))
            raise ValueError(f"'{key}' means nothing for kind {self.kind}; it takes: {allowed}")
        if "service" in KEYS_OF_KIND[self.kind] and not self.service:
            raise ValueError(f"'service' is missing: kind {self.kind} needs one")
        if self.kind == "network_loss" and not self.caller:
            raise ValueError("'caller' is missing: network_loss lies on the edge from caller to service")
        if self.mode and self.mode not in _MODES[self.kind]:
            raise ValueError(f"'mode' {self.mode!r} is none of {', '.join(sorted(_MODES[self.kind]))}")
        return self


class FaultPlan(BaseModel):
    """A schedule file: a list of faults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    faults: tuple[FaultSpec, ...] = Field(default=(), description="In any order; they may overlap")


class SimulationConfig(BaseModel):
    """All that decides a simulation; the same values give the same telemetry, byte for byte."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(default=1, ge=0, description="Seed of all random numbers")
    minutes: float = Field(default=20.0, gt=0, le=60 * 24 * 31, description="Simulated time, minutes")
    rate: float = Field(default=25.0, gt=0, description="Mean user requests per second over a week")
    services: Annotated[int, Field(ge=3, le=20_000)] = Field(
        default=15, description="15 is the fixed shop, any other number a generated layered graph of that many"
    )
    start: dt.datetime = Field(
        default=dt.datetime(2026, 3, 4, 10, 0, tzinfo=dt.UTC), description="Simulated start; UTC where no zone is given"
    )
    faults: Literal["none", "demo", "random"] | FaultPlan = Field(default="demo", description="Schedule of faults")
    fault_count: int = Field(default=6, ge=1, le=10_000, description="faults = random: how many at most")
    environment: str = Field(default="shop-sim", min_length=1, description="deployment.environment.name")
    namespace: str = Field(default="", description="service.namespace; empty as in most recordings")
    metric_interval_s: float = Field(default=10.0, ge=1, le=300, description="Time between two points of a series")
    metric_form: Literal["values", "otlp"] = Field(
        default="values", description="values: gauges and rates, as recordings hold; otlp: also counters and histograms"
    )
    season: bool = Field(default=True, description="Load follows the hour and the weekday")
    load_noise: float = Field(default=0.05, ge=0, le=0.5, description="Slow random movement of the load, relative")
    cancel_rate: float = Field(default=0.01, ge=0, le=1, description="Share of requests the client gives up on")
    clock_skew_ms: float = Field(default=0.6, ge=0, le=1, description="Largest clock difference between hosts")
    utilisation: float = Field(default=0.3, gt=0, lt=0.9, description="Processor use that services are provisioned for")

    @property
    def start_ns(self) -> int:
        """Start as UTC epoch nanoseconds."""
        start = self.start if self.start.tzinfo else self.start.replace(tzinfo=dt.UTC)
        return round(start.timestamp() * 1000) * 1_000_000

    @property
    def duration_ns(self) -> int:
        """Simulated time, nanoseconds."""
        return round(self.minutes * 60e9)


def load_schedule(path: Path) -> FaultPlan:
    """A schedule from YAML; raises ``ScheduleError`` that names file, entry and key."""
    try:
        raw: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ScheduleError(f"{path}: cannot be read as YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ScheduleError(f"{path}: expected a mapping with the key 'faults', found {type(raw).__name__}")
    try:
        return FaultPlan.model_validate(raw)
    except ValidationError as error:
        lines = [f"{path}: {_place(e['loc'])}: {e['msg'].removeprefix('Value error, ')}" for e in error.errors()]
        raise ScheduleError("\n".join(lines)) from error


def _place(location: tuple[int | str, ...]) -> str:
    """A pydantic location as people write it: ``faults[1].kind``."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
