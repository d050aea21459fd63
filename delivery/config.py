"""Settings of deployment risk and its gate."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class DeliveryConfig(BaseModel):
    """How risky a change is thought to be, and when it should wait (``delivery.risk``)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    watch_s: float = Field(
        default=900.0,
        gt=0,
        description="Event time in which an incident that names a change as its cause's means it failed, seconds",
    )
    hold_risk: float = Field(default=0.5, gt=0, le=1, description="Probability of failure from which a change is held")
    canary_risk: float = Field(
        default=0.2, gt=0, le=1, description="Probability of failure from which a change goes to a few instances first"
    )
    min_outcomes: int = Field(
        default=20, ge=1, description="Outcomes below which the gate rests on the prior and says so"
    )
    max_services: int = Field(default=10_000, ge=1, description="Services with changes remembered, per environment")
    max_watched: int = Field(default=10_000, ge=1, description="Changes that wait for their outcome, per environment")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.canary_risk > self.hold_risk:
            raise ValueError(f"canary_risk {self.canary_risk} must not be above hold_risk {self.hold_risk}")
        return self
