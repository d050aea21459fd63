"""Log statements as programs write them: templates with free parameters, rendered by the column.

A parameter is a name in braces. ``{dur}`` is the value that came with the line (a measured duration, a count); all
others are drawn from the line's own random bits, so that rendering late changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

WORDS: Final = (
    "amber", "basalt", "cedar", "delta", "ember", "fjord", "garnet", "harbor", "iris", "juniper", "kelp", "linen",
    "maple", "nectar", "ochre", "pine", "quartz", "raven", "sable", "tundra", "umber", "velvet", "willow", "zephyr",
)  # fmt: skip

_PARAMETER = re.compile(r"\{(\w+)\}")
Ints = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]


def _uuid(bits: int) -> str:
    text = f"{bits * 0x9E3779B97F4A7C15 & (2**128 - 1):032x}"
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}"


#: Parameter name → its text, from random bits.
KINDS: Final[dict[str, Callable[[int], str]]] = {
    "id": lambda bits: str(10_000 + bits % 900_000),
    "n": lambda bits: str(bits % 97),
    "amount": lambda bits: f"{5 + bits % 49_500 / 100:.2f}",
    "ms": lambda bits: f"{1 + bits % 4000 / 100:.1f}",
    "sku": lambda bits: f"{bits % 36**6:06X}-{bits % 9}",
    "word": lambda bits: WORDS[bits % len(WORDS)],
    "ip": lambda bits: f"10.{bits % 200}.{bits // 200 % 250}.{1 + bits // 50_000 % 250}",
    "uuid": _uuid,
    "port": lambda bits: str(32_768 + bits % 28_000),
}


class Template:
    """One statement, compiled.

    >>> Template("user={id} took {dur} ms").render(np.array([7], dtype=np.uint64), np.array([12.5]))
    ['user=10007 took 12.5 ms']
    """

    __slots__ = ("_format", "_kinds", "severity", "text")

    def __init__(self, text: str, severity: int = 9) -> None:
        self.text = text
        self.severity = severity
        self._kinds = _PARAMETER.findall(text)
        unknown = sorted(set(self._kinds) - set(KINDS) - {"dur"})
        if unknown:
            raise ValueError(f"log template {text!r}: no parameter {', '.join(unknown)}")
        self._format = _PARAMETER.sub("%s", text.replace("%", "%%"))

    def render(self, bits: Ints, values: Floats) -> list[str]:
        """Bodies of n lines from n random words and n values."""
        if not self._kinds:
            return [self._format % ()] * len(bits)
        columns: list[list[str]] = []
        for place, kind in enumerate(self._kinds):
            if kind == "dur":
                columns.append([f"{value:.1f}" for value in values.tolist()])
                continue
            text = KINDS[kind]
            turn = np.uint64(11 * place % 64)
            mixed = bits if place == 0 else bits >> turn | bits << np.uint64(64) - turn
            columns.append([text(word) for word in mixed.tolist()])
        return [self._format % row for row in zip(*columns, strict=True)]


class TemplateTable:
    """Templates by number, so that a log line is a few numbers until it is written."""

    def __init__(self) -> None:
        self.templates: list[Template] = []
        self._ids: dict[tuple[str, int], int] = {}

    def add(self, text: str, severity: int) -> int:
        """Number of a template, the same for the same text and severity."""
        key = (text, severity)
        if key not in self._ids:
            self._ids[key] = len(self.templates)
            self.templates.append(Template(text, severity))
        return self._ids[key]


#: What programs write besides requests, by runtime or system: (severity, text, relative frequency).
CHATTER: Final[dict[str, tuple[tuple[int, str, float], ...]]] = {
    "jvm": (
        (9, "HikariPool-1 - Pool stats (total={n}, active=0, idle={n}, waiting=0)", 2),
        (9, "GC({n}) Pause Young (Normal) {n}M->{n}M(512M) {ms}ms", 3),
        (5, "Scheduled task cache-refresh finished in {ms} ms", 2),
        (9, "health check UP db=UP diskSpace=UP", 4),
        (13, "Metric reader dropped {n} measurements: cardinality limit", 0.1),
    ),
    "go": (
        (9, "GET /healthz 200 from {ip}:{port}", 5),
        (5, "gc {n} @{ms}s: heap {n} MB", 2),
        (9, "connection pool: idle={n} in_use={n}", 1),
        (13, "otlp exporter: batch of {n} spans retried", 0.1),
    ),
    "nodejs": (
        (9, '{"level":30,"msg":"liveness ok","pid":{n},"uptime":{id}}', 4),
        (5, "event loop delay p99={ms}ms handles={n}", 2),
        (9, "reloaded {n} feature flags, 0 changed", 1),
        (13, "(node:{n}) MaxListenersExceededWarning: {n} drain listeners added", 0.08),
    ),
    "python": (
        (9, '{ip}:{port} - "GET /health HTTP/1.1" 200 OK', 5),
        (5, "cron job=refresh-model step={n} finished in {ms} ms", 1),
        (9, "worker {n} heartbeat", 3),
        (13, "urllib3: Connection pool is full, discarding connection. Pool size: 10", 0.1),
    ),
    "native": (
        (9, "upstream check: {n} of {n} endpoints healthy", 3),
        (9, "connection from {ip}:{port} closed, {n} requests", 3),
        (5, "access log rotated, {id} lines", 0.5),
    ),
    "postgresql": (
        (9, "checkpoint complete: wrote {n} buffers ({n}.3%); write={ms} s, sync=0.004 s", 2),
        (9, "connection received: host={ip} port={port}", 3),
        (9, 'automatic vacuum of table "shop.public.{word}": index scans: 1, pages: {n} removed', 1),
        (13, "duration: {ms} ms  statement: SELECT * FROM {word} WHERE id = $1", 0.3),
    ),
    "redis": (
        (9, "{n} changes in 60 seconds. Saving...", 2),
        (9, "Background saving terminated with success", 2),
        (5, "DB saved on disk, fork CoW {n} MB", 1),
    ),
    "kafka": (
        (9, "[GroupCoordinator id=0] Stabilized group {word} generation {n} with {n} members", 1),
        (9, "[UnifiedLog partition=orders-{n}] Rolled new log segment at offset {id} in {ms} ms", 2),
        (5, "[LocalLog partition=orders-{n}] Deleting segment files LogSegment(baseOffset={id})", 1),
    ),
    "mongodb": (
        (9, "Connection accepted remote={ip}:{port} connectionCount={n}", 3),
        (9, "WiredTiger message: checkpoint snapshot min: {id}, snapshot max: {id}", 2),
    ),
}
STARTED: Final = "Started in {ms} seconds, listening on port {port}"
STOPPING: Final = "Received SIGTERM, draining connections"
