"""The guards of the moment of acting: everything is read again, because time has passed since the decision.

Each check is a function that gives a reason to refuse, or "". A refusal is final; what may change by waiting (limits,
concurrency) is ``limits_used``, and defers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.engine import Connection

from incidents.memory import Memory
from remediation import params as parameters
from remediation.cel import ConditionError, ConditionSyntaxError, compile_condition
from remediation.context import blast_values, service_key
from remediation.guards import over_limit
from remediation.intents import Intent
from remediation.journal import Journal
from remediation.playbook import PRECONDITION_SCOPE, Playbook
from remediation.policy import Policy, Rate
from remediation.runners.base import Registry, RunnerError
from remediation.values import Decision, digest


@dataclass(frozen=True, slots=True)
class World:
    """What the guards read: the policy as it is now, the playbooks, the runners, and what is known of incidents."""

    policy: Policy
    playbooks: dict[str, Playbook]
    registry: Registry
    memory: Memory | None = None
    kill_switch_file: Path | None = None
    halted: str = ""  # why nothing may act for want of a readable policy


def stopped(world: World) -> str:
    """Whether everything is stopped."""
    if world.halted:
        return world.halted
    if world.policy.spec.kill_switch:
        return "the policy's kill switch is on"
    if world.kill_switch_file is not None and world.kill_switch_file.exists():
        return f"the kill switch is on: {world.kill_switch_file} exists"
    return ""


def allowed(world: World, intent: Intent) -> Decision:
    """The most that the policy as it is now allows an intent: a forged or outdated one gets no further than this.

    An intent decided under another version of the policy may be proposed at most.
    """
    policy, decided = world.policy, intent.data.decision
    if policy.spec.mode == "shadow":
        return Decision.SHADOW
    if decided.rule is None:
        stated = policy.spec.default
    else:
        stated = next((rule.decision for rule in policy.spec.rules if rule.name == decided.rule), Decision.NEVER)
    if policy.digest != decided.policy_digest and stated.rank > Decision.PROPOSE.rank:
        return Decision.PROPOSE
    return stated


def unsafe_content(world: World, intent: Intent) -> str:
    """Whether what would run is not exactly what was decided: playbook, parameters, steps."""
    playbook = world.playbooks.get(intent.data.playbook.id)
    if playbook is None:
        return f"there is no playbook {intent.data.playbook.id!r} here"
    if playbook.digest != intent.data.playbook.digest:
        return f"playbook {playbook.name} is not the one that was decided on: its digest differs"
    if digest(intent.data.params) != intent.data.params_digest:
        return "the parameters are not the ones that were decided on: their digest differs"
    try:
        parameters.validate(playbook.spec.parameters, intent.data.params)
        for step in playbook.spec.steps:
            world.registry.get(step.runner).check(step)
    except (parameters.ParameterError, RunnerError) as error:
        return str(error)
    return ""


def unmet_precondition(world: World, intent: Intent, at_ns: int) -> str:
    """The first precondition that does not hold now, or that has no answer.

    The incident's state is what memory knows; an incident that memory has not heard of is as the intent says it was.
    """
    data = intent.data
    playbook = world.playbooks[data.playbook.id]
    known = world.memory.incident(data.incident.id) if world.memory is not None else None
    state, revision = (known.state, known.revision) if known else ("open", data.incident.revision)
    context: dict[str, Any] = {
        "incident": {"id": data.incident.id, "revision": revision, "state": state},
        "playbook": {"id": playbook.name, "version": playbook.metadata.version},
        "target": dict(data.target),
        "params": dict(data.params),
        "blast": blast_values(data.risk.blast_radius),
        "freeze": {"active": world.policy.frozen_by(at_ns) is not None},
    }
    for text in playbook.spec.preconditions:
        try:
            if not compile_condition(text, PRECONDITION_SCOPE).test(context):
                return f"precondition does not hold: {text}"
        except (ConditionError, ConditionSyntaxError) as error:
            return f"precondition cannot be read: {error}"
    return ""


def frozen(world: World, needed: Decision, at_ns: int) -> str:
    """Whether a freeze by the executor's clock allows less than what acting needs: auto, or propose for a person."""
    freeze = world.policy.frozen_by(at_ns)
    if freeze is None or freeze.allow.rank >= needed.rank:
        return ""
    return f"freeze {freeze.name} allows no more than {freeze.allow.value}"


def limits_used(world: World, journal: Journal, connection: Connection, intent: Intent, at_ns: int) -> str:
    """Whether a limit leaves no room now, counted over runs that began, whoever began them."""
    limits = world.policy.spec.limits
    running = journal.running(connection)
    if running >= limits.global_.concurrent:
        return f"limit global.concurrent: {running} of {limits.global_.concurrent} are running"
    service, playbook = service_key(intent.data.target), intent.data.playbook.id
    counts: tuple[tuple[str, Rate, dict[str, str]], ...] = (
        ("perTarget", limits.per_target, {"service": service}),
        ("perPlaybook", limits.per_playbook, {"playbook": playbook}),
        ("global", limits.global_, {}),
    )
    for name, rate, which in counts:
        used = journal.started_since(connection, at_ns - rate.per, **which)
        if used >= rate.max:
            return over_limit(name, used, rate.max, rate.per)
    return ""
