"""Change events as CloudEvents 1.0 that carry CDEvents: deploys, rollbacks and configuration changes."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import numpy as np

ChangeEvent = dict[str, Any]


class ChangeFeed:
    """Makes events with seeded ids, in order of time."""

    def __init__(self, environment: str, namespace: str, seed: int) -> None:
        self._environment = environment
        self._namespace = namespace
        self._rng = np.random.default_rng([seed, 23])

    def deployed(self, at_ns: int, service: str, version: str, *, rollback: bool = False) -> ChangeEvent:
        """A service runs another version from now on."""
        predicate = "rolledback" if rollback else "upgraded"
        content = {"environment": {"id": self._environment}, "artifactId": f"pkg:oci/{service}@{version}"}
        detail = f"roll back {service} to {version}" if rollback else f"deploy {service} {version}"
        subject = {"id": service, "type": "service", "content": content}
        return self._event(at_ns, f"dev.cdevents.service.{predicate}.0.3.0", service, subject, {"detail": detail})

    def configured(self, at_ns: int, service: str, detail: str) -> ChangeEvent:
        """A setting of a service was changed in its environment."""
        subject = {"id": self._environment, "type": "environment", "content": {"name": self._environment}}
        custom = {"service": service, "detail": detail}
        return self._event(at_ns, "dev.cdevents.environment.modified.0.3.0", self._environment, subject, custom)

    def _event(self, at_ns: int, kind: str, about: str, subject: dict[str, Any], custom: dict[str, str]) -> ChangeEvent:
        identifier = str(uuid.UUID(bytes=self._rng.bytes(16), version=4))
        source = f"/{self._environment}/deployer"
        subject = {"id": subject["id"], "source": source, "type": subject["type"], "content": subject["content"]}
        seconds, nanos = divmod(at_ns, 1_000_000_000)
        time = f"{dt.datetime.fromtimestamp(seconds, tz=dt.UTC):%Y-%m-%dT%H:%M:%S}.{nanos // 1_000_000:03d}Z"
        context = {"version": "0.4.1", "id": identifier, "source": source, "type": kind, "timestamp": time}
        return {
            "specversion": "1.0",
            "id": identifier,
            "source": source,
            "type": kind,
            "time": time,
            "subject": about,
            "datacontenttype": "application/json",
            "data": {
                "context": context,
                "subject": subject,
                "customData": custom | ({"service.namespace": self._namespace} if self._namespace else {}),
            },
        }
