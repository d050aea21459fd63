"""One configuration for every command: a YAML file, environment variables above it, defaults below.

Every room describes its own part; here they are only put together. A mistake is answered with the key and what to do.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, Final, Literal

import orjson
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from connectors.config import KafkaConfig
from detectors.config import DetectorsConfig
from detectors.span_config import SpanBehaviourConfig
from incidents.config import IncidentConfig
from remediation.config import RemediationConfig
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


class Settings(BaseSettings):
    """All settings of Mendstream."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=ENV_PREFIX, env_nested_delimiter="__", case_sensitive=False
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
    remediation: RemediationConfig = RemediationConfig()
    observe: ObserveSettings = ObserveSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the library's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the library's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the library's signature
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment variables win over the file, which is given as init values."""
        return env_settings, init_settings

    @property
    def digest(self) -> str:
        """sha256 of what decides results: connection, ports, paths and log level left out."""
        told = self.model_dump(
            mode="json", include={"environment", "stream", "assembly", "detectors", "behaviour", "ranking", "incidents"}
        )
        for name in ("recovery_dir", "snapshot_s"):
            told["stream"].pop(name)
        return "sha256:" + hashlib.sha256(orjson.dumps(told, option=orjson.OPT_SORT_KEYS)).hexdigest()


def load_settings(path: Path | None = None) -> Settings:
    """Read the configuration: ``path``, else the file that MENDSTREAM_CONFIG names, else defaults.

    Raises:
        SettingsError: the file is missing, is not YAML, or holds a key or value that cannot be used.
    """
    named = os.environ.get(FILE_VARIABLE)
    path = path or (Path(named) if named else None)
    values = _read(path) if path else {}
    try:
        return Settings(**values)
    except ValidationError as error:
        raise SettingsError(_explain(error, str(path) if path else "environment")) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"{path}: there is no such file; `mendstream config example` prints one") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise SettingsError(f"{path}{where}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise SettingsError(f"{path}: the top level must be a mapping of settings, not {type(loaded).__name__}")
    return loaded


def _explain(error: ValidationError, file: str) -> str:
    """One line per mistake: where, what, and for a misspelt key which ones there are."""
    lines = []
    for one in error.errors(include_url=False):
        key = ".".join(str(part) for part in one["loc"])
        text = one["msg"]
        if one["type"] == "extra_forbidden":
            text = f"no such setting; here there are {', '.join(_siblings(one['loc']))}"
        lines.append(f"{file}: {key}: {text}")
    return "\n".join(lines)


def _siblings(location: tuple[int | str, ...]) -> list[str]:
    model: Any = Settings
    for part in location[:-1]:
        field = getattr(model, "model_fields", {}).get(str(part))
        model = field.annotation if field else None
    return sorted(getattr(model, "model_fields", {}))
