"""Configuration changes: a service stops calling something, or takes another path through its code."""

from __future__ import annotations

import math
from dataclasses import dataclass

from simulator.world import CallPlan, OperationPlan, Pool, World

Plan = tuple[tuple[CallPlan, ...], ...]


@dataclass(frozen=True, slots=True)
class PlanChange:
    """What was changed, with what is needed to change it back."""

    setting: str  # one line for people
    before: dict[str, tuple[Plan, float, tuple[tuple[float, int], ...]]]  # operation → plan, mu, logs


def alternative_plan(world: World, pool: Pool, mode: str = "") -> PlanChange:
    """Change a service's operations; ``mode`` is skip_call, other_path or "" for the first that applies.

    ``skip_call``: it no longer calls the one target it calls most, and says so in its log. ``other_path``: it leaves
    out caches, asks its database three times as often, needs four times the own work and writes other log lines.
    """
    targets: dict[str, int] = {}
    for operation in pool.operations.values():
        for call in (call for step in operation.plan for call in step):
            targets[call.pool.service.name] = targets.get(call.pool.service.name, 0) + 1
    before = {name: (op.plan, op.mu, op.logs) for name, op in pool.operations.items()}
    if targets and mode != "other_path":
        target = max(sorted(targets), key=lambda name: targets[name])
        for operation in pool.operations.values():
            _skip(world, operation, target)
        return PlanChange(f"{target}.enabled=false", before)
    for operation in pool.operations.values():
        _detour(world, operation)
    return PlanChange("storage.path=legacy", before)


def _skip(world: World, operation: OperationPlan, target: str) -> None:
    steps = [tuple(call for call in step if call.pool.service.name != target) for step in operation.plan]
    plan = tuple(step for step in steps if step)
    if plan != operation.plan:
        line = world.templates.add(
            f"{target} is disabled by configuration, answering request {{uuid}} with defaults", 9
        )
        operation.plan = plan
        operation.logs = (*operation.logs, (1.0, line))


def _detour(world: World, operation: OperationPlan) -> None:
    steps: list[tuple[CallPlan, ...]] = []
    for step in operation.plan:
        kept = tuple(call for call in step if call.pool.service.system != "redis")
        database = tuple(call for call in kept if call.is_store and call.pool.service.protocol == "db")
        steps += [kept] if kept else []
        steps += [database, database] if database else []
    label = operation.operation.name.replace("{", "").replace("}", "")
    lines = (
        world.templates.add(f"legacy path for {label}: full scan over {{id}} rows", 9),
        world.templates.add(f"legacy path for {label} done in {{dur}} ms", 9),
    )
    operation.plan = tuple(steps)
    operation.mu += math.log(4.0)
    operation.logs = tuple((1.0, line) for line in lines)


def restore_plan(pool: Pool, change: PlanChange) -> None:
    """Undo ``change``."""
    for name, (plan, mu, logs) in change.before.items():
        operation = pool.operations[name]
        operation.plan, operation.mu, operation.logs = plan, mu, logs
