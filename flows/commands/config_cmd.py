"""``mendstream config``: check settings, show what is in force, and document every key from the models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from flows.commands.common import ConfigOption, consoles, remedies, settings_from

app = typer.Typer(no_args_is_help=True, help="Check and explain the settings.")


@app.command()
def check(config: Annotated[Path | None, typer.Argument(help="Settings file (YAML).")] = None) -> None:
    """Check a settings file, with the policy and playbooks it names; every mistake is told with its key.

    mendstream config check mendstream.yaml
    """
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
    """Print the settings in force as YAML: defaults, file and environment put together; secrets masked.

    mendstream config show --config mendstream.yaml
    """
    import yaml

    values = settings_from(config).model_dump(mode="json")
    typer.echo(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), nl=False)


@app.command()
def example() -> None:
    """Print a commented settings file with every key at its default.

    mendstream config example > mendstream.yaml
    """
    typer.echo(example_text(), nl=False)


@app.command()
def docs() -> None:
    """Print the reference of every key (docs/configuration.md is made by this).

    mendstream config docs > docs/configuration.md
    """
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
    defaults = _defaults()
    parts = {name: value for name, value in defaults.items() if isinstance(value, BaseModel)}
    lines += ["| key | default | meaning |", "|---|---|---|"]
    lines += [_row(name, info, defaults[name]) for name, info in Settings.model_fields.items() if name not in parts]
    lines.append("")
    for name, value in parts.items():
        lines += _section(name, value)
    return "\n".join(lines)


def example_text() -> str:
    """A settings file with every key at its default, its meaning beside it."""
    from flows.settings import Settings

    return "\n".join(_example(_defaults(), Settings, 0)) + "\n"


def _defaults() -> dict[str, Any]:
    """The defaults of the top level, whatever the environment of this process says."""
    from flows.settings import Settings

    return {name: info.get_default(call_default_factory=True) for name, info in Settings.model_fields.items()}


def _section(path: str, values: BaseModel) -> list[str]:
    """The table of one part, and those of the parts below it; ``values`` are its defaults."""
    model, defaults = type(values), dict(values)
    parts = {name: value for name, value in defaults.items() if isinstance(value, BaseModel)}
    lines = [f"## {path}", "", (model.__doc__ or "").strip().splitlines()[0], ""]
    plain = [(name, info) for name, info in model.model_fields.items() if name not in parts]
    if plain:
        lines += ["| key | default | meaning |", "|---|---|---|"]
        lines += [_row(f"{path}.{name}", info, defaults[name]) for name, info in plain]
        lines.append("")
    for name, value in parts.items():
        lines += _section(f"{path}.{name}", value)
    return lines


def _row(path: str, info: FieldInfo, default: Any) -> str:  # noqa: ANN401 - any default
    cells = (f"`{path}`", f"`{_yaml(default)}`", info.description or "")
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _yaml(value: Any) -> str:  # noqa: ANN401 - any default
    """A value as it would stand in YAML, on one line; of a file that is shipped, its name alone."""
    import yaml

    if isinstance(value, Path) and value.is_absolute():
        return value.name
    if isinstance(value, list):
        value = [one.model_dump(exclude_defaults=True) if isinstance(one, BaseModel) else one for one in value]
    plain = to_jsonable_python(value)
    text = yaml.safe_dump(plain, default_flow_style=True, width=10_000, allow_unicode=True).strip()
    return str(text.removesuffix("...").strip())


def _example(values: Mapping[str, Any], model: type[BaseModel], indent: int) -> list[str]:
    """Lines for each key of a model, with these values; what is shipped with the program is commented out."""
    pad, lines = "  " * indent, []
    for name, info in model.model_fields.items():
        value, about = values[name], info.description or ""
        if isinstance(value, BaseModel):
            lines += [f"{pad}{name}:{f'  # {about}' if about else ''}", *_example(dict(value), type(value), indent + 1)]
        elif isinstance(value, Path) and value.is_absolute():
            lines.append(f"{pad}# {name}: {_yaml(value)}  # {about}; as shipped when left out")
        else:
            lines.append(f"{pad}{name}: {_yaml(value)}{f'  # {about}' if about else ''}")
    return lines
