"""What a scraper reads: right, whole, in both formats, and named as Prometheus wants it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import pytest
from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics_parser

from receipt_actors.admin.metrics import METRICS, exposition
from receipt_actors.telemetry.overview import (
    NodeOverview,
    NodeState,
    Overview,
    RoleOverview,
    ServiceOverview,
    State,
    Usage,
)
from receipt_actors.telemetry.statistics import StatisticsSnapshot
from tests.stand_in_system import VERSION, latencies, process_of, supervisor, worker

from .conftest import Client, an_overview

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


def samples(overview: Overview) -> Mapping[tuple[str, tuple[tuple[str, str], ...]], float]:
    content, _ = exposition(overview, "")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parser.text_string_to_metric_families(content.decode())
        for sample in family.samples
    }


def value(overview: Overview, name: str, **labels: str) -> float | None:
    return samples(overview).get((f"receipt_actors_{name}", tuple(sorted(labels.items()))))


def test_a_scraper_gets_them(client: Client) -> None:
    answer = client.get("/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    assert "receipt_actors_messages_received_total 110.0" in answer.body.decode()
    answer = client.get("/metrics", Accept=OPEN_METRICS)
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    families = list(openmetrics_parser.text_string_to_metric_families(answer.body.decode()))
    assert len(families) == len(METRICS)


@pytest.mark.parametrize("version", ["x", "1.x", "", "9" * 5000, "-1", "\xb2"])
def test_a_format_of_no_version_is_no_error(client: Client, version: str) -> None:
    answer = client.get("/metrics", Accept=f"application/openmetrics-text; version={version}")
    assert answer.status == 200
    assert b"receipt_actors_messages_received_total 110" in answer.body


def test_counters_are_those_of_the_statistics_and_gauges_of_the_moment() -> None:
    overview = an_overview()
    assert value(overview, "messages_received_total") == 110
    assert value(overview, "messages_finished_total", fate="answered", reason="") == 100
    assert value(overview, "messages_finished_total", fate="moved", reason="not_json") == 2
    assert value(overview, "results_posted_total", verdict="OK", reason="claimed") == 100
    assert value(overview, "service_requests_total", service="ledger") == 30
    assert value(overview, "service_entries_total", service="ledger") == 65
    assert value(overview, "incidents_total", kind="crash") == 4
    assert value(overview, "incidents_total", kind="storm") == 0  # there from the start: increase() sees the first one
    assert value(overview, "build_info", version=VERSION) == 1
    assert value(overview, "queue_messages", queue="ReceiptsSQS") == 1234
    assert value(overview, "queue_messages", queue="ReceiptsSQSDLQ") is None  # it is not known
    states = {state: value(an_overview(state=State.WAITING), "state", state=state.value) for state in State}
    assert [state for state, is_it in states.items() if is_it] == [State.WAITING]


def test_histograms_are_cumulative() -> None:
    counted = latencies(*[0.02] * 60, *[0.2] * 8)
    overview = an_overview(statistics=StatisticsSnapshot(latencies=counted, steps={"verifying": latencies(0.1, 0.2)}))
    assert value(overview, "message_duration_seconds_bucket", le="0.01") == 0
    assert value(overview, "message_duration_seconds_bucket", le="0.025") == 60
    assert value(overview, "message_duration_seconds_bucket", le="0.25") == 68
    assert value(overview, "message_duration_seconds_bucket", le="+Inf") == 68
    assert value(overview, "message_duration_seconds_count") == 68
    assert value(overview, "message_duration_seconds_sum") == pytest.approx(60 * 0.02 + 8 * 0.2, rel=0.01)
    assert value(overview, "step_duration_seconds_count", step="verifying") == 2
    slow = an_overview(statistics=StatisticsSnapshot(latencies=latencies(5000.0)))
    assert value(slow, "message_duration_seconds_bucket", le="900.0") == 0
    assert value(slow, "message_duration_seconds_bucket", le="+Inf") == 1
    assert value(an_overview(statistics=StatisticsSnapshot()), "message_duration_seconds_bucket", le="+Inf") == 0


def test_processes_are_told_apart_and_the_whole_is_one() -> None:
    one = process_of(1, "worker-1", in_flight=3)
    two = replace(
        process_of(1, "worker-2", in_flight=4, usage=Usage(2.5, 5, 6, 7)),
        services=(ServiceOverview("app_store", False, 1, 2, 3, 1.0),),
    )
    parent = supervisor("root", "one_for_one", worker("worker-1"))
    overview = an_overview(one, two, parent=parent, parent_usage=Usage(0.5, 1, 2, 3))
    assert value(overview, "messages_in_flight", process="worker-1") == 3
    assert value(overview, "messages_in_flight", process="worker-2") == 4
    assert value(overview, "service_available", process="worker-1", service="app_store") == 1
    assert value(overview, "service_available", process="worker-2", service="app_store") == 0
    assert value(overview, "process_cpu_seconds_total", process="worker-2") == 2.5
    assert value(overview, "process_cpu_seconds_total", process="parent") == 0.5
    assert value(overview, "actor_mailbox_messages", process="parent", actor="worker-1") == 0
    assert value(overview, "actor_mailbox_messages", process="worker-1", actor="result_batcher ResultsSQS") == 2
    assert value(overview, "actor_restarts_total", process="worker-1", actor="result_batcher ResultsSQS") == 1
    assert value(overview, "messages_received_total") == 110


def test_receives_that_fail_are_a_service_that_is_unavailable() -> None:
    overview = an_overview(process_of(1), process_of(1, "worker-2", unavailable=("receive from ReceiptsSQS",)))
    service = "receive from ReceiptsSQS"
    assert value(overview, "service_available", process="main", service=service) == 1
    assert value(overview, "service_available", process="worker-2", service=service) == 0


def test_actors_of_single_messages_have_no_series() -> None:
    tree = supervisor("validators", "simple_one_for_one", worker("validator of m-1"))
    content, _ = exposition(an_overview(process_of(1, tree=tree)), "")
    assert 'actor="validators"' in content.decode()
    assert "validator of" not in content.decode()


def test_counters_never_go_back_when_a_worker_dies() -> None:
    before = an_overview(process_of(1, "worker-1"), process_of(1, "worker-2"))
    after = replace(
        before, processes=(process_of(1, "worker-1"),), statistics=before.statistics.merged(before.statistics)
    )
    then, now = samples(before), samples(after)
    whole = {key for key in then if "process" not in dict(key[1]) and key[0].endswith(("_total", "_bucket", "_count"))}
    assert whole
    assert all(now[key] >= then[key] for key in whole)


def test_names_follow_the_conventions() -> None:
    for metric in METRICS:
        name = metric.full_name
        assert re.fullmatch(r"receipt_actors_[a-z][a-z0-9_]*", name), name
        assert name.endswith("_total") == (metric.kind == "counter"), name
        assert name.endswith("_info") == (metric.kind == "info"), name
        assert not name.endswith(("_count", "_sum", "_bucket")), name
        assert not re.search(r"_(counter|gauge|histogram|summary|ms|milliseconds|minutes|percent|mb)(_|$)", name), name
        assert (metric.kind != "histogram") or name.endswith("_seconds"), name
        assert metric.text.endswith("."), name
        assert not {"le", "quantile", "job", "instance"} & set(metric.labels), name
        assert all(re.fullmatch(r"[a-z][a-z_]*", label) for label in metric.labels), name
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_labels_may_hold_anything() -> None:
    odd = 'a"b\\c\nd\u2028'
    overview = an_overview(queues={odd: 1})
    assert value(overview, "queue_messages", queue=odd) == 1


def test_a_process_of_which_nothing_is_known_has_no_values() -> None:
    unknown = replace(
        process_of(1, "worker-2"), started_at_seconds=0.0, usage=Usage(0.0, 0, 0, 0), tree=None, services=()
    )
    overview = an_overview(process_of(1, "worker-1"), unknown)
    assert value(overview, "process_resident_memory_bytes", process="worker-1") == 123_000_000
    assert not [key for key in samples(overview) if dict(key[1]).get("process") == "worker-2"]


def a_role(state: NodeState, token: int | None = 5) -> RoleOverview:
    share = {"ledger_concurrency": 20.0, "app_store_rate_per_second": None} if token is not None else None
    mine = NodeOverview("a-1", state, token, share, 2, 0.0)
    other = NodeOverview("b-1", NodeState.ACTIVE, 3, {"ledger_concurrency": 30.0}, 2, 0.7)
    held = 7.5 if state is NodeState.ACTIVE else None
    whole = {"ledger_concurrency": 50.0, "app_store_rate_per_second": None}
    return RoleOverview("load-balanced", "ReceiptsSQS", "a-1", state, 10.0, held, whole, (mine, other))


def test_who_shares_the_work_is_told() -> None:
    overview = an_overview(role=a_role(NodeState.ACTIVE))
    assert value(overview, "role_info", role="load-balanced", group="ReceiptsSQS", node="a-1") == 1
    assert value(overview, "role_active") == 1
    assert [state for state in NodeState if value(overview, "role_state", state=state.value)] == ["active"]
    assert value(overview, "role_nodes", state="active") == 2
    assert value(overview, "role_nodes", state="standby") == 0
    assert value(overview, "role_share", limit="ledger_concurrency") == 20
    assert value(overview, "role_whole", limit="ledger_concurrency") == 50
    assert value(overview, "role_whole", limit="app_store_rate_per_second") is None  # there is no limit
    assert value(overview, "role_lease_held_seconds") == 7.5
    assert value(overview, "role_token") == 5
    assert value(overview, "incidents_total", kind="node_lost") == 0


@pytest.mark.parametrize(("state", "token"), [(NodeState.STANDBY, None), (NodeState.CUT_OFF, 5)])
def test_who_may_not_work_has_no_share(state: NodeState, token: int | None) -> None:
    overview = an_overview(role=a_role(state, token))
    assert value(overview, "role_active") == 0
    assert value(overview, "role_share", limit="ledger_concurrency") == 0
    assert value(overview, "role_lease_held_seconds") == 0
    assert value(overview, "role_token") == token


def test_a_node_that_is_alone_has_no_series_of_roles() -> None:
    assert not [name for name, _ in samples(an_overview()) if name.startswith("receipt_actors_role_")]
