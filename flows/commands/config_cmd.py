"""``mendstream config``: check settings, show what is in force, and document every key from the models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from flows.commands.common import ConfigOption, consoles, remedies, settings_from

app = typer.Typer(no_args_is_help=True, help="Check and explain the settings.")


@app.command()
def check(config: Annotated[Path | None, typer.Argument(help="Settings file (YAML).")] = None) -> None:
    """Check a settings file, with the policy and playbooks it names; every mistake is told with its key."""
    from detectors.river_models import RiverPanel
    from flows.replay import decider_of

    output, _ = consoles()
    settings = settings_from(config)
    with remedies():
        RiverPanel(settings.detectors.river)
        decider_of(settings)
    output.print(f"{config or 'defaults'}: fine ({settings.digest})", highlight=False, markup=False)


@app.command()
def show(config: ConfigOption = None) -> None:
    """Print the settings in force as YAML: defaults, file and environment put together; secrets masked."""
    import yaml

    values = settings_from(config).model_dump(mode="json")
    typer.echo(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), nl=False)


@app.command()
def example() -> None:
    """Print a commented settings file with every key at its default."""
    typer.echo(example_text(), nl=False)


@app.command()
def docs() -> None:
    """Print the reference of every key (docs/configuration.md is made by this)."""
    typer.echo(reference_text(), nl=False)


def reference_text() -> str:
    """The reference as Markdown, made from the models."""
    from flows.settings import ENV_PREFIX, Settings

    lines = [
        "# Configuration",
        "",
        "Made by `mendstream config docs` from the settings models; do not edit by hand.",
        "",
        "One YAML file (`--config FILE` or `MENDSTREAM_CONFIG`). An environment variable overrides each key: "
        f"`{ENV_PREFIX}` and the key in capitals with `__` between its parts: `{ENV_PREFIX}STREAM__BUCKET_S=30`. "
        "`mendstream config check FILE` names every mistake by its key.",
        "",
    ]
    top = [(name, info) for name, info in Settings.model_fields.items() if _model(info.annotation) is None]
    lines += ["| key | default | meaning |", "|---|---|---|", *(_row(name, info) for name, info in top), ""]
    for name, info in Settings.model_fields.items():
        model = _model(info.annotation)
        if model is not None:
            lines += _section(name, model)
    return "\n".join(lines)


def example_text() -> str:
    """A settings file with every key at its default, its meaning beside it."""
    from flows.settings import Settings

    return "\n".join(_example(Settings, 0)) + "\n"


def _section(path: str, model: type[BaseModel]) -> list[str]:
    lines = [f"## {path}", "", (model.__doc__ or "").strip().splitlines()[0], ""]
    plain = [(name, info) for name, info in model.model_fields.items() if _model(info.annotation) is None]
    if plain:
        lines += ["| key | default | meaning |", "|---|---|---|"]
        lines += [_row(f"{path}.{name}", info) for name, info in plain]
        lines.append("")
    for name, info in model.model_fields.items():
        inner = _model(info.annotation)
        if inner is not None:
            lines += _section(f"{path}.{name}", inner)
    return lines


def _row(path: str, info: Any) -> str:  # noqa: ANN401 - pydantic's FieldInfo
    default = _default(info).replace("|", "\\|")
    meaning = (info.description or "").replace("|", "\\|")
    return f"| `{path}` | `{default}` | {meaning} |"


def _default(info: Any) -> str:  # noqa: ANN401 - pydantic's FieldInfo
    """The default as it would stand in YAML; one that depends on the machine is named, not shown."""
    if info.default_factory is not None and info.default is PydanticUndefined:
        made = info.default_factory
        return "[]" if made is list else "{}" if made is dict else "(this host)"
    return _yaml(info.default)


def _yaml(value: Any) -> str:  # noqa: ANN401 - any default
    import yaml

    if isinstance(value, Path):
        return value.name if value.is_absolute() else str(value)
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    elif isinstance(value, list):
        value = [
            one.model_dump(mode="json", exclude_defaults=True) if isinstance(one, BaseModel) else one for one in value
        ]
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True).strip()
    return str(text.removesuffix("...").strip())


def _model(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401 - any annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = [one for one in get_args(annotation) if isinstance(one, type) and issubclass(one, BaseModel)]
    return inner[0] if inner and type(None) in get_args(annotation) else None


def _example(model: type[BaseModel], indent: int) -> list[str]:
    pad, lines = "  " * indent, []
    for name, info in model.model_fields.items():
        inner = _model(info.annotation)
        if inner is not None:
            lines += [f"{pad}{name}:", *_example(inner, indent + 1)]
        else:
            value = _default(info)
            shown = f"{pad}{name}: {value}" if value != "(this host)" else f"{pad}# {name}: this host's name"
            lines.append(f"{shown}  # {info.description}" if info.description else shown)
    return lines
