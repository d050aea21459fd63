"""Who a signal is about: environment, namespace, service, and below it an instance and an operation.

Names follow OpenTelemetry's semantic conventions; deprecated spellings are accepted on the way in (``signals.otlp``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: Resource attributes in order of preference for each part of an entity.
ENVIRONMENT_KEYS: Final = ("deployment.environment.name", "deployment.environment")
NAMESPACE_KEYS: Final = ("service.namespace", "k8s.namespace.name")
SERVICE_KEYS: Final = ("service.name",)
INSTANCE_KEYS: Final = ("service.instance.id", "k8s.pod.name", "host.name")
VERSION_KEYS: Final = ("service.version",)
UNKNOWN_SERVICE: Final = "unknown_service"


@dataclass(frozen=True, slots=True, order=True)
class Entity:
    """What an anomaly, a candidate or a target is.

    >>> Entity("prod", "shop", "payment").to_attributes()
    {'deployment.environment.name': 'prod', 'service.namespace': 'shop', 'service.name': 'payment'}
    """

    environment: str
    namespace: str
    service: str
    instance: str = ""
    operation: str = ""

    def to_attributes(self) -> dict[str, str]:
        """OpenTelemetry attributes; parts that are empty are left out."""
        pairs = {
            "deployment.environment.name": self.environment,
            "service.namespace": self.namespace,
            "service.name": self.service,
            "service.instance.id": self.instance,
            "mendstream.operation": self.operation,
        }
        return {key: value for key, value in pairs.items() if value}

    @property
    def parent(self) -> Entity:
        """The service this entity belongs to."""
        return Entity(self.environment, self.namespace, self.service)
