"""``docs/operations.md`` lists the metrics that there are, and rules that only name those."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from prometheus_client import Counter

from flows.observe import Telemetry

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")


def exported() -> dict[str, list[str]]:
    """Names as Prometheus sees them, with labels."""
    collectors = Telemetry({}).registry._collector_to_names
    found = {}
    for one in collectors:
        name = getattr(one, "_name", "")
        if name.startswith("mendstream_"):
            found[name + "_total" if isinstance(one, Counter) else name] = list(one._labelnames)
    return found


def test_every_metric_is_listed_with_its_labels_and_no_other() -> None:
    rows = re.findall(r"^\| `(mendstream_\w+)` \| ([^|]+) \|", PAGE, re.MULTILINE)
    told = {name: [] if labels == "-" else labels.split(", ") for name, labels in rows}
    assert told == exported()


def test_the_rules_are_yaml_and_name_metrics_that_exist() -> None:
    blocks = [block for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if "alert" in block]
    rules = [rule for block in blocks for group in yaml.safe_load(block)["groups"] for rule in group["rules"]]
    assert rules
    for rule in rules:
        assert set(re.findall(r"mendstream_\w+", rule["expr"])) <= set(exported())
