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
_LOCATION: Final = (
    r"([A-Za-z_$][\w$]*#|\.(?:c|cc|cpp|cs|ex|go|h|hpp|java|js|kt|lua|mjs|php|pl|py|rb|rs|scala|sh|swift|ts|tsx):)(\d)"
)

#: Parameters by kind, in order of precedence; Rust regular expressions (no look-around).
MASKS: Final[dict[str, str]] = {
    "url": r"\b[a-z][a-z0-9+.-]{1,15}://[^\s\"'<>\])}]+",
    "email": r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+\b",
    "uuid": r"\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b",
    "timestamp": r"\b\d{4}[-/.]\d{1,2}[-/.]\d{1,2}(?:[T\s_-]+\d{1,2}[:.]\d{2}(?:[:.]\d{2}(?:[.,:]\d+)?)?)?(?:Z|[+-]\d{2}:?\d{2})?\b",
    "weekday": r"\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,?\s+(?:\d{1,2}\s+)?(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*\s+\d{1,4}(?:\s+\d{4})?(?:\s+\d{1,2}:\d{2}(?::\d{2})?)?(?:\s+[A-Z]{3,4})?(?:\s+\d{4})?\b",
    "ipv6": r"\b(?:[0-9a-fA-F]{1,4}:){3,7}[0-9a-fA-F]{1,4}\b|::1\b",
    "host": r"(?:[\w-]+/)?\b(?:[A-Za-z0-9-]+\.){2,}(?:[A-Za-z]{2,6}|\d{1,3})(?::\d+)?\b",
    "hostport": r"\b[A-Za-z][\w-]*(?:\.[A-Za-z][\w-]*)*:\d{2,5}\b",
    "path": r"(?:^|\b[A-Za-z]:)?(?:/[\w.@%+~$=-]+){2,}/?|\B/[\w.@%+~$=-]+/?",
    "hex": r"\b0[xX][0-9a-fA-F]+\b|\b[0-9a-fA-F]{8,}\b",
    "quoted": r"\"[^\"]*\"|'[^']*'",
    "number": r"[-+]?\d+(?:[.,:]\d+)*",
}


class Masker:
    """Replaces parameters by ``WILDCARD`` in a column of lines.

    Raises:
        ConfigError: a mask of the configuration is no regular expression.
    """

    def __init__(self, extra: Sequence[str] = ()) -> None:
        for pattern in extra:
            try:
                pl.Series([""]).str.contains(pattern)
            except pl.exceptions.PolarsError as error:
                raise ConfigError(
                    f"templates.extra_masks: {pattern!r} is no Rust regular expression: {error}"
                ) from error
        self._pattern = "|".join(f"(?:{pattern})" for pattern in [*extra, *MASKS.values()])

    def __call__(self, lines: pl.Series) -> pl.Series:
        """The masked lines, same length; nulls become empty."""
        guarded = lines.fill_null("").str.replace_all(_LOCATION, f"${{1}}{_GUARD}${{2}}")
        return guarded.str.replace_all(self._pattern, WILDCARD).str.replace_all(_GUARD, "", literal=True)
