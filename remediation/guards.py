"""What a policy says about one situation: the first rule that holds, or the default, then every cap that applies.

Pure functions. A cap only ever lowers a decision, so guards can be added without weakening one another. Not here: what
is remembered between decisions (``remediation.history``), and the guards of the moment
of acting (``remediation.executor``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from remediation.cel import ConditionError
from remediation.context import Situation
from remediation.policy import Approval, Policy, Require, Rule, rule_condition
from remediation.values import Decision, format_duration


@dataclass(frozen=True, slots=True)
class Ruling:
    """A decision on its way through the caps."""

    decision: Decision  # what is left
    stated: Decision  # what the rule or the default said
    rule: str | None
    approval: Approval | None
    reasons: tuple[str, ...]

    def cap(self, limit: Decision, reason: str) -> Ruling:
        """Lower the decision to ``limit``; unchanged where it is no higher already."""
        if limit.rank >= self.decision.rank:
            return self
        return Ruling(limit, self.stated, self.rule, self.approval, (*self.reasons, reason))


def rule(policy: Policy, situation: Situation, at_ns: int) -> Ruling:
    """Apply the policy's rules and the caps that need no memory, at event time ``at_ns``."""
    ruling = _by_rules(policy, situation)
    spec = policy.spec
    if spec.kill_switch:
        ruling = ruling.cap(Decision.SHADOW, "the policy's kill switch is on")
    if spec.mode == "shadow":
        ruling = ruling.cap(Decision.SHADOW, "the policy is in shadow mode")
    freeze = policy.frozen_by(at_ns)
    if freeze is not None:
        ruling = ruling.cap(freeze.allow, f"freeze {freeze.name} allows no more than {freeze.allow.value}")
    fraction = situation.blast.fraction
    if fraction is None or fraction > spec.limits.max_fraction:
        share = "an unknown share" if fraction is None else f"{fraction:.0%}"
        if spec.limits.max_fraction < 1.0:
            limit = f"{spec.limits.max_fraction:.0%}"
            ruling = ruling.cap(Decision.APPROVE, f"acts on {share} of the instances; beyond {limit} a person decides")
    return ruling


def _by_rules(policy: Policy, situation: Situation) -> Ruling:
    """The first rule that holds.

    A rule that has no answer for this target, for want of an attribute, can restrict but never allow: nothing after it
    is decided above its own decision. Otherwise a ``never`` for critical services would not hold for a service whose
    criticality is unknown.
    """
    context = situation.conditions()
    unanswered: list[tuple[Rule, str]] = []
    notes: list[str] = []
    ruling: Ruling | None = None
    for candidate in policy.spec.rules:
        try:
            if not rule_condition(candidate).test(context):
                continue
        except ConditionError as error:
            unanswered.append((candidate, str(error)))
            continue
        missing = _unmet(candidate.require, situation, context)
        if missing:
            notes.append(f"rule {candidate.name} does not apply: {missing}")
            continue
        reasons = (*notes, f"rule {candidate.name} decides {candidate.decision.value}")
        ruling = Ruling(candidate.decision, candidate.decision, candidate.name, candidate.approval, reasons)
        break
    if ruling is None:
        default = policy.spec.default
        ruling = Ruling(default, default, None, None, (*notes, f"no rule applies: the default is {default.value}"))
    for candidate, why in unanswered:
        ruling = ruling.cap(candidate.decision, f"rule {candidate.name} could not be read, so it caps: {why}")
    return ruling


def _unmet(require: Require, situation: Situation, context: dict[str, Any]) -> str:
    """The first requirement that does not hold, as words; "" when all hold."""
    candidate, incident = context["candidate"], context["incident"]
    at_least = (("confidence", require.min_confidence), ("margin", require.min_margin))
    for name, wanted in at_least:
        if wanted is not None and candidate[name] < wanted:
            return f"{name} {candidate[name]:.2f} is below {wanted:.2f}"
    one_of = (
        ("verdict", incident["verdict"], None if require.verdict is None else [str(require.verdict)]),
        ("novelty", incident["novelty"], require.novelty),
        ("severity", incident["severity"], require.severity),
        ("fault kind", candidate["fault_kind"], require.fault_kind),
    )
    for name, value, allowed in one_of:
        if allowed is not None and value not in [str(item) for item in allowed]:
            return f"{name} is {value}"
    if require.reversible is not None and situation.playbook.spec.risk.reversible is not require.reversible:
        return "the playbook is not reversible" if require.reversible else "the playbook is reversible"
    if require.max_dependents is not None and situation.blast.dependents > require.max_dependents:
        return f"{situation.blast.dependents} services depend on it, more than {require.max_dependents}"
    return ""


def over_limit(name: str, count: int, maximum: int, per_ns: int) -> str:
    """The sentence for a limit that is used up."""
    return f"limit {name}: {count} of {maximum} in {format_duration(per_ns)} are used"
