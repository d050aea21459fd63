"""What counts as a parameter in a log line: masks by kind, applied to a whole column at once.

Code locations are not parameters: ``Store#65`` and ``store.go:65`` say which statement spoke, and a fault shows as
other statements speaking.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import polars as pl

from detectors.config import ConfigError

#: What a parameter becomes.
WILDCARD: Final = "<*>"

# A letter put between a code location and its line number, so that the number is part of a word and stays.
_GUARD: Final = "\u01c1"
_SOURCE: Final = "c|cc|cpp|cs|ex|go|h|hpp|java|js|kt|lua|mjs|php|pl|py|rb|rs|scala|sh|swift|ts|tsx"
_LOCATION: Final = rf"(?-u)([A-Za-z_$][\w$]*#|\.(?:{_SOURCE}):)(\d)"

# Top-level domains that end a host name: without a list, a Java package would be one.
_DOMAINS: Final = (
    "com|net|org|edu|gov|mil|int|info|biz|io|dev|app|cloud|local|localdomain|internal|lan|svc|"
    "ar|at|au|be|br|ca|ch|cl|cn|co|cz|de|dk|es|eu|fi|fr|gr|hk|hu|ie|il|in|it|jp|kr|mx|my|nl|no|nz|pl|pt|ro|ru|"
    "se|sg|sk|th|tr|tw|ua|uk|us|vn|za"
)
_DAY: Final = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,?"
_MONTH: Final = "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*"
_CLOCK: Final = r"\d{1,2}:\d{2}(?::\d{2})?"
_NUMBER: Final = r"[-+]?\d+(?:[.,:]\d+)*"
_SIZE: Final = "(?:bytes?|[KMGTP]i?B)"
_TIME: Final = "(?:ns|us|(?u:µ)s|ms|secs?|seconds?|mins?|minutes?|hours?|[smh])"

#: Parameters by kind; where two fit at the same place the earlier one counts. Regular expressions of Rust, which has no
#: look-around, read in ASCII mode: with Unicode word boundaries one foreign letter in a line makes it ten times slower.
MASKS: Final[dict[str, str]] = {
    "url": r"\b[a-z][a-z0-9+.-]{1,15}://[!#-&(*-;=?-Z^-z|~]+",
    "email": r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+\b",
    "uuid": r"\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b",
    "timestamp": (
        r"\b\d{4}[-/.]\d{1,2}[-/.]\d{1,2}"
        r"(?:[T\s_-]+\d{1,2}[:.]\d{2}(?:[:.]\d{2}(?:[.,:]\d+)?)?)?(?:Z|[+-]\d{2}:?\d{2})?\b"
    ),
    "date": (
        rf"\b{_DAY}\s+(?:\d{{1,2}}\s+)?{_MONTH}\s+\d{{1,4}}"
        rf"(?:\s+\d{{4}})?(?:\s+{_CLOCK})?(?:\s+[A-Z]{{3,4}})?(?:\s+\d{{4}})?\b"
    ),
    "ipv6": r"\b(?:[0-9a-fA-F]{1,4}:){3,7}[0-9a-fA-F]{1,4}\b|::1\b",
    "ipv4": r"(?:[\w-]+/)?\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b",
    "host": rf"(?:[\w-]+/)?\b(?:[A-Za-z0-9_-]+\.)+(?:{_DOMAINS})(?::\d+)?\b",
    "path": r"(?:^|\b[A-Za-z]:)?(?:/[\w.@%+~$=-]+){2,}/?|\B/[\w.@%+~$=-]+/?",
    "size": rf"{_NUMBER}\s?{_SIZE}\b(?:\s*\([\d.,]+\s?{_SIZE}\))?",  # "4320 bytes (4.21 KB)" is one size
    "duration": rf"<?{_NUMBER}\s?{_TIME}\b",
    "hex": r"\b0[xX][0-9a-fA-F]+\b|\b[0-9a-fA-F]{8,}\b",
    "quoted": r"\"(?u:[^\"])*\"|'(?u:[^'])*'",
    "number": _NUMBER,
}
_LIST: Final = r"(?-u)<\*>(?:[ ,;]+<\*>)+"  # several parameters in a row are one: lists have any length


class Masker:
    """Replaces parameters by ``WILDCARD`` in a column of lines.

    >>> Masker()(pl.Series(["served /cart to 10.0.0.7:443 in 12.5 ms (cart.go:65)"])).to_list()
    ['served <*> to <*> in <*> (cart.go:65)']

    Raises:
        ConfigError: a mask of the configuration is no regular expression.
    """

    def __init__(self, extra: Sequence[str] = ()) -> None:
        for pattern in extra:
            try:
                pl.Series([""]).str.contains(pattern)
            except pl.exceptions.PolarsError as error:
                raise ConfigError(
                    f"templates.extra_masks: {pattern!r} is no regular expression in Rust's syntax: {error}"
                ) from error
        own = "|".join(f"(?:{pattern})" for pattern in MASKS.values())
        self._pattern = "|".join([*(f"(?:{pattern})" for pattern in extra), f"(?-u:{own})"])

    def __call__(self, lines: pl.Series) -> pl.Series:
        """The masked lines, same length; nulls become empty."""
        guarded = lines.fill_null("").str.replace_all(_LOCATION, f"${{1}}{_GUARD}${{2}}")
        has_location = guarded.str.contains(_GUARD, literal=True)
        if not has_location.any():
            return self._mask(guarded)
        located = self._mask_around(guarded.filter(has_location))
        if len(located) == len(guarded):
            return located
        masked = self._mask(guarded)
        return masked.scatter(has_location.arg_true(), located)

    def _mask(self, lines: pl.Series) -> pl.Series:
        return lines.str.replace_all(self._pattern, WILDCARD).str.replace_all(_LIST, WILDCARD)

    def _mask_around(self, lines: pl.Series) -> pl.Series:
        """Mask lines but for the digits that follow a guard: cut there, mask the pieces, put them together."""
        pieces = pl.DataFrame({"piece": lines.str.split(_GUARD)}).with_row_index("line").explode("piece")
        follows = pl.col("line") == pl.col("line").shift(1)
        number = pl.when(follows).then(pl.col("piece").str.extract(r"^([0-9]+)")).otherwise(pl.lit("")).fill_null("")
        pieces = pieces.with_columns(number=number)
        rest = pieces.select(pl.col("piece").str.slice(pl.col("number").str.len_bytes())).to_series()
        pieces = pieces.with_columns(text=pl.concat_str("number", self._mask(rest).alias("rest")))
        return pieces.group_by("line", maintain_order=True).agg(pl.col("text").str.join(""))["text"]
