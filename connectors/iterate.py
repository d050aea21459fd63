"""A source's items in plain Python: for backtests, tests, publishing and recording, which need no stream engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from bytewax.inputs import FixedPartitionedSource

from signals.batch import NO_WATERMARK, Batch, SourceItem

_PAUSE_S: Final = 0.02


def iterate(
    source: FixedPartitionedSource[SourceItem, Any], *, sleep: Callable[[float], None] = time.sleep
) -> Iterator[SourceItem]:
    """A source's items without Bytewax: always from the partition that is furthest behind in event time.

    Ends when every partition has ended. Sleeps a little when none of them had anything, which only live sources do.
    """
    parts = {name: source.build_part("iterate", name, None) for name in source.list_parts()}
    behind = dict.fromkeys(parts, NO_WATERMARK)
    try:
        while parts:
            spoke = False
            for name in sorted(parts, key=lambda name: (behind[name], name)):
                try:
                    items = list(parts[name].next_batch())
                except StopIteration:
                    parts.pop(name).close()
                    spoke = True
                    break
                yield from items
                marks = [item.watermark_ns for item in items if isinstance(item, Batch) and not item.idle]
                behind[name] = max([behind[name], *marks])
                spoke = spoke or bool(items)
                if items:
                    break
            if not spoke:
                sleep(_PAUSE_S)
    finally:
        for part in parts.values():
            part.close()
