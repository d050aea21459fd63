"""Policies: which playbook may act on which target, how far, and within which limits.

A policy is a YAML document (``kind: RemediationPolicy``) kept by operators. This module reads and checks it; what it
says about one incident is worked out in ``remediation.guards``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, PrivateAttr

from incidents.model import FaultKind, Probability, Verdict
from remediation import documents
from remediation.cel import Condition, Scope, compile_condition
from remediation.values import Decision, Document, Duration, Instant, digest

#: What a rule's ``match`` may speak of; see ``remediation.guards.decision_context`` for the values.
DECISION_SCOPE: Final[Scope] = (
    ("playbook", frozenset({"id", "version", "tier", "reversible", "labels"})),
    ("target", None),
    ("candidate", frozenset({"fault_kind", "confidence", "margin", "score", "change"})),
    (
        "incident",
        frozenset(
            {
                "id",
                "revision",
                "state",
                "severity",
                "verdict",
                "novelty",
                "services",
                "entry_points",
                "error_requests",
                "slow_requests",
                "burn_rate",
                "resolutions",
            }
        ),
    ),
    ("blast", frozenset({"dependents", "instances", "fraction"})),
)


def _checked(text: str) -> str:
    compile_condition(text, DECISION_SCOPE)
    return text


DecisionCondition = Annotated[str, AfterValidator(_checked), Field(description="CEL, true or false", min_length=1)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", description="Lower case, digits, dashes")]


class Metadata(Document):
    """What the policy is called in intents and in the ledger."""

    name: Name
    labels: dict[str, str] = Field(default_factory=dict, description="For people; no meaning here")


class Freeze(Document):
    """A window, in event time for decisions and by the executor's clock for acting."""

    name: Name
    start: Instant = Field(description="First moment of the freeze")
    end: Instant = Field(description="First moment after the freeze")
    allow: Decision = Field(default=Decision.SHADOW, description="The most that is decided during the freeze")


class Rate(Document):
    """At most ``max`` in any window of length ``per``."""

    max: Annotated[int, Field(ge=1, le=10_000)]
    per: Duration = Field(description="Length of the sliding window")


class GlobalRate(Rate):
    """The limit over everything, and how many may run at once."""

    concurrent: Annotated[int, Field(ge=1, le=1_000)] = 1


class Limits(Document):
    """Brakes that hold whatever a rule says; above one, a decision becomes a proposal."""

    per_target: Rate = Rate(max=1, per="30m")  # type: ignore[arg-type]  # pydantic parses the duration
    per_playbook: Rate = Rate(max=5, per="1h")  # type: ignore[arg-type]  # as above
    global_: GlobalRate = Field(default=GlobalRate(max=10, per="1h"), alias="global")  # type: ignore[arg-type]  # as above
    min_healthy_period: Duration = Field(
        default=0, description="A target whose last incident ended less than this ago is not acted on without a person"
    )
    max_fraction: Probability = Field(
        default=1.0, description="A greater share of a service's instances is not acted on without a person"
    )


class Require(Document):
    """What must also hold for a rule to apply; each item left out is not asked."""

    verdict: Verdict | None = None
    min_confidence: Probability | None = None
    min_margin: Probability | None = Field(default=None, description="Confidence above the second candidate's")
    novelty: list[Literal["known", "rare", "novel"]] | None = None
    fault_kind: list[FaultKind] | None = None
    severity: list[Literal["critical", "major", "minor", "info"]] | None = None
    reversible: bool | None = None
    max_dependents: Annotated[int, Field(ge=0)] | None = Field(default=None, description="Direct and indirect callers")


class Approval(Document):
    """Who has to agree, and what happens if nobody answers."""

    roles: list[Name] = Field(default_factory=list, description="Any of these; empty: anyone with access")
    count: Annotated[int, Field(ge=1, le=10)] = 1
    timeout: Duration | None = Field(default=None, description="Until then; without it, until the intent expires")
    on_timeout: Literal["escalate", "reject"] = "escalate"


class Rule(Document):
    """The first rule whose ``match`` and ``require`` hold decides."""

    name: Name
    match: DecisionCondition
    require: Require = Require()
    decision: Decision
    approval: Approval | None = None


class TargetFacts(Document):
    """What operators know of targets and telemetry does not say."""

    match: Annotated[dict[str, str], Field(min_length=1, description="Attributes that must be equal")]
    attributes: dict[str, str] = Field(default_factory=dict, description="Added to the target, above telemetry's own")
    instances: Annotated[int, Field(ge=1)] | None = Field(default=None, description="How many instances it has")


class PolicySpec(Document):
    """The policy itself."""

    mode: Literal["shadow", "enforce"] = Field(default="shadow", description="shadow: every decision ends at shadow")
    kill_switch: bool = Field(default=False, description="true: nothing acts, whatever else is said")
    default: Decision = Field(
        default=Decision.SHADOW, description="For what no rule decides: never, shadow, propose or approve"
    )
    intent_ttl: Duration = Field(default="10m", validate_default=True, description="How long an intent may be acted on")
    freezes: list[Freeze] = Field(default_factory=list)
    limits: Limits = Limits()
    targets: list[TargetFacts] = Field(default_factory=list)
    rules: list[Rule] = Field(default_factory=list)


class Policy(Document):
    """A policy document.

    Default deny: what no rule decides becomes ``spec.default``, and that is ``shadow`` unless the file says otherwise.
    Shadow acts on nothing, yet leaves a record of what would have been done, which is what an operator needs to write
    the first rules; ``never`` is for those who want no record, and ``auto`` is refused there.
    """

    api_version: Literal["mendstream.io/v1"]
    kind: Literal["RemediationPolicy"]
    metadata: Metadata
    spec: PolicySpec
    _digest: str = PrivateAttr(default="")

    @property
    def name(self) -> str:
        """The policy's name."""
        return self.metadata.name

    @property
    def digest(self) -> str:
        """``sha256:`` over the document's canonical JSON: spelling and comments do not count, meaning does."""
        if not self._digest:
            self._digest = digest(self.model_dump(mode="json", by_alias=True))
        return self._digest

    def frozen_by(self, at_ns: int) -> Freeze | None:
        """The strictest freeze that holds at a moment (UTC epoch nanoseconds), if any."""
        active = [freeze for freeze in self.spec.freezes if freeze.start <= at_ns < freeze.end]
        return min(active, key=lambda freeze: freeze.allow.rank, default=None)


def rule_condition(rule: Rule) -> Condition:
    """The compiled ``match`` of a rule."""
    return compile_condition(rule.match, DECISION_SCOPE)


def load_policy(path: Path | str) -> Policy:
    """Read a policy file. Raises ``documents.DocumentError`` naming file, line, column, key and remedy."""
    return _checked_policy(documents.read(Path(path)))


def parse_policy(text: str, file: str = "policy") -> Policy:
    """Read a policy from text; ``file`` is what errors call it. Raises ``documents.DocumentError``."""
    return _checked_policy(documents.parse(text, file))


def _checked_policy(marked: documents.Marked) -> Policy:
    policy = documents.build(marked, Policy)
    problems = list(_contradictions(marked, policy.spec))
    if problems:
        raise documents.DocumentError(problems)
    return policy


def _contradictions(marked: documents.Marked, spec: PolicySpec) -> Iterator[documents.Problem]:
    """What each field allows by itself and the document as a whole must not say."""
    if spec.default is Decision.AUTO:
        message = "'auto' would act on what no rule names; write never, shadow, propose or approve, and add a rule"
        yield marked.problem(("spec", "default"), message)
    seen: dict[str, int] = {}
    for index, rule in enumerate(spec.rules):
        at = ("spec", "rules", index)
        if rule.name in seen:
            message = f"{rule.name!r} is already rules[{seen[rule.name]}]; the ledger needs distinct names"
            yield marked.problem((*at, "name"), message)
        seen.setdefault(rule.name, index)
        if rule.approval is not None and rule.decision not in {Decision.PROPOSE, Decision.APPROVE}:
            message = f"nobody is asked when the decision is {rule.decision.value!r}; write propose or approve"
            yield marked.problem((*at, "approval"), message)
    for index, freeze in enumerate(spec.freezes):
        at = ("spec", "freezes", index)
        if freeze.end <= freeze.start:
            yield marked.problem((*at, "end"), "not after start; a freeze ends later than it starts")
        if freeze.allow is Decision.AUTO:
            yield marked.problem((*at, "allow"), "'auto' would be no freeze; write never, shadow, propose or approve")
    limits = spec.limits
    for name, rate in (
        ("perTarget", limits.per_target),
        ("perPlaybook", limits.per_playbook),
        ("global", limits.global_),
    ):
        if rate.per == 0:
            yield marked.problem(("spec", "limits", name, "per"), "zero is no window; write for example 30m")
    if spec.intent_ttl == 0:
        yield marked.problem(("spec", "intentTtl"), "zero would expire every intent at once; write for example 10m")
