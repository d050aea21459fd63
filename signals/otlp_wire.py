"""Protobuf's wire format read for many messages of one type at once, as columns.

One numpy pass per field position instead of one Python object per field: all messages are walked in step, so that the
cost is a few array operations per field whatever the number of messages. The walk only finds the fields; it validates
no nested message. Rows that are anything but plain (groups, very many fields, lengths that do not fit) are reported as
``odd``, for a complete parser to judge. Format: https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

#: Messages with more fields than this are odd: hostile, or rare enough for the complete parser.
MAX_FIELDS: Final = 128

_PADDING: Final = bytes(16)
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_VARINT_BYTES: Final = 10
_OVERLONG: Final = -1
_U32_MAX: Final = 2**32 - 1


def tag(field: int, wire_type: int) -> int:
    """The tag byte of a field below 16."""
    return field << 3 | wire_type


def _strides() -> npt.NDArray[np.int16]:
    """Size of a field by its tag byte and the byte after it (``tag | next << 8``); 0 where two bytes do not tell."""
    table = np.zeros((256, 256), dtype=np.int16)  # [next, tag]
    following = np.arange(256)
    for number in range(1, 16):
        table[:128, tag(number, _VARINT)] = 2
        table[:, tag(number, _FIXED64)] = 9
        table[:128, tag(number, _LENGTH)] = 2 + following[:128]
        table[:, tag(number, _FIXED32)] = 5
    for number in range(16, 2048):  # two bytes of tag, of which fixed sizes tell all
        low, high = tag(number, 0) & 0x7F | 0x80, number >> 4
        table[high, low | _FIXED64] = 10
        table[high, low | _FIXED32] = 6
    return table.reshape(-1)


_STRIDE: Final = _strides()


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of n messages: one entry per field, those of one message in their order.

    ``row`` says whose, ``tag`` what (0, or 128 and more, for fields above 15), ``end`` where the field ends in
    ``data``. ``size`` is how long the content of a length-delimited field is, and the value of a varint. ``odd`` marks
    the messages that have no entries because they need a complete parser.
    """

    data: bytes
    buffer: Bytes
    row: Ints
    tag: Bytes
    end: Ints
    size: Ints
    odd: Mask

    def only(self, wanted: int) -> tuple[Ints, Ints, Ints]:
        """Row, end and size of the entries of one tag."""
        found = np.flatnonzero(self.tag == wanted)
        return self.row[found], self.end[found], self.size[found]

    def words(self, start: Ints) -> npt.NDArray[np.void]:
        """The eight bytes from each offset on, to be viewed as ``<u8`` or ``>u8``."""
        windows: npt.NDArray[np.void] = np.ndarray(
            (len(self.buffer) - 7,), dtype="V8", buffer=self.buffer, strides=(1,)
        )
        return windows[start]


def walk(messages: Sequence[bytes]) -> Fields:
    """Find the fields of every message."""
    data = b"".join(messages)
    buffer = np.frombuffer(data + _PADDING, dtype=np.uint8)
    following = buffer[1:]
    sizes = np.fromiter(map(len, messages), dtype=np.int64, count=len(messages))
    stop = np.cumsum(sizes)
    place = stop - sizes
    row = np.flatnonzero(sizes)
    if len(row) < len(sizes):
        stop, place = stop[row], place[row]
    odd = np.zeros(len(messages), dtype=np.bool_)
    rows, codes, ends = [row[:0]], [np.empty(0, dtype=np.uint16)], [row[:0]]
    unclear: list[tuple[Ints, Bytes, Ints]] = []  # where two bytes did not tell: entry, tag, size
    entries = 0
    while row.size:
        if len(rows) > MAX_FIELDS:
            odd[row] = True
            break
        code = buffer.take(place).astype(np.uint16)
        code |= following.take(place).astype(np.uint16) << 8
        stride = _STRIDE.take(code)
        end = place + stride
        if not stride.all():
            these = np.flatnonzero(stride == 0)
            tags, end[these], size = _read(buffer, place[these], stop[these])
            unclear.append((these + entries, tags, size))
        rows.append(row)
        codes.append(code)
        ends.append(end)
        entries += len(row)
        place = end
        finished = end >= stop
        if finished.any():
            odd[row[end > stop]] = True
            going = ~finished
            row, place, stop = row[going], place[going], stop[going]
    all_codes = np.concatenate(codes)
    tag_of, size_of = (all_codes & 0xFF).astype(np.uint8), (all_codes >> 8).astype(np.int64)
    for these, tags, size in unclear:
        tag_of[these], size_of[these] = tags, size
    row, end = np.concatenate(rows), np.concatenate(ends)
    if odd.any():
        even = ~odd[row]
        row, tag_of, end, size_of = row[even], tag_of[even], end[even], size_of[even]
    return Fields(data, buffer, row, tag_of, end, size_of, odd)


def _read(buffer: Bytes, place: Ints, stop: Ints) -> tuple[Bytes, Ints, Ints]:
    """Fields that two bytes do not describe: tag (0 above field 15), end and size; broken ones end past ``stop``."""
    key, content = _varint(buffer, place)
    wire_type, number = key & 7, key >> 3
    value, after = _varint(buffer, content)
    varint, delimited = wire_type == _VARINT, wire_type == _LENGTH
    size = np.where(delimited, value, 0)
    unusable = (number < 1) | (key > _U32_MAX) | (delimited & ((value < 0) | (value > _U32_MAX)))
    end = np.select(
        [unusable, varint & (value != _OVERLONG), delimited, wire_type == _FIXED64, wire_type == _FIXED32],
        [stop + 1, after, after + np.where(unusable, 0, size), content + 8, content + 4],
        default=stop + 1,
    )
    tags = np.where((number > 0) & (number < 16), key, 0).astype(np.uint8)
    return tags, end, np.where(varint, value, size)


def _varint(buffer: Bytes, place: Ints) -> tuple[Ints, Ints]:
    """The low 63 bits of the varint at each place (-1 for one of more than ten bytes) and where it ends."""
    value = np.zeros(len(place), dtype=np.int64)
    end = place.copy()
    going = np.arange(len(place))
    last = len(buffer) - 1
    for position in range(_VARINT_BYTES):
        byte = buffer[np.minimum(place[going] + position, last)].astype(np.int64)
        if position < _VARINT_BYTES - 1:
            value[going] |= (byte & 0x7F) << (7 * position)
        end[going] += 1
        going = going[byte >= 0x80]
        if not going.size:
            break
    value[going] = _OVERLONG
    return value, end
