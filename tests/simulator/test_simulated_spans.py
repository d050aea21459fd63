"""Spans of a simulation hang together as real ones do."""

import json

import polars as pl

CLIENT, PRODUCER, CONSUMER = 3, 4, 5


def _with_parents(spans):
    parents = spans.select(
        "trace_hi",
        "trace_lo",
        parent_id="span_id",
        p_start="start_ns",
        p_end="end_ns",
        p_kind="kind",
        p_service="service",
        p_status="status",
    )
    return spans.join(parents, on=["trace_hi", "trace_lo", "parent_id"], how="left")


def test_span_ids_are_unique_and_never_zero(quiet):
    assert quiet.spans["span_id"].n_unique() == quiet.spans.height
    assert (quiet.spans["span_id"] != 0).all()


def test_every_parent_exists_but_for_requests_under_way_at_the_edges(quiet):
    joined = _with_parents(quiet.spans)
    orphans = joined.filter((pl.col.parent_id != 0) & pl.col.p_start.is_null())
    assert orphans.filter(pl.col.t.is_between(5, 170)).height == 0


def test_server_spans_lie_inside_the_client_spans_that_asked(quiet):
    joined = _with_parents(quiet.spans).filter((pl.col.kind == 2) & (pl.col.p_kind == CLIENT))
    answered = joined.filter(pl.col.p_status == 0)
    assert answered.height > 20_000
    assert answered.filter((pl.col.start_ns < pl.col.p_start) | (pl.col.end_ns > pl.col.p_end)).height == 0


def test_client_and_server_are_of_different_services(quiet):
    joined = _with_parents(quiet.spans).filter((pl.col.kind == 2) & (pl.col.p_kind == CLIENT))
    assert (joined["service"] != joined["p_service"]).all()


def test_clock_skew_moves_spans_by_less_than_a_millisecond(run):
    skewed = run(minutes=0.5, rate=20, faults="none", clock_skew_ms=1.0)
    joined = _with_parents(skewed.spans).filter((pl.col.kind == 2) & (pl.col.p_kind == CLIENT) & (pl.col.p_status == 0))
    early = (joined["p_start"] - joined["start_ns"]).max()
    assert 0 < early < 1_000_000


def test_messages_are_consumed_after_they_were_sent_in_the_same_trace(quiet):
    consumed = _with_parents(quiet.spans).filter((pl.col.kind == CONSUMER) & (pl.col.parent_id != 0))
    assert set(consumed["service"]) == {"notification", "shipping"}
    known = consumed.drop_nulls("p_kind")
    assert (known["p_kind"] == PRODUCER).all()
    assert (known["start_ns"] > known["p_end"]).all()


def test_a_consumer_that_drops_the_context_begins_a_trace_of_its_own(quiet):
    trained = quiet.spans.filter((pl.col.kind == CONSUMER) & (pl.col.service == "recommendation"))
    assert trained.height > 50
    assert (trained["parent_id"] == 0).all()


def test_stores_are_seen_only_by_their_callers(quiet):
    stores = {"postgres", "redis", "kafka"}
    assert not stores & set(quiet.spans["service"])
    peers = set(quiet.spans.filter(pl.col.kind.is_in([CLIENT, PRODUCER]))["peer"])
    assert {"postgresql:postgres", "redis:redis", "kafka:orders"} <= peers


def test_attributes_follow_the_semantic_conventions(quiet):
    by_kind = {
        (row["service"], row["kind"], row["name"]): json.loads(row["attributes"])
        for row in quiet.spans.unique(["service", "kind", "name"]).iter_rows(named=True)
    }
    page = by_kind["gateway", 2, "GET /product/{id}"]
    assert page["http.request.method"] == "GET"
    assert page["http.route"] == "/product/{id}"
    assert page["url.path"].startswith("/product/")
    assert page["url.path"].removeprefix("/product/").isdigit()
    assert page["http.response.status_code"] == 200
    assert by_kind["checkout", 2, "shop.Checkout/PlaceOrder"]["rpc.grpc.status_code"] == 0
    query = by_kind["checkout", 3, "INSERT orders"]
    assert (query["db.system.name"], query["db.collection.name"]) == ("postgresql", "orders")
    assert by_kind["checkout", PRODUCER, "send orders"]["messaging.destination.name"] == "orders"


def test_about_one_request_in_a_hundred_is_cancelled_by_its_user(quiet):
    roots = quiet.spans.filter((pl.col.service == "gateway") & (pl.col.kind == 2))
    gone = roots["attributes"].str.contains('"http.response.status_code":499').sum()
    assert 0.002 < gone / roots.height < 0.015
    assert quiet.summary.cancelled / quiet.summary.requests < 0.015


def test_a_calm_system_has_few_errors_and_short_tails(quiet):
    servers = quiet.spans.filter(pl.col.kind == 2)
    assert (servers["status"] == 2).mean() < 0.003
    tails = servers.group_by("service").agg(pl.col.ms.quantile(0.99))
    assert tails["ms"].max() < 250


def test_logs_of_most_services_carry_their_span_and_of_some_do_not(quiet):
    requests = quiet.logs.filter(pl.col.body.str.contains("received ad request|GetCart user="))
    correlated = requests.group_by("service").agg((pl.col.span_id != 0).mean().alias("share"))
    assert dict(correlated.iter_rows()) == {"ads": 0.0, "cart": 1.0}
    found = quiet.logs.filter(pl.col.span_id != 0).join(quiet.spans, on="span_id", how="semi")
    assert found.height > 0.99 * quiet.logs.filter(pl.col.span_id != 0).height


def test_log_parameters_vary_and_templates_do_not(quiet):
    lines = quiet.logs.filter(pl.col.body.str.starts_with("login user="))["body"]
    assert lines.n_unique() == len(lines)
    assert lines.str.replace_all(r"\d+", "#").n_unique() == 1
