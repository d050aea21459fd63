"""Metric points of processes, runtimes, stores and hosts, every interval, each process at its own phase.

Values follow what the engine did since the last point; what the model does not know (memory, descriptors) has a model
of its own with noise. Some series are constant and some are noise, as in real systems.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import Final

from signals.schema import MetricShape
from simulator.config import SimulationConfig
from simulator.draws import Draws
from simulator.engine import Engine
from simulator.recorder import MetricRow, Recorder
from simulator.world import SECOND, Instance, World

MB: Final = 1e6
#: Bucket bounds of durations in seconds, as the semantic conventions advise.
BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
QUANTILES: Final = (("0.5", 0.5), ("0.95", 0.95), ("0.99", 0.99))
LEAST_S: Final = 1.0  # a process gives no point sooner after its start
_YOUNG_MB: Final = {"jvm": 64.0, "go": 24.0, "nodejs": 32.0, "python": 40.0, "native": 8.0}
_ALLOCATION_MB: Final = {"jvm": 0.06, "go": 0.02, "nodejs": 0.04, "python": 0.03, "native": 0.005}
_HEAP: Final = {"jvm": "jvm.memory.used", "go": "go.memory.used", "nodejs": "v8js.memory.heap.used"}


class MetricSampler:
    """Schedules its own ticks; call ``begin`` once."""

    def __init__(self, engine: Engine, world: World, recorder: Recorder, config: SimulationConfig) -> None:
        self._engine = engine
        self._world = world
        self._recorder = recorder
        self._interval = config.metric_interval_s
        self._otlp = config.metric_form == "otlp"
        self._normal = Draws(config.seed * 2 + 1).normal
        self._hosts = dict(zip(world.hosts, world.host_entities, strict=True))
        self._host_cpu = dict.fromkeys(world.hosts, 0.0)
        self._host_load = dict.fromkeys(world.hosts, 0.4)
        self._host_bytes = dict.fromkeys(world.hosts, 0.0)
        stores = {name for name, pool in world.pools.items() if not pool.service.instrumented}
        self._uses_stores = {caller for caller, callee in world.edges if callee in stores}
        self._cores = {
            name: max(2.0, 2 * sum(i.quota for i in world.instances() if i.host == index))
            for index, name in enumerate(world.hosts)
        }  # twice what the quotas of its processes sum up to
        self._entity = -1
        self._time = 0.0
        self._started = 0.0
        self._elapsed = 0.0  # seconds since the last point of this process

    def begin(self) -> None:
        """First tick of each process somewhere in the first interval; counting begins now."""
        step = self._interval * SECOND
        for instance in self._world.instances():
            _forget(instance)
        for index, instance in enumerate(self._world.instances()):
            self._engine.at((index * 0.618034 % 1.0) * step, self._tick, instance)
        for index, host in enumerate(self._world.hosts):
            self._engine.at((index * 0.37 % 1.0) * step, self._tick_host, host)

    # Points -----------------------------------------------------------------------------------------------------------

    def _gauge(self, metric: str, value: float, attributes: str = "") -> None:
        row: MetricRow = (self._time, self._entity, metric, attributes, 0, value, math.nan, 0, [], [])
        self._recorder.metrics.append(row)

    def _counter(self, metric: str, delta: float, total: float, attributes: str = "") -> None:
        """A cumulative sum since the process started; in recordings its rate per second."""
        if not self._otlp:
            self._gauge(metric, delta / self._elapsed, attributes)
            return
        shape = int(MetricShape.SUM_CUMULATIVE)
        self._recorder.metrics.append(
            (self._time, self._entity, metric, attributes, shape, total, self._started, 0, [], [])
        )

    def _durations(self, metric: str, instance: Instance) -> None:
        """Server durations in seconds: a cumulative histogram; in recordings quantiles and a rate."""
        seconds = sorted(value / SECOND for value in instance.latencies)
        if not self._otlp:
            self._gauge(f"{metric}.count", len(seconds) / self._elapsed)
            for label, quantile in QUANTILES if seconds else ():
                value = seconds[min(len(seconds) - 1, int(quantile * len(seconds)))]
                self._gauge(metric, value, f'{{"quantile":"{label}"}}')
            return
        counts = instance.total_counts
        if not counts:
            counts.extend([0] * (len(BOUNDS) + 1))
        for value in seconds:
            counts[bisect_left(BOUNDS, value)] += 1
        instance.total_seconds += sum(seconds)
        shape = int(MetricShape.HISTOGRAM_CUMULATIVE)
        numbers = (instance.total_seconds, self._started, sum(counts), list(BOUNDS), list(counts))
        self._recorder.metrics.append((self._time, self._entity, metric, "", shape, *numbers))

    def _noisy(self, value: float, relative: float) -> float:
        return max(0.0, value * (1 + relative * self._normal()))

    # Processes --------------------------------------------------------------------------------------------------------

    def _tick(self, time: float, instance: Instance) -> None:
        self._engine.at(time + self._interval * SECOND, self._tick, instance)
        self._elapsed = (time - instance.sampled_ns) / SECOND
        if instance.refusing or self._elapsed < LEAST_S:
            return
        self._time, self._entity, self._started = time, instance.entity, instance.started_ns
        instance.sampled_ns = time
        self._process(time, instance)
        service = instance.pool.service
        if service.instrumented:
            self._server(instance)
            self._runtime(instance)
        else:
            self._store(instance)
        _forget(instance)

    def _process(self, time: float, instance: Instance) -> None:
        step = self._elapsed * SECOND
        service = instance.pool.service
        other = 0.012 * step * instance.quota * (1 + 0.3 * self._normal())  # timers, exporters, probes
        stolen = 0.96 * (1 - instance.quota_factor) * step * instance.quota
        used = min(max(0.0, instance.cpu_ns + other + stolen), step * instance.quota)
        instance.total_cpu_ns += used
        host = self._world.hosts[instance.host]
        self._host_cpu[host] += used
        self._gauge("process.cpu.utilization", min(1.0, used / (step * instance.quota)))
        self._counter("process.cpu.time", used / SECOND, instance.total_cpu_ns / SECOND)
        memory = self._memory(time, instance)
        self._gauge("process.memory.usage", memory)
        self._gauge("container.memory.limit", service.memory_limit_mb * MB)
        self._gauge("process.uptime", (time - instance.started_ns) / SECOND)
        descriptors = 34 + len(instance.active) + instance.pool_used + 3 * abs(self._normal())
        self._gauge("process.open_file_descriptor.count", float(round(descriptors)))
        received = self._noisy(instance.requests * 1400.0 + 900.0 * self._elapsed, 0.04)
        sent = self._noisy(instance.requests * 5200.0 + 1300.0 * self._elapsed, 0.04)
        instance.total_rx += received
        instance.total_tx += sent
        self._host_bytes[host] += received + sent
        self._counter("process.network.io", received, instance.total_rx, '{"network.io.direction":"receive"}')
        self._counter("process.network.io", sent, instance.total_tx, '{"network.io.direction":"transmit"}')
        # Of no use to anybody: heavy-tailed noise.
        self._gauge("process.context_switches.involuntary", abs(self._normal()) ** 3 * 20)

    def _memory(self, time: float, instance: Instance) -> float:
        """Live set, slowly filling caches, garbage (a sawtooth) and what leaks; bytes."""
        service = instance.pool.service
        instance.allocated_mb += instance.requests * _ALLOCATION_MB[service.runtime] + 0.05 * self._elapsed
        young = _YOUNG_MB[service.runtime]
        instance.gc_count, rest = int(instance.allocated_mb // young), instance.allocated_mb % young
        instance.total_gc += instance.gc_count
        instance.allocated_mb = rest
        warm = 0.1 * service.memory_mb * (1 - math.exp(-(time - instance.started_ns) / (3600 * SECOND)))
        used = service.memory_mb + warm + rest + instance.leak_mb
        return min(self._noisy(used, 0.004), service.memory_limit_mb) * MB

    def _server(self, instance: Instance) -> None:
        protocol = instance.pool.service.protocol
        self._durations(f"{protocol if protocol == 'http' else 'rpc'}.server.request.duration", instance)
        self._gauge("server.active_requests", float(len(instance.active)))
        self._gauge("server.queue.depth", float(len(instance.queue)))
        self._gauge("server.errors", instance.errors / self._elapsed)
        if instance.pool.service.name in self._uses_stores:
            self._gauge("db.client.connection.count", float(instance.pool_used), '{"state":"used"}')
            self._gauge("db.client.connection.max", 32.0)

    def _runtime(self, instance: Instance) -> None:
        service = instance.pool.service
        heap = (service.memory_mb * 0.6 + instance.allocated_mb + instance.leak_mb) * MB
        pressure = min(1.0, (service.memory_mb + instance.leak_mb) / service.memory_limit_mb)
        if service.runtime in _HEAP:
            self._gauge(_HEAP[service.runtime], self._noisy(heap, 0.01))
        busy = len(instance.active)
        if service.runtime == "jvm":
            pause = instance.gc_count * 0.012 * (1 + 20 * max(0.0, pressure - 0.75))
            instance.total_gc_s += pause
            self._counter("jvm.gc.duration", pause, instance.total_gc_s)
            self._gauge("jvm.thread.count", 28.0 + busy)
            self._gauge("jvm.class.count", 11_482.0)
            self._gauge("jvm.cpu.count", 2.0)
        elif service.runtime == "go":
            self._gauge("go.goroutine.count", 14.0 + 2 * busy + round(abs(self._normal())))
            self._gauge("go.processor.limit", 2.0)
        elif service.runtime == "nodejs":
            backlog = max(0.0, instance.virtual_ns - self._time) / SECOND
            self._gauge("nodejs.eventloop.delay.p99", self._noisy(0.011, 0.1) + backlog)
            self._gauge("v8js.memory.heap.limit", service.memory_limit_mb * 0.75 * MB)
        elif service.runtime == "python":
            self._counter("cpython.gc.collections", instance.gc_count, instance.total_gc, '{"generation":"0"}')
            self._gauge("process.thread.count", 6.0 + busy)

    # Stores and hosts -------------------------------------------------------------------------------------------------

    def _store(self, instance: Instance) -> None:
        system = instance.pool.service.system
        rate, busy = float(instance.requests), float(len(instance.active))
        instance.total_seconds += rate
        if system == "kafka":
            self._counter("kafka.message.count", rate, instance.total_seconds)
            for operation in instance.pool.operations.values():
                for consumer, _ in operation.consumers:
                    lag = sum(len(i.queue) + len(i.active) for i in consumer.pool.instances)
                    group = consumer.operation.name
                    topic = operation.operation.name
                    self._gauge("kafka.consumer_group.lag", float(lag), f'{{"group":"{group}","topic":"{topic}"}}')
            return
        names = {
            "postgresql": ("postgresql.commits", "postgresql.backends"),
            "redis": ("redis.commands", "redis.clients.connected"),
        }
        counted, connected = names.get(system, (f"{system}.operation.count", f"{system}.connection.count"))
        self._counter(counted, rate, instance.total_seconds)
        self._gauge(connected, 12.0 + busy + round(abs(self._normal())))
        if system == "postgresql":
            self._gauge("postgresql.blks_hit.ratio", 0.995 - 0.002 * abs(self._normal()))
        if system == "redis":
            self._gauge("redis.keys.evicted", 0.0)

    def _tick_host(self, time: float, host: str) -> None:
        self._engine.at(time + self._interval * SECOND, self._tick_host, host)
        self._time, self._entity, self._started = time, self._hosts[host], 0.0
        cores = self._cores[host]
        used = self._host_cpu[host] / (self._interval * SECOND) / cores
        received = self._host_bytes[host]
        self._host_cpu[host] = self._host_bytes[host] = 0.0
        if time < self._interval * SECOND:
            return  # not all of its processes have given a whole interval yet
        utilisation = min(1.0, 0.04 + used + 0.01 * abs(self._normal()))
        self._gauge("system.cpu.utilization", utilisation)
        self._host_load[host] += (utilisation * cores - self._host_load[host]) * min(1.0, self._interval / 60)
        self._gauge("system.cpu.load_average.1m", self._host_load[host])
        self._gauge("system.memory.utilization", self._noisy(0.55, 0.01))
        self._gauge("system.network.io", received / self._interval)


def _forget(instance: Instance) -> None:
    """Begin to count anew."""
    instance.cpu_ns = 0.0
    instance.requests = instance.errors = 0
    instance.latencies.clear()
