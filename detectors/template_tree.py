"""The search tree of log templates of all services: which template a masked line belongs to.

A fixed-depth tree over leading tokens and token count after Drain (He, Zhu, Zheng and Lyu, "Drain: An online log
parsing approach with fixed depth tree", ICWS 2017), with three differences: a word in capitals names a state or an
event and is never a parameter when another such word stands in its place; positions that are parameters on both sides
count half towards similarity; and equal parameters in a row count once, since lists have any length.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from detectors.config import TemplateConfig
from detectors.masks import WILDCARD

_STATE_NAME: Final = re.compile(r"\W*[A-Z][A-Z_]+[A-Z0-9]*\W*")
_PARAMETER_WEIGHT: Final = 0.5

Node = tuple[str, int, tuple[str, ...]]  # service, tokens, leading tokens


@dataclass(slots=True, eq=False)
class Template:
    """One template of one service."""

    id: int  # 64 bits of a hash of the service and the first masked line
    service: str
    tokens: list[str]
    example: str  # the first line, as it came
    node: Node
    count: int = 0  # lines
    dropped: bool = False

    @property
    def text(self) -> str:
        """The template with parameters as ``<*>``."""
        return " ".join(self.tokens)


class TemplateTree:
    """Templates by service, number of tokens and leading tokens."""

    def __init__(self, config: TemplateConfig) -> None:
        self._config = config
        self._nodes: dict[Node, list[Template]] = {}
        self._by_id: dict[int, Template] = {}
        self._by_service: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, template_id: int) -> Template | None:
        """The template of this id, if it is held."""
        return self._by_id.get(template_id)

    def find(self, service: str, masked: str) -> Template | None:
        """The most similar template if it is similar enough; positions that differ become parameters."""
        tokens = self._tokens(masked)
        best, best_similarity = None, 0.0
        for template in self._nodes.get(self._node(service, tokens), ()):
            similarity = _similarity(template.tokens, tokens)
            if similarity > best_similarity:
                best, best_similarity = template, similarity
        if best is None or best_similarity < self._config.similarity:
            return None
        best.tokens = [a if a == b else WILDCARD for a, b in zip(best.tokens, tokens, strict=True)]
        return best

    def open(self, service: str, masked: str, example: str) -> tuple[Template, int]:
        """A new template for a line that belongs to none, and how many had to be dropped for it."""
        tokens = self._tokens(masked)
        node = self._node(service, tokens)
        digest = blake2b(f"{service}\x1f{' '.join(tokens)}".encode(), digest_size=8).digest()
        template = Template(int.from_bytes(digest, "big"), service, tokens, example, node)
        former = self._by_id.get(template.id)
        if former is not None:  # its text has since been generalised away from this line
            return former, 0
        dropped = self._make_room(service)
        self._by_id[template.id] = template
        self._by_service[service] += 1
        self._nodes.setdefault(node, []).append(template)
        return template, dropped

    def _tokens(self, masked: str) -> list[str]:
        """Tokens, at most ``max_tokens``; a parameter that repeats itself counts once."""
        tokens = masked.split(maxsplit=self._config.max_tokens)[: self._config.max_tokens]
        return [
            token for i, token in enumerate(tokens) if i == 0 or token != tokens[i - 1] or WILDCARD not in token
        ] or [""]

    def _node(self, service: str, tokens: list[str]) -> Node:
        leading = (WILDCARD if WILDCARD in token else token for token in tokens[: self._config.depth])
        return service, len(tokens), tuple(leading)

    def _make_room(self, service: str) -> int:
        """Drop the least used templates of the service, or of all, at the limit; the oldest of equally used ones."""
        if self._by_service[service] >= self._config.max_templates_per_service:
            candidates = [template for template in self._by_id.values() if template.service == service]
        elif len(self._by_id) >= self._config.max_templates:
            candidates = list(self._by_id.values())
        else:
            return 0
        candidates.sort(key=lambda template: template.count)
        surplus = candidates[: max(1, len(candidates) // 20)]  # a twentieth at once: finding them costs a look at all
        for template in surplus:
            self._drop(template)
        return len(surplus)

    def _drop(self, template: Template) -> None:
        template.dropped = True
        del self._by_id[template.id]
        self._by_service[template.service] -= 1
        siblings = self._nodes[template.node]
        siblings.remove(template)
        if not siblings:
            del self._nodes[template.node]


def _similarity(template: list[str], line: list[str]) -> float:
    """Share of positions that agree, parameters at half weight; 0 when two different state names stand opposite."""
    same = total = 0.0
    for a, b in zip(template, line, strict=True):
        if a == b:
            weight = _PARAMETER_WEIGHT if WILDCARD in a else 1.0
            same += weight
            total += weight
        elif _STATE_NAME.fullmatch(a) and _STATE_NAME.fullmatch(b):
            return 0.0
        else:
            total += 1.0
    return same / total if total else 1.0
