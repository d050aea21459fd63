"""An incident and an intent whose every free text tries to be more than text."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from incidents.model import (
    ChangeRef,
    DataQuality,
    EvidenceRefs,
    GraphEdge,
    Impact,
    KafkaRef,
    Novelty,
    RootCauseEvent,
    SimilarIncident,
    SloImpact,
    Timeline,
    TimelinePoint,
)
from tests.support.event_builders import at, candidate, entity, event, evidence, intent

#: Text as an attacker, or only an unlucky log line, may put into a name, a body or a statement.
HOSTILE = (
    "<script>document.title='PWNED'</script>",
    '"><img src=x onerror="document.title=\'PWNED\'">',
    "</style><svg/onload=document.title='PWNED'>",
    "{{ 7*7 }}{% raw %}${7*7}<%= 7*7 %>",
    "]]>--><iframe srcdoc='x'></iframe>",
    "\x1b[31mred\x1b]0;PWNED\x07\x9b2J\x00\u202egnp.exe\u2028\ud800",
    "[bold red]markup[/bold red] [link=https://evil.example]x[/link] [/]",
)


def hostile_events() -> list[RootCauseEvent]:
    """An incident whose every free text is hostile."""
    text = " ".join(HOSTILE)
    refs = EvidenceRefs(
        kafka=[KafkaRef(topic=text, partition=0, offsets=(0, 1))],
        trace_ids=[text],
        log_template=text,
        log_example=text,
        url="javascript:document.title='PWNED'",
    )
    evidences = [evidence(1, text, text, 1.0, (0.0, 0.1), text, unit=text, refs=refs, detector=text, extra=text)]
    change = ChangeRef(id=text, type=text, version=text, at=at(10))
    edges = [
        GraphEdge(caller=name, callee=other, requests=5.0, errors=1.0, on_path=True)
        for name, other in pairwise(HOSTILE)
    ]
    return [
        event(
            HOSTILE[0],
            1,
            12.0,
            title=text,
            candidates=[
                candidate(1, HOSTILE[-1], "error", 0.5, HOSTILE, (1,), against=(1,), change=change, instance=text)
            ],
            evidences=evidences,
            started=11,
            detected=12,
            seen=12,
            impact=Impact(
                services=list(HOSTILE), entry_points=list(HOSTILE), slo=[SloImpact(name=text, burn_rate=1.0)]
            ),
            novelty=Novelty(label="known", similar=[SimilarIncident(incident=text, similarity=1.0, resolution=text)]),
            graph=edges,
            timelines=[
                Timeline(
                    name=text,
                    entity=entity(text),
                    unit=text,
                    points=[TimelinePoint(at=at(minute), value=float(minute)) for minute in range(5, 12)],
                )
            ],
            quality=DataQuality(missing_signals=[text]),
        )
    ]


def hostile_intent() -> dict[str, Any]:
    """An intent whose every text is hostile, for the hostile incident."""
    text = " ".join(HOSTILE)
    return intent(
        HOSTILE[0],
        1,
        target={"service.name": text},
        playbook={"id": text, "version": text},
        params={text: text, "list": [text]},
        mode=text,
        decision={"rule": text, "reasons": [text], "policy": text, "confidence": text, "trust": text},
        risk={"tier": text, "undo": text, "blast_radius": {text: text}},
        preconditions=[{"expr": text}],
        expected_effect=[{"metric": text, "op": text, "value": text, "within": text}],
        approval={"roles": [text], "required": text},
    )
