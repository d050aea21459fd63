"""The first stages of the stream as plain objects: messages in, addressed messages out, no engine in sight.

Each holds one shard, waits for its bucket to close and then calls the room that does the work. A stage can be run in a
REPL; ``flows.detect`` wraps it for Bytewax. State pickles.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import polars as pl

from detectors.templates import TemplateMiner
from flows.layout import Layout
from flows.messages import CELLS, EXEMPLARS, SPAN_LOGS, TEMPLATES, Addressed, Mark, Rollup, Rows
from flows.rollups import line_cells
from incidents.report import Template
from signals.batch import END_OF_STREAM, NO_WATERMARK
from signals.buckets import BucketBuffer, Watermarks, floor_to
from signals.schema import SPANS
from topology.assembly import SPAN_LOGS as SPAN_LOG_SCHEMA
from topology.assembly import AssemblyConfig, TraceAssembler

Message = Rows | Rollup | Mark


@dataclass(frozen=True, slots=True)
class Vitals:
    """How a shard is doing, for those who operate the pipeline; decides nothing."""

    watermark_ns: int  # event time the shard has dealt with
    late: int  # rows it has dropped as late, in all
    sizes: dict[str, int]  # what it holds, by name


class Stage(Protocol):
    """One shard of one stage."""

    def feed(self, messages: Iterable[Message]) -> list[Any]:
        """Take messages in the order they came; returns what goes on."""
        ...

    def vitals(self) -> Vitals:
        """How the shard is doing."""
        ...

    def adopt(self, fresh: Any) -> None:  # noqa: ANN401 - the same class as self
        """After a restart: take from a newly built stage what may differ from when the state was saved."""
        ...


@dataclass(slots=True)
class Progress:
    """What a stage has been promised, and what it may promise itself."""

    origins: frozenset[str]
    bucket_ns: int
    marks: Watermarks = field(init=False)
    late: dict[str, int] = field(default_factory=dict)  # by the shard that dropped the rows
    offsets: dict[str, int] = field(default_factory=dict)
    newest_ns: int = NO_WATERMARK  # latest event time heard of
    promised: int = NO_WATERMARK
    promised_idle: bool = False

    def __post_init__(self) -> None:
        self.marks = Watermarks(self.origins)

    def take(self, mark: Mark) -> None:
        """Note an origin's promise."""
        self.marks.advance(mark.origin, mark.watermark_ns, idle=mark.idle)
        self.late |= mark.late
        self.offsets |= mark.offsets
        self.newest_ns = max(self.newest_ns, mark.newest_ns)

    def expect(self, origins: frozenset[str]) -> None:
        """After a restart: the partitions there are now."""
        self.origins = self.marks.expected = origins

    @property
    def low(self) -> int:
        """Event time that everything has passed."""
        return self.marks.low

    def promise(self, name: str, own_late: int) -> Mark | None:
        """This stage's own mark: the end of the last bucket it has dealt with, never the raw minimum.

        None while it has nothing new to say.
        """
        low = self.marks.low
        done = low if low >= END_OF_STREAM or low <= NO_WATERMARK else floor_to(low, self.bucket_ns)
        idle = bool(self.origins) and self.marks.idle >= self.origins
        if done == self.promised and idle == self.promised_idle:
            return None
        self.promised, self.promised_idle = done, idle
        late = self.late | ({name: own_late} if own_late else {})
        return Mark(name, done, idle, late=late, offsets=dict(self.offsets), newest_ns=self.newest_ns)


@dataclass(slots=True)
class LogStage:
    """Log lines to templates; lines in spans go on to their trace, the others are counted."""

    name: str
    layout: Layout
    bucket_ns: int
    miner: TemplateMiner
    progress: Progress = field(init=False)
    buffer: BucketBuffer = field(init=False)
    announced: dict[str, str] = field(default_factory=dict)  # template id -> text as told

    def __post_init__(self) -> None:
        self.progress = Progress(self.layout.log_origins(), self.bucket_ns)
        order = (
            "environment",
            "service",
            "instance",
            "body",
            "trace_hi",
            "trace_lo",
            "span_id",
            "severity",
            "namespace",
        )
        self.buffer = BucketBuffer("time_ns", self.bucket_ns, order)

    def feed(self, messages: Iterable[Message]) -> list[Addressed]:
        """Take rows and marks; mine every bucket that closes."""
        for message in messages:
            if isinstance(message, Rows):
                self.buffer.add(message.frame)
            elif isinstance(message, Mark):
                self.progress.take(message)
        out: list[Addressed] = []
        for start_ns, lines in self.buffer.close(self.progress.low):
            out += self._bucket(start_ns, lines)
        mark = self.progress.promise(self.name, self.buffer.late)
        if mark is not None:
            receivers = [*self.layout.traces, *self.layout.detect, self.layout.incidents]
            out += [Addressed(to, mark) for to in receivers]
        return out

    def vitals(self) -> Vitals:
        """Lines that wait and templates held."""
        sizes = {"buffered_rows": self.buffer.rows, "templates": len(self.miner)}
        return Vitals(self.progress.low, self.buffer.late, sizes)

    def adopt(self, fresh: LogStage) -> None:
        """Take the partitions there are now."""
        self.layout = fresh.layout
        self.progress.expect(fresh.progress.origins)

    def _bucket(self, start_ns: int, lines: pl.DataFrame) -> list[Addressed]:
        ids = self.miner.process(lines["service"], lines["body"])
        known = {int(one): f"{int(one):016x}" for one in set(ids.tolist())}
        template = pl.Series("template", [known[one] for one in ids.tolist()], dtype=pl.String)
        lines = lines.with_columns(template)
        out = []
        inside = lines.filter(pl.col("span_id") != 0).select(list(SPAN_LOG_SCHEMA))
        if inside.height and self.layout.traces:
            for to, part in zip(self.layout.traces, self.layout.by_trace(inside), strict=True):
                if part.height:
                    out.append(Addressed(to, Rollup(SPAN_LOGS, start_ns, part)))
        outside = lines.filter(pl.col("span_id") == 0) if self.layout.traces else lines
        cells = line_cells(outside)
        for to, part in zip(self.layout.detect, self.layout.by_service(cells), strict=True):
            if part.height:
                out.append(Addressed(to, Rollup(CELLS, start_ns, part)))
        news = self._news(sorted(known))
        if news:
            out.append(Addressed(self.layout.incidents, Rollup(TEMPLATES, start_ns, news)))
        return out

    def _news(self, ids: list[int]) -> tuple[Template, ...]:
        """Templates that are new or have become more general since they were told."""
        news = []
        for one in ids:
            key, text = f"{one:016x}", self.miner.describe(one)
            if self.announced.get(key) != text:
                self.announced[key] = text
                news.append(Template(key, text[:400], self.miner.example(one)[:400]))
        while len(self.announced) > 200_000:
            del self.announced[next(iter(self.announced))]
        return tuple(news)


@dataclass(slots=True)
class TraceStage:
    """Spans to cells, by trace."""

    name: str
    layout: Layout
    bucket_ns: int
    assembler: TraceAssembler = field(default_factory=lambda: TraceAssembler(AssemblyConfig()))
    progress: Progress = field(init=False)
    spans: BucketBuffer = field(init=False)
    logs: BucketBuffer = field(init=False)
    last_ns: int = NO_WATERMARK  # end of the last bucket assembled
    orphans: int = 0

    def __post_init__(self) -> None:
        self.progress = Progress(self.layout.trace_origins(), self.bucket_ns)
        self.spans = BucketBuffer(
            "end_ns", self.bucket_ns, ("trace_hi", "trace_lo", "span_id", "start_ns", "name", "service")
        )
        self.logs = BucketBuffer("time_ns", self.bucket_ns, ("trace_lo", "span_id", "template"))

    def feed(self, messages: Iterable[Message]) -> list[Addressed]:
        """Take spans, span logs and marks; assemble every bucket that closes."""
        for message in messages:
            if isinstance(message, Rows):
                self.spans.add(message.frame)
            elif isinstance(message, Rollup):
                self.logs.add(message.payload)
            else:
                self.progress.take(message)
        spans, logs = dict(self.spans.close(self.progress.low)), dict(self.logs.close(self.progress.low))
        out: list[Addressed] = []
        for start_ns in sorted(spans.keys() | logs.keys()):
            out += self._drain(start_ns)
            out += self._bucket(start_ns, spans.get(start_ns), logs.get(start_ns))
        out += self._drain(self.spans.closed_ns)
        mark = self.progress.promise(self.name, self.spans.late + self.logs.late)
        if mark is not None:
            out += [Addressed(to, mark) for to in self.layout.detect]
        return out

    def vitals(self) -> Vitals:
        """Spans and log lines that wait for their bucket or their parent."""
        sizes = {"buffered_rows": self.spans.rows + self.logs.rows, "waiting_spans": _height(self.assembler.waiting)}
        return Vitals(self.progress.low, self.spans.late + self.logs.late, sizes)

    def adopt(self, fresh: TraceStage) -> None:
        """Take the partitions there are now."""
        self.layout = fresh.layout
        self.progress.expect(fresh.progress.origins)

    def _drain(self, until_ns: int) -> list[Addressed]:
        """Let spans that wait for a parent expire in their own time when no data comes for a while."""
        out: list[Addressed] = []
        while self.assembler.waiting is not None and self.assembler.waiting.height and self.last_ns < until_ns:
            out += self._bucket(self.last_ns, None, None)
        return out

    def _bucket(self, start_ns: int, spans: pl.DataFrame | None, logs: pl.DataFrame | None) -> list[Addressed]:
        done = self.assembler.process(
            start_ns + self.bucket_ns,
            spans if spans is not None else pl.DataFrame(schema=SPANS),
            logs if logs is not None else pl.DataFrame(schema=SPAN_LOG_SCHEMA),
        )
        self.last_ns = start_ns + self.bucket_ns
        self.orphans += done.orphans
        out = []
        for table, frame in ((CELLS, done.cells), (EXEMPLARS, done.exemplars)):
            for to, part in zip(self.layout.detect, self.layout.by_service(frame), strict=True):
                if part.height:
                    out.append(Addressed(to, Rollup(table, start_ns, part)))
        return out


def _height(frame: pl.DataFrame | None) -> int:
    return 0 if frame is None else frame.height
