"""A simulation sent to Kafka as the OpenTelemetry Collector would: OTLP on three topics, CloudEvents on a fourth.

Spans travel in order of end, in messages of some hundred, at a multiple of real time or as fast as they go. Event times
stay simulated times.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import orjson

from connectors.config import KafkaConfig
from connectors.kafka_client import Producer, SentRecord, make_producer
from signals.otlp import Encoding
from signals.otlp_encode import encode
from signals.schema import Signal
from simulator.config import SimulationConfig
from simulator.model import Topology
from simulator.sink import Slice, Summary

ROWS_PER_MESSAGE: Final = 400
_FLUSH_S: Final = 60.0


class KafkaSink:
    """Sends slices; a delivery that fails raises at the next slice.

    Args:
        config: Brokers, topics and encodings.
        speed: Multiple of real time, 0 for as fast as possible.
        producer: A producer to use instead of one made from ``config``.
        clock: Monotonic seconds; with ``sleep`` the only wall clock here.
        sleep: Waits some seconds.
    """

    def __init__(
        self,
        config: KafkaConfig,
        *,
        speed: float = 0.0,
        producer: Producer | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._inputs = config.topics.inputs()
        self._producer = producer or make_producer(config, linger_ms=20)
        self._speed = speed
        self._clock = clock
        self._sleep = sleep
        self._began: tuple[float, int] | None = None  # wall seconds, event ns
        self._pending: list[SentRecord] = []
        self.messages = 0
        self.bytes = 0

    def write(self, part: Slice) -> None:
        """Send a slice, when its time has come."""
        self._pace(part.end_ns)
        frames = part.frames.by_signal()
        for signal, topic, encoding in self._inputs:
            if signal is Signal.CHANGES:
                values = [orjson.dumps(event) for event in part.changes]
            elif signal in frames:
                values = encode(
                    signal, frames[signal], encoding=encoding or Encoding.OTLP_PROTO, max_rows=ROWS_PER_MESSAGE
                )
            for value in values:
                self._pending.append(self._producer.send(topic, value))
                self.messages += 1
                self.bytes += len(value)
        self._deliver()

    def close(self, _config: SimulationConfig, _topology: Topology, _summary: Summary, /) -> None:
        """Wait until all is delivered."""
        self._deliver()
        self._producer.close(timeout=_FLUSH_S)

    def _pace(self, end_ns: int) -> None:
        if self._speed <= 0:
            return
        if self._began is None:
            self._began = (self._clock(), end_ns)
        began, first_ns = self._began
        ahead = began + (end_ns - first_ns) / 1e9 / self._speed - self._clock()
        if ahead > 0:
            self._sleep(ahead)

    def _deliver(self) -> None:
        """Everything handed over is on the brokers afterwards, or this raises what the producer said."""
        self._producer.flush(timeout=_FLUSH_S)
        for sent in self._pending:
            sent.get(timeout=_FLUSH_S)
        self._pending.clear()
