"""Schedules: read from YAML with errors that name the key, drawn at random with quiet gaps, labelled truthfully."""

from itertools import pairwise

import pytest

from simulator import FaultPlan, ScheduleError, SimulationConfig, load_schedule
from simulator.config import KEYS_OF_KIND
from simulator.faults import LEARN_S, QUIET_S, plan_faults
from simulator.run import topology_of

LABEL_KINDS = (set(KEYS_OF_KIND) - {"traffic_spike", "harmless_deploy"}) | {"load", "benign"}


def _write(tmp_path, text):
    path = tmp_path / "faults.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_schedule_is_read(tmp_path):
    path = _write(
        tmp_path, "faults:\n  - {kind: latency, service: cart, start: 60, duration: 30, latency_ms: 80, instance: 1}\n"
    )
    (fault,) = load_schedule(path).faults
    assert (fault.kind, fault.service, fault.instance, fault.latency_ms) == ("latency", "cart", 1, 80.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("faults: [{kind: latency, service: a, start: 1, duration: 1, latenzy_ms: 5}]", "faults[0].latenzy_ms"),
        ("faults: [{kind: slow, service: a, start: 1, duration: 1}]", "faults[0].kind"),
        ("faults: [{kind: error, service: a, duration: 1}]", "faults[0].start"),
        ("faults: [{kind: error, service: a, start: 1, duration: -1}]", "faults[0].duration"),
        (
            "faults: [{kind: error, service: a, start: 1, duration: 1, loss: 0.5}]",
            "'loss' means nothing for kind error",
        ),
        ("faults: [{kind: error, start: 1, duration: 1}]", "'service' is missing"),
        ("faults: [{kind: network_loss, service: a, start: 1, duration: 1}]", "'caller' is missing"),
        ("faults: [{kind: dependency_outage, service: a, start: 1, duration: 1, mode: off}]", "faults[0].mode"),
        ("faults: [{kind: dependency_outage, service: a, start: 1, duration: 1, mode: gone}]", "refused, timeout"),
        ("fault: []", "fault: "),
        ("- 1", "a mapping with the key 'faults'"),
        ("faults: [", "cannot be read as YAML"),
    ],
)
def test_a_wrong_schedule_is_refused_with_the_key(tmp_path, text, said):
    with pytest.raises(ScheduleError, match=r"faults\.yaml") as refused:
        load_schedule(_write(tmp_path, text))
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"kind": "error", "service": "cartt"}, r"faults\[0\].service: 'cartt' .* did you mean 'cart'"),
        ({"kind": "error", "service": "cart", "instance": 9}, r"faults\[0\].instance: cart has 2 instances"),
        ({"kind": "gray_failure", "service": "ads"}, "ads has one instance"),
        ({"kind": "network_loss", "service": "payment", "caller": "ads"}, "its callers are: checkout"),
        ({"kind": "bad_deploy", "service": "redis"}, "redis is a store"),
        ({"kind": "config_change", "service": "pricing", "mode": "skip_call"}, "pricing calls nothing"),
        ({"kind": "error", "service": "cart", "start": 9e6}, r"faults\[0\].start: .* after the end"),
    ],
)
def test_a_schedule_that_does_not_fit_the_topology_is_refused(fault, said):
    plan = FaultPlan.model_validate({"faults": [{"start": 1, "duration": 1} | fault]})
    config = SimulationConfig(faults=plan)
    with pytest.raises(ScheduleError, match=said):
        plan_faults(config, topology_of(config))


@pytest.mark.parametrize("services", [15, 120])
@pytest.mark.parametrize("seed", range(5))
def test_random_schedules_have_quiet_gaps_and_hit_what_exists(seed, services):
    config = SimulationConfig(seed=seed, services=services, minutes=180, faults="random", fault_count=20)
    faults = plan_faults(config, topology_of(config))
    assert len(faults) == 20
    assert faults == plan_faults(config, topology_of(config))
    assert faults[0].start >= LEARN_S
    for before, after in pairwise(faults):
        assert after.start - (before.start + before.duration) >= QUIET_S[0] - 0.2
    assert len({fault.kind for fault in faults[:12]}) >= 11


def test_a_short_simulation_holds_fewer_random_faults_than_asked_for():
    config = SimulationConfig(minutes=15, faults="random", fault_count=20)
    faults = plan_faults(config, topology_of(config))
    assert 0 < len(faults) < 5
    assert all(fault.start + fault.duration < 900 for fault in faults)


def test_labels_of_all_kinds_are_valid(run):
    start = 10.0
    extra = {
        "network_loss": {"service": "redis", "caller": "cart"},
        "dependency_outage": {"service": "kafka"},
        "traffic_spike": {},
    }
    plan = [
        {"kind": kind, "start": start + 3 * place, "duration": 20} | extra.get(kind, {"service": "catalog"})
        for place, kind in enumerate(sorted(KEYS_OF_KIND))
    ]
    finished = run(minutes=1.2, rate=10, faults={"faults": plan})
    labels = {label.kind: label for label in finished.summary.labels}
    assert set(labels) == LABEL_KINDS
    assert len({label.id for label in labels.values()}) == len(plan)
    for label in labels.values():
        assert finished.summary.start_ns < label.start_unix_ns < label.end_unix_ns <= finished.summary.end_ns
        assert label.detail
        line = label.to_json()
        assert set(line) - {"accept"} == {
            "id",
            "start_unix_ns",
            "end_unix_ns",
            "service",
            "instance",
            "kind",
            "detail",
        }
        assert "accept" not in line or (label.service in line["accept"] and len(line["accept"]) > 1)
    assert {"redis", "redis:redis", "cart"} <= set(labels["network_loss"].accept)
    assert {"kafka", "kafka:orders"} <= set(labels["dependency_outage"].accept)
    assert labels["gray_failure"].instance in set(finished.spans["instance"])
    assert labels["load"].service == "gateway"


def test_the_demonstration_has_a_schedule_for_any_topology():
    for services in (3, 15, 50):
        config = SimulationConfig(services=services, faults="demo")
        faults = plan_faults(config, topology_of(config))
        assert len(faults) == 4
        assert faults[0].start >= 300
