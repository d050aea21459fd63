"""The probability that a change fails, learnt online, and the gate in proportion to it.

With few outcomes a smoothed base rate and the service's own record speak (Beta prior 1:9). From ``min_outcomes`` on an
online logistic regression (River, stochastic gradient descent) joins them, with more weight the more it has seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from river import linear_model, optim, preprocessing

from delivery.change import Assessment, ChangeFacts, Gate
from delivery.config import DeliveryConfig
from delivery.features import Features, ServiceRecord, base_rate, features_of, own_rate, record_sentence, sentences

_PRIOR_LOGIT: Final = -2.2  # log odds of one in ten
_LEARNING_RATE: Final = 0.05
_TOLD: Final = 0.1  # log odds that a feature must move to be named as a reason
_MOST_REASONS: Final = 3


@dataclass(frozen=True, slots=True)
class _Watched:
    service: str
    at_ns: int
    features: Features


class ChangeRisk:
    """Risk of the changes of one environment.

    Event time only; the same changes and outcomes in the same order give the same answers. State is picklable and
    bounded: services changed longest ago are forgotten first, as are changes that wait longest for an outcome.
    """

    def __init__(self, config: DeliveryConfig | None = None) -> None:
        self.config = config or DeliveryConfig()
        self.outcomes = 0  # learnt
        self.failures = 0  # of them
        self.unknown = 0  # outcomes of changes that were never assessed, or are forgotten
        self.dropped = 0  # services and waiting changes forgotten at a limit
        self.services: dict[str, ServiceRecord] = {}  # least recently changed first
        self.watched: dict[str, _Watched] = {}  # by change id, oldest first
        self._scaler: Any = preprocessing.StandardScaler()
        self._weights: Any = linear_model.LogisticRegression(
            optimizer=optim.SGD(_LEARNING_RATE), intercept_init=_PRIOR_LOGIT, intercept_lr=_LEARNING_RATE, l2=0.001
        )

    def assess(self, change: ChangeFacts) -> Assessment:
        """Judge a change by what came before it, and wait for its outcome.

        A change that waits already is judged again but counted once.
        """
        record = self.services.get(change.service) or ServiceRecord()
        base = base_rate(self.failures, self.outcomes)
        features = features_of(change, record, base)
        probability, reasons = self._judge(change, record, features)
        if change.change_id not in self.watched:
            self._remember(change, record, features)
        return Assessment(
            change.change_id,
            change.service,
            change.at_ns,
            probability,
            self._gate(probability),
            reasons,
            self.outcomes,
        )

    def learn(self, change_id: str, failed: bool) -> None:  # noqa: FBT001 - the outcome is the message
        """Learn how a change ended; one that is not waited for is counted in ``unknown`` and otherwise ignored."""
        watched = self.watched.pop(change_id, None)
        if watched is None:
            self.unknown += 1
            return
        self.outcomes += 1
        self.failures += failed
        record = self.services.get(watched.service)
        if record is not None:
            record.outcomes.append(failed)
            if failed:
                record.failed_ns = max(record.failed_ns, watched.at_ns)
        self._scaler.learn_one(watched.features)
        self._weights.learn_one(self._scaler.transform_one(watched.features), failed)

    def _judge(self, change: ChangeFacts, record: ServiceRecord, features: Features) -> tuple[float, tuple[str, ...]]:
        prior = own_rate(record, features["base_rate"])
        if self.outcomes < self.config.min_outcomes:
            few = f"rests on the prior: {self.outcomes} of {self.config.min_outcomes} outcomes learnt"
            return prior, (record_sentence(record), few) if record.outcomes else (few,)
        scaled = self._scaler.transform_one(features)
        learnt = float(self._weights.predict_proba_one(scaled)[True])
        trust = self.outcomes / (self.outcomes + self.config.min_outcomes)
        weights = self._weights.weights
        moved = {name: trust * float(weights.get(name, 0.0)) * value for name, value in scaled.items()}
        # What the record says beside the model counts with it: both speak of the same thing.
        moved["own_rate"] += (1 - trust) * (_log_odds(prior) - _log_odds(features["base_rate"]))
        return trust * learnt + (1 - trust) * prior, _reasons(moved, sentences(change, record, features))

    def _gate(self, probability: float) -> Gate:
        if probability >= self.config.hold_risk:
            return "hold"
        return "canary" if probability >= self.config.canary_risk else "proceed"

    def _remember(self, change: ChangeFacts, record: ServiceRecord, features: Features) -> None:
        self.services.pop(change.service, None)
        self.services[change.service] = record
        record.changes.append(change.at_ns)
        self.watched[change.change_id] = _Watched(change.service, change.at_ns, features)
        for table, limit in ((self.services, self.config.max_services), (self.watched, self.config.max_watched)):
            while len(table) > limit:
                del table[next(iter(table))]
                self.dropped += 1


def _log_odds(probability: float) -> float:
    return math.log(probability / (1 - probability))


def _reasons(moved: dict[str, float], said: dict[str, str]) -> tuple[str, ...]:
    """The features that moved the log odds most; those that lowered the risk say so."""
    ranked = sorted(moved.items(), key=lambda one: (-abs(one[1]), one[0]))
    told = [f"{said[name]}{'' if by > 0 else ' (lowers the risk)'}" for name, by in ranked if abs(by) >= _TOLD]
    return tuple(dict.fromkeys(told))[:_MOST_REASONS] or ("nothing about it stands out",)
