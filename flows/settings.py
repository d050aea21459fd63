"""One configuration for every command: a YAML file, environment variables above it, defaults below.

Every room describes its own part; here they are only put together. A mistake is answered with the key and what to do.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, Final, Literal, get_args

import orjson
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from connectors.config import KafkaConfig
from delivery.config import DeliveryConfig
from detectors.config import DetectorsConfig
from detectors.span_config import SpanBehaviourConfig
from incidents.config import IncidentConfig
from remediation.config import RemediationConfig
from remediation.documents import DocumentError, Marked, read
from topology.config import AssemblySettings, RankingSettings

ENV_PREFIX: Final = "MENDSTREAM__"
FILE_VARIABLE: Final = "MENDSTREAM_CONFIG"


class SettingsError(ValueError):
    """A configuration that cannot be used; the message names file and key."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StreamSettings(_Part):
    """Event-time buckets, shards and recovery."""

    bucket_s: float = Field(default=10.0, ge=1, le=3600, description="Event-time bucket, seconds")
    shards: int = Field(
        default=2,
        ge=1,
        le=256,
        description="Logical shards per stage, at least as many as processes; part of the result, keep it fixed",
    )
    recovery_dir: Path | None = Field(
        default=Path("mendstream-recovery"), description="Where live runs keep snapshots; null turns recovery off"
    )
    snapshot_s: float = Field(default=5.0, gt=0, description="Pause between snapshots of a live run, seconds")


class ObserveSettings(_Part):
    """The pipeline's own metrics, health and logs."""

    listen: str = Field(default="127.0.0.1", description="Address of /metrics, /healthz and /readyz")
    port: int = Field(default=9464, ge=0, le=65535, description="Their port; 0 turns them off")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Least level logged")
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="auto: console on a terminal, else JSON lines"
    )


class _Environment(EnvSettingsSource):
    """Environment variables whose values are YAML, as in the file: a list of brokers need not be JSON."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:  # noqa: ANN401, ARG002 - the library's signature
        """The value as YAML; what is none is left to validation, which names the key."""
        try:
            return yaml.safe_load(value)
        except yaml.YAMLError:
            return value


class Settings(BaseSettings):
    """All settings of Mendstream."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        env_parse_none_str="null",
        case_sensitive=False,
    )

    environment: str = Field(default="default", description="Environment of telemetry that names none")
    source: str = Field(default="/mendstream", description="CloudEvents source prefix of what is emitted")
    stream: StreamSettings = StreamSettings()
    kafka: KafkaConfig = KafkaConfig()
    assembly: AssemblySettings = AssemblySettings()
    detectors: DetectorsConfig = DetectorsConfig()
    behaviour: SpanBehaviourConfig = SpanBehaviourConfig()
    ranking: RankingSettings = RankingSettings()
    incidents: IncidentConfig = IncidentConfig()
    delivery: DeliveryConfig = DeliveryConfig()
    remediation: RemediationConfig = RemediationConfig()
    observe: ObserveSettings = ObserveSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the library's signature
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the library's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the library's signature
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment variables win over the file, which is given as init values."""
        return _Environment(settings_cls), init_settings

    @property
    def digest(self) -> str:
        """sha256 of what decides results, lateness among it: connection, ports, paths and log level left out."""
        parts = {"environment", "stream", "assembly", "detectors", "behaviour", "ranking", "incidents", "delivery"}
        told = self.model_dump(mode="json", include=parts)
        for name in ("recovery_dir", "snapshot_s"):
            told["stream"].pop(name)
        told["late"] = self.kafka.model_dump(include={"allowed_lateness_s", "idle_timeout_s", "max_future_s"})
        return "sha256:" + hashlib.sha256(orjson.dumps(told, option=orjson.OPT_SORT_KEYS)).hexdigest()


def load_settings(path: Path | None = None) -> Settings:
    """Read the configuration: ``path``, else the file that MENDSTREAM_CONFIG names, else defaults.

    Raises:
        SettingsError: the file is missing, is not YAML, or holds a key or value that cannot be used.
    """
    named = os.environ.get(FILE_VARIABLE)
    path = path or (Path(named) if named else None)
    _check_variables()
    marked = _read(path) if path else Marked("defaults", {})
    values: Any = marked.data
    try:
        return Settings(**values)
    except ValidationError as error:
        raise SettingsError(_explain(error, marked)) from None


def _read(path: Path) -> Marked:
    """The file's values and where they stand."""
    if not path.exists():
        raise SettingsError(f"{path}: there is no such file; `mendstream config example` prints one")
    try:
        marked = read(path)
    except DocumentError as error:
        raise SettingsError(str(error)) from None
    if marked.data is None:
        marked.data = {}
    if not isinstance(marked.data, dict):
        raise SettingsError(f"{path}: the top level must be a mapping of settings, not {type(marked.data).__name__}")
    for key in marked.data:
        if key.startswith("_"):  # the settings library takes these for options of its own
            raise SettingsError(str(marked.problem((key,), _no_such(Settings))))
    return marked


def _check_variables() -> None:
    """Refuse variables with the prefix that set nothing: a misspelt one would otherwise be passed over."""
    for variable in sorted(os.environ):
        if not variable.upper().startswith(ENV_PREFIX):
            continue
        model: Any = Settings
        for part in variable[len(ENV_PREFIX) :].lower().split("__"):
            fields = getattr(model, "model_fields", None)
            if fields is None:
                break  # below a mapping of free keys, or an error that validation will name
            if part not in fields:
                raise SettingsError(f"environment variable {variable}: {part!r}: {_no_such(model)}")
            model = _model_in(fields[part].annotation)


def _explain(error: ValidationError, marked: Marked) -> str:
    """One line per mistake: where, what, and for a misspelt key which ones there are."""
    lines = []
    for one in error.errors(include_url=False):
        location, text = one["loc"], one["msg"]
        if one["type"] == "extra_forbidden":
            text = _no_such(_model_at(location[:-1]))
        elif one["type"] in ("model_type", "model_attributes_type"):
            text = f"must be a mapping of settings: {', '.join(_names(_model_at(location)))}"
        variable = _variable_of(location)
        key = ".".join(str(part) for part in location)
        where = f"environment variable {variable}: {key}" if variable else ""
        lines.append(f"{where}: {text}" if variable else str(marked.problem(location, text)))
    return "\n".join(lines)


def _variable_of(location: tuple[int | str, ...]) -> str:
    """The environment variable that set the value at a location or above it, "" where none did."""
    variables = {name.upper(): name for name in os.environ}
    for size in range(len(location), 0, -1):
        wanted = ENV_PREFIX + "__".join(str(part) for part in location[:size]).upper()
        if wanted in variables:
            return variables[wanted]
    return ""


def _model_in(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401 - any annotation
    """The settings model of a field that is one, or may be one or null; None of any other field."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = [one for one in get_args(annotation) if isinstance(one, type) and issubclass(one, BaseModel)]
    return inner[0] if inner and type(None) in get_args(annotation) else None


def _model_at(location: tuple[int | str, ...]) -> type[BaseModel] | None:
    model: type[BaseModel] | None = Settings
    for part in location:
        field = model.model_fields.get(str(part)) if model else None
        model = _model_in(field.annotation) if field else None
    return model


def _names(model: type[BaseModel] | None) -> list[str]:
    return sorted(model.model_fields) if model else []


def _no_such(model: type[BaseModel] | None) -> str:
    return f"no such setting; here there are {', '.join(_names(model))}"
