"""Online mining of log templates: lines to stable template ids, without knowing the lines beforehand.

Masking, and looking up masked lines seen before, are done on whole columns; only masked lines never seen go through the
tree (``detectors.template_tree``) one by one. Not here: what is odd about a template.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from detectors.config import TemplateConfig
from detectors.masks import Masker
from detectors.template_tree import Template, TemplateTree

TemplateIds = npt.NDArray[np.uint64]

_KEYS: Final = ("service", "masked")


class TemplateMiner:
    """Gives each log line the id of its template.

    An id is a hash of the service and the first masked line of the template: within the limits, lines of one service in
    the same order give the same ids, whatever the batches, workers or restarts. At a limit the least used templates are
    dropped, and counted in ``counters``; one that comes again gets its id from the line that it comes with.

    Masked lines are remembered in a bounded cache. Lines whose parameters no mask finds miss it each time: they cost a
    walk down the tree, about 10 µs.
    """

    def __init__(self, config: TemplateConfig | None = None) -> None:
        self._config = config or TemplateConfig()
        self._masker = Masker(self._config.extra_masks)
        self._tree = TemplateTree(self._config)
        self._lines: dict[tuple[str, str], Template] = {}
        self.counters: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._tree)

    def process(self, services: list[str] | pl.Series, bodies: pl.Series) -> TemplateIds:
        """Template ids of lines in order, shape (n,)."""
        if len(bodies) == 0:
            return np.zeros(0, dtype=np.uint64)
        frame = pl.DataFrame(
            {
                "service": pl.Series(services, dtype=pl.String),
                "masked": self._masker(self._cut(bodies)),
            }
        ).with_row_index("at")
        distinct = frame.group_by(*_KEYS, maintain_order=True).agg(pl.col("at").first(), pl.len())
        ids = [
            self._template(service, masked, bodies, at, count) for service, masked, at, count in distinct.iter_rows()
        ]
        distinct = distinct.select(*_KEYS, id=pl.Series(ids, dtype=pl.UInt64))
        joined = frame.join(distinct, on=_KEYS, how="left", maintain_order="left", nulls_equal=True)
        return joined["id"].to_numpy()

    def describe(self, template_id: int) -> str:
        """The template's text, parameters as ``<*>``; "" when it is not held."""
        template = self._tree.get(template_id)
        return template.text if template else ""

    def example(self, template_id: int) -> str:
        """The first line of the template; "" when it is not held. Hostile text."""
        template = self._tree.get(template_id)
        return template.example if template else ""

    def _cut(self, bodies: pl.Series) -> pl.Series:
        """Lines of bounded length; half a token at the cut is no token."""
        long = (bodies.str.len_bytes() > self._config.max_line_chars).fill_null(value=False)
        if not long.any():
            return bodies
        cut = bodies.filter(long).str.slice(0, self._config.max_line_chars).str.replace(r"\s\S*$", "")
        return bodies.clone().scatter(long.arg_true(), cut)

    def _template(self, service: str, masked: str, bodies: pl.Series, at: int, count: int) -> int:
        key = (service, masked)
        template = self._lines.get(key)
        if template is None or template.dropped:
            template = self._tree.find(service, masked) or self._open(service, masked, bodies[at] or "")
            if len(self._lines) >= self._config.max_cached_lines:
                self._lines.clear()
                self.counters["cache_cleared"] += 1
            self._lines[key] = template
        template.count += count
        return template.id

    def _open(self, service: str, masked: str, example: str) -> Template:
        template, dropped = self._tree.open(service, masked, example[: self._config.max_line_chars])
        self.counters["templates_dropped"] += dropped
        return template
