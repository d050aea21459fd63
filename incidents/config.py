"""Settings of correlation and incident lifecycle."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class IncidentConfig(BaseModel):
    """When deviations become an incident, and when it ends (``incidents.correlate``)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    warmup_s: float = Field(default=300.0, ge=0, description="Event time an environment is watched before it may alarm")
    open_score: float = Field(default=8.0, gt=0, description="Score of a suspect that opens an incident when it lasts")
    open_buckets: int = Field(default=2, ge=1, description="Buckets in a row that a suspect must hold the score")
    close_score: float = Field(default=4.0, gt=0, description="Score below which an incident is calming down")
    close_buckets: int = Field(default=6, ge=1, description="Calm buckets in a row after which an incident is resolved")
    reopen_s: float = Field(default=300.0, ge=0, description="A recurrence within this time reopens the incident")
    join_score: float = Field(default=3.0, gt=0, description="Score from which a suspect belongs to a cluster")
    memory_buckets: int = Field(default=12, ge=1, description="Buckets that an incident's ranking is averaged over")
    change_window_s: float = Field(default=900.0, ge=0, description="A change this long before onset is evidence")
    max_candidates: int = Field(default=5, ge=1, description="Candidates told at the most")
    max_evidence: int = Field(default=12, ge=1, description="Observations told at the most")
    max_open: int = Field(default=500, ge=1, description="Incidents open at once in one environment")
    load_ratio: float = Field(default=1.5, gt=1, description="Entry traffic against its median that means load")
    identified_margin: float = Field(default=0.25, ge=0, le=1, description="Lead over the second that names one cause")
    history_buckets: int = Field(default=90, ge=1, description="Buckets of golden signals kept for timelines")
    max_services: int = Field(default=20_000, ge=1, description="Services whose golden signals are kept")
    max_fingerprints: int = Field(default=10_000, ge=1, description="Fingerprints of past incidents remembered")
