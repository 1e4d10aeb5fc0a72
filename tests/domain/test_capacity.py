"""How much a load takes: what must hold of the formula whatever the numbers, and a plan worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receipt_actors.domain import service_limits as limits
from receipt_actors.domain.capacity import (
    CURL,
    MAX_ENTRIES,
    MAX_IN_FLIGHT,
    REQUESTS,
    Call,
    Capacity,
    Cost,
    Load,
    plan_capacity,
    roles_taken,
)
from receipt_actors.domain.limits import BATCH_REQUESTS, Limits
from receipt_actors.domain.roles import Group, Node, Role, record_of

#: A millisecond a receipt, whatever the batches; asks a thousand at once.
EVEN = Cost("a machine", 0.001, dict.fromkeys(Call, 0.0), 0.0, 50_000_000, 10_000, "even", 1_000)
ONE_VCPU = limits.TASK_SIZES[0]

loads = st.builds(
    Load,
    rate_per_second=st.floats(0.001, 5e6),
    peak=st.floats(1, 10),
    apple_seconds=st.floats(0.01, 5),
    ledger_seconds=st.floats(0.001, 0.5),
    queue_seconds=st.floats(0.001, 0.5),
    message_bytes=st.integers(100, 200_000),
    claims=st.floats(0.1, 5),
    apple_requests=st.floats(0.5, 3),
    task=st.sampled_from(limits.TASK_SIZES),
    spare_tasks=st.integers(0, 3),
    utilisation=st.floats(0.3, 0.9),
    core_speed=st.floats(0.5, 2),
    pace_seconds=st.floats(0, 0.02),
    fifo=st.booleans(),
)
costs = st.sampled_from([CURL, REQUESTS])


def of(capacity: Capacity, call: Call) -> Any:
    return next(each for each in capacity.requests if each.call is call)


@given(loads, costs)
def test_processes_are_enough_and_none_is_there_for_nothing(load: Load, cost: Cost) -> None:
    """With the spare tasks gone each has its share of the core, of its client, of what may be in flight; no less do."""
    capacity = plan_capacity(load, cost)
    carrying = capacity.tasks_needed * load.processes_of_task
    assert carrying >= capacity.processes_needed
    share = load.peak_per_second / carrying
    most = load.utilisation * (1 + 1e-9)
    assert share <= capacity.most_per_process_per_second * (1 + 1e-9)
    assert share * load.apple_requests * load.apple_seconds <= most * cost.max_concurrency
    assert share * capacity.in_house_seconds <= most * MAX_IN_FLIGHT
    assert share * cost.cpu_seconds <= most * load.core_speed
    assert 0 < capacity.cores_busy <= 1
    if capacity.processes_needed > 1:
        share = load.peak_per_second / (capacity.processes_needed - 1)
        assert share > capacity.most_per_process_per_second * (1 - 1e-9)


@given(loads, st.floats(1, 100), costs)
def test_more_load_never_takes_less(load: Load, times: float, cost: Cost) -> None:
    less = plan_capacity(load, cost)
    more = plan_capacity(replace(load, rate_per_second=load.rate_per_second * times), cost)
    assert more.processes_needed >= less.processes_needed
    assert more.tasks >= less.tasks
    slack = 1 - 1e-9
    assert more.in_flight >= less.in_flight * slack
    assert more.write_units_per_second >= less.write_units_per_second * slack
    for call in Call:
        assert of(more, call).per_second >= of(less, call).per_second * slack
        assert of(more, call).billed_per_month >= of(less, call).billed_per_month * slack
    assert sum(more.usd_per_month.values()) >= sum(less.usd_per_month.values()) * slack
    rows = sum(each.usd_per_month for each in less.requests)
    assert rows == pytest.approx(less.usd_per_month["SQS"] + less.usd_per_month["DynamoDB writes"])


@given(loads, costs)
def test_settings_let_the_peak_through(load: Load, cost: Cost) -> None:
    capacity = plan_capacity(load, cost)
    settings = capacity.settings
    assert capacity.in_flight == pytest.approx(load.peak_per_second * capacity.in_house_seconds)
    assert settings.max_in_flight * capacity.tasks_needed >= capacity.in_flight
    assert settings.app_store_concurrency * capacity.tasks_needed >= capacity.apple_connections * (1 - 1e-9)
    # What can be set is a multiple of a hundred for each process, so that rounding up never leads beyond it.
    assert settings.app_store_concurrency <= cost.max_concurrency * settings.processes
    share = load.peak_per_second / (capacity.tasks_needed * load.processes_of_task)
    assert settings.consumers * MAX_ENTRIES[Call.RECEIVE] / load.queue_seconds >= share
    assert BATCH_REQUESTS * MAX_ENTRIES[Call.SEND] / load.queue_seconds >= share
    ledger = settings.ledger_concurrency / settings.processes * MAX_ENTRIES[Call.CLAIM] / load.ledger_seconds
    assert ledger >= share * load.claims


@given(loads, costs)
def test_batches_and_limits_are_what_services_allow(load: Load, cost: Cost) -> None:
    capacity = plan_capacity(load, cost)
    for each in capacity.requests:
        assert 1 <= each.entries <= MAX_ENTRIES[each.call]
        wanted = load.rate_per_second * (load.claims if each.call is Call.CLAIM else 1)
        assert each.per_second * each.entries >= wanted * (1 - 1e-9)
    known = [each.at_per_second for each in capacity.reached if each.at_per_second is not None]
    assert known == sorted(known)
    assert [each.at_per_second for each in capacity.reached][len(known) :] == [None]
    assert len(capacity.exceeded) == sum(at < load.peak_per_second for at in known)


@given(loads)
def test_a_limit_is_reached_where_it_says(load: Load) -> None:
    """A plan for the very rate at which a limit is reached uses all of it that may be used."""
    for each in plan_capacity(load, CURL).reached:
        if each.limit in (limits.DYNAMODB_TABLE_WRITES, limits.SQS_IN_FLIGHT, limits.NAT_CONNECTIONS):
            assert each.at_per_second is not None
            there = plan_capacity(replace(load, rate_per_second=each.at_per_second, peak=1.0), CURL)
            used = next(one.used for one in there.reached if one.limit is each.limit)
            assert used == pytest.approx(each.limit.known * each.share)


def test_a_plan_worked_out_by_hand() -> None:
    """1,000/s at a millisecond each, cores 50 % busy: 2 processes; Apple takes 0.4 s: 400 connections."""
    load = Load(
        1_000,
        apple_seconds=0.4,
        ledger_seconds=0.02,
        queue_seconds=0.04,
        message_bytes=5_000,
        task=ONE_VCPU,
        spare_tasks=1,
        utilisation=0.5,
        pace_seconds=0.0,
    )
    capacity = plan_capacity(load, EVEN)
    assert (capacity.processes_needed, capacity.tasks_needed, capacity.tasks, capacity.processes) == (2, 2, 3, 3)
    assert capacity.bound_by == "CPU"
    assert capacity.most_per_process_per_second == pytest.approx(500)
    assert capacity.in_house_seconds == pytest.approx(0.5)
    assert capacity.in_flight == pytest.approx(500)
    assert capacity.apple_connections == pytest.approx(400)
    assert capacity.cores_busy == pytest.approx(1 / 3)
    settings = capacity.settings
    # 500/s for 0.5 s at 50 %, and what the consumers may have reserved: 4 that have 5/s each of 10.
    assert settings.consumers == 4
    assert settings.max_in_flight == 540
    assert settings.app_store_concurrency == 400
    assert capacity.write_units_per_second == 1_000
    # A third of 1,000/s, 40 ms, 4 requests at once: 3.3 entries each, so 100 requests/s of each of 3 processes.
    assert of(capacity, Call.SEND).entries == pytest.approx(10 / 3)
    assert of(capacity, Call.SEND).per_second == pytest.approx(300)
    assert of(capacity, Call.CLAIM).usd_per_month == pytest.approx(1_000 * 2_628_000 * 0.625e-6)


@pytest.mark.parametrize(
    ("changes", "bound_by"),
    [
        ({"apple_seconds": 3.0}, "requests to Apple at once (even)"),
        ({"apple_seconds": 0.1, "ledger_seconds": 20.0}, "messages in flight"),
        ({"apple_seconds": 0.1, "queue_seconds": 20.0}, "batches to a queue at once"),
        ({}, "CPU"),
    ],
)
def test_what_binds_a_process_is_told(changes: dict[str, Any], bound_by: str) -> None:
    assert plan_capacity(replace(Load(1_000), **changes), EVEN).bound_by == bound_by


def test_a_known_limit_of_apple_takes_its_place() -> None:
    reached = plan_capacity(Load(10, apple_requests=2, apple_limit_per_second=600), CURL).reached
    assert all(each.at_per_second is not None for each in reached)
    apple = next(each for each in reached if each.limit is limits.APPLE_VERIFY_RECEIPT)
    assert (apple.at_per_second, apple.used) == (300, 20)


@pytest.mark.parametrize(("rate", "fits"), [(250, True), (1000, True), (2900, False)])
def test_fifo_queues_bound_the_requests_of_a_kind(rate: float, fits: bool) -> None:
    load = Load(rate, task=ONE_VCPU, spare_tasks=0, fifo=True)
    capacity = plan_capacity(load, CURL)
    (reached,) = (each for each in capacity.reached if each.limit is limits.SQS_FIFO_REQUESTS)
    assert (reached not in capacity.exceeded) == fits
    assert reached.at_per_second is not None and reached.at_per_second <= 3000 * (1 + 1e-9)
    standard = plan_capacity(replace(load, fifo=False), CURL)
    assert limits.SQS_FIFO_REQUESTS not in [each.limit for each in standard.reached]


def test_bigger_messages_fill_more_than_one_billed_part() -> None:
    load = Load(100_000, message_bytes=20 * 1024, queue_seconds=1.0, task=ONE_VCPU, utilisation=0.9)
    small, big = plan_capacity(replace(load, message_bytes=5 * 1024), EVEN), plan_capacity(load, EVEN)
    parts = of(big, Call.RECEIVE).billed_per_month / of(small, Call.RECEIVE).billed_per_month
    assert parts == math.ceil(of(big, Call.RECEIVE).entries * 20 / 64)


def test_every_limit_and_price_is_told_whole() -> None:
    assert len({(each.service, each.what) for each in limits.LIMITS}) == len(limits.LIMITS)
    for each in limits.LIMITS:
        assert all((each.service, each.what, each.unit, each.source, each.remedy))
        assert each.value is None or each.value > 0
    assert all(each.usd > 0 and each.unit for each in limits.PRICES)


def test_what_takes_no_time_has_no_limit() -> None:
    at_once = Load(1_000, apple_seconds=0.0, ledger_seconds=0.0, queue_seconds=0.0, pace_seconds=0.0)
    capacity = plan_capacity(at_once, EVEN)
    assert capacity.bound_by == "CPU"
    assert not {each.limit for each in capacity.reached} & {limits.NAT_CONNECTIONS, limits.SQS_IN_FLIGHT}


@pytest.mark.parametrize("tasks", [1, 3, 8, 20])
def test_an_item_of_roles_is_paid_for_by_its_size(tasks: int) -> None:
    taken = roles_taken(Load(1.0, role=Role.LOAD_BALANCED, lease_seconds=30.0), tasks)
    assert taken is not None
    limit = Limits(20_000, 500, 10_000, 12_345.678)
    node = Node("ip-10-0-101-222.eu-west-1.compute.internal-abcdef", Role.LOAD_BALANCED, limit, 2)
    group = Group()
    for number in range(tasks):
        group = group.renewed(replace(node, name=f"{node.name}{number:02d}"), 2**47, 30.0)
    assert taken.write_units_per_second >= tasks * 5 / 30 * math.ceil(len(record_of(group).content) / 1024) * (1 - 1e-9)
    assert taken.takeover_seconds == 45.0


def test_tasks_that_share_are_told_the_whole() -> None:
    alone, balanced = (
        plan_capacity(Load(3_000.0, apple_limit_per_second=3_600.0, role=role), CURL)
        for role in (Role.ALONE, Role.LOAD_BALANCED)
    )
    assert balanced.settings.ledger_concurrency == alone.settings.ledger_concurrency * balanced.tasks
    assert balanced.settings.app_store_concurrency == alone.settings.app_store_concurrency * balanced.tasks
    assert balanced.settings.app_store_rate_per_second == 3_600.0
    assert balanced.settings.max_in_flight == alone.settings.max_in_flight
    assert alone.settings.app_store_rate_per_second == 3_600.0 / alone.tasks
    assert alone.roles is None and "DynamoDB roles" not in alone.usd_per_month
