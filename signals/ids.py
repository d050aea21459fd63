"""Trace and span ids: hexadecimal text to the unsigned integers every later stage joins on, and back.

Recordings and OTLP/JSON carry text, OTLP protobuf carries raw bytes; whatever the source, one id is the same number
everywhere. Ids that are no OpenTelemetry ids (other tracers, hand-made data) are hashed: the same text is the same
number in every process, so that joins still work. Not here: what a missing id means to a stage.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

TRACE_ID_BYTES: Final = 16
SPAN_ID_BYTES: Final = 8

_NOT_HEX: Final = "[^0-9a-fA-F]"


def trace_id_columns(ids: pl.Series) -> tuple[pl.Series, pl.Series]:
    """The big-endian halves ``trace_hi`` and ``trace_lo`` of a String column, both UInt64 of the same length.

    Exactly 32 hexadecimal digits of either case are read as a number. Null and the empty string are no id: (0, 0). Any
    other text becomes a 128-bit BLAKE2b hash of its UTF-8 bytes, never (0, 0).

    >>> high, low = trace_id_columns(pl.Series(["000000000000000a00000000000000ff", None]))
    >>> high.to_list(), low.to_list()
    ([10, 0], [255, 0])
    """
    texts = ids.cast(pl.String)
    clean = _clean(texts, 2 * TRACE_ID_BYTES)
    high = _half(texts, clean, 0)
    low = _half(texts, clean, 16)
    return _with_hashes(texts, clean, high, "trace_hi", 0), _with_hashes(texts, clean, low, "trace_lo", 1)


def span_id_column(ids: pl.Series) -> pl.Series:
    """A String column of span ids as UInt64 of the same length.

    Exactly 16 hexadecimal digits are read as a number. Null and the empty string are no id: 0 (a root's parent). Any
    other text becomes a 64-bit BLAKE2b hash of its UTF-8 bytes, never 0.

    >>> span_id_column(pl.Series(["00000000000000ff", "", None])).to_list()
    [255, 0, 0]
    """
    texts = ids.cast(pl.String)
    clean = _clean(texts, 2 * SPAN_ID_BYTES)
    return _with_hashes(texts, clean, _half(texts, clean, 0), "span_id", 0, size=SPAN_ID_BYTES)


def trace_ids_from_bytes(ids: Iterable[bytes]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64], int]:
    """Halves of raw trace ids, and how many were no id: neither 16 bytes nor absent.

    Absent (empty) ids are (0, 0) and not counted; ids of another length are hashed, never (0, 0).
    """
    raw, odd = _fixed(ids, TRACE_ID_BYTES)
    words = np.frombuffer(raw, dtype=">u8").reshape(-1, 2).astype(np.uint64)
    return words[:, 0], words[:, 1], odd


def span_ids_from_bytes(ids: Iterable[bytes]) -> tuple[npt.NDArray[np.uint64], int]:
    """Raw span ids as integers, and how many were neither 8 bytes nor absent (those are hashed, never 0)."""
    raw, odd = _fixed(ids, SPAN_ID_BYTES)
    return np.frombuffer(raw, dtype=">u8").astype(np.uint64), odd


def format_trace_id(hi: int, lo: int) -> str:
    """The 32 lower-case hexadecimal digits of a trace id.

    >>> format_trace_id(10, 255)
    '000000000000000a00000000000000ff'
    """
    return f"{hi:016x}{lo:016x}"


def format_span_id(x: int) -> str:
    """The 16 lower-case hexadecimal digits of a span id.

    >>> format_span_id(255)
    '00000000000000ff'
    """
    return f"{x:016x}"


def hash_id(value: bytes, size: int) -> bytes:
    """A deterministic id of ``size`` bytes for one that is no OpenTelemetry id; never all zero."""
    digest = hashlib.blake2b(value, digest_size=size).digest()
    return digest if any(digest) else b"\x01" * size


def _clean(texts: pl.Series, digits: int) -> pl.Series:
    """Where a text is exactly this many hexadecimal digits (polars' number parser alone would accept a sign)."""
    right_length = (texts.str.len_bytes() == digits).fill_null(value=False)
    return right_length & ~texts.str.contains(_NOT_HEX).fill_null(value=True)


def _half(texts: pl.Series, clean: pl.Series, offset: int) -> pl.Series:
    digits = texts if clean.all() else texts.zip_with(clean, pl.Series([None], dtype=pl.String))
    return digits.str.slice(offset, 16).str.to_integer(base=16, dtype=pl.UInt64).fill_null(0)


def _with_hashes(
    texts: pl.Series, clean: pl.Series, numbers: pl.Series, name: str, word: int, *, size: int = TRACE_ID_BYTES
) -> pl.Series:
    """``numbers`` with the given 64-bit word of the hash where a text is neither an id nor absent."""
    odd = (~clean & (texts.str.len_bytes() > 0)).arg_true()
    numbers = numbers.alias(name)
    if odd.is_empty():
        return numbers
    hashes = b"".join(hash_id(text.encode(), size) for text in texts.gather(odd))
    words = np.frombuffer(hashes, dtype=">u8").reshape(len(odd), -1)[:, word].astype(np.uint64)
    return numbers.scatter(odd, pl.Series(words, dtype=pl.UInt64))


def _fixed(ids: Iterable[bytes], size: int) -> tuple[bytes, int]:
    """The ids end to end, each exactly ``size`` bytes, and how many had to be hashed."""
    values = list(ids)
    joined = b"".join(values)
    if len(joined) == size * len(values) and all(len(value) == size for value in values):
        return joined, 0
    odd = sum(len(value) not in (0, size) for value in values)
    zero = bytes(size)
    fixed = (value if len(value) == size else hash_id(value, size) if value else zero for value in values)
    return b"".join(fixed), odd
