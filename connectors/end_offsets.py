"""Asks the brokers for the end of a partition without making anybody wait: tells a quiet partition from a lost broker.

A source's own consumer cannot be asked in passing: its connection is busy with a fetch that waits for data.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from connectors.config import KafkaConfig
from connectors.kafka_client import Consumer, TopicPartition, make_consumer

_TIMEOUT_MS: Final = 5_000


class EndOffsets:
    """One background thread with a consumer of its own, made when first asked; ``leave`` by the last user ends both."""

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._users = 0
        self._executor: ThreadPoolExecutor | None = None
        self._consumer: Consumer | None = None  # touched by the background thread only

    def join(self) -> None:
        """Announce a user."""
        with self._lock:
            self._users += 1

    def ask(self, where: TopicPartition) -> Future[int]:
        """The offset after the partition's last message; fails like kafka-python when the brokers do not answer."""
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(1, thread_name_prefix="end-offsets")
            return self._executor.submit(self._fetch, where)

    def leave(self) -> None:
        """A user is done."""
        with self._lock:
            self._users -= 1
            executor, self._executor = (self._executor, None) if self._users <= 0 else (None, self._executor)
        if executor is not None:
            executor.submit(self._close)
            executor.shutdown(wait=False)

    def _fetch(self, where: TopicPartition) -> int:
        if self._consumer is None:
            self._consumer = make_consumer(self._config, bootstrap_timeout_ms=_TIMEOUT_MS)
        return self._consumer.end_offsets([where], timeout_ms=_TIMEOUT_MS)[where]

    def _close(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close(autocommit=False)
