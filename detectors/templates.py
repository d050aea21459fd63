"""Online mining of log templates: lines to stable template ids, without knowing the lines beforehand.

A fixed-depth tree of tokens over masked lines after Drain (He, Zhu, Zheng and Lyu, ICWS 2017). Masking, and looking up
lines seen before, are done on whole columns; only masked lines never seen go through the tree one by one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
import polars as pl

from detectors.config import TemplateConfig
from detectors.masks import WILDCARD, Masker

TemplateIds = npt.NDArray[np.uint64]


@dataclass(slots=True)
class Template:
    """One template of one service."""

    id: int  # blake2b of the service and the first masked line, 64 bits
    service: str
    tokens: list[str]
    example: str  # the first line, as it came
    count: int = 0
    lines: list[tuple[str, str]] = field(default_factory=list)  # masked lines in the cache that point here


class TemplateMiner:
    """Gives each log line the id of its template.

    Lines of one service in the same order give the same ids, whatever the batches, workers or restarts. Beyond its
    limits the least used template is dropped and counted in ``counters``.
    """

    def __init__(self, config: TemplateConfig | None = None) -> None:
        self._config = config or TemplateConfig()
        self._masker = Masker(self._config.extra_masks)
        self._templates: dict[int, Template] = {}
        self._tree: dict[tuple[str, int, tuple[str, ...]], list[Template]] = {}
        self._lines: dict[tuple[str, str], Template] = {}
        self.counters: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._templates)

    def process(self, services: list[str] | pl.Series, bodies: pl.Series) -> TemplateIds:
        """Template ids of lines in order, shape (n,)."""
        if len(bodies) == 0:
            return np.zeros(0, dtype=np.uint64)
        frame = pl.DataFrame(
            {
                "service": pl.Series(services, dtype=pl.String),
                "masked": self._masker(bodies.str.slice(0, self._config.max_line_chars)),
            }
        ).with_row_index("at")
        grouped = frame.group_by("service", "masked", maintain_order=True).agg(pl.col("at").first(), pl.len())
        ids = [self._template(service, masked, bodies, at, count) for service, masked, at, count in grouped.iter_rows()]
        out = frame.join(
            grouped.with_columns(id=pl.Series(ids, dtype=pl.UInt64)),
            on=["service", "masked"],
            how="left",
            maintain_order="left",
        )
        return out["id"].to_numpy()

    def describe(self, template_id: int) -> str:
        """The template's text, parameters as ``<*>``; "" when it is not held."""
        template = self._templates.get(template_id)
        return " ".join(template.tokens) if template else ""

    def example(self, template_id: int) -> str:
        """The first line of the template; "" when it is not held. Hostile text."""
        template = self._templates.get(template_id)
        return template.example if template else ""

    def _template(self, service: str, masked: str, bodies: pl.Series, at: int, count: int) -> int:
        key = (service, masked)
        template = self._lines.get(key)
        if template is None:
            template = self._mine(service, masked, bodies, at)
            if len(self._lines) < self._config.max_cached_lines:
                self._lines[key] = template
        template.count += count
        return template.id

    def _mine(self, service: str, masked: str, bodies: pl.Series, at: int) -> Template:
        tokens = masked.split()[: self._config.max_tokens] or [""]
        depth = self._config.depth
        head = tuple(WILDCARD if WILDCARD in t else t for t in tokens[:depth])
        leaf = self._tree.setdefault((service, len(tokens), head), [])
        best, best_similarity = None, -1.0
        for template in leaf:
            similarity = sum(a == b for a, b in zip(template.tokens, tokens, strict=True)) / len(tokens)
            if similarity > best_similarity:
                best, best_similarity = template, similarity
        if best is not None and best_similarity >= self._config.similarity:
            best.tokens = [a if a == b else WILDCARD for a, b in zip(best.tokens, tokens, strict=True)]
            return best
        digest = blake2b(f"{service}\x1f{' '.join(tokens)}".encode(), digest_size=8).digest()
        template = Template(int.from_bytes(digest, "big"), service, tokens, bodies[at] or "")
        self._templates[template.id] = template
        leaf.append(template)
        return template
