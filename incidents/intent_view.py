"""Remediation intents as a reader needs them, out of plain CloudEvents.

This room knows nothing of remediation: what an intent lacks, or has in another shape, is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from incidents.wording import percent, plain

_MAX_LIST: Final = 20
_COMPARISONS: Final = {"lt": "<", "le": "\u2264", "gt": ">", "ge": "\u2265", "eq": "="}


@dataclass(frozen=True, slots=True)
class IntentView:
    """One remediation intent, as far as it could be read; every text is still hostile."""

    id: str  # the same for an intent and its revocation
    incident: str
    revision: str
    playbook: str
    version: str
    target: str
    mode: str
    rule: str
    policy: str
    revoked: bool
    reasons: tuple[str, ...]
    params: tuple[tuple[str, str], ...]
    risk: tuple[str, ...]  # short phrases: tier, undo, blast radius
    preconditions: tuple[str, ...]
    expected: tuple[str, ...]
    trust: str
    approval: str
    expires: str
    revocation: str  # why it was revoked

    @property
    def mode_words(self) -> str:
        """What the mode means for the reader."""
        words = {
            "shadow": "recorded only; nothing runs",
            "propose": "proposed; a person may start it",
            "approve": "waits for approval",
            "auto": "runs by itself",
        }
        return "revoked" if self.revoked else words.get(self.mode, self.mode or "no mode given")


def text_at(raw: object, *keys: str) -> str:
    """The text under a path of keys; "" where there is none.

    >>> text_at({"a": {"b": 2}}, "a", "b"), text_at({"a": []}, "a", "b")
    ('2', '')
    """
    value = value_at(raw, *keys)
    return "" if value is None or isinstance(value, Mapping | list) else plain(value)


def value_at(raw: object, *keys: str) -> object:
    """The value under a path of keys; None where there is none."""
    for key in keys:
        if not isinstance(raw, Mapping):
            return None
        raw = raw.get(key)
    return raw


def _list_at(raw: object, *keys: str) -> list[Any]:
    value = value_at(raw, *keys)
    return list(value)[:_MAX_LIST] if isinstance(value, list | tuple) else []


def read_intent(raw: Mapping[str, Any]) -> IntentView:
    """An intent from its CloudEvent; fields that are missing read as empty."""
    target = value_at(raw, "data", "target")
    params = value_at(raw, "data", "params")
    return IntentView(
        id=text_at(raw, "data", "intent_id") or text_at(raw, "data", "idempotency_key") or text_at(raw, "id"),
        incident=text_at(raw, "data", "incident", "id") or text_at(raw, "correlationid"),
        revision=text_at(raw, "data", "incident", "revision"),
        playbook=text_at(raw, "data", "playbook", "id") or "unnamed playbook",
        version=text_at(raw, "data", "playbook", "version"),
        target=_target(target),
        mode=text_at(raw, "data", "mode"),
        rule=text_at(raw, "data", "decision", "rule"),
        policy=text_at(raw, "data", "decision", "policy"),
        revoked=text_at(raw, "data", "state") == "revoked",
        reasons=tuple(plain(one) for one in _list_at(raw, "data", "decision", "reasons")),
        params=tuple((plain(key), plain(value)) for key, value in list(params.items())[:_MAX_LIST])
        if isinstance(params, Mapping)
        else (),
        risk=_risk(value_at(raw, "data", "risk")),
        preconditions=tuple(text_at(one, "expr") or plain(one) for one in _list_at(raw, "data", "preconditions")),
        expected=tuple(_effect(one) for one in _list_at(raw, "data", "expected_effect")),
        trust=_trust(value_at(raw, "data", "decision", "trust")),
        approval=_approval(value_at(raw, "data", "approval")),
        expires=text_at(raw, "expirytime"),
        revocation=text_at(raw, "data", "revocation", "reason"),
    )


def _target(raw: object) -> str:
    name = text_at(raw, "service.name") or text_at(raw, "service")
    instance = text_at(raw, "service.instance.id") or text_at(raw, "k8s.pod.name")
    return f"{name} ({instance})" if name and instance else name or instance or "no target"


def _risk(raw: object) -> tuple[str, ...]:
    found = [f"{tier} risk"] if (tier := text_at(raw, "tier")) else []
    reversible = value_at(raw, "reversible")
    if isinstance(reversible, bool):
        undo = text_at(raw, "undo")
        found.append((f"undo by {undo}" if undo else "can be undone") if reversible else "cannot be undone")
    fraction = value_at(raw, "blast_radius", "fraction")
    if isinstance(fraction, float) or fraction in {0, 1}:
        found.append(f"touches {percent(float(fraction))} of its instances")
    if dependents := text_at(raw, "blast_radius", "dependents"):
        found.append(f"{dependents} service{' depends' if dependents == '1' else 's depend'} on it")
    return tuple(found)


def _effect(raw: object) -> str:
    if not isinstance(raw, Mapping):
        return plain(raw)
    sign = _COMPARISONS.get(text_at(raw, "op"), text_at(raw, "op"))
    within = text_at(raw, "within")
    return f"{text_at(raw, 'metric')} {sign} {text_at(raw, 'value')}" + (f" within {within}" if within else "")


def _trust(raw: object) -> str:
    runs, successes = text_at(raw, "runs"), text_at(raw, "successes")
    if not runs:
        return ""
    bound = value_at(raw, "lower_bound")
    return f"helped {successes} of {runs} times" + (
        f", so at least {percent(bound)} likely to help" if isinstance(bound, float) else ""
    )


def _approval(raw: object) -> str:
    roles = ", ".join(plain(one) for one in _list_at(raw, "roles"))
    if not roles:
        return ""
    timeout = text_at(raw, "timeout")
    return f"by {text_at(raw, 'required') or '1'} of {roles}" + (f" within {timeout}" if timeout else "")
