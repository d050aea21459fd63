"""The JSON Schemas in docs/schemas are those of the models, and the models' events validate against them."""

from __future__ import annotations

import json

import jsonschema
import pytest
import yaml

from remediation.schemas import FOLDER, MODELS, schema_text


@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_file_is_what_the_model_says(name):
    path = FOLDER / f"{name}.json"
    assert path.read_text(encoding="utf-8") == schema_text(name), "run: python -m remediation.schemas"


def _validate(name, document):
    schema = json.loads(schema_text(name))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(document)


def test_events_validate_against_their_schemas(bench, make_event):
    subject = bench("rules: [{name: all, match: 'true', decision: auto}]")
    _validate("root_cause.v1", make_event().to_json())
    (intent,) = subject.decide()
    _validate("remediation_intent.v1", intent.to_json())
    (outcome,) = subject.executor.tick()
    _validate("remediation_outcome.v1", outcome.to_json())


@pytest.mark.parametrize(
    ("name", "file"),
    [("remediation_policy.v1", "policy.yaml")]
    + [("playbook.v1", f"{name}.yaml") for name in ("restart-instance", "rollback-deploy", "scale-out")],
)
def test_the_library_validates_against_the_schemas(name, file):
    from remediation.config import LIBRARY

    document = yaml.load((LIBRARY / file).read_text(encoding="utf-8"), yaml.BaseLoader)  # noqa: S506 - text only
    schema = json.loads(schema_text(name))
    # BaseLoader leaves every scalar text, so only structure and names are compared here.
    errors = jsonschema.Draft202012Validator(schema).iter_errors(document)
    assert [error.message for error in errors if error.validator in {"additionalProperties", "required"}] == []
