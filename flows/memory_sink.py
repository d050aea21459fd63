"""Keeps every incident revision in the database, beside Kafka, so that people find it without a consumer running.

Writing a revision twice changes nothing (``incidents.memory``), which makes this sink safe to repeat after a crash and
safe beside ``mendstream remediate run``, which stores the same revisions. A database that is away must not stop
detection: what cannot be written is kept, counted and tried again with the next revision and at the end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import structlog
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from sqlalchemy.exc import SQLAlchemyError

from incidents.memory import Memory
from incidents.model import RootCauseEvent

_MAX_WAITING: Final = 1_000
_log = structlog.get_logger(__name__)


class MemorySink(DynamicSink[RootCauseEvent]):
    """Writes revisions to a ``Memory``, which is opened when the sink is built.

    Args:
        open_memory: Opens the database.
        on_failure: Is called for each revision that could not be written at once.
    """

    def __init__(self, open_memory: Callable[[], Memory], on_failure: Callable[[], None]) -> None:
        self._open, self._on_failure = open_memory, on_failure

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _MemoryPartition:  # noqa: ARG002 - Bytewax's signature
        """A connection for one worker."""
        return _MemoryPartition(self._open(), self._on_failure)


class _MemoryPartition(StatelessSinkPartition[RootCauseEvent]):
    def __init__(self, memory: Memory, on_failure: Callable[[], None]) -> None:
        self._memory, self._on_failure = memory, on_failure
        self._waiting: deque[RootCauseEvent] = deque()

    def write_batch(self, items: list[RootCauseEvent]) -> None:
        self._waiting.extend(items)
        self._drain()
        while len(self._waiting) > _MAX_WAITING:
            dropped = self._waiting.popleft()
            _log.error("incident revision not stored in the database, and given up", id=dropped.id)

    def close(self) -> None:
        self._drain()
        self._memory.close()

    def _drain(self) -> None:
        while self._waiting:
            try:
                self._memory.record(self._waiting[0])
            except SQLAlchemyError as error:
                self._on_failure()
                _log.warning("incident revision not stored yet", id=self._waiting[0].id, error=str(error))
                return
            self._waiting.popleft()
