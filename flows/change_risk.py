"""The risk of changes in the stream: what the graph and the open incidents say of one, and who is blamed."""

from __future__ import annotations

from collections.abc import Iterable

from delivery.change import ChangeFacts, kind_of
from delivery.watch import ChangeWatch
from incidents.correlate import Correlator
from incidents.model import RootCauseEvent, epoch_ns
from incidents.report import Change


def facts_of(change: Change, correlator: Correlator) -> ChangeFacts:
    """The change as its environment is now."""
    graph = correlator.context.graph
    return ChangeFacts(
        change.id,
        change.service,
        change.at_ns,
        kind_of(change.type),
        callers=len(graph.callers_of(change.service)),
        upstream=len(graph.upstream(change.service)) - 1,  # it reaches itself
        open_incidents=len(correlator.open),
        involving=sum(change.service in one.services for one in correlator.open),
    )


def blame(watch: ChangeWatch, events: Iterable[RootCauseEvent]) -> None:
    """Tell the watch of the changes that revisions name beside their first candidate."""
    for event in events:
        for first in event.data.candidates[:1]:
            if first.change is not None:
                watch.blame(first.change.id, epoch_ns(event.time))
