"""The event loop: requests queue, work, call, wait, retry, time out and fail, one event after another.

Own work costs processor time under a quota (a fluid queue: what the quota cannot serve at once is served later), a
worker is held from admission to answer, and what finds no worker waits in the instance's queue. Slowness, time-outs and
retry storms follow from that; nothing here knows of faults but the fields that faults set.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, Final

from simulator.draws import Draws
from simulator.recorder import Recorder
from simulator.shapes import FAILURES_FROM, Outcome
from simulator.world import MS, SECOND, Attempt, CallPlan, Instance, OperationPlan, Request, World

Handler = Callable[[float, Any], None]
SLOW_NS: Final = 1.5 * SECOND  # programs warn of requests slower than this
_EXCEPTION, _OVERLOADED = int(Outcome.EXCEPTION), int(Outcome.OVERLOADED)
_UPSTREAM: Final = {
    Outcome.TIMEOUT: int(Outcome.GATEWAY_TIMEOUT),
    Outcome.GATEWAY_TIMEOUT: int(Outcome.GATEWAY_TIMEOUT),
}
_REJECT_NS: Final = 0.15 * MS


class Engine:
    """Runs a world; ``at`` schedules, ``run_until`` advances."""

    def __init__(self, world: World, recorder: Recorder, draws: Draws) -> None:
        self.world = world
        self.recorder = recorder
        self.draws = draws
        self.now = 0.0
        self.events = 0
        self._heap: list[tuple[float, int, Handler, Any]] = []
        self._sequence = 0
        self._deadlines: dict[float, deque[Attempt]] = {}

    def at(self, time: float, handler: Handler, argument: object = None) -> None:
        """Call ``handler(time, argument)`` when the simulation gets there; equal times in order of scheduling."""
        self._sequence = sequence = self._sequence + 1
        heappush(self._heap, (time, sequence, handler, argument))

    def run_until(self, end: float) -> None:
        """Do everything before ``end``."""
        heap = self._heap
        events = 0
        while heap and heap[0][0] < end:
            time, _, handler, argument = heappop(heap)
            events += 1
            handler(time, argument)
        self.now = end
        self.events += events

    def oldest_open(self) -> float:
        """No span recorded from now on starts before this time."""
        oldest = self.now
        for instance in self.world.instances():
            for waiting in (*instance.active, *instance.queue):
                oldest = min(oldest, waiting.arrived_ns)
        return oldest

    # Requests ---------------------------------------------------------------------------------------------------------

    def request(self, time: float, operation: OperationPlan, parameter: int) -> Request | None:
        """A user's request; None where nobody listens."""
        instance = operation.pool.pick()
        if instance.refusing or instance.blackhole:
            return None
        draw = self.draws.identifier
        root = Request(
            operation, instance, None, trace=(draw(), draw()), parent_id=0, span_id=draw(), parameter=parameter
        )
        self.arrive(time, root)
        return root

    def arrive(self, time: float, request: Request) -> None:
        """A request reaches its instance."""
        instance = request.instance
        request.arrived_ns = request.started_ns = time
        if instance.refusing:
            if request.attempt is not None:
                request.attempt.outcome = Outcome.RESET
                self.at(time + self.draws.network_ns(), self._answered, request.attempt)
        elif len(instance.active) < instance.workers:
            instance.active[request] = None
            self._begin(time, request)
        elif len(instance.queue) < instance.queue_limit:
            instance.queue.append(request)
        else:
            instance.active[request] = None
            request.outcome = _OVERLOADED
            self.finish(time + _REJECT_NS, request)

    def _begin(self, time: float, request: Request) -> None:
        instance = request.instance
        operation = request.operation
        if not instance.covers_queue:
            request.started_ns = time
        uniform = self.draws.uniform
        if instance.error_rate and uniform() < instance.error_rate:
            request.outcome = _EXCEPTION
            request.cause = instance.error_log
        elif uniform() < operation.error_rate:
            request.outcome = _EXCEPTION
        elif operation.not_found_rate and uniform() < operation.not_found_rate:
            request.outcome = 1
        extra = 0.0
        if instance.extra_mu:
            extra = math.exp(instance.extra_mu + instance.extra_sigma * self.draws.normal())
        self._work(time, request, extra)

    def _work(self, time: float, request: Request, extra: float) -> None:
        """One piece of own work, then ``_proceed``."""
        instance = request.instance
        operation = request.operation
        request.work_ns = time
        work = math.exp(operation.mu + operation.sigma * self.draws.normal())
        processor = work * operation.cpu_share
        instance.cpu_ns += processor
        free = instance.virtual_ns
        earliest = time - instance.credit_ns
        free = (free if free > earliest else earliest) + processor / (instance.quota * instance.quota_factor)
        instance.virtual_ns = free
        end = time + processor
        end = max(end, free)
        self._sequence = sequence = self._sequence + 1
        heappush(self._heap, (end + work - processor + extra, sequence, self._proceed, request))

    def _proceed(self, time: float, request: Request) -> None:
        if request.dead:
            return
        plan = request.plan
        uniform = self.draws.uniform
        while not request.outcome and request.step < len(plan):
            calls = plan[request.step]
            request.step += 1
            request.waits.clear()
            chosen = [call for call in calls if call.probability >= 1.0 or uniform() < call.probability]
            if chosen:
                request.pending = len(chosen)
                for call in chosen:
                    self._attempt(time, request, call, 0)
                return
        self.finish(time, request)

    def finish(self, time: float, request: Request) -> None:
        """Answer, free the worker, take the next in the queue."""
        if request.dead:
            return
        request.dead = True
        instance = request.instance
        instance.active.pop(request, None)
        outcome = request.outcome
        instance.requests += 1
        instance.latencies.append(time - request.started_ns)
        if outcome >= FAILURES_FROM:
            instance.errors += 1
        operation = request.operation
        if operation.shape >= 0:
            self._report(time, request)
        attempt = request.attempt
        if attempt is not None and not attempt.done:
            attempt.outcome = outcome
            extra = attempt.call.edge.extra_ns
            way = self.draws.network_ns() + (self._jitter(extra) if extra else 0.0)
            self._sequence = sequence = self._sequence + 1
            heappush(self._heap, (time + way, sequence, self._answered, attempt))
        if instance.queue:
            self._next(time, instance)

    def _next(self, time: float, instance: Instance) -> None:
        while instance.queue and len(instance.active) < instance.workers:
            request = instance.queue.popleft()
            attempt = request.attempt
            if attempt is not None and attempt.done and instance.pool.service.protocol == "grpc":
                request.dead = True  # its deadline has passed: gRPC servers do not begin
                continue
            instance.active[request] = None
            self._begin(time, request)

    def _report(self, time: float, request: Request) -> None:
        """The server's span and log lines of a finished request."""
        instance = request.instance
        operation = request.operation
        recorder = self.recorder
        started = request.started_ns
        outcome = request.outcome
        if started < 0.0:
            return
        skew = instance.skew_ns
        high, low, span = request.trace_hi, request.trace_lo, request.span_id
        shared = (instance.entity, instance.version_id, high, low)
        recorder.spans.append(
            (started + skew, time + skew, request.shape + outcome, *shared, span, request.parent_id, request.parameter)
        )
        if operation.internal_shape >= 0 and not outcome:
            inner = (request.work_ns + skew, time + skew, operation.internal_shape, *shared)
            recorder.spans.append((*inner, self.draws.identifier(), span, -1))
        place = (high, low, span) if instance.pool.service.correlated_logs else (0, 0, 0)
        duration = (time - started) / MS
        if not outcome:
            uniform = self.draws.uniform
            for probability, template in operation.logs:
                if probability >= 1.0 or uniform() < probability:
                    recorder.log(time, instance, template, place, duration)
        elif outcome >= FAILURES_FROM:
            cause = request.cause if request.cause >= 0 else operation.error_log
            recorder.log(time, instance, cause, place, duration)
        if time - started > SLOW_NS:
            recorder.log(time, instance, operation.slow_log, place, duration)

    # Calls ------------------------------------------------------------------------------------------------------------

    def _jitter(self, extra: float) -> float:
        return extra * math.exp(0.3 * self.draws.normal())

    def _attempt(self, time: float, request: Request, call: CallPlan, tries: int) -> None:
        attempt = Attempt(request, call, tries, self.draws.identifier(), time)
        request.waits.append(attempt)
        if call.is_store:
            request.instance.pool_used += 1
        instance = call.pool.pick()
        way = self.draws.network_ns()
        if instance.refusing:
            attempt.outcome = Outcome.REFUSED
            self.at(time + 2 * way, self._answered, attempt)
            return
        waiting = self._deadlines.get(call.timeout_ns)
        if waiting is None:
            waiting = self._deadlines[call.timeout_ns] = deque()
        if not waiting:
            self.at(attempt.deadline_ns, self._expire, waiting)
        waiting.append(attempt)
        edge = call.edge
        if instance.blackhole or (edge.loss and self.draws.uniform() < edge.loss):
            return  # nothing comes back: the time-out ends it
        if edge.extra_ns:
            way += self._jitter(edge.extra_ns)
        asked = Request(
            call.operation,
            instance,
            attempt,
            trace=(request.trace_hi, request.trace_lo),
            parent_id=attempt.span_id,
            span_id=self.draws.identifier(),
            parameter=request.parameter,
        )
        self._sequence = sequence = self._sequence + 1
        heappush(self._heap, (time + way, sequence, self.arrive, asked))

    def _expire(self, time: float, waiting: deque[Attempt]) -> None:
        """Time-outs of one length fall due in the order in which their calls began."""
        while waiting:
            first = waiting[0]
            if not first.done and first.deadline_ns > time:
                self.at(first.deadline_ns, self._expire, waiting)
                return
            waiting.popleft()
            if not first.done:
                first.outcome = Outcome.TIMEOUT
                self._answered(time, first)

    def _answered(self, time: float, attempt: Attempt) -> None:
        """A call has ended, one way or another."""
        if attempt.done:
            return
        self.close_call(time, attempt)
        request = attempt.request
        if request.dead:
            return
        call = attempt.call
        outcome = attempt.outcome
        if outcome >= FAILURES_FROM:
            if attempt.tries < call.retries:
                pause = call.backoff_ns * 2**attempt.tries * (0.5 + self.draws.uniform())
                self.at(time + pause, self._retry, attempt)
                return
            self._failed(time, attempt)
        elif call.operation.consumers:
            self._publish(time, attempt)
        request.pending -= 1
        if not request.pending:
            self._work(time, request, 0.0)

    def close_call(self, time: float, attempt: Attempt) -> None:
        """End a call as its caller sees it, with a client span."""
        attempt.done = True
        request = attempt.request
        caller = request.instance
        if attempt.call.is_store:
            caller.pool_used -= 1
        if request.operation.shape < 0 or attempt.started_ns < 0.0:
            return
        skew = caller.skew_ns
        self.recorder.spans.append(
            (
                attempt.started_ns + skew,
                time + skew,
                attempt.call.shape + attempt.outcome,
                caller.entity,
                caller.version_id,
                request.trace_hi,
                request.trace_lo,
                attempt.span_id,
                request.span_id,
                request.parameter,
            )
        )

    def _retry(self, time: float, attempt: Attempt) -> None:
        if not attempt.request.dead:
            self._attempt(time, attempt.request, attempt.call, attempt.tries + 1)

    def _failed(self, time: float, attempt: Attempt) -> None:
        """The last try has failed: fall back, or fail as well."""
        call = attempt.call
        request = attempt.request
        if call.swallow:
            template = call.fallback_log
        else:
            template = call.failed_log
            request.outcome = _UPSTREAM.get(Outcome(attempt.outcome), int(Outcome.BAD_GATEWAY))
            request.cause = template
        instance = request.instance
        if request.operation.shape >= 0 and call.swallow:
            correlated = instance.pool.service.correlated_logs
            place = (request.trace_hi, request.trace_lo, request.span_id) if correlated else (0, 0, 0)
            self.recorder.log(time, instance, template, place, (time - attempt.started_ns) / MS)

    # Messages ---------------------------------------------------------------------------------------------------------

    def _publish(self, time: float, attempt: Attempt) -> None:
        """The broker has the message; every consumer group gets it after a while."""
        request = attempt.request
        for operation, shape in attempt.call.operation.consumers:
            delay = (2.0 + 6.0 * self.draws.exponential()) * MS
            trace = (request.trace_hi, request.trace_lo)
            self.at(time + delay, self._deliver, (operation, shape, trace, attempt.span_id, request.parameter))

    def _deliver(self, time: float, message: tuple[OperationPlan, int, tuple[int, int], int, int]) -> None:
        operation, shape, trace, producer, parameter = message
        instance = operation.pool.pick()
        if instance.refusing or instance.blackhole:
            self.at(time + SECOND, self._deliver, message)  # it stays in the broker until somebody fetches it
            return
        draw = self.draws.identifier
        if not operation.continues_trace:
            trace, producer = (draw(), draw()), 0
        consumed = Request(
            operation, instance, None, trace=trace, parent_id=producer, span_id=draw(), parameter=parameter
        )
        consumed.shape = shape
        self.arrive(time, consumed)

    # Ends before the end ----------------------------------------------------------------------------------------------

    def cancel(self, time: float, request: Request) -> None:
        """The user gives up: the entry stops waiting, those below go on and do not know."""
        if request.dead:
            return
        for attempt in request.waits:
            if not attempt.done:
                attempt.outcome = Outcome.CANCELLED
                self.close_call(time, attempt)
        if request in request.instance.active:
            request.outcome = Outcome.CANCELLED
            self.finish(time, request)

    def crash(self, time: float, instance: Instance) -> None:
        """A process dies: its spans are lost, its callers see broken connections."""
        for request in (*instance.active, *instance.queue):
            request.dead = True
            for attempt in request.waits:
                attempt.done = True
            if request.attempt is not None and not request.attempt.done:
                request.attempt.outcome = Outcome.RESET
                self.at(time + self.draws.network_ns(), self._answered, request.attempt)
        instance.active.clear()
        instance.queue.clear()
