"""Settings of the Kafka connection: brokers, topics and their encodings, limits of polls, lateness and idleness."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from signals.otlp import Encoding
from signals.schema import Signal

_TopicName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class OtlpTopic(_Model):
    """One input topic of OTLP telemetry."""

    name: _TopicName = Field(description="Topic name")
    encoding: Encoding = Field(default=Encoding.OTLP_PROTO, description="otlp_proto or otlp_json")


class Topics(_Model):
    """Topics read and written; null turns an input off."""

    spans: OtlpTopic | None = Field(default=OtlpTopic(name="otlp_spans"), description="Traces, as the Collector writes")
    logs: OtlpTopic | None = Field(default=OtlpTopic(name="otlp_logs"), description="Log records")
    metrics: OtlpTopic | None = Field(default=OtlpTopic(name="otlp_metrics"), description="Metrics")
    changes: _TopicName | None = Field(default="changes", description="CloudEvents that carry CDEvents")
    root_causes: _TopicName = Field(default="root_causes", description="Incident revisions, written")
    remediation_intents: _TopicName = Field(default="remediation_intents", description="Intents, written")
    remediation_outcomes: _TopicName = Field(default="remediation_outcomes", description="Outcomes, written and read")
    dead_letters: _TopicName = Field(default="dead_letters", description="Messages that could not be decoded, written")

    def inputs(self) -> list[tuple[Signal, str, Encoding | None]]:
        """Signal, topic and encoding (None for changes) of every input that is on, in a fixed order."""
        otlp = {Signal.SPANS: self.spans, Signal.LOGS: self.logs, Signal.METRICS: self.metrics}
        found: list[tuple[Signal, str, Encoding | None]] = [
            (signal, topic.name, topic.encoding) for signal, topic in otlp.items() if topic is not None
        ]
        if self.changes is not None:
            found.append((Signal.CHANGES, self.changes, None))
        return found


class KafkaConfig(_Model):
    """How to reach Kafka and how to read from it."""

    bootstrap_servers: list[str] = Field(
        default=["127.0.0.1:9092"],
        min_length=1,
        description="host:port of some brokers; a comma-separated text also does",
    )
    client_id: str = Field(default="mendstream", description="Name shown in the brokers' logs and quotas")
    topics: Topics = Field(default=Topics(), description="Input and output topics")
    missing_topics: Literal["fail", "ignore", "create"] = Field(
        default="fail", description="What to do about an input topic that does not exist"
    )
    new_topic_partitions: int = Field(default=1, ge=1, description="Partitions of a topic that is created")

    auto_offset_reset: Literal["earliest", "latest"] = Field(
        default="latest", description="Where the very first start begins; a resume continues where it stopped"
    )
    on_offset_out_of_range: Literal["fail", "earliest"] = Field(
        default="fail", description="When the offset to continue at has expired: stop with an error, or lose the gap"
    )
    max_poll_records: int = Field(default=2_000, ge=1, description="Messages in one poll of one partition, at most")
    max_poll_bytes: int = Field(
        default=4_194_304,
        ge=1_024,
        description="Bytes of messages in one poll of one partition, about; one message may exceed it",
    )
    poll_interval_ms: int = Field(default=50, ge=1, le=10_000, description="Pause between polls that found nothing, ms")

    idle_timeout_s: float = Field(
        default=15.0,
        gt=0,
        description="Silence at its end after which a partition no longer holds others back, seconds",
    )
    allowed_lateness_s: float = Field(default=10.0, ge=0, description="Disorder allowed within a partition, seconds")
    max_ahead_s: float = Field(
        default=120.0, gt=0, description="Event time one partition may run ahead of the slowest of its process, seconds"
    )
    max_future_s: float = Field(
        default=300.0,
        gt=0,
        description="Rows further ahead of their message's timestamp are dropped and counted, seconds",
    )

    max_message_bytes: int = Field(default=1_048_576, ge=1_024, description="Largest message written, bytes")
    compression: Literal["none", "gzip", "lz4", "zstd"] = Field(default="zstd", description="Of messages written")
    delivery_timeout_s: float = Field(
        default=60.0, gt=0, description="A message undelivered for so long is an error, seconds"
    )

    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT", description="How to talk to the brokers"
    )
    sasl_mechanism: Literal["PLAIN", "GSSAPI", "OAUTHBEARER", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        default=None, description="With SASL_*: the mechanism"
    )
    sasl_plain_username: str | None = Field(default=None, description="User for PLAIN and SCRAM")
    sasl_plain_password: SecretStr | None = Field(default=None, description="Password for PLAIN and SCRAM")
    ssl_cafile: str | None = Field(default=None, description="CA certificates, PEM file")
    ssl_certfile: str | None = Field(default=None, description="Client certificate, PEM file")
    ssl_keyfile: str | None = Field(default=None, description="Client key, PEM file")
    ssl_password: SecretStr | None = Field(default=None, description="Password of the client key")
    ssl_check_hostname: bool = Field(default=True, description="Whether the broker's certificate must name its host")
    client_options: dict[str, Any] = Field(
        default_factory=dict, description="Further kafka-python settings for every client, as they are"
    )
    consumer_options: dict[str, Any] = Field(
        default_factory=dict, description="Further kafka-python settings for consumers, e.g. isolation_level"
    )
    producer_options: dict[str, Any] = Field(
        default_factory=dict, description="Further kafka-python settings for producers, e.g. linger_ms"
    )

    @field_validator("bootstrap_servers", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    def changed(self, **fields: object) -> KafkaConfig:
        """The same settings with some fields replaced, validated like any others."""
        return KafkaConfig.model_validate({name: getattr(self, name) for name in type(self).model_fields} | fields)

    def connection(self) -> dict[str, Any]:
        """Settings that consumers, producers and admin clients of kafka-python share."""
        options: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap_servers,
            "client_id": self.client_id,
            "security_protocol": self.security_protocol,
            "ssl_check_hostname": self.ssl_check_hostname,
        }
        optional = {
            "sasl_mechanism": self.sasl_mechanism,
            "sasl_plain_username": self.sasl_plain_username,
            "sasl_plain_password": _reveal(self.sasl_plain_password),
            "ssl_cafile": self.ssl_cafile,
            "ssl_certfile": self.ssl_certfile,
            "ssl_keyfile": self.ssl_keyfile,
            "ssl_password": _reveal(self.ssl_password),
        }
        options.update({key: value for key, value in optional.items() if value is not None})
        return options | self.client_options


def _reveal(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()
