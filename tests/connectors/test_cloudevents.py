"""Change events: every mode and kind that is read, and every kind of refusal."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.cloudevents import decode_change, encode_change, parse_time
from connectors.errors import CloudEventError
from signals.schema import CHANGES, Signal
from tests.support.telemetry import FRAMES

BASE = {"specversion": "1.0", "id": "e1", "source": "/ci", "type": "t", "time": "2023-11-14T22:13:20Z"}


def decoded(event, headers=(), **settings):
    value = event if isinstance(event, bytes | None) else orjson.dumps(event)
    return decode_change(value, headers, **({"default_environment": "dev"} | settings))


def cdevent(kind: str, subject: dict, **data):
    return BASE | {"type": f"dev.cdevents.{kind}", "data": {"subject": subject, **data}}


@pytest.mark.parametrize("predicate", ["deployed", "upgraded", "rolledback", "removed", "published"])
def test_service_events_name_the_service_its_environment_and_the_version_of_the_artifact(predicate):
    subject = {
        "id": "cart",
        "content": {"environment": {"id": "prod"}, "artifactId": "pkg:oci/cart@1.4.2?repository_url=registry.example"},
    }
    change = decoded(cdevent(f"service.{predicate}.0.3.0", subject))
    assert (change.service, change.environment, change.version) == ("cart", "prod", "1.4.2")
    assert change.detail == f"cart {predicate} 1.4.2"
    assert change.time_ns == 1_700_000_000_000_000_000


def test_details_that_people_wrote_and_the_instance_come_from_custom_data():
    custom = {"instance": "cart-7", "detail": "roll\n out\t  now\x00"}
    change = decoded(cdevent("service.upgraded.0.3.0", {"id": "cart"}, customData=custom))
    assert (change.instance, change.detail) == ("cart-7", "roll out now")


def test_environment_events_are_about_the_environment():
    change = decoded(cdevent("environment.modified.0.3.0", {"id": "prod-eu"}))
    assert (change.environment, change.service) == ("prod-eu", "unknown_service")


def test_artifact_events_name_the_package():
    change = decoded(cdevent("artifact.published.0.3.0", {"id": "pkg:oci/cart@sha256%3A0b1c?tag=2.0"}))
    assert (change.service, change.version) == ("cart", "2.0")


def test_events_of_other_types_are_read_by_the_usual_keys():
    data = {"service.name": "cart", "deployment.environment.name": "prod", "version": "7", "message": "flag on"}
    change = decoded(BASE | {"type": "com.example.flag", "data": data})
    assert (change.service, change.environment, change.version, change.detail) == ("cart", "prod", "7", "flag on")
    assert change.type == "com.example.flag"
    assert decoded(BASE | {"subject": "basket"}).service == "basket"


def test_what_is_not_said_gets_the_defaults():
    change = decoded(BASE)
    assert (change.environment, change.namespace, change.service) == ("dev", "", "unknown_service")


def test_binary_mode_reads_attributes_from_headers_and_data_from_the_value():
    headers = [(f"ce_{name}", value.encode()) for name, value in (BASE | {"subject": "a%20b"}).items()]
    assert decoded({"service": "cart"}, headers).service == "cart"
    assert decoded(None, headers).service == "a b"
    assert decoded(b"", [(name.upper().replace("CE_", "Ce_"), value) for name, value in headers]).service == "a b"


def test_an_event_without_a_time_takes_that_of_its_message():
    timeless = {name: value for name, value in BASE.items() if name != "time"}
    assert decoded(timeless, fallback_time_ns=5).time_ns == 5
    with pytest.raises(CloudEventError, match="no time"):
        decoded(timeless)


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (b"{", "not JSON"),
        (b"[]", "no object"),
        (b"", "empty"),
        (None, "empty"),
        (BASE | {"specversion": "0.3"}, "'0.3' is not 1.0"),
        ({name: value for name, value in BASE.items() if name != "id"}, "'id' is missing"),
        (BASE | {"type": 7}, "'type' is missing or no text"),
        (BASE | {"time": "yesterday"}, "not RFC 3339"),
        (BASE | {"time": "2023-02-31T00:00:00Z"}, "does not exist"),
        (BASE | {"time": "9999-01-01T00:00:00Z"}, "out of range"),
        (BASE | {"time": "1900-01-01T00:00:00Z"}, "out of range"),
    ],
)
def test_what_is_no_usable_event_is_refused_with_the_reason(event, reason):
    with pytest.raises(CloudEventError, match=reason):
        decoded(event)


def test_a_header_that_is_no_text_is_refused():
    with pytest.raises(CloudEventError, match="UTF-8"):
        decoded(b"", [("ce_type", b"\xff\xfe"), ("ce_specversion", b"1.0")])


def test_rows_survive_being_written_as_events():
    for row in FRAMES[Signal.CHANGES].to_dicts():
        change = decoded(encode_change(row, source="/x"))
        assert {name: getattr(change, name) for name in CHANGES} == row


def test_times_with_offsets_and_any_fraction_are_exact():
    assert parse_time("2023-11-14T23:13:20.1+01:00") == 1_700_000_000_100_000_000
    assert parse_time("2023-11-14t22:13:20.123456789123z") == 1_700_000_000_123_456_789


KEYS = ["subject", "id", "content", "environment", "customData", "mendstream", "artifactId", "x"]
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=8),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(KEYS), inner),
)


@given(ANY_JSON)
def test_data_of_any_shape_is_read_or_refused_and_never_crashes(data):
    for kind in ("dev.cdevents.service.deployed.0.3.0", "dev.cdevents.artifact.packaged.0.3.0", "dev.cdevents.", "x"):
        change = decoded(BASE | {"type": kind, "data": data})
        assert "\n" not in change.detail
