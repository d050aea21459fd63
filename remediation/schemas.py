"""JSON Schemas of the documents and events, generated from their models: ``python -m remediation.schemas [DIR]``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from incidents.model import RootCauseEvent
from remediation.intents import Intent, Outcome
from remediation.playbook import Playbook
from remediation.policy import Policy

FOLDER: Final = Path(__file__).parents[1] / "docs" / "schemas"
MODELS: Final[dict[str, type[BaseModel]]] = {
    "playbook.v1": Playbook,
    "remediation_intent.v1": Intent,
    "remediation_outcome.v1": Outcome,
    "remediation_policy.v1": Policy,
    "root_cause.v1": RootCauseEvent,
}


def schema_text(name: str) -> str:
    """One schema as the file holds it."""
    stem, version = name.rsplit(".", 1)
    schema = MODELS[name].model_json_schema(by_alias=True)
    identified = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"mendstream:schemas/{stem}/{version}",
        **schema,
    }
    return json.dumps(identified, indent=2, ensure_ascii=False) + "\n"


def write(folder: Path = FOLDER) -> list[Path]:
    """Write every schema. The files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in sorted(MODELS):
        path = folder / f"{name}.json"
        path.write_text(schema_text(name), encoding="utf-8")
        paths.append(path)
    return paths


if __name__ == "__main__":
    for written in write(*(Path(argument) for argument in sys.argv[1:2])):
        sys.stdout.write(f"{written}\n")
