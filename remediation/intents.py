"""Remediation intents and outcomes: CloudEvents with JSON Schemas in ``docs/schemas``.

An intent says what may be done, why and until when; an outcome says what was done. Intents carry event time, so that a
replay decides the same; outcomes carry the executor's clock, because acting happens in the world.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from incidents.model import EntityAttributes, Model, Probability, Rfc3339, Verdict

INTENT_TYPE: Final = "io.mendstream.remediation.intent.v1"
INTENT_SCHEMA: Final = "mendstream:schemas/remediation_intent/v1"
OUTCOME_TYPE: Final = "io.mendstream.remediation.outcome.v1"
OUTCOME_SCHEMA: Final = "mendstream:schemas/remediation_outcome/v1"

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Mode = Literal["shadow", "propose", "approve", "auto"]
ParamValue = str | int | float | bool


class IncidentRef(Model):
    """The incident revision an intent answers."""

    id: str
    revision: Annotated[int, Field(ge=1)]


class PlaybookRef(Model):
    """Exactly which playbook."""

    id: str
    version: str
    digest: Digest


class DecisionRecord(Model):
    """Why the policy said so."""

    policy: str
    policy_digest: Digest
    rule: str | None = Field(description="The deciding rule; null where the policy's default decided")
    decision: Mode = Field(description="What the rule or default said before caps; the intent's mode is what is left")
    reasons: list[str] = Field(description="Sentences for people: the rule, and every cap that applied")
    verdict: Verdict
    fault_kind: str
    confidence: Probability
    margin: float = Field(ge=-1.0, le=1.0, description="Confidence above the second candidate's")


class BlastRadius(Model):
    """What acting on the target can hurt."""

    dependents: Annotated[int, Field(ge=0)] = Field(description="Services that call it, directly or through others")
    instances: int | None = Field(default=None, description="Instances of the service, where operators say so")
    fraction: Probability | None = Field(default=None, description="Share of the service's instances acted on")


class Risk(Model):
    """The playbook's risk, and this target's blast radius."""

    tier: Literal["low", "medium", "high"]
    reversible: bool
    undo: str | None = Field(description="First undo step, null where there is none")
    blast_radius: BlastRadius


class PreconditionRef(Model):
    """A CEL condition that is read again at the moment of acting."""

    expr: str


class ExpectedEffect(Model):
    """What should be seen afterwards."""

    metric: str
    op: Literal["lt", "le", "gt", "ge"]
    value: float
    within: str


class VerificationPlan(Model):
    """How the expected effect is looked for; the playbook's ``verify`` as it was decided on."""

    name: str
    initial_delay: str
    interval: str
    count: Annotated[int, Field(ge=1)]
    success_condition: str
    failure_limit: Annotated[int, Field(ge=0)]
    inconclusive_limit: Annotated[int, Field(ge=0)]
    provider: dict[str, Any]


class ApprovalRequest(Model):
    """Who has to agree before anything runs."""

    required: Annotated[int, Field(ge=1)]
    roles: list[str] = Field(description="Any of these; empty: anyone with access")
    timeout: str | None
    on_timeout: Literal["escalate", "reject"]


class Revocation(Model):
    """Why an intent must not be acted on any more."""

    reason: str
    revision: Annotated[int, Field(ge=1)] = Field(description="The incident revision that changed the picture")


class IntentData(Model):
    """The ``data`` of an intent."""

    intent_id: str = Field(description="The same for an intent and its revocation")
    idempotency_key: str = Field(description="<incident>:<playbook>:<target>:<attempt>; acted on at most once")
    attempt: Annotated[int, Field(ge=1)]
    state: Literal["active", "revoked"]
    incident: IncidentRef
    target: EntityAttributes
    playbook: PlaybookRef
    params: dict[str, ParamValue]
    params_digest: Digest
    mode: Mode
    decision: DecisionRecord
    risk: Risk
    preconditions: list[PreconditionRef]
    expected_effect: list[ExpectedEffect]
    verify: list[VerificationPlan]
    approval: ApprovalRequest | None = Field(description="Set for propose and approve")
    revocation: Revocation | None = None


class Intent(Model):
    """A CloudEvents 1.0 envelope around ``IntentData``."""

    specversion: Literal["1.0"] = "1.0"
    type: Literal["io.mendstream.remediation.intent.v1"] = INTENT_TYPE
    source: str
    id: str = Field(description="The intent id, with /revoked for its revocation")
    subject: str
    time: Rfc3339 = Field(description="Event time of the incident revision that caused it")
    expirytime: Rfc3339 = Field(description="Not acted on from this moment")
    datacontenttype: Literal["application/json"] = "application/json"
    dataschema: Literal["mendstream:schemas/remediation_intent/v1"] = INTENT_SCHEMA
    partitionkey: str = Field(description="The target, so that an intent and its revocation stay in order")
    correlationid: str = Field(description="The incident id")
    causationid: str = Field(description="The root-cause event's id")
    data: IntentData

    def to_json(self) -> dict[str, Any]:
        """The event as plain JSON types, nulls kept."""
        return self.model_dump(mode="json")


class Status(StrEnum):
    """How an intent ended."""

    SHADOWED = "shadowed"  # nothing ran: this is what would have been done
    EXECUTED = "executed"  # every step succeeded; whether it helped is for verification to say
    FAILED = "failed"  # a step failed
    INTERRUPTED = "interrupted"  # the executor died while it ran: unknown how far it came, never repeated
    CANCELLED = "cancelled"  # stopped between two steps
    BLOCKED = "blocked"  # a guard refused at the moment of acting
    EXPIRED = "expired"
    REVOKED = "revoked"
    REJECTED = "rejected"  # by a person, or by an approval timeout


class StepOutcome(Model):
    """What one step said."""

    id: str
    runner: str
    status: Literal["ok", "failed", "timeout", "cancelled", "skipped"]
    changed: bool
    started_at: Rfc3339
    ended_at: Rfc3339
    message: str = Field(default="", description="One line for people")
    stdout: str = Field(default="", description="Excerpt of what the runner printed; plain text, may quote telemetry")


class ApprovalGiven(Model):
    """A person's agreement, bound to what was shown to them."""

    by: str
    role: str | None
    at: Rfc3339
    playbook_digest: Digest
    params_digest: Digest


class LedgerRef(Model):
    """The ledger entry that closed the attempt; outside the database it anchors the chain."""

    seq: int
    hash: str


class OutcomeData(Model):
    """The ``data`` of an outcome."""

    intent_id: str
    idempotency_key: str
    incident: IncidentRef
    target: EntityAttributes
    playbook: PlaybookRef
    params: dict[str, ParamValue]
    mode: Mode
    status: Status
    reason: str = Field(description="Why it ended so, one line for people")
    steps: list[StepOutcome]
    would_run: list[str] = Field(default_factory=list, description="Shadow: the steps that were not run")
    approvals: list[ApprovalGiven]
    escalated: bool = Field(description="A person has to look")
    started_at: Rfc3339 | None
    ended_at: Rfc3339
    ledger: LedgerRef


class Outcome(Model):
    """A CloudEvents 1.0 envelope around ``OutcomeData``."""

    specversion: Literal["1.0"] = "1.0"
    type: Literal["io.mendstream.remediation.outcome.v1"] = OUTCOME_TYPE
    source: str
    id: str = Field(description="<intent>/outcome: an intent ends once")
    subject: str
    time: Rfc3339
    datacontenttype: Literal["application/json"] = "application/json"
    dataschema: Literal["mendstream:schemas/remediation_outcome/v1"] = OUTCOME_SCHEMA
    partitionkey: str
    correlationid: str
    causationid: str = Field(description="The intent's CloudEvent id")
    data: OutcomeData

    def to_json(self) -> dict[str, Any]:
        """The event as plain JSON types, nulls kept."""
        return self.model_dump(mode="json")
