"""Rows of a recording's Parquet files to the columns of ``signals.schema``, the same as the OTLP decoder gives.

Python looks only at rows whose name or peer is in their attributes; everything else is done by the column.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import orjson
import polars as pl

from signals.batch import END_OF_STREAM
from signals.entity import UNKNOWN_SERVICE
from signals.ids import span_id_column, trace_id_columns
from signals.names import NAME_KEYS, PEER_KEYS, is_bare_method, operation_name, peer_name
from signals.otlp_values import CALLING_KINDS, as_text, canonical_json
from signals.schema import ATTRIBUTES, LOGS, METRICS, SPANS, MetricShape, Signal

#: Columns that a recording's files must have; ``attributes`` and the optional ones below may be missing.
REQUIRED: Final[dict[Signal, dict[str, type[pl.DataType]]]] = {
    Signal.SPANS: {
        "trace_id": pl.String,
        "span_id": pl.String,
        "parent_span_id": pl.String,
        "service": pl.String,
        "instance": pl.String,
        "name": pl.String,
        "kind": pl.Int8,
        "start_unix_ns": pl.Int64,
        "duration_ns": pl.Int64,
        "status_code": pl.Int8,
    },
    Signal.LOGS: {
        "time_unix_ns": pl.Int64,
        "service": pl.String,
        "instance": pl.String,
        "severity": pl.Int8,
        "body": pl.String,
        "trace_id": pl.String,
        "span_id": pl.String,
    },
    Signal.METRICS: {
        "time_unix_ns": pl.Int64,
        "service": pl.String,
        "instance": pl.String,
        "metric": pl.String,
        "value": pl.Float64,
    },
}
#: Written by us where they say something; files of others have ``attributes`` alone.
OPTIONAL: Final[dict[str, type[pl.DataType]]] = {
    ATTRIBUTES: pl.String,
    "environment": pl.String,
    "namespace": pl.String,
    "version": pl.String,
}
_MEMO_LIMIT: Final = 50_000
_MAX_DURATION_NS: Final = 2**61  # 73 years; keeps start + duration inside 64 bits


def event_time(signal: Signal) -> pl.Expr:
    """A raw row's event time, UTC epoch nanoseconds: a span's end, otherwise its time."""
    if signal is Signal.SPANS:
        return pl.col("start_unix_ns") + pl.col("duration_ns").fill_null(0).clip(0, _MAX_DURATION_NS)
    return pl.col("time_unix_ns")


def usable(signal: Signal) -> pl.Expr:
    """Whether a raw row can be placed on the time line."""
    start = pl.col("start_unix_ns" if signal is Signal.SPANS else "time_unix_ns")
    placed = (start > 0) & (start < END_OF_STREAM) & (event_time(signal) < END_OF_STREAM)
    if signal is Signal.SPANS:
        return placed & (pl.col("duration_ns").fill_null(0) <= _MAX_DURATION_NS)
    return placed


class RowConverter:
    """Converts raw rows of one recording; remembers names and peers it has worked out, up to a limit."""

    def __init__(self, environment: str, *, keep_attributes: bool = False) -> None:
        self._environment = environment
        self._keep_attributes = keep_attributes
        self._operations: dict[tuple[object, ...], str] = {}
        self._peers: dict[tuple[object, ...], str] = {}

    def convert(self, signal: Signal, raw: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int]]:
        """The rows in the signal's schema and in the given order, and what was dropped or repaired, by reason."""
        skipped: Counter[str] = Counter()
        raw = raw.with_columns(
            pl.lit(None, kind).alias(name) for name, kind in OPTIONAL.items() if name not in raw.columns
        )
        if signal is Signal.SPANS:
            frame = self._spans(raw, skipped)
        elif signal is Signal.LOGS:
            frame = self._logs(raw)
        else:
            frame = self._metrics(raw, skipped)
        return frame, {reason: count for reason, count in skipped.items() if count}

    def _entity(self, raw: pl.DataFrame) -> list[pl.Series]:
        return raw.select(
            environment=_or(pl.col("environment"), self._environment),
            namespace=pl.col("namespace").fill_null(""),
            service=_or(pl.col("service"), UNKNOWN_SERVICE),
            instance=pl.col("instance").fill_null(""),
        ).get_columns()

    def _spans(self, raw: pl.DataFrame, skipped: Counter[str]) -> pl.DataFrame:
        skipped["negative_duration"] += int((raw["duration_ns"].fill_null(0) < 0).sum())
        hi, lo = trace_id_columns(raw["trace_id"])
        version, namespace = (
            raw[own].fill_null(_attribute(raw[ATTRIBUTES], key)).fill_null("")
            for own, key in (("version", "service.version"), ("namespace", "service.namespace"))
        )
        name, peer = self._names_and_peers(raw, skipped)
        frame = pl.DataFrame(
            [
                *self._entity(raw),
                version.alias("version"),
                name.alias("name"),
                _within(raw["kind"], 5).alias("kind"),
                _within(raw["status_code"], 2).alias("status"),
                raw["start_unix_ns"].alias("start_ns"),
                raw.select(event_time(Signal.SPANS).alias("end_ns")).to_series(),
                hi.alias("trace_hi"),
                lo.alias("trace_lo"),
                span_id_column(raw["span_id"]).alias("span_id"),
                span_id_column(raw["parent_span_id"]).alias("parent_id"),
                peer.alias("peer"),
            ]
        ).with_columns(namespace.alias("namespace"))
        return self._with_attributes(frame, raw, SPANS)

    def _logs(self, raw: pl.DataFrame) -> pl.DataFrame:
        hi, lo = trace_id_columns(raw["trace_id"])
        frame = pl.DataFrame(
            [
                *self._entity(raw),
                raw["version"].fill_null("").alias("version"),
                raw["time_unix_ns"].alias("time_ns"),
                _within(raw["severity"], 24).alias("severity"),
                raw["body"].fill_null("").alias("body"),
                hi.alias("trace_hi"),
                lo.alias("trace_lo"),
                span_id_column(raw["span_id"]).alias("span_id"),
            ]
        )
        return self._with_attributes(frame, raw, LOGS)

    def _metrics(self, raw: pl.DataFrame, skipped: Counter[str]) -> pl.DataFrame:
        finite = raw["value"].is_finite().fill_null(value=False)
        skipped["not_finite"] += int((~finite).sum())
        raw = raw.filter(finite)
        attributes = raw[ATTRIBUTES]
        texts = attributes.unique().drop_nulls().to_list()
        canonical = pl.Series([_canonical(text, skipped) for text in texts], dtype=pl.String)
        count = raw.height
        return pl.DataFrame(
            [
                *self._entity(raw),
                raw["time_unix_ns"].alias("time_ns"),
                raw["metric"].fill_null("").alias("metric"),
                attributes.replace_strict(texts, canonical, default="", return_dtype=pl.String).alias("attributes"),
                pl.repeat(int(MetricShape.GAUGE), count, dtype=pl.Int8, eager=True).alias("shape"),
                raw["value"],
                pl.repeat(0, count, dtype=pl.Int64, eager=True).alias("start_ns"),
                pl.repeat(0, count, dtype=pl.UInt64, eager=True).alias("count"),
                _empty_lists("bounds", pl.List(pl.Float64), count),
                _empty_lists("counts", pl.List(pl.UInt64), count),
            ],
        ).select(METRICS.names())

    def _with_attributes(self, frame: pl.DataFrame, raw: pl.DataFrame, schema: pl.Schema) -> pl.DataFrame:
        frame = frame.select(schema.names())
        return frame.with_columns(raw[ATTRIBUTES]) if self._keep_attributes else frame

    def _names_and_peers(self, raw: pl.DataFrame, skipped: Counter[str]) -> tuple[pl.Series, pl.Series]:
        """Operation names and peers; only rows whose attributes can say something about either are looked at."""
        names = raw["name"].fill_null("")
        bare_names = [name for name in names.unique().to_list() if is_bare_method(name)]
        bare = names.is_in(bare_names)
        calling = raw["kind"].is_in([int(kind) for kind in CALLING_KINDS]).fill_null(value=False)
        rows = ((bare | calling) & raw[ATTRIBUTES].is_not_null()).arg_true()
        peers = pl.repeat("", raw.height, dtype=pl.String, eager=True)
        if rows.is_empty():
            return names, peers
        new_names, new_peers = [], []
        for text, name, is_bare, is_calling in zip(
            raw[ATTRIBUTES].gather(rows), names.gather(rows), bare.gather(rows), calling.gather(rows), strict=True
        ):
            attributes = _object(text, skipped)
            new_names.append(self._operation(name, attributes) if is_bare else name)
            new_peers.append(self._peer(attributes) if is_calling else "")
        return names.scatter(rows, new_names), peers.scatter(rows, new_peers)

    def _operation(self, name: str, attributes: dict[str, Any]) -> str:
        values = tuple(map(attributes.get, NAME_KEYS))
        try:
            key = (name, values, tuple(map(type, values)))
            found = self._operations.get(key)
        except TypeError:  # a list or an object where a text is expected
            return operation_name(name, attributes)
        if found is None:
            found = operation_name(name, attributes)
            _remember(self._operations, key, found)
        return found

    def _peer(self, attributes: dict[str, Any]) -> str:
        values = tuple(map(attributes.get, PEER_KEYS))
        try:
            key = (values, tuple(map(type, values)))
            found = self._peers.get(key)
        except TypeError:
            return peer_name(attributes)
        if found is None:
            found = peer_name(attributes)
            _remember(self._peers, key, found)
        return found


def _remember(memo: dict[tuple[object, ...], str], key: tuple[object, ...], value: str) -> None:
    if len(memo) >= _MEMO_LIMIT:
        memo.clear()
    memo[key] = value


def _attribute(attributes: pl.Series, key: str) -> pl.Series:
    """One attribute's text by the column, null where it is absent.

    A pattern finds it in flat objects; rows where that could be mistaken (escapes, nested objects, no plain text) are
    parsed.
    """
    quoted = orjson.dumps(key).decode()
    present = attributes.str.contains(quoted, literal=True).fill_null(value=False)
    if not present.any():
        return pl.repeat(None, len(attributes), dtype=pl.String, eager=True)
    found = attributes.str.extract(quoted.replace(".", r"\.") + r'\s*:\s*"([^"]*)"')
    nested = attributes.str.count_matches("{", literal=True) > 1
    doubtful = (present & (found.is_null() | nested | found.str.contains("\\", literal=True))).arg_true()
    if doubtful.is_empty():
        return found
    parsed = [as_text(_object(text, Counter()).get(key)) or None for text in attributes.gather(doubtful)]
    return found.scatter(doubtful, pl.Series(parsed, dtype=pl.String))


def _object(text: str, skipped: Counter[str]) -> dict[str, Any]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        value = None
    if isinstance(value, dict):
        return value
    skipped["bad_attributes"] += 1
    return {}


def _canonical(text: str, skipped: Counter[str]) -> str:
    """A metric's attributes as the decoder writes them; text that is no object still keeps its series apart."""
    before = skipped["bad_attributes"]
    value = _object(text, skipped)
    if skipped["bad_attributes"] > before:
        value = {ATTRIBUTES: text}
    return canonical_json(value) if value else ""


def _empty_lists(name: str, dtype: pl.List, count: int) -> pl.Series:
    return pl.Series(name, [[]], dtype=dtype).new_from_index(0, count)


def _or(column: pl.Expr, default: str) -> pl.Expr:
    return pl.when(column.is_null() | (column == "")).then(pl.lit(default)).otherwise(column)


def _within(column: pl.Series, highest: int) -> pl.Series:
    """An OTLP enumeration, 0 for what is null or outside."""
    inside = column.is_between(0, highest).fill_null(value=False)
    return column.zip_with(inside, pl.Series([0], dtype=column.dtype)).cast(pl.Int8)
