"""Grouping accuracy of log templates on the loghub samples: ``python -m benchmarks.loghub --out DIR``.

Reads ``$MENDSTREAM_DATA/loghub`` and writes one CSV per system (LineId, EventId, EventTemplate), which loghub's own
evaluation reads. Prints grouping accuracy (share of lines whose group is exactly right) and its F1 over templates.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from detectors.config import TemplateConfig
from detectors.templates import TemplateMiner


def grouping(true: Sequence[str], predicted: Sequence[str]) -> tuple[float, float]:
    """Grouping accuracy and F1 of grouping (Khan et al., ICSE 2022; Jiang et al., ISSTA 2024).

    >>> grouping(["a", "a", "b"], ["x", "x", "y"])
    (1.0, 1.0)
    """
    sizes = Counter(predicted)
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for truth, guess in zip(true, predicted, strict=True):
        found[truth][guess] += 1
    right = [sum(g.values()) for g in found.values() if len(g) == 1 and sizes[next(iter(g))] == sum(g.values())]
    precision, recall = len(right) / len(sizes), len(right) / len(found)
    return sum(right) / len(true), 2 * precision * recall / (precision + recall) if right else 0.0


def mine(system: Path) -> tuple[pl.DataFrame, list[str], list[str]]:
    """The system's labelled lines, and their template ids and texts in one pass with default settings."""
    labelled = pl.read_csv(next(system.glob("*_structured.csv")), infer_schema=False).fill_null("")
    miner = TemplateMiner(TemplateConfig())
    ids = miner.process([system.name] * labelled.height, labelled["Content"]).tolist()
    return labelled, [f"{i:016x}" for i in ids], [miner.describe(i) for i in ids]


def main() -> None:
    """Mine every system and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/loghub"), help="folder for the predictions")
    parser.add_argument("--scorer", type=Path, help="external scorer, called with the folder")
    arguments = parser.parse_args()
    root = os.environ.get("MENDSTREAM_DATA")
    if not root or not (Path(root) / "loghub").is_dir():
        raise SystemExit("set MENDSTREAM_DATA to a folder that holds loghub/")
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = []
    for system in sorted(path for path in (Path(root) / "loghub").iterdir() if path.is_dir()):
        started = time.perf_counter()
        labelled, ids, texts = mine(system)
        seconds = time.perf_counter() - started
        with (arguments.out / f"{system.name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["LineId", "EventId", "EventTemplate"])
            writer.writerows(zip(range(1, len(ids) + 1), ids, texts, strict=True))
        accuracy, f1 = grouping(labelled["EventId"].to_list(), ids)
        results.append((accuracy, f1))
        print(
            f"{system.name:12s} GA {accuracy:.4f}  FGA {f1:.4f}  templates {len(set(ids)):4d}  {seconds * 1e3:5.0f} ms"
        )
    accuracy, f1 = (sum(column) / len(results) for column in zip(*results, strict=True))
    print(f"{'mean':12s} GA {accuracy:.4f}  FGA {f1:.4f}")
    if arguments.scorer:
        subprocess.run([sys.executable, str(arguments.scorer), str(arguments.out)], check=True)


if __name__ == "__main__":
    main()
