"""``docs/configuration.md`` is what the settings models say."""

from __future__ import annotations

from pathlib import Path

from flows.commands.config_cmd import reference_text

DOCUMENT = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_the_reference_of_the_settings_is_up_to_date() -> None:
    told = DOCUMENT.read_text(encoding="utf-8").rstrip()
    assert told == reference_text().rstrip(), "run `make docs`"
