"""Each kind of fault changes what it should, measured in its own window against the time before."""

import polars as pl
import pytest

BEFORE = (30.0, 90.0)
DURING = (95.0, 180.0)
AFTER = (200.0, 240.0)


def _median_ms(frame):
    return frame["ms"].median()


def _error_rate(frame):
    return (frame["status"] == 2).mean()


def _calls(run, caller, peer, window):
    return run.spans.filter(
        (pl.col.service == caller) & pl.col.peer.str.starts_with(peer) & pl.col.kind.is_in([3, 4])
    ).filter(pl.col.t.is_between(*window))


def test_latency_slows_the_service_and_those_who_wait_for_it_and_ends(with_fault):
    run = with_fault(kind="latency", service="pricing", latency_ms=200.0)
    assert _median_ms(run.servers("pricing", *BEFORE)) < 5
    assert 150 < _median_ms(run.servers("pricing", *DURING)) < 260
    assert _median_ms(run.servers("pricing", *AFTER)) < 5
    pages = pl.col.name == "GET /product/{id}"
    assert _median_ms(run.servers("gateway", *BEFORE).filter(pages)) < 40
    assert _median_ms(run.servers("gateway", *DURING).filter(pages)) > 150


def test_errors_propagate_to_callers_that_need_the_answer(with_fault):
    run = with_fault(kind="error", service="payment", error_rate=0.5)
    assert _error_rate(run.servers("payment", *BEFORE)) < 0.05
    assert 0.35 < _error_rate(run.servers("payment", *DURING)) < 0.65
    for caller in ("checkout", "frontend"):
        placed = run.servers(caller, *DURING).filter(pl.col.name.str.contains("PlaceOrder|checkout"))
        assert _error_rate(placed) > 0.35
    logs = run.logs.filter((pl.col.service == "payment") & (pl.col.severity >= 17) & pl.col.t.is_between(*DURING))
    assert logs["body"].str.contains("unhandled exception").all()


def test_errors_are_swallowed_where_callers_have_a_fallback(with_fault):
    run = with_fault(kind="error", service="recommendation", error_rate=0.6)
    assert _error_rate(run.servers("recommendation", *DURING)) > 0.45
    assert _error_rate(run.servers("frontend", *DURING)) < 0.01
    fallbacks = run.logs.filter((pl.col.service == "frontend") & pl.col.body.str.contains("using fallback"))
    assert fallbacks.filter(pl.col.t.is_between(*DURING)).height > 50
    assert fallbacks.filter(pl.col.t.is_between(*BEFORE)).height < 5


def test_a_starved_processor_makes_requests_queue(with_fault):
    run = with_fault(kind="cpu_saturation", service="recommendation", cpu_left=0.03)
    cpu = "process.cpu.utilization"
    assert run.series(cpu, "recommendation", *BEFORE)["value"].max() < 0.5
    assert run.series(cpu, "recommendation", 110, 180)["value"].min() > 0.85
    assert run.series("server.queue.depth", "recommendation", *BEFORE)["value"].max() == 0
    assert run.series("server.queue.depth", "recommendation", 110, 180)["value"].max() > 5
    waits = _calls(run, "frontend", "recommendation", DURING)
    assert (waits["ms"] >= 499).mean() > 0.3  # callers give up after 500 ms


def test_a_worker_pool_hides_its_queue_from_its_own_server_spans(with_fault):
    run = with_fault(kind="cpu_saturation", service="recommendation", cpu_left=0.03)
    seen_by_caller = _calls(run, "frontend", "recommendation", (120, 180))["ms"].median()
    arrived = run.spans.filter((pl.col.service == "recommendation") & (pl.col.kind == 2))
    delay = arrived.join(run.spans, left_on="parent_id", right_on="span_id").select(
        pl.col.start_ns - pl.col.start_ns_right
    )
    assert seen_by_caller >= 499
    assert delay.to_series().max() > 400e6  # begun long after the caller had asked, just inside its deadline


def test_a_memory_leak_grows_until_the_process_is_killed_and_starts_anew(with_fault):
    run = with_fault(kind="memory_leak", service="inventory", instance=0)
    label = run.summary.labels[0]
    memory = run.series("process.memory.usage", "inventory").filter(pl.col.instance == label.instance)
    before = memory.filter(pl.col.t.is_between(*BEFORE))["value"].max()
    assert memory.filter(pl.col.t.is_between(120, 150))["value"].max() > 1.3 * before
    assert run.summary.oom_kills >= 1
    uptime = run.series("process.uptime", "inventory").filter(pl.col.instance == label.instance)["value"]
    assert uptime.diff().min() < 0
    assert run.logs.filter((pl.col.service == "host") & pl.col.body.str.contains("out of memory")).height >= 1
    others = run.series("process.memory.usage", "inventory").filter(pl.col.instance != label.instance)["value"]
    assert others.max() < 1.2 * others.min() + 64e6  # nothing but the collector's sawtooth


def test_a_refused_store_leaves_client_spans_that_fail_at_once(with_fault):
    run = with_fault(kind="dependency_outage", service="postgres", mode="refused")
    calls = _calls(run, "inventory", "postgresql", DURING)
    assert _error_rate(calls) > 0.99
    assert calls["ms"].quantile(0.9) < 2
    assert calls["attributes"].str.contains("connection_refused").all()
    assert _error_rate(_calls(run, "inventory", "postgresql", AFTER)) < 0.01


def test_an_unreachable_store_leaves_client_spans_that_time_out(with_fault):
    run = with_fault(kind="dependency_outage", service="postgres", mode="timeout")
    calls = _calls(run, "inventory", "postgresql", DURING)
    assert _error_rate(calls) > 0.99
    assert calls["ms"].median() == pytest.approx(800, abs=1)


def test_refused_calls_have_client_spans_without_server_spans(with_fault):
    run = with_fault(kind="dependency_outage", service="pricing", mode="refused")
    calls = _calls(run, "frontend", "pricing", (95, 179))
    assert calls.height > 100
    assert run.servers("pricing", 95, 179).height == 0
    assert run.servers("pricing", *AFTER).height > 50


def test_retries_amplify_the_calls_to_a_failing_service(with_fault):
    run = with_fault(kind="dependency_outage", service="pricing", mode="refused")

    def per_page(window):
        pages = run.servers("frontend", *window).filter(pl.col.name == "GET /pages/product/{id}").height
        asking = run.servers("frontend", *window).filter(pl.col.name == "GET /pages/product/{id}")
        asked = _calls(run, "frontend", "pricing", window).join(asking, left_on="parent_id", right_on="span_id")
        return asked.height / pages

    assert per_page(BEFORE) == pytest.approx(1.0, abs=0.05)
    assert per_page(DURING) == pytest.approx(2.0, abs=0.1)


def test_a_bad_deploy_brings_a_version_that_is_slow_and_its_rollback_ends_it(with_fault):
    run = with_fault(kind="bad_deploy", service="catalog", latency_ms=150.0)
    deployed, rolled_back = run.changes
    assert deployed["type"] == "dev.cdevents.service.upgraded.0.3.0"
    assert deployed["data"]["subject"]["content"]["artifactId"] == "pkg:oci/catalog@1.4.1"
    assert rolled_back["type"] == "dev.cdevents.service.rolledback.0.3.0"
    during = run.servers("catalog", 105, 180)
    assert set(during["version"]) == {"1.4.1"}
    assert _median_ms(during) > 100
    after = run.servers("catalog", *AFTER)
    assert set(after["version"]) == {"1.4.0"}
    assert _median_ms(after) < 10
    assert not set(during["instance"]) & set(after["instance"])


def test_a_configuration_change_makes_a_call_vanish(with_fault):
    run = with_fault(kind="config_change", service="checkout", mode="skip_call")
    assert [change["type"] for change in run.changes] == ["dev.cdevents.environment.modified.0.3.0"] * 2
    skipped = run.changes[0]["data"]["customData"]["detail"].removesuffix(".enabled=false")
    assert _calls(run, "checkout", skipped, BEFORE).height > 20
    assert _calls(run, "checkout", skipped, (96, 179)).height == 0
    assert _calls(run, "checkout", skipped, AFTER).height > 10
    said = run.logs.filter((pl.col.service == "checkout") & pl.col.body.str.contains("disabled by configuration"))
    assert said["t"].min() > 90
    assert said["t"].max() < 190


def test_a_configuration_change_takes_another_path_through_the_code(with_fault):
    run = with_fault(kind="config_change", service="catalog", mode="other_path")
    assert _calls(run, "catalog", "redis", BEFORE).height > 100
    assert _calls(run, "catalog", "redis", (96, 179)).height == 0
    assert _median_ms(run.servers("catalog", *DURING)) > 2 * _median_ms(run.servers("catalog", *BEFORE))
    lines = run.logs.filter((pl.col.service == "catalog") & pl.col.body.str.starts_with("legacy path"))
    assert lines.height > 100
    assert lines["t"].is_between(90, 190).all()


def test_a_traffic_spike_is_more_requests_and_no_more_errors(with_fault):
    run = with_fault(kind="traffic_spike", factor=2.0)

    def rate(window):
        return run.servers("gateway", *window).height / (window[1] - window[0])

    assert rate((120, 180)) / rate(BEFORE) == pytest.approx(2.0, abs=0.4)
    assert _error_rate(run.servers("gateway", *DURING)) < 0.02
    assert run.summary.labels[0].kind == "load"


def test_a_harmless_deploy_leaves_golden_signals_as_they_were_but_for_seconds(with_fault):
    run = with_fault(kind="harmless_deploy", service="catalog")
    label = run.summary.labels[0]
    assert label.kind == "benign"
    assert label.end_unix_ns - label.start_unix_ns < 15e9
    before, after = run.servers("catalog", *BEFORE), run.servers("catalog", 105, 180)
    assert set(after["version"]) == {"1.4.1"}
    assert _median_ms(after) == pytest.approx(_median_ms(before), rel=0.1)
    assert _error_rate(after) < 0.01
    refused = run.spans.filter(pl.col.attributes.str.contains("connection_refused"))
    assert 0 < refused.height < 80
    assert refused["t"].is_between(90, 105).all()


def test_network_loss_is_seen_on_one_edge_by_the_caller_alone(with_fault):
    run = with_fault(kind="network_loss", caller="checkout", service="payment", loss=0.3, latency_ms=100.0)
    calls = _calls(run, "checkout", "payment", DURING)
    assert 0.15 < (calls["ms"] >= 2999).mean() < 0.45
    answered = calls.filter(pl.col.status == 0)
    assert answered["ms"].median() > 200
    assert _median_ms(run.servers("payment", *DURING)) < 60
    assert set(run.summary.labels[0].accept) == {"payment", "checkout"}


def test_loss_on_one_edge_leaves_other_callers_of_the_same_service_alone(with_fault):
    run = with_fault(kind="network_loss", caller="frontend", service="cart", loss=0.3, latency_ms=100.0)
    assert _calls(run, "frontend", "cart", DURING)["ms"].median() > 150
    assert _calls(run, "checkout", "cart", DURING)["ms"].median() < 10


def test_a_log_storm_multiplies_warnings_and_nothing_else(with_fault):
    run = with_fault(kind="log_storm", service="shipping", lines_per_s=50.0)
    warnings = run.logs.filter((pl.col.service == "shipping") & (pl.col.severity == 13))
    assert warnings.filter(pl.col.t.is_between(*DURING)).height == pytest.approx(50 * 2 * 85, rel=0.02)
    assert warnings.filter(pl.col.t.is_between(*BEFORE)).height < 5
    assert _error_rate(run.servers("shipping", *DURING)) < 0.02
    assert _median_ms(run.servers("shipping", *DURING)) < 1.3 * _median_ms(run.servers("shipping", *BEFORE))


@pytest.mark.parametrize(("what", "value"), [("latency_ms", 250.0), ("error_rate", 0.5)])
def test_a_gray_failure_touches_one_instance_only(with_fault, what, value):
    run = with_fault(kind="gray_failure", service="pricing", instance=1, **{what: value})
    sick = run.summary.labels[0].instance
    assert sick is not None
    during = run.servers("pricing", *DURING)
    well, ill = during.filter(pl.col.instance != sick), during.filter(pl.col.instance == sick)
    assert min(well.height, ill.height) > 300
    if what == "latency_ms":
        assert _median_ms(ill) > 200
        assert _median_ms(well) < 5
    else:
        assert _error_rate(ill) > 0.4
        assert _error_rate(well) < 0.01


def test_faults_that_overlap_add_up_and_end_one_by_one(run):
    both = [
        {"kind": "latency", "service": "pricing", "start": 30, "duration": 60, "latency_ms": 100},
        {"kind": "latency", "service": "pricing", "start": 60, "duration": 60, "latency_ms": 100},
    ]
    overlapping = run(minutes=2.5, rate=15, faults={"faults": both}, season=False)
    medians = [
        _median_ms(overlapping.servers("pricing", *window)) for window in ((35, 58), (62, 88), (92, 118), (122, 150))
    ]
    assert medians == [
        pytest.approx(103, abs=15),
        pytest.approx(203, abs=25),
        pytest.approx(103, abs=15),
        pytest.approx(2.5, abs=1),
    ]
