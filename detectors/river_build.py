"""River models from configuration: dotted names below ``river.`` only, errors that name the key."""

from __future__ import annotations

import importlib
from typing import Any

from river import compose
from river.base import SupervisedAnomalyDetector

from detectors.base import OnTarget
from detectors.config import ConfigError, RiverModelConfig


def build(config: RiverModelConfig) -> Any:  # noqa: ANN401 - River's classes carry no types
    """The estimator of a configuration entry, behind its preprocessing steps.

    Raises:
        ConfigError: the name, its parameters or its features do not fit; says which key and what to do.
    """
    key = f"river.models[{config.name}]"
    estimator = _create(config.model, config.parameters, key)
    is_drift = hasattr(estimator, "update") and hasattr(estimator, "drift_detected")
    if is_drift != config.is_drift:
        raise ConfigError(
            f"{key}.model: {config.model!r} is not what its module promises: name it by river.drift.<Class>"
        )
    if is_drift and len(config.features) != 1:
        raise ConfigError(f"{key}.features: a drift detector watches one feature: name exactly one")
    if not is_drift and not (hasattr(estimator, "score_one") and hasattr(estimator, "learn_one")):
        raise ConfigError(f"{key}.model: {config.model!r} gives no scores: name an anomaly or drift detector")
    steps = [_create(step.model, step.parameters, f"{key}.preprocess") for step in config.preprocess]
    if is_drift and steps:
        raise ConfigError(f"{key}.preprocess: drift detectors take no preprocessing: remove it")
    for step, made in zip(config.preprocess, steps, strict=True):
        if not hasattr(made, "transform_one"):
            raise ConfigError(f"{key}.preprocess: {step.model!r} transforms nothing: name a transformer")
    if isinstance(estimator, SupervisedAnomalyDetector):
        if steps or len(config.features) != 1:
            raise ConfigError(f"{key}: {config.model!r} watches one value: name one feature and no preprocessing")
        return OnTarget(estimator)
    return compose.Pipeline(*steps, estimator) if steps else estimator


def _create(dotted: str, parameters: dict[str, Any], key: str) -> Any:  # noqa: ANN401 - River's classes carry no types
    made = _resolve(dotted, key)
    arguments = {
        name: _create(value["model"], value.get("parameters", {}), f"{key}.parameters.{name}")
        if isinstance(value, dict) and "model" in value
        else value
        for name, value in parameters.items()
    }
    try:
        return made(**arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{key}.parameters: {dotted} does not accept them: {error}") from error


def _resolve(dotted: str, key: str) -> type:
    module_name, _, class_name = dotted.rpartition(".")
    if not dotted.startswith("river.") or any(not part.isidentifier() or part[0] == "_" for part in dotted.split(".")):
        raise ConfigError(f"{key}.model: {dotted!r} is not below river.: write e.g. river.anomaly.HalfSpaceTrees")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{key}.model: River has no {dotted!r}: check the spelling against River's API") from error
    if not isinstance(found, type) or not found.__module__.startswith("river."):
        raise ConfigError(f"{key}.model: {dotted!r} is not one of River's classes: name a class")
    return found
