"""Read root causes from Kafka and print one line per incident revision.

Needs only kafka-python:

    pip install 'kafka-python[crc32c,lz4,zstd]'
    python consume_root_causes.py --bootstrap localhost:9092 --from-beginning

Delivery is at least once: a revision may come again, and is recognised by its event id. Offsets are committed only
after an event was handled, so a crash repeats events and loses none. What is printed quotes telemetry, so control
characters are taken out first.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition

Event = dict[str, Any]
EVENT_TYPE = "io.mendstream.root_cause.v1"
REQUIRED = {"incident", "title", "verdict", "candidates"}


class NotARootCauseError(ValueError):
    """The message is not a root-cause event; the text says why."""


class RecentIds:
    """Remembers the last ``size`` event ids, oldest forgotten first."""

    def __init__(self, size: int = 10_000) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._size = size

    def __contains__(self, event_id: str) -> bool:
        return event_id in self._ids

    def add(self, event_id: str) -> None:
        """Remember an id; call it once the event has been handled."""
        self._ids[event_id] = None
        self._ids.move_to_end(event_id)
        if len(self._ids) > self._size:
            self._ids.popitem(last=False)


def parse(value: bytes | None) -> Event:
    """The event in a Kafka message (CloudEvents, structured mode).

    Raises:
        NotARootCauseError: it is a tombstone, no JSON, or another type of event.
    """
    if value is None:
        raise NotARootCauseError("a tombstone: the incident was deleted from the compacted topic")
    try:
        event = json.loads(value)
    except ValueError as error:
        raise NotARootCauseError(f"no JSON: {error}") from error
    if not isinstance(event, dict) or event.get("type") != EVENT_TYPE:
        raise NotARootCauseError(f"no event of type {EVENT_TYPE}")
    data = event.get("data")
    if not isinstance(event.get("id"), str) or not isinstance(data, dict) or not data.keys() >= REQUIRED:
        raise NotARootCauseError("an event without id, or without data that the schema requires")
    return event


def printable(value: object) -> str:
    """Text without control characters, so that telemetry cannot drive the terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str(value))


def one_line(event: Event) -> str:
    """Time, incident, revision, state, verdict, first candidate with its confidence, and title."""
    data = event["data"]
    incident = data["incident"]
    best = next(iter(data["candidates"]), None)
    cause = "no candidate"
    if best:
        cause = f"{best['entity'].get('service.name', '?')} ({best['fault_kind']}, {best['confidence']:.0%})"
    name = f"{incident['id']}/r{incident['revision']}"
    return printable(f"{event['time']}  {name}  {incident['state']:8}  {data['verdict']}: {cause}  {data['title']}")


class Follower:
    """Polls a topic and gives each new event to a handler; commits what was handled."""

    def __init__(self, consumer: KafkaConsumer, handle: Callable[[Event, bytes], None], limit: int = 0) -> None:
        self._consumer = consumer
        self._handle = handle
        self._limit = limit
        self._seen = RecentIds()
        self.handled = 0
        self.repeated = 0
        self.unreadable = 0
        self.stopping = False

    def run(self) -> None:
        """Until ``stopping`` is set or ``limit`` events were handled (0: no limit).

        An exception of the handler ends the run; its event is not committed and comes again after a restart.
        """
        while not self._finished():
            for partition, records in self._consumer.poll(timeout_ms=500).items():
                done = None
                try:
                    for record in records:
                        if self._finished():
                            break
                        self._take(record.value)
                        done = record.offset + 1
                finally:
                    if done is not None:
                        self._commit(partition, done)

    def _finished(self) -> bool:
        return self.stopping or (self._limit > 0 and self.handled >= self._limit)

    def _take(self, value: bytes | None) -> None:
        try:
            event = parse(value)
        except NotARootCauseError as error:
            self.unreadable += 1
            print(f"skipped a message: {printable(error)}", file=sys.stderr)
            return
        if event["id"] in self._seen:
            self.repeated += 1
            return
        self._handle(event, value or b"")
        self._seen.add(event["id"])
        self.handled += 1

    def _commit(self, partition: TopicPartition, offset: int) -> None:
        self._consumer.commit({partition: OffsetAndMetadata(offset, "", -1)})


def add_kafka_arguments(parser: argparse.ArgumentParser, group: str) -> None:
    """The arguments that every consumer of the topic needs."""
    default = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092")
    parser.add_argument("--bootstrap", default=default, help="Kafka servers, host:port with commas (%(default)s)")
    parser.add_argument("--topic", default="root_causes", help="topic of root causes (%(default)s)")
    parser.add_argument("--group", default=group, help="consumer group (%(default)s)")
    parser.add_argument("--from-beginning", action="store_true", help="a new group starts at the oldest event")
    parser.add_argument("--max", type=int, default=0, help="stop after so many events; 0 runs until stopped")


def follow(args: argparse.Namespace, handle: Callable[[Event, bytes], None]) -> Follower:
    """Consume as the arguments say, until the limit, SIGINT or SIGTERM."""
    consumer = KafkaConsumer(
        args.topic,
        bootstrap_servers=args.bootstrap.split(","),
        group_id=args.group,
        enable_auto_commit=False,  # committed by hand, once handled
        auto_offset_reset="earliest" if args.from_beginning else "latest",
    )
    follower = Follower(consumer, handle, args.max)

    def stop(*_: object) -> None:
        follower.stopping = True

    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, stop)
    try:
        follower.run()
    finally:
        consumer.close()
    return follower


def main() -> int:
    parser = argparse.ArgumentParser(description="Print one line per root-cause revision.")
    add_kafka_arguments(parser, group="mendstream-example-printer")
    follower = follow(parser.parse_args(), lambda event, _: print(one_line(event), flush=True))
    print(f"{follower.handled} events, {follower.repeated} repeats, {follower.unreadable} unreadable", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
