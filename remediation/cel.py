"""Conditions of policies and playbooks: CEL, checked against a typed scope when the document is loaded.

A scope says which names a condition may use and, where they are fixed, which fields those have; a misspelt name is
found at load and not in an incident. Compiled once per text; evaluation costs about a millisecond, at the rate of
incident revisions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, TypeAlias

import celpy
from celpy.adapter import json_to_cel
from celpy.celparser import CELParseError
from celpy.evaluation import CELEvalError, base_functions
from lark import Token, Tree

#: Names a condition may use, each with its fields; None where they are open (attributes of a target).
Scope: TypeAlias = tuple[tuple[str, frozenset[str] | None], ...]
Node: TypeAlias = Tree[Any]
Plain: TypeAlias = str | int | float | bool

_MACROS: Final = frozenset({"all", "exists", "exists_one", "filter", "map", "reduce", "min"})
_FUNCTIONS: Final = frozenset(name for name in base_functions if name.isidentifier()) | {"has", "dyn"}
_MAX_LENGTH: Final = 2_000
_TREE_DEPTH: Final = 32


class ConditionSyntaxError(ValueError):
    """A condition that is not CEL, or names what its scope does not have; the message carries the remedy."""


class ConditionError(ValueError):
    """A well-formed condition that has no answer for this context, e.g. for an attribute the target does not have."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One compiled expression."""

    text: str
    runner: celpy.Runner

    def value(self, context: Mapping[str, Any]) -> Plain:
        """Evaluate to a plain value (``str``, ``int``, ``float``, ``bool``).

        Raises:
            ConditionError: if it has no value in this context, or not a plain one.
        """
        try:
            activation = {name: json_to_cel(value) for name, value in context.items()}
            result = self.runner.evaluate(activation)
        except CELEvalError as error:
            raise ConditionError(f"{self.text!r} has no answer: {error.args[0] if error.args else error}") from error
        except (ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError) as error:
            raise ConditionError(f"{self.text!r} has no answer: {error}") from error
        if isinstance(result, celpy.celtypes.BoolType):
            return bool(result)
        plain: type[str] | type[int] | type[float]
        for plain in (str, int, float):
            if isinstance(result, plain):
                return plain(result)
        raise ConditionError(f"{self.text!r} gives {type(result).__name__}; it must be text, a number or a boolean")

    def test(self, context: Mapping[str, Any]) -> bool:
        """Evaluate to true or false. Raises ``ConditionError`` as ``value`` does, and for any other type."""
        result = self.value(context)
        if not isinstance(result, bool):
            raise ConditionError(f"{self.text!r} gives {result!r}; a condition must be true or false")
        return result


@lru_cache(maxsize=4096)
def compile_condition(text: str, scope: Scope) -> Condition:
    """Compile and check an expression.

    Raises:
        ConditionSyntaxError: for bad syntax (with the column), and for names, fields and functions out of scope.

    >>> where = (("playbook", frozenset({"id"})), ("target", None))
    >>> condition = compile_condition('playbook.id == "restart" && target["service.name"] != "ledger"', where)
    >>> condition.test({"playbook": {"id": "restart"}, "target": {"service.name": "payment"}})
    True
    >>> compile_condition("playbook.name == 'x'", where)
    Traceback (most recent call last):
    remediation.cel.ConditionSyntaxError: playbook has no field 'name'; it has id
    """
    if len(text) > _MAX_LENGTH:
        raise ConditionSyntaxError(f"longer than {_MAX_LENGTH} characters; split it into several rules")
    environment = celpy.Environment()
    try:
        tree = environment.compile(text)
    except CELParseError as error:
        column = error.column if error.column is not None else 1
        raise ConditionSyntaxError(f"not CEL at character {column}: {text!r}") from error
    _check_names(tree, dict(scope))
    return Condition(text, environment.program(tree))


def _check_names(tree: Node, scope: Mapping[str, frozenset[str] | None]) -> None:
    bound = {name for call in tree.find_data("member_dot_arg") for name in _bound_by(call)}
    for ident in tree.find_data("ident"):
        name = str(ident.children[0])
        if name not in scope and name not in bound:
            raise ConditionSyntaxError(f"unknown name {name!r}; here are {', '.join(scope)}")
    for kind, index in (("ident_arg", 0), ("member_dot_arg", 1)):
        for call in tree.find_data(kind):
            function = str(call.children[index])
            if function not in _FUNCTIONS and function not in _MACROS:
                raise ConditionSyntaxError(f"unknown function {function!r}")
    for kind in ("dot_ident", "dot_ident_arg", "member_object"):
        if next(iter(tree.find_data(kind)), None) is not None:
            raise ConditionSyntaxError("messages and leading dots have no meaning here; use plain names")
    for member in tree.find_data("member_dot"):
        base, selected = _single_ident(member.children[0]), str(member.children[1])
        fields = scope.get(base) if base and base not in bound else None
        if fields is not None and selected not in fields:
            raise ConditionSyntaxError(f"{base} has no field {selected!r}; it has {', '.join(sorted(fields))}")


def _bound_by(call: Node) -> Iterator[str]:
    """Names that a macro such as ``exists(x, …)`` brings into its own body."""
    if str(call.children[1]) in _MACROS and len(call.children) > 2 and isinstance(call.children[2], Tree):
        first = call.children[2].children[0]
        name = _single_ident(first)
        if name:
            yield name


def _single_ident(node: Node | Token) -> str:
    """The name, when a subtree is nothing but one identifier; else ""."""
    for _ in range(_TREE_DEPTH):
        if not isinstance(node, Tree):
            return ""
        if node.data == "ident":
            return str(node.children[0])
        if len(node.children) != 1:
            return ""
        node = node.children[0]
    return ""
