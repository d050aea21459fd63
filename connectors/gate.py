"""Flow control in event time: no partition runs far ahead of the slowest one of its process.

Downstream, a bucket waits until every partition has passed it; what runs ahead is held in memory until then. The gate
bounds that while a job catches up. It changes when rows arrive, never which, so results do not depend on it.
"""

from __future__ import annotations

import threading
from typing import Final

from signals.batch import NO_WATERMARK

_NS: Final = 1_000_000_000


class EventTimeGate:
    """Lets a partition poll while it is at most ``max_ahead_s`` of event time ahead of the slowest active one.

    A partition is active from ``join`` until ``leave``, unless it is idle. The slowest may always poll, so a gap of
    hours in the data stalls nobody; one that has not spoken yet counts as slowest. Safe to use from several threads.

    >>> gate = EventTimeGate(max_ahead_s=60)
    >>> gate.join("a"); gate.join("b")
    >>> gate.advance("a", 100 * 10**9)
    >>> gate.may_poll("a"), gate.may_poll("b")
    (False, True)
    >>> gate.advance("b", 40 * 10**9)
    >>> gate.may_poll("a")
    True
    """

    def __init__(self, max_ahead_s: float) -> None:
        self._max_ahead_ns = int(max_ahead_s * _NS)
        self._progress: dict[str, int] = {}  # watermark of every partition that takes part
        self._idle: set[str] = set()
        self._lock = threading.Lock()

    def join(self, partition: str, watermark_ns: int = NO_WATERMARK) -> None:
        """Take part, at the watermark the partition resumes from."""
        with self._lock:
            self._progress[partition] = watermark_ns

    def advance(self, partition: str, watermark_ns: int, *, idle: bool = False) -> None:
        """Say how far the partition has come, and whether it is idle and so waits for nobody nor holds anybody back."""
        with self._lock:
            self._progress[partition] = watermark_ns
            if idle:
                self._idle.add(partition)
            else:
                self._idle.discard(partition)

    def leave(self, partition: str) -> None:
        """The partition has ended; others no longer wait for it."""
        with self._lock:
            self._progress.pop(partition, None)
            self._idle.discard(partition)

    def may_poll(self, partition: str) -> bool:
        """Whether the partition may read on now."""
        with self._lock:
            own = self._progress.get(partition, NO_WATERMARK)
            if partition in self._idle:
                return True
            slowest = min((at for name, at in self._progress.items() if name not in self._idle), default=own)
            return own <= slowest + self._max_ahead_ns
