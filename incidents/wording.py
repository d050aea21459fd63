"""How values, times and names read to people, the same in the terminal and in the report.

Text from telemetry may hold control characters, terminal escapes or characters that reorder what is read: ``plain``
makes them visible and harmless. It does not escape markup; that is the renderer's part.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from typing import Final

from incidents.model import FaultKind, Verdict

SECOND_NS: Final = 1_000_000_000
_MAX_TEXT: Final = 2_000
_EN_DASH: Final = "\u2013"

#: What a fault kind means, to follow a service's name.
FAULT_WORDS: Final[dict[str, str]] = {
    FaultKind.LATENCY: "its own work became slower",
    FaultKind.ERROR: "it fails by itself",
    FaultKind.SATURATION: "a resource is exhausted",
    FaultKind.UNAVAILABLE: "calls to it do not arrive",
    FaultKind.NETWORK: "the way to it, not the service itself",
    FaultKind.BEHAVIOUR: "it behaves differently than before",
    FaultKind.CHANGE: "it was changed just before onset",
    FaultKind.LOAD: "more is asked of it than before",
    FaultKind.UNKNOWN: "what kind of fault is not clear",
}

#: What a verdict means for the reader.
VERDICT_WORDS: Final[dict[str, str]] = {
    Verdict.IDENTIFIED: "Cause identified",
    Verdict.AMBIGUOUS: "Several causes fit",
    Verdict.UNKNOWN: "Cause not known",
}

# C0 and C1 controls, line and paragraph separators, marks that reorder or hide text, tags, lone surrogates.
_UNSAFE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def _visible(match: re.Match[str]) -> str:
    char = match.group()
    code = ord(char)
    if char in "\t\n\r\u2028\u2029":
        return " "
    if code < 0x20:
        return chr(0x2400 + code)  # control pictures: ESC reads as one glyph
    return "\u2421" if code == 0x7F else f"<U+{code:04X}>"


def plain(text: object, limit: int = _MAX_TEXT) -> str:
    r"""Text with nothing in it that a terminal or a browser would act on, at most ``limit`` characters.

    >>> plain("\x1b[31mred\u202egnp\nnext")
    '␛[31mred<U+202E>gnp next'
    """
    raw = str(text)
    cut = raw if len(raw) <= limit else raw[: limit - 1] + "…"
    return _UNSAFE.sub(_visible, cut)


def shorten(text: str, limit: int) -> str:
    """Text cut in its middle, where names differ least.

    >>> shorten("customer-notification-service", 16)
    'customer…service'
    """
    if len(text) <= limit:
        return text
    head = limit // 2
    return f"{text[:head]}…{text[-(limit - head - 1) :]}"


def number(value: float) -> str:
    """Three significant digits, thousands grouped, large numbers with k, M or G.

    >>> [number(x) for x in (0.00417, 12.34, 1841, 881204, 3.9e9, float("inf"))]
    ['0.00417', '12.3', '1,841', '881k', '3.9G', '∞']
    """
    if math.isnan(value):
        return "no value"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    size = abs(value)
    if size >= 1e16 or 0 < size < 1e-6:
        return f"{value:.2e}"
    for divisor, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= divisor * (10 if suffix == "k" else 1):
            return f"{_digits(value / divisor)}{suffix}"
    return f"{value:,.0f}" if size >= 1000 else _digits(value)


def _digits(value: float) -> str:
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    places = 3 - math.floor(math.log10(size)) - 1 if size else 0
    text = f"{value:.{max(places, 0)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


_COUNTED: Final = re.compile(r"^\{([a-z]*[a-rt-z])\}")  # what is counted, as UCUM annotates it: "{request}/s"
_TO_SECONDS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}


def _scaled(value: float, unit: str) -> tuple[str, str]:
    """The number and the unit to write after it."""
    if unit in _TO_SECONDS and math.isfinite(value):
        seconds = value * _TO_SECONDS[unit]
        size = abs(seconds)
        if size == 0:
            return "0", " s"
        if size >= 600:
            return number(seconds / 60), " min"
        divisor, name = next(
            ((d, n) for d, n in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")) if size >= d * 0.9995), (1e-9, "ns")
        )
        return number(seconds / divisor), f" {name}"
    if unit == "1":
        return (number(value * 100), " %") if abs(value) <= 1 else (number(value), "")
    if unit == "By":
        text = number(value)
        return (text[:-1], f" {text[-1]}B") if text[-1] in "kMGT" else (text, " B")
    many = _COUNTED.sub(lambda found: found.group(1) + ("" if value == 1 else "s"), plain(unit, 40), count=1)
    shown = many.replace("{", "").replace("}", "")
    return number(value), f" {shown}" if shown else ""


def quantity(value: float, unit: str = "1") -> str:
    """A measured value with its UCUM unit, scaled for reading; dimensionless values up to one are shares.

    >>> quantity(0.31), quantity(0.0044, "s"), quantity(3.9e9, "By"), quantity(41, "{line}/min")
    ('31 %', '4.4 ms', '3.9 GB', '41 lines/min')
    """
    text, suffix = _scaled(value, unit)
    return text + suffix


def interval(low: float, high: float, unit: str = "1") -> str:
    """An expected interval; a shared unit is written once.

    >>> interval(0.08, 0.21, "s").replace(_EN_DASH, "-"), interval(0, 0.004), interval(float("-inf"), 5, "{call}/s")
    ('80-210 ms', 'up to 0.4 %', 'at most 5 calls/s')
    """
    if math.isinf(low) or math.isinf(high):
        return "anything" if low == -high else _half_open(low, high, unit)
    if low == high or low == 0 < high:
        return ("" if low == high else "up to ") + quantity(high, unit)
    low_text, low_unit = _scaled(low, unit)
    high_text, high_unit = _scaled(high, unit)
    if low_unit == high_unit:
        joint = _EN_DASH if low >= 0 and low_text[-1].isdigit() else " to "
        return f"{low_text}{joint}{high_text}{high_unit}"
    return f"{low_text}{low_unit} to {high_text}{high_unit}"


def _half_open(low: float, high: float, unit: str) -> str:
    return f"at most {quantity(high, unit)}" if math.isinf(low) else f"at least {quantity(low, unit)}"


def duration(ns: int) -> str:
    """A stretch of time in its two largest units.

    >>> [duration(s * SECOND_NS) for s in (0, 45, 250, 7500, 187200)]
    ['0 s', '45 s', '4 min 10 s', '2 h 5 min', '2 d 4 h']
    """
    seconds = max(0, round(ns / SECOND_NS))
    units = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
    for index, (name, size) in enumerate(units):
        if seconds >= size:
            text = f"{seconds // size} {name}"
            rest = seconds % size
            if rest and index + 1 < len(units):
                smaller, small = units[index + 1]
                text += f" {rest // small} {smaller}" if rest // small else ""
            return text
    return "0 s" if ns <= 0 else f"{ns / 1e6:.0f} ms"


def moment(ns: int) -> dt.datetime:
    """UTC, to the second."""
    return dt.datetime.fromtimestamp(ns // SECOND_NS, tz=dt.UTC)


def clock(ns: int) -> str:
    """Time of day, UTC.

    >>> clock(1_788_256_860_000_000_000)
    '10:01:00'
    """
    return f"{moment(ns):%H:%M:%S}"


def day(ns: int) -> str:
    """Calendar day, UTC.

    >>> day(1_788_256_860_000_000_000)
    '1 September 2026'
    """
    when = moment(ns)
    return f"{when.day} {when:%B %Y}"


def percent(share: float) -> str:
    """A share as whole percents.

    >>> percent(0.824)
    '82 %'
    """
    return f"{share * 100:.0f} %"


def plural(count: int, one: str, many: str = "") -> str:
    """A count with its noun.

    >>> plural(1, "incident"), plural(2_500, "request")
    ('1 incident', '2,500 requests')
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"
