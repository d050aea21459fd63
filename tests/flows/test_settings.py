"""The configuration: every mistake is answered with its key, and what decides results has a digest."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from flows.settings import Settings, SettingsError, load_settings


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    """The variables of whoever runs the tests decide nothing here."""
    import os

    for name in os.environ:
        if name.upper().startswith("MENDSTREAM_"):
            monkeypatch.delenv(name)


@pytest.fixture
def load(tmp_path):
    def write_and_load(text: str | bytes) -> Settings:
        path = tmp_path / "mendstream.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_settings(path)

    return write_and_load


BROKEN = {
    "unknown section": ("strem: {shards: 2}", "1:1: strem: no such setting; here there are assembly, "),
    "unknown key": ("stream:\n  shard: 2", "2:3: stream.shard: no such setting; here there are bucket_s, "),
    "unknown key deep down": (
        "detectors:\n  series:\n    bank:\n      warmup: 2",
        "4:7: detectors.series.bank.warmup: no such",
    ),
    "too small": ("stream:\n  shards: 0", "2:3: stream.shards: Input should be greater than or equal to 1"),
    "too large": ("stream:\n  shards: 300", "2:3: stream.shards: Input should be less than or equal to 256"),
    "not a number": ("stream:\n  bucket_s: soon", "2:3: stream.bucket_s: Input should be a valid number"),
    "not a whole number": ("stream:\n  shards: 1.5", "2:3: stream.shards: Input should be a valid integer"),
    "not a finite number": ("incidents:\n  open_score: .nan", "2:3: incidents.open_score: "),
    "not of the choices": ("observe:\n  log_level: loud", "2:3: observe.log_level: Input should be 'debug', 'info'"),
    "not text": ("environment: [prod]", "1:1: environment: Input should be a valid string"),
    "not a list": ("kafka:\n  bootstrap_servers: 3", "2:3: kafka.bootstrap_servers: Input should be a valid list"),
    "empty list": ("kafka:\n  bootstrap_servers: []", "2:3: kafka.bootstrap_servers: List should have at least 1 item"),
    "section that is a value": ("stream: fast", "1:1: stream: must be a mapping of settings: bucket_s, "),
    "section left empty": ("stream:\n", "1:1: stream: must be a mapping of settings: bucket_s, "),
    "item of a list": (
        "detectors:\n  river:\n    models:\n      - {name: ok, model: m}\n      - {name: A B, model: m}",
        "5:10: detectors.river.models[1].name: String should match pattern",
    ),
    "missing in an item": (
        "detectors:\n  river:\n    models:\n      - {name: ok}",
        "4:9: detectors.river.models[0].model: Field required",
    ),
    "topic with odd characters": (
        "kafka:\n  topics:\n    changes: a b",
        "3:5: kafka.topics.changes: String should match pattern",
    ),
    "key given twice": ("stream:\n  shards: 1\n  shards: 2", "3:3: stream.shards: given twice (first on line 2)"),
    "key that is no text": ("1: 2", "1:1: key '1' is not plain text"),
    "option of the settings library": ("_env_prefix: X", "1:1: _env_prefix: no such setting"),
    "no YAML": ("stream: {shards: 2", "not valid YAML"),
    "tab": ("stream:\n\tshards: 2", "2:1: not valid YAML"),
    "object of Python": ("source: !!python/object/apply:os.getcwd []", "mendstream.yaml:1:"),
    "alias of itself": ("stream: &a [*a]", "nested too deeply, or an alias of itself"),
    "list at the top": ("- stream", "the top level must be a mapping of settings, not list"),
    "not UTF-8": (b"source: \xff\xfe", "1:1: not UTF-8"),
}


@pytest.mark.parametrize(("text", "answer"), BROKEN.values(), ids=BROKEN.keys())
def test_a_mistake_is_answered_with_file_place_and_key(load, text, answer):
    with pytest.raises(SettingsError) as caught:
        load(text)
    assert "mendstream.yaml" in str(caught.value)
    assert answer in str(caught.value)


def test_all_mistakes_are_told_at_once(load):
    with pytest.raises(SettingsError) as caught:
        load("stream:\n  shards: 0\n  bucket: 3\nobserve:\n  port: 99999\n")
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == [
        "stream.shards",
        "stream.bucket",
        "observe.port",
    ]


def test_secrets_are_never_told_in_an_error(load):
    with pytest.raises(SettingsError) as caught:
        load("kafka: {sasl_plain_password: [hunter2], ssl_password: {a: hunter2}}")
    assert "hunter2" not in str(caught.value)


def test_a_file_that_is_not_there_or_cannot_be_read_is_answered_with_its_name(tmp_path):
    with pytest.raises(SettingsError, match=r"nowhere\.yaml: there is no such file; `mendstream config example`"):
        load_settings(tmp_path / "nowhere.yaml")
    with pytest.raises(SettingsError, match="cannot be opened"):
        load_settings(tmp_path)


def test_an_empty_file_means_the_defaults(load):
    assert load("") == load("# nothing yet\n") == load_settings() == Settings()


# -- variables ----------------------------------------------------------------------------------------------------


def test_a_variable_wins_over_the_file_and_leaves_its_neighbours(load, monkeypatch):
    monkeypatch.setenv("MENDSTREAM__STREAM__BUCKET_S", "30")
    settings = load("stream: {bucket_s: 20, shards: 4}")
    assert (settings.stream.bucket_s, settings.stream.shards) == (30.0, 4)


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("ENVIRONMENT", "prod", lambda s: s.environment == "prod"),
        ("environment", "prod", lambda s: s.environment == "prod"),
        ("KAFKA__BOOTSTRAP_SERVERS", "a:9092,b:9092", lambda s: s.kafka.bootstrap_servers == ["a:9092", "b:9092"]),
        ("KAFKA__BOOTSTRAP_SERVERS", "[a:9092]", lambda s: s.kafka.bootstrap_servers == ["a:9092"]),
        ("KAFKA__CLIENT_OPTIONS", '{"api_version": null}', lambda s: s.kafka.client_options == {"api_version": None}),
        (
            "KAFKA__TOPICS__SPANS",
            "{name: s, encoding: otlp_json}",
            lambda s: s.kafka.topics.spans.encoding == "otlp_json",
        ),
        ("KAFKA__TOPICS__CHANGES", "null", lambda s: s.kafka.topics.changes is None),
        ("STREAM__RECOVERY_DIR", "null", lambda s: s.stream.recovery_dir is None),
        ("STREAM__RECOVERY_DIR", "/var/lib/x", lambda s: s.stream.recovery_dir == Path("/var/lib/x")),
        ("DETECTORS__RIVER__MODELS", "[]", lambda s: s.detectors.river.models == []),
        ("DETECTORS__SERIES__BANK__WARMUP_POINTS", "50", lambda s: s.detectors.series.bank.warmup_points == 50),
        ("STREAM", "{shards: 7}", lambda s: s.stream.shards == 7),
    ],
)
def test_every_kind_of_key_can_be_set_by_a_variable(monkeypatch, name, value, read):
    monkeypatch.setenv(f"MENDSTREAM__{name}", value)
    assert read(load_settings())


@pytest.mark.parametrize(
    ("name", "value", "key"),
    [
        ("STREAM__BUCKET_S", "soon", "stream.bucket_s: Input should be a valid number"),
        ("STREAM", "fast", "stream: must be a mapping of settings: bucket_s"),
        ("STREAM", "{shards: 0}", "stream.shards: Input should be greater"),
        ("STREM__SHARDS", "3", "'strem': no such setting; here there are assembly"),
        ("STREAM__SHARD", "3", "'shard': no such setting; here there are bucket_s"),
        ("KAFKA__TOPICS__SPANS__NAMES", "x", "'names': no such setting; here there are encoding, name"),
    ],
)
def test_a_mistake_in_a_variable_is_answered_with_the_variable_and_not_the_file(load, monkeypatch, name, value, key):
    monkeypatch.setenv(f"MENDSTREAM__{name}", value)
    with pytest.raises(SettingsError) as caught:
        load("environment: prod")
    assert str(caught.value).startswith(f"environment variable MENDSTREAM__{name}: ")
    assert key in str(caught.value)
    assert "mendstream.yaml" not in str(caught.value)


def test_a_variable_names_the_file_unless_one_is_given(tmp_path, monkeypatch):
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(f"environment: {name}", encoding="utf-8")
    monkeypatch.setenv("MENDSTREAM_CONFIG", str(tmp_path / "one.yaml"))
    assert load_settings().environment == "one"
    assert load_settings(tmp_path / "two.yaml").environment == "two"
    monkeypatch.setenv("MENDSTREAM_CONFIG", str(tmp_path / "three.yaml"))
    with pytest.raises(SettingsError, match=r"three\.yaml"):
        load_settings()


# -- the digest ---------------------------------------------------------------------------------------------------

DECIDING = [
    "environment: prod",
    "stream: {bucket_s: 30}",
    "stream: {shards: 3}",
    "assembly: {parent_wait_s: 3}",
    "detectors: {series: {max_series: 7}}",
    "detectors: {river: {models: []}}",
    "behaviour: {window_buckets: 9}",
    "ranking: {inherited: 0.1}",
    "incidents: {open_score: 9}",
    "kafka: {allowed_lateness_s: 3}",
]
NOT_DECIDING = [
    "kafka: {bootstrap_servers: [elsewhere:9092], client_id: x, compression: gzip}",
    "kafka: {topics: {root_causes: elsewhere}}",
    "stream: {recovery_dir: /elsewhere, snapshot_s: 1}",
    "observe: {port: 1, log_level: debug}",
    "remediation: {database: 'sqlite:///elsewhere'}",
    "source: /elsewhere",
]


@pytest.mark.parametrize("text", DECIDING)
def test_the_digest_changes_with_what_decides_results(load, text):
    assert load(text).digest != Settings().digest


@pytest.mark.parametrize("text", NOT_DECIDING)
def test_the_digest_does_not_change_with_where_and_how_it_runs(load, text):
    assert load(text).digest == Settings().digest


def test_the_digest_says_how_it_was_made_and_is_the_same_again():
    assert Settings().digest == Settings().digest
    assert Settings().digest.startswith("sha256:")
    assert len(Settings().digest) == len("sha256:") + 64


# -- the models ---------------------------------------------------------------------------------------------------


def models(one: BaseModel):
    yield one
    for _, value in one:
        if isinstance(value, BaseModel):
            yield from models(value)


@pytest.mark.parametrize("part", list(models(Settings())), ids=lambda part: type(part).__name__)
def test_every_part_refuses_unknown_keys_cannot_be_changed_and_is_documented(part):
    assert part.model_config.get("extra") == "forbid"
    assert part.model_config.get("frozen") is True
    assert (type(part).__doc__ or "").strip()
    for name, info in type(part).model_fields.items():
        below = isinstance(getattr(part, name), BaseModel)
        assert info.description or below, f"{type(part).__name__}.{name} has no description"
