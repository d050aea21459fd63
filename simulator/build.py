"""Builds a running system from its description: plans with shapes, log templates and targets resolved, and sizes."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from simulator.config import SimulationConfig
from simulator.model import Call, Operation, Service, Topology, mean_ms
from simulator.shapes import ShapeTable
from simulator.templates import TemplateTable
from simulator.world import MS, QUOTA_PERIOD_NS, SECOND, CallPlan, Edge, Instance, OperationPlan, Pool, World

_ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"

_EXCEPTIONS: Final = {
    "jvm": "java.lang.IllegalStateException: {operation} failed for request {{uuid}}\n\tat shop.{service}.Handler."
    "handle(Handler.java:{{n}})\n\tat shop.{service}.Server.dispatch(Server.java:211)",
    "go": "rpc error: code = Internal desc = {operation}: unexpected state {{n}} (request {{uuid}})",
    "nodejs": "TypeError: Cannot read properties of undefined (reading '{service}') at {operation} (server.js:{{n}})",
    "python": "Traceback (most recent call last): {operation}: ValueError: invalid literal {{n}} request={{uuid}}",
    "native": "ERROR: {operation} could not be completed, request {{id}}",
}


def instance_name(service: str, rng: np.random.Generator) -> str:
    """A pod's name: service, replica set, pod."""
    letters = [_ALPHABET[i] for i in rng.integers(len(_ALPHABET), size=15)]
    return f"{service}-{''.join(letters[:10])}-{''.join(letters[10:])}"


def build(topology: Topology, config: SimulationConfig) -> World:
    """A system provisioned for the configured rate, all processes up, nothing under way."""
    rng = np.random.default_rng([config.seed, 7])
    pools = {service.name: Pool(service) for service in topology.services}
    count = sum(service.instances for service in topology.services)
    hosts = [f"node-{index + 1}" for index in range(max(3, math.ceil(count / 12)))]
    skew = rng.uniform(-config.clock_skew_ms / 2, config.clock_skew_ms / 2, len(hosts)) * MS
    placed = int(rng.integers(len(hosts)))
    for pool in pools.values():
        for index in range(pool.service.instances):
            placed = (placed + 1) % len(hosts)
            store = not pool.service.instrumented
            name = f"{pool.service.name}-{index}" if store else instance_name(pool.service.name, rng)
            instance = Instance(pool, index, name, placed, float(skew[placed]))
            instance.started_ns = -float(rng.uniform(0.2, 12.0)) * 86_400 * SECOND
            pool.instances.append(instance)
        pool.ready = list(pool.instances)
    world = World(topology, pools, {}, ShapeTable(), TemplateTable(), hosts, {})
    _compile(world)
    _provision(world, config)
    return world


def _provision(world: World, config: SimulationConfig) -> None:
    """Processor quotas for the wanted utilisation, and workers for three times the expected concurrency."""
    visits = world.topology.visits()
    duration = world.topology.expected_ms()
    for pool in world.pools.values():
        service = pool.service
        cores = busy = largest = 0.0
        for operation in service.operations:
            rate = config.rate * visits.get((service.name, operation.name), 0.0)
            world.demand[service.name] = world.demand.get(service.name, 0.0) + rate
            cores += rate * mean_ms(operation) / 1e3 * service.cpu_share
            busy += rate * duration.get((service.name, operation.name), 0.0) / 1e3
            largest = max(largest, mean_ms(operation) * service.cpu_share)
            pool.operations[operation.name].expected_ns = duration.get((service.name, operation.name), 1.0) * MS
        for instance in pool.instances:
            share = len(pool.instances) * config.utilisation
            instance.quota = max(cores / share, largest * MS / QUOTA_PERIOD_NS * 3, 0.05)
            instance.workers = max(service.workers, math.ceil(3 * busy / len(pool.instances)))
            instance.queue_limit = max(service.queue_limit, 4 * instance.workers)


def _compile(world: World) -> None:
    for pool in world.pools.values():
        for operation in pool.service.operations:
            pool.operations[operation.name] = _operation(world, pool, operation)
    for pool in world.pools.values():
        for operation in pool.service.operations:
            plan = pool.operations[operation.name]
            plan.plan = tuple(tuple(_call(world, pool.service, call) for call in step) for step in operation.steps)
            plan.consumers = tuple(_consumer(world, pool, operation, consumer) for consumer in operation.consumers)


def _operation(world: World, pool: Pool, operation: Operation) -> OperationPlan:
    service = pool.service
    plan = OperationPlan(operation, pool)
    add = world.templates.add
    plan.logs = tuple((line.probability, add(line.template, line.severity)) for line in operation.logs)
    label = operation.name.replace("{", "").replace("}", "")
    exception = _EXCEPTIONS[service.runtime].format(operation=label, service=service.name)
    plan.error_log = add(exception, 17)
    plan.slow_log = add(f"slow request {label}: {{dur}} ms", 13)
    if service.instrumented:
        plan.shape = world.shapes.server(service, operation)
        plan.internal_shape = world.shapes.internal(operation.internal) if operation.internal else -1
    return plan


def _consumer(world: World, broker: Pool, topic: Operation, consumer: tuple[str, str]) -> tuple[OperationPlan, int]:
    plan = world.pools[consumer[0]].operations[consumer[1]]
    return plan, world.shapes.consumer(broker.service, topic.name, plan.operation)


def _call(world: World, caller: Service, call: Call) -> CallPlan:
    pool = world.pools[call.target]
    target = pool.operations[call.operation]
    edge = world.edges.setdefault((caller.name, call.target), Edge(caller.name, call.target))
    plan = CallPlan(target, pool, edge, world.shapes.client(pool.service, target.operation))
    plan.probability = call.probability
    plan.timeout_ns = call.timeout_ms * MS
    plan.retries = call.retries
    plan.backoff_ns = call.backoff_ms * MS
    plan.swallow = call.swallow
    label = target.operation.name.replace("{", "").replace("}", "")
    plan.failed_log = world.templates.add(f"call to {call.target} {label} failed after {{dur}} ms", 17)
    plan.fallback_log = world.templates.add(f"{call.target} {label} unavailable after {{dur}} ms, using fallback", 13)
    return plan
