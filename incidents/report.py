"""What the correlator is told of one bucket of one environment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from topology.ranking import Deviation


@dataclass(frozen=True, slots=True)
class Golden:
    """Golden signals of one service in one bucket, from its server-side spans."""

    service: str
    requests: int
    errors: int
    p50_s: float
    p95_s: float


@dataclass(frozen=True, slots=True)
class Entry:
    """Traffic of one entry point (an operation that nobody inside calls) in one bucket."""

    service: str
    operation: str
    requests: int
    errors: int
    slow: int  # above the limit that 95 % of history stayed below


@dataclass(frozen=True, slots=True)
class Change:
    """A deploy or configuration change."""

    id: str
    type: str
    service: str
    version: str
    at_ns: int


@dataclass(frozen=True, slots=True)
class Example:
    """Traces to look at for one operation."""

    service: str
    operation: str
    trace_id: str
    failed: bool


@dataclass(frozen=True, slots=True)
class Template:
    """What a log template id stands for."""

    id: str
    text: str
    example: str


@dataclass(frozen=True, slots=True)
class BucketReport:
    """Everything of one bucket; lists are in a fixed order."""

    start_ns: int
    end_ns: int
    deviations: Sequence[Deviation] = ()
    edges: Sequence[tuple[str, str, int, int, bool]] = ()  # caller, callee, requests, errors, callee instrumented
    golden: Sequence[Golden] = ()
    entries: Sequence[Entry] = ()
    changes: Sequence[Change] = ()
    examples: Sequence[Example] = ()
    templates: Sequence[Template] = ()
    late: int = 0  # rows dropped as late so far, in all
    orphans: int = 0
    spans: int = 0
    offsets: dict[str, int] = field(default_factory=dict)
