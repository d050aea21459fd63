"""Lines per second of template mining on one core: ``python -m benchmarks.templates_speed [--lines 1000000]``.

Mixed lines of web, storage, shop and operating-system services, made with fresh parameters in every line (ids,
addresses, users, paths, durations), so that no cache of raw lines can help. Polars is held to one thread.
"""

from __future__ import annotations

import argparse
import os
import random
import time
import uuid

os.environ.setdefault("POLARS_MAX_THREADS", "1")  # polars reads it when first imported, hence before the others

import polars as pl

from detectors.config import TemplateConfig
from detectors.templates import TemplateMiner

SHAPES = (
    "GET /api/v1/orders/{n} 200 {f} ms",
    "request complete http.req.id={u} http.req.method=GET http.req.path=/product/{h} http.resp.took_ms={n} session={u}",
    "Received block blk_{n}{n} of size {n} from /{ip}",
    "{ip}:{n} Served block blk_-{n}{n} to /{ip}",
    "Accepted publickey for {w} from {ip} port {n} ssh2",
    "session opened for user {w} by (uid={n})",
    'PaymentService#Charge invoked with request {{"amount":{{"units":"{n}","nanos":{n}}}}}',
    "o.s.OrderServiceImpl#{line} [getSoldTickets][Left ticket info][order: {u}, train number: G{n}]",
    "conversion request successful",
    "cache miss for key user:{n}:cart, loading from db-{n}.internal:5432 took {f}s",
    "2024-05-{d:02d}T12:{d:02d}:07.{n}Z WARN retrying https://payments.example.com/v1/charge/{h} attempt {d}",
    "job {u} moved from RUNNING to SUCCEEDED after {n} seconds, {n} bytes ({f} KB) written to /var/lib/jobs/{h}/out",
    "worker.go:{line}: failed to fetch {h}: dial tcp {ip}:{n}: connect: connection refused",
    "GC pause (young) {f} ms, heap {n}M->{n}M({n}M)",
    "Failed password for invalid user {w} from {ip} port {n} ssh2",
    "list recommendations product_ids=['{h}', '{h}', '{h}']",
)


def lines(count: int, seed: int = 1) -> pl.Series:
    """So many lines, each with its own parameters; code lines and shapes repeat, as they do in code."""
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        bits = rng.getrandbits(128)
        made.append(
            rng.choice(SHAPES).format(
                n=rng.randrange(1_000_000),
                f=round(rng.random() * 900, 2),
                u=uuid.UUID(int=bits),
                h=f"{bits & 0xFFFFFFFFFF:010X}",
                ip=f"10.{bits & 255}.{bits >> 8 & 255}.{bits >> 16 & 255}",
                w=f"user{rng.randrange(100_000)}",
                d=rng.randrange(1, 29),
                line=rng.choice((65, 112, 348)),
            )
        )
    return pl.Series(made)


def main() -> None:
    """Mine the lines in batches as a poll would bring them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=50_000, help="lines per batch")
    arguments = parser.parse_args()
    bodies = lines(arguments.lines)
    miner = TemplateMiner(TemplateConfig())
    wall, cpu = time.perf_counter(), time.process_time()
    for start in range(0, len(bodies), arguments.batch):
        batch = bodies.slice(start, arguments.batch)
        miner.process(["bench"] * len(batch), batch)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    mean = sum(len(body) for body in bodies.head(10_000)) / min(10_000, len(bodies))
    print(
        f"{len(bodies)} lines of {mean:.0f} characters on one core: {len(bodies) / wall:,.0f} lines/s"
        f" ({len(bodies) / cpu:,.0f} per CPU second), {len(miner)} templates from {len(SHAPES)} shapes"
    )


if __name__ == "__main__":
    main()
