"""Typed parameters of playbooks: the only way for text from telemetry to reach a runner.

A parameter is JSON Schema with a ``from`` expression that says where its value comes from. Text must match a pattern,
``SAFE_NAME`` unless the playbook says otherwise, and never holds a control character, whatever the pattern allows.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import jsonschema
from pydantic import AfterValidator, Field, model_validator

from remediation.cel import ConditionError, Plain, compile_condition
from remediation.policy import DECISION_SCOPE
from remediation.values import Document

#: Names of services, instances and versions; a leading dash or dot would read as an option or as a path.
SAFE_NAME: Final = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,252}$"

Params = dict[str, Plain]


class ParameterError(ValueError):
    """Parameters were refused; the message names the parameter and quotes its value safely."""


def _checked_source(text: str) -> str:
    compile_condition(text, DECISION_SCOPE)
    return text


class Parameter(Document):
    """One typed parameter."""

    type: Literal["string", "integer", "number", "boolean"]
    description: str = ""
    required: bool = False
    from_: Annotated[str, AfterValidator(_checked_source)] | None = Field(
        default=None, alias="from", description="CEL over playbook, target, candidate, incident, blast"
    )
    default: Plain | None = None
    enum: list[Plain] | None = Field(default=None, min_length=1)
    pattern: str | None = Field(
        default=None, description=f"Strings only; {SAFE_NAME} where neither it nor enum is given"
    )
    minimum: float | None = None
    maximum: float | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Parameter:
        if self.type != "string" and self.pattern is not None:
            raise ValueError(f"'pattern' is for strings, not for type {self.type!r}; use minimum and maximum")
        if self.pattern is not None:
            if not (self.pattern.startswith("^") and self.pattern.endswith("$")):
                raise ValueError(f"pattern {self.pattern!r} is not anchored; write ^…$ so that it binds the whole text")
            try:
                re.compile(self.pattern)
            except re.error as error:
                raise ValueError(f"pattern {self.pattern!r} is no regular expression: {error}") from error
        if self.type not in {"integer", "number"} and (self.minimum is not None or self.maximum is not None):
            raise ValueError(f"'minimum' and 'maximum' are for numbers, not for type {self.type!r}")
        if self.default is not None:
            try:
                validate({"default": self}, {"default": self.default})
            except ParameterError as error:
                raise ValueError(f"its default is refused by itself: {error}") from error
        return self

    def json_schema(self) -> dict[str, Any]:
        """This parameter as a JSON Schema."""
        schema: dict[str, Any] = {"type": self.type}
        if self.type == "string" and self.enum is None:
            schema["pattern"] = self.pattern or SAFE_NAME
        keywords = (("enum", self.enum), ("minimum", self.minimum), ("maximum", self.maximum))
        schema.update({keyword: value for keyword, value in keywords if value is not None})
        if self.pattern is not None:
            schema["pattern"] = self.pattern
        return schema


def validate(parameters: Mapping[str, Parameter], values: Mapping[str, Any]) -> None:
    """Check values against their parameters.

    Raises:
        ParameterError: for an unknown or missing parameter, a wrong type, a pattern that does not match, or text with
            control or invisible characters.

    >>> validate({"service": Parameter(type="string")}, {"service": "$(touch x)"})
    Traceback (most recent call last):
    remediation.params.ParameterError: service: '$(touch x)' does not match '^[A-Za-z0-9_][A-Za-z0-9._-]{0,252}$'
    """
    for name, value in values.items():
        # Python's $ also matches before a final newline, and a pattern may be written too widely.
        if isinstance(value, str) and any(
            unicodedata.category(character)[0] in "CZ" and character != " " for character in value
        ):
            raise ParameterError(f"{name}: {_quoted(value)} holds a control or invisible character")
    schema = {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: parameter.json_schema() for name, parameter in parameters.items()},
        "required": sorted(name for name, parameter in parameters.items() if parameter.required),
    }
    errors = sorted(
        jsonschema.Draft202012Validator(schema).iter_errors(dict(values)), key=lambda error: error.json_path
    )
    if errors:
        path = ".".join(str(part) for part in errors[0].absolute_path)
        raise ParameterError(_worded(path, errors[0]))


def _worded(path: str, error: jsonschema.ValidationError) -> str:
    if error.validator == "pattern":
        return f"{path}: {_quoted(str(error.instance))} does not match {error.validator_value!r}"
    message = error.message if len(error.message) <= 300 else error.message[:300] + "…"
    return f"{path}: {message}" if path else message


def _quoted(text: str) -> str:
    return ascii(text if len(text) <= 80 else text[:80] + "…")


def fill(parameters: Mapping[str, Parameter], context: Mapping[str, Any]) -> Params:
    """Values for a playbook's parameters, from their ``from`` expressions, then their defaults; validated.

    An expression without an answer, or with an empty one, falls back to the default.

    Raises:
        ParameterError: when a required value is missing or any value is refused.
    """
    values: Params = {}
    for name, parameter in parameters.items():
        value: Plain | None = None
        if parameter.from_ is not None:
            try:
                value = compile_condition(parameter.from_, DECISION_SCOPE).value(context)
            except ConditionError:
                value = None
        if value is None or value == "":
            value = parameter.default
        if value is not None:
            values[name] = value
    validate(parameters, values)
    return values
