"""Settings of trace assembly and root-cause ranking."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from topology.assembly import AssemblyConfig
from topology.ranking import RankingConfig

_NS = 1_000_000_000


class AssemblySettings(BaseModel):
    """How long spans wait for each other (``topology.assembly``)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    parent_wait_s: float = Field(default=10.0, ge=0, description="Wait for a parent that has not ended, seconds")
    memory_s: float = Field(default=60.0, gt=0, description="Parents and log lines are remembered so long, seconds")
    max_waiting: int = Field(default=2_000_000, ge=1, description="Spans that wait at the most, per shard")

    def build(self) -> AssemblyConfig:
        """In the assembler's own terms."""
        return AssemblyConfig(int(self.parent_wait_s * _NS), int(self.memory_s * _NS), self.max_waiting)


class RankingSettings(BaseModel):
    """Weights of the root-cause ranking (``topology.ranking``); one setting for all systems."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inherited: float = Field(default=0.35, ge=0, le=1, description="What a fully explained deviation still counts")
    reach: int = Field(default=3, ge=1, le=10, description="Hops downstream in which a reason is looked for")
    distance: float = Field(default=0.8, gt=0, le=1, description="What a reason counts for one hop farther away")
    secondary: float = Field(default=0.05, ge=0, le=1, description="Share of further signs added to the strongest")

    def build(self) -> RankingConfig:
        """In the ranking's own terms."""
        return RankingConfig(self.inherited, self.reach, self.distance, self.secondary)
