"""Anomaly scores for the Numenta Anomaly Benchmark: ``python -m benchmarks.nab --out DIR``.

Reads ``$MENDSTREAM_DATA/nab``, screens every file by itself with default settings, row by row in order, and writes what
NAB's scorer reads: ``DIR/<category>/<file>.csv`` with columns timestamp, anomaly_score. Nothing is known of a file
beforehand: no minimum, no maximum, no length.
"""

from __future__ import annotations

import argparse
import csv
import datetime as dt
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from detectors.bank import SeriesBank

#: Alarm from this score on when no threshold is optimised on the labels.
FIXED_THRESHOLD = 0.45


def read(path: Path) -> tuple[list[str], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Timestamps as written, event times in nanoseconds and values of one data file."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    stamps = [row["timestamp"] for row in rows]
    seconds = [dt.datetime.fromisoformat(stamp).replace(tzinfo=dt.UTC).timestamp() for stamp in stamps]
    return stamps, (np.array(seconds) * 1e9).astype(np.int64), np.array([float(row["value"]) for row in rows])


def screen(
    times: list[npt.NDArray[np.int64]], values: list[npt.NDArray[np.float64]]
) -> tuple[list[npt.NDArray[np.float64]], float]:
    """Scores in [0, 1] of each series, and the seconds it took. Series are rows of one bank, apart from each other."""
    bank = SeriesBank()
    lengths = np.array([len(v) for v in values])
    t = np.stack([np.pad(part, (0, lengths.max() - len(part))) for part in times])
    x = np.stack([np.pad(part, (0, lengths.max() - len(part))) for part in values])
    raw = np.zeros(x.shape)
    started = time.perf_counter()
    for step in range(int(lengths.max())):
        rows = np.flatnonzero(lengths > step)
        raw[rows, step] = bank.step(rows, x[rows, step], t[rows, step]).raw
    seconds = time.perf_counter() - started
    return [raw[i, :n] / (1.0 + raw[i, :n]) for i, n in enumerate(lengths.tolist())], seconds


def main() -> None:
    """Score every file of the benchmark that is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/nab"), help="folder for the scores")
    parser.add_argument("--scorer", type=Path, help="external scorer, called with the folder, then with --threshold")
    arguments = parser.parse_args()
    root = Path(os.environ.get("MENDSTREAM_DATA", "")) / "nab"
    if not (root / "labels" / "combined_windows.json").is_file():
        raise SystemExit("set MENDSTREAM_DATA to a folder that holds nab/data and nab/labels")
    names = sorted(json.loads((root / "labels" / "combined_windows.json").read_text()))
    files = [read(root / "data" / name) for name in names]
    scores, seconds = screen([times for _, times, _ in files], [values for _, _, values in files])
    for name, (stamps, _, _), score in zip(names, files, scores, strict=True):
        path = arguments.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["timestamp", "anomaly_score"])
            writer.writerows(zip(stamps, (f"{s:.9f}" for s in score), strict=True))
    points = sum(len(score) for score in scores)
    print(f"{len(names)} files, {points} points, {seconds / points * 1e6:.1f} µs a point, {len(names)} series a call")
    if arguments.scorer:
        for extra in ([], ["--threshold", str(FIXED_THRESHOLD)]):
            subprocess.run([sys.executable, str(arguments.scorer), str(arguments.out), *extra], check=True)
    else:
        print(f"score {arguments.out} with NAB's scorer; fixed threshold {FIXED_THRESHOLD}")


if __name__ == "__main__":
    main()
