"""Encoded spans to arrays: what the fields mean that ``signals.otlp_wire`` finds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl
from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from signals.ids import SPAN_ID_BYTES, TRACE_ID_BYTES, span_ids_from_bytes, trace_ids_from_bytes
from signals.names import NAME_KEYS, PEER_KEYS, is_bare_method, operation_name, peer_name
from signals.otlp_columns import SpanColumns
from signals.otlp_proto import add_spans, parse
from signals.otlp_values import CALLING_KINDS, OtlpError, plain_attributes
from signals.otlp_wire import Bytes, Ints, Mask, tag, walk

_TRACE_ID: Final = tag(1, 2)
_SPAN_ID: Final = tag(2, 2)
_PARENT_ID: Final = tag(4, 2)
_NAME: Final = tag(5, 2)
_KIND: Final = tag(6, 0)
_START: Final = tag(7, 1)
_END: Final = tag(8, 1)
_ATTRIBUTE: Final = tag(9, 2)
_STATUS: Final = tag(15, 2)
_STATUS_CODE: Final = tag(3, 0)  # in Status
_KEY: Final = tag(1, 2)  # in KeyValue
_VALUE: Final = tag(2, 2)

#: Attributes and statuses of more bytes are not remembered, which bounds the memory that they can take.
MAX_CACHED: Final = 1_024

U64 = npt.NDArray[np.uint64]
Pieces = tuple[bytes, ...]  # encoded attributes of one span


class Labels:
    """A column of texts of which most repeat: the distinct ones, and which one each row has; "" at first."""

    def __init__(self, rows: int) -> None:
        self._codes: dict[str, int] = {"": 0}
        self._rows = np.zeros(rows, dtype=np.uint32)

    def set(self, rows: Ints, texts: Sequence[str]) -> None:
        """Give each of these rows its text."""
        codes = self._codes
        for text in dict.fromkeys(texts):
            codes.setdefault(text, len(codes))
        self._rows[rows] = np.fromiter(map(codes.__getitem__, texts), dtype=np.uint32, count=len(texts))

    def set_distinct(self, rows: Ints, distinct: Iterable[str], which: Ints) -> None:
        """Give each of these rows a text of ``distinct``, told by its position there."""
        codes = self._codes
        self._rows[rows] = np.array([codes.setdefault(text, len(codes)) for text in distinct], dtype=np.uint32)[which]

    def series(self) -> pl.Series:
        """The column."""
        return pl.Series(list(self._codes), dtype=pl.String).gather(self._rows)


class SpanFields:
    """The columns of n encoded spans: arrays of n entries, named as in ``SPANS``; kinds, states and times unchecked.

    Attributes:
        odd_ids: ids of the wrong length, which were hashed.
        errors: rows that are no spans, with the reason; the arrays say nothing of them.
    """

    def __init__(self, spans: list[bytes]) -> None:
        rows = len(spans)
        fields = walk(spans)
        self._fields, self._odd = fields, fields.odd.copy()
        self.odd_ids = 0
        self.errors: list[tuple[int, OtlpError]] = []
        self.names, self.peers = Labels(rows), Labels(rows)
        self.trace_hi, self.trace_lo = self._ids(_TRACE_ID, TRACE_ID_BYTES)
        (self.span_id,) = self._ids(_SPAN_ID, SPAN_ID_BYTES)
        (self.parent_id,) = self._ids(_PARENT_ID, SPAN_ID_BYTES)
        self.start, self.end = self._times(_START), self._times(_END)
        self.kind = np.zeros(rows, dtype=np.int64)
        kind_rows, _, kinds = fields.only(_KIND)
        self.kind[kind_rows] = kinds
        self.status = self._statuses()
        self._attribute_entries = fields.only(_ATTRIBUTE)
        self._name()
        self._peer()
        if self._odd.any():
            self._read_odd(spans)

    def _ids(self, wanted: int, size: int) -> list[U64]:
        """Ids as 64-bit words; rows with one of the wrong length are odd."""
        fields = self._fields
        rows, end, sizes = fields.only(wanted)
        columns = [np.zeros(len(fields.odd), dtype=np.uint64) for _ in range(size // 8)]
        right = sizes == size
        if not right.all():
            self._odd[rows[~right]] = True
            rows, end = rows[right], end[right]
        for word, column in enumerate(columns):
            column[rows] = fields.words(end - size + 8 * word).view(">u8")
        return columns

    def _times(self, wanted: int) -> U64:
        rows, end, _ = self._fields.only(wanted)
        times = np.zeros(len(self._fields.odd), dtype=np.uint64)
        times[rows] = self._fields.words(end - 8).view("<u8")
        return times

    def _statuses(self) -> Ints:
        fields = self._fields
        rows, end, sizes = fields.only(_STATUS)
        status = np.zeros(len(fields.odd), dtype=np.int64)
        self._odd |= np.bincount(rows, minlength=len(status)) > 1  # protobuf merges what is repeated
        filled = np.flatnonzero(sizes)
        rows, end, sizes = rows[filled], end[filled], sizes[filled]
        bare = (sizes == 2) & (fields.buffer[end - 2] == _STATUS_CODE) & (fields.buffer[end - 1] < 0x80)
        status[rows] = np.where(bare, fields.buffer[end - 1], 0)
        for place in np.flatnonzero(~bare).tolist():
            read = _status_code if sizes[place] <= MAX_CACHED else _status_code.__wrapped__
            code = read(fields.data[end[place] - sizes[place] : end[place]])
            status[rows[place]] = code or 0
            self._odd[rows[place]] |= code is None
        return status

    def _name(self) -> None:
        fields = self._fields
        rows, end, sizes = fields.only(_NAME)
        data = fields.data
        raw = [data[begin:stop] for begin, stop in zip((end - sizes).tolist(), end.tolist(), strict=True)]
        codes = {text: code for code, text in enumerate(dict.fromkeys(raw))}
        which = np.fromiter(map(codes.__getitem__, raw), dtype=np.int64, count=len(raw))
        names = [text.decode(errors="replace") for text in codes]
        self.names.set_distinct(rows, names, which)
        if any("\ufffd" in name for name in names):  # the replacement of what is no UTF-8, or itself
            self._odd[rows[np.array(["\ufffd" in name for name in names])[which]]] = True
        bare = [is_bare_method(name) for name in names]
        if any(bare):
            self._complete_names(rows, which, names, np.array(bare))

    def _complete_names(self, rows: Ints, which: Ints, names: list[str], bare: Mask) -> None:
        """Where a name is only a method, add the route."""
        name_of = np.full(len(self._odd), -1, dtype=np.int64)
        name_of[rows] = np.where(bare[which], which, -1)
        found, pieces = self._attributes(name_of >= 0, _NAME_PREFIXES)
        bare_names = [names[name] for name in name_of[found].tolist()]
        self.names.set(found, self._known(found, list(map(_operation, bare_names, pieces))))

    def _peer(self) -> None:
        found, pieces = self._attributes(np.isin(self.kind, _CALLING), _PEER_PREFIXES)
        self.peers.set(found, self._known(found, list(map(_peer, pieces))))

    def _known(self, rows: Ints, texts: list[str | None]) -> list[str]:
        """The texts; rows whose attributes cannot be read (None) become odd."""
        known = [text or "" for text in texts]
        if None in texts:
            self._odd[rows[[text is None for text in texts]]] = True
        return known

    def _attributes(self, wanted: Mask, prefixes: U64) -> tuple[Ints, list[Pieces]]:
        """Of the wanted rows, those with attributes whose key begins like one of interest, and these attributes."""
        fields = self._fields
        rows, end, sizes = self._attribute_entries
        of_interest = wanted[rows]
        rows, end, begin = rows[of_interest], end[of_interest], (end - sizes)[of_interest]
        keys = _key_places(fields.buffer, begin)
        unusual = (keys >= end) | (fields.buffer[np.minimum(keys, len(fields.buffer) - 1)] != _KEY)
        if unusual.any():
            self._odd[rows[unusual]] = True
            usual = ~unusual
            rows, begin, end, keys = rows[usual], begin[usual], end[usual], keys[usual]
        heads: U64 = fields.words(keys).view("<u8")
        hit = np.zeros(len(heads), dtype=np.bool_)
        for prefix in prefixes:
            hit |= heads == prefix
        large = hit & (end - begin > MAX_CACHED)
        self._odd[rows[large]] = True
        hit &= ~large
        rows, begin, end = rows[hit], begin[hit], end[hit]
        order = np.argsort(rows, kind="stable")
        rows, begin, end = rows[order], begin[order], end[order]
        data = fields.data
        pieces = [data[start:stop] for start, stop in zip(begin.tolist(), end.tolist(), strict=True)]
        firsts = np.flatnonzero(np.diff(rows, prepend=-1))
        cuts = [*firsts.tolist(), len(pieces)]
        return rows[firsts], [tuple(pieces[low:high]) for low, high in pairwise(cuts)]

    def _read_odd(self, spans: list[bytes]) -> None:
        """Read the rows that are out of the ordinary with the complete parser."""
        columns = SpanColumns()
        sound: list[int] = []
        for row in np.flatnonzero(self._odd).tolist():
            try:
                add_spans(columns, [parse(Span, spans[row])], keep_attributes=False)
            except OtlpError as error:
                self.errors.append((row, error))
            else:
                sound.append(row)
        rows = np.array(sound, dtype=np.int64)
        self.trace_hi[rows], self.trace_lo[rows], odd_traces = trace_ids_from_bytes(columns.trace_ids)
        self.span_id[rows], odd_spans = span_ids_from_bytes(columns.span_ids)
        self.parent_id[rows], odd_parents = span_ids_from_bytes(columns.parent_ids)
        self.odd_ids += odd_traces + odd_spans + odd_parents
        self.kind[rows], self.status[rows] = columns.kinds, columns.statuses
        self.start[rows] = np.asarray(columns.starts, dtype=np.uint64)
        self.end[rows] = np.asarray(columns.ends, dtype=np.uint64)
        self.names.set(rows, columns.names)
        self.peers.set(rows, columns.peers)


def _key_places(buffer: Bytes, begin: Ints) -> Ints:
    """Where the keys of encoded attributes are: at the beginning, or behind a value (as the Collector writes them)."""
    first, low = buffer[begin], buffer[begin + 1].astype(np.int64)
    high = buffer[begin + 2].astype(np.int64)
    behind = np.where(low < 0x80, begin + 2 + low, begin + 3 + (low & 0x7F) + (high << 7))
    return np.where(first == _VALUE, behind, begin)


def _prefixes(keys: Iterable[str]) -> U64:
    """The first eight bytes of an attribute with each of these keys: tag, length, six letters."""
    heads = [bytes([_KEY, len(key)]) + key.encode()[:6] for key in keys]
    return np.unique(np.frombuffer(b"".join(heads), dtype="<u8").astype(np.uint64))


_NAME_PREFIXES: Final = _prefixes(NAME_KEYS)
_PEER_PREFIXES: Final = _prefixes(PEER_KEYS)
_CALLING: Final = np.array(sorted(CALLING_KINDS))


@lru_cache(maxsize=16_384)
def _peer(pieces: Pieces) -> str | None:
    """The peer that encoded attributes name; None when they cannot be read."""
    found = _mapping(pieces, frozenset(PEER_KEYS))
    return None if found is None else peer_name(found)


@lru_cache(maxsize=16_384)
def _operation(name: str, pieces: Pieces) -> str | None:
    """The operation of a bare method with these encoded attributes; None when they cannot be read."""
    found = _mapping(pieces, frozenset(NAME_KEYS))
    return None if found is None else operation_name(name, found)


def _mapping(pieces: Pieces, only: frozenset[str]) -> dict[str, object] | None:
    try:
        return plain_attributes(map(KeyValue.FromString, pieces), only)
    except DecodeError:
        return None


@lru_cache(maxsize=1_024)
def _status_code(encoded: bytes) -> int | None:
    try:
        return Status.FromString(encoded).code
    except DecodeError:
        return None
