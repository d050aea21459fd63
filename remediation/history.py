"""What earlier decisions leave behind: how many actions a window has seen, and when a target was last healthy.

Event time only, bounded by construction, picklable.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field

from remediation.guards import Ruling, over_limit
from remediation.policy import Limits
from remediation.values import Decision, format_duration


@dataclass(slots=True)
class Window:
    """Event times of what counted, oldest first, at most as many as the limit can need."""

    times: deque[int] = field(default_factory=deque)

    def count(self, at_ns: int, per_ns: int) -> int:
        """How many lie in the ``per_ns`` before ``at_ns``; older ones are forgotten."""
        while self.times and self.times[0] <= at_ns - per_ns:
            self.times.popleft()
        return len(self.times)

    def add(self, at_ns: int, keep: int) -> None:
        """Count one at ``at_ns``; the last ``keep`` are enough to know that a limit of ``keep`` is used up."""
        self.times.append(at_ns)
        while len(self.times) > keep:
            self.times.popleft()


@dataclass(slots=True)
class History:
    """Windows per target, per playbook and overall, and recent recoveries; the longest unused is dropped first."""

    max_keys: int = 10_000
    dropped: int = 0
    _targets: OrderedDict[str, Window] = field(default_factory=OrderedDict)
    _playbooks: OrderedDict[str, Window] = field(default_factory=OrderedDict)
    _overall: Window = field(default_factory=Window)
    _recovered: OrderedDict[str, int] = field(default_factory=OrderedDict)

    def cap(self, ruling: Ruling, target: str, playbook: str, limits: Limits, at_ns: int) -> Ruling:
        """Lower a decision to ``propose`` where a limit is used up, or the target was ill a short while ago."""
        checks = (
            ("perTarget", self._targets.get(target), limits.per_target),
            ("perPlaybook", self._playbooks.get(playbook), limits.per_playbook),
            ("global", self._overall, limits.global_),
        )
        for name, window, rate in checks:
            used = window.count(at_ns, rate.per) if window is not None else 0
            if used >= rate.max:
                ruling = ruling.cap(Decision.PROPOSE, over_limit(name, used, rate.max, rate.per))
        recovered = self._recovered.get(target)
        if recovered is not None and at_ns - recovered < limits.min_healthy_period:
            period = format_duration(limits.min_healthy_period)
            ruling = ruling.cap(
                Decision.PROPOSE, f"its last incident ended less than {period} ago: the cure may not hold"
            )
        return ruling

    def count(self, target: str, playbook: str, limits: Limits, at_ns: int) -> None:
        """Remember a decision that may act without a further proposal."""
        self._window(self._targets, target).add(at_ns, limits.per_target.max)
        self._window(self._playbooks, playbook).add(at_ns, limits.per_playbook.max)
        self._overall.add(at_ns, limits.global_.max)

    def recovered(self, target: str, at_ns: int) -> None:
        """Remember that an incident of this target ended."""
        self._recovered[target] = max(at_ns, self._recovered.pop(target, at_ns))
        self._trim(self._recovered)

    def _window(self, windows: OrderedDict[str, Window], key: str) -> Window:
        window = windows.setdefault(key, Window())
        windows.move_to_end(key)
        self._trim(windows)
        return window

    def _trim(self, entries: OrderedDict[str, Window] | OrderedDict[str, int]) -> None:
        while len(entries) > self.max_keys:
            entries.popitem(last=False)
            self.dropped += 1
