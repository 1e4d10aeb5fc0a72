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
    MAX_ENTRIES,
    MAX_IN_FLIGHT,
    Call,
    Capacity,
    Cost,
    Load,
    Setup,
    entries_per_request,
    plan_capacity,
    roles_taken,
)
from receipt_actors.domain.limits import BATCH_REQUESTS, Limits
from receipt_actors.domain.measured_costs import CURL, REQUESTS
from receipt_actors.domain.role_records import record_of
from receipt_actors.domain.roles import Group, Node, Role

NO_REQUESTS = dict.fromkeys(Call, 0.0)
#: A millisecond a receipt, whatever the batches; asks a thousand at once.
EVEN = Cost("a machine", 0.001, NO_REQUESTS, NO_REQUESTS, 50_000_000, 10_000, "even", 1_000)
ONE_VCPU = limits.TASK_SIZES[0]

rates = st.floats(0.001, 5e6)
loads = st.builds(
    Load,
    rate_per_second=rates,
    peak=st.floats(1, 10),
    apple_seconds=st.floats(0.01, 5),
    ledger_seconds=st.floats(0.001, 0.5),
    queue_seconds=st.floats(0.001, 0.5),
    message_bytes=st.integers(100, 200_000),
    claims=st.floats(0.1, 5),
    apple_requests=st.floats(0.5, 3),
)
setups = st.builds(
    Setup,
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


@given(loads, setups, costs)
def test_no_process_has_more_than_it_carries(load: Load, setup: Setup, cost: Cost) -> None:
    """With the spare tasks gone each still has its share: of the core, of its client, of what may be in flight."""
    capacity = plan_capacity(load, setup, cost)
    carrying = capacity.tasks_needed * setup.processes_of_task
    assert carrying >= capacity.processes_needed
    share = load.peak_per_second / carrying
    assert share <= capacity.most_per_process_per_second * (1 + 1e-9)
    asking = share * load.apple_requests * load.apple_seconds
    assert asking <= setup.utilisation * cost.max_concurrency * (1 + 1e-9)
    assert share * capacity.in_house_seconds <= setup.utilisation * MAX_IN_FLIGHT * (1 + 1e-9)
    assert share * cost.cpu_seconds <= setup.utilisation * setup.core_speed * (1 + 1e-9)
    assert 0 < capacity.cores_busy <= 1


@given(loads, setups, costs)
def test_no_process_is_there_for_nothing(load: Load, setup: Setup, cost: Cost) -> None:
    """One process less than is needed would carry more than it should."""
    capacity = plan_capacity(load, setup, cost)
    if capacity.processes_needed > 1:
        share = load.peak_per_second / (capacity.processes_needed - 1)
        assert share > capacity.most_per_process_per_second * (1 - 1e-9)


@given(loads, st.floats(1, 100), setups, costs)
def test_more_load_never_takes_less(load: Load, times: float, setup: Setup, cost: Cost) -> None:
    """Tasks, what is in flight, requests, memory and the bill grow with the rate, or stay."""
    less = plan_capacity(load, setup, cost)
    more = plan_capacity(replace(load, rate_per_second=load.rate_per_second * times), setup, cost)
    assert more.processes_needed >= less.processes_needed
    assert more.tasks >= less.tasks
    slack = 1 - 1e-9
    assert more.in_flight >= less.in_flight * slack
    assert more.write_units_per_second >= less.write_units_per_second * slack
    assert more.partitions >= less.partitions
    for call in Call:
        assert of(more, call).per_second >= of(less, call).per_second * slack
        assert of(more, call).billed_per_month >= of(less, call).billed_per_month * slack
    assert sum(more.usd_per_month.values()) >= sum(less.usd_per_month.values()) * slack


@given(loads, setups, costs)
def test_in_flight_is_rate_times_time_in_house(load: Load, setup: Setup, cost: Cost) -> None:
    """Little's law; and the settings leave room for it in the tasks that are needed."""
    capacity = plan_capacity(load, setup, cost)
    assert capacity.in_flight == pytest.approx(load.peak_per_second * capacity.in_house_seconds)
    assert capacity.in_house_seconds >= load.apple_requests * load.apple_seconds
    settings = capacity.settings
    assert settings.max_in_flight * capacity.tasks_needed >= capacity.in_flight
    assert settings.app_store_concurrency * capacity.tasks_needed >= capacity.apple_connections * (1 - 1e-9)
    # What can be set is a multiple of a hundred for each process, so that rounding up never leads beyond it.
    assert settings.app_store_concurrency <= cost.max_concurrency * settings.processes


@given(loads, setups, costs)
def test_settings_let_the_peak_through(load: Load, setup: Setup, cost: Cost) -> None:
    """Full batches, in as many requests at once as are set, are enough for the share of each process."""
    capacity = plan_capacity(load, setup, cost)
    settings, share = capacity.settings, load.peak_per_second / (capacity.tasks_needed * setup.processes_of_task)
    assert settings.consumers * MAX_ENTRIES[Call.RECEIVE] / load.queue_seconds >= share
    assert BATCH_REQUESTS * MAX_ENTRIES[Call.SEND] / load.queue_seconds >= share
    ledger = settings.ledger_concurrency / settings.processes * MAX_ENTRIES[Call.CLAIM] / load.ledger_seconds
    assert ledger >= share * load.claims


@given(loads, setups, costs)
def test_batches_are_neither_empty_nor_overfull(load: Load, setup: Setup, cost: Cost) -> None:
    """From one entry to as many as the service allows, and every receipt is in one of them."""
    capacity = plan_capacity(load, setup, cost)
    for each in capacity.requests:
        assert 1 <= each.entries <= MAX_ENTRIES[each.call]
        wanted = load.rate_per_second * (load.claims if each.call is Call.CLAIM else 1)
        assert each.per_second * each.entries >= wanted * (1 - 1e-9)


@given(loads, setups, costs)
def test_limits_come_in_order_and_beyond_them_is_beyond(load: Load, setup: Setup, cost: Cost) -> None:
    """The first limit first; what is exceeded is what lies below the peak; what nobody knows comes last."""
    capacity = plan_capacity(load, setup, cost)
    known = [each.at_per_second for each in capacity.reached if each.at_per_second is not None]
    assert known == sorted(known)
    assert [each.at_per_second for each in capacity.reached][len(known) :] == [None]
    assert len(capacity.exceeded) == sum(at < load.peak_per_second for at in known)


@given(rates, setups)
def test_a_limit_is_reached_where_it_says(rate: float, setup: Setup) -> None:
    """A plan for the very rate at which a limit is reached uses all of it."""
    capacity = plan_capacity(Load(rate), setup, CURL)
    for each in capacity.reached:
        if each.limit is limits.DYNAMODB_TABLE_WRITES:
            assert each.at_per_second is not None
            there = plan_capacity(Load(each.at_per_second), setup, CURL)
            assert there.write_units_per_second == pytest.approx(limits.DYNAMODB_TABLE_WRITES.value)
        if each.limit is limits.SQS_IN_FLIGHT:
            assert each.at_per_second is not None
            there = plan_capacity(Load(each.at_per_second), setup, CURL)
            assert limits.SQS_IN_FLIGHT.value is not None
            assert there.in_flight == pytest.approx(limits.SQS_IN_FLIGHT.value * setup.utilisation)


def test_a_plan_worked_out_by_hand() -> None:
    """1,000/s at a millisecond each, cores 50 % busy: 2 processes; Apple takes 0.4 s: 400 connections."""
    load = Load(1_000, apple_seconds=0.4, ledger_seconds=0.02, queue_seconds=0.04, message_bytes=5_000)
    setup = Setup(ONE_VCPU, spare_tasks=1, utilisation=0.5, pace_seconds=0.0)
    capacity = plan_capacity(load, setup, EVEN)
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
    assert capacity.partitions == 1
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
def test_what_binds_a_process_is_told(changes: dict[str, float], bound_by: str) -> None:
    """The CPU, what its client carries, what it may have in flight, or batches under way: what is used up first."""
    assert plan_capacity(replace(Load(1_000), **changes), Setup(), EVEN).bound_by == bound_by


def test_a_known_limit_of_apple_takes_its_place() -> None:
    """Where experience says what Apple bears, that is a limit like others; two requests a receipt halve it."""
    load = Load(10, apple_requests=2, apple_limit_per_second=600)
    reached = plan_capacity(load, Setup(), CURL).reached
    assert all(each.at_per_second is not None for each in reached)
    apple = next(each for each in reached if each.limit is limits.APPLE_VERIFY_RECEIPT)
    assert (apple.at_per_second, apple.used) == (300, 20)


def test_internet_scale_gives_sensible_numbers() -> None:
    """Five million a second: thousands of cores, terabytes, and every default quota in the way."""
    capacity = plan_capacity(Load(5e6), Setup(limits.TASK_SIZES[-1], source_queues=20), CURL)
    assert 1_000 < capacity.processes_needed < 100_000
    assert capacity.partitions == 5_000
    assert capacity.in_flight == pytest.approx(5e6 * capacity.in_house_seconds)
    assert all(math.isfinite(usd) and usd > 0 for usd in capacity.usd_per_month.values())
    exceeded = {each.limit for each in capacity.exceeded}
    assert {limits.FARGATE_VCPUS, limits.DYNAMODB_TABLE_WRITES, limits.NAT_CONNECTIONS} <= exceeded


@pytest.mark.parametrize(
    ("rate", "fits"),
    [(250, True), (1000, True), (2900, False)],
)
def test_fifo_queues_bound_the_requests_of_a_kind(rate: float, fits: bool) -> None:
    """300 of them a second, ten entries each at best; what paces its batches sends more of them."""
    capacity = plan_capacity(Load(rate), Setup(limits.TASK_SIZES[0], spare_tasks=0, fifo=True), CURL)
    (reached,) = (each for each in capacity.reached if each.limit is limits.SQS_FIFO_REQUESTS)
    assert (reached not in capacity.exceeded) == fits
    assert reached.at_per_second is not None and reached.at_per_second <= 3000 * (1 + 1e-9)
    standard = plan_capacity(Load(rate), Setup(limits.TASK_SIZES[0], spare_tasks=0), CURL)
    assert limits.SQS_FIFO_REQUESTS not in [each.limit for each in standard.reached]


def test_bigger_messages_fill_more_than_one_billed_part() -> None:
    """SQS bills every 64 KB of a request: receives of ten 20 KB messages count as four."""
    load = Load(100_000, message_bytes=20 * 1024, queue_seconds=1.0)
    small = plan_capacity(replace(load, message_bytes=5 * 1024), Setup(ONE_VCPU, utilisation=0.9), EVEN)
    big = plan_capacity(load, Setup(ONE_VCPU, utilisation=0.9), EVEN)
    parts = of(big, Call.RECEIVE).billed_per_month / of(small, Call.RECEIVE).billed_per_month
    assert parts == math.ceil(of(big, Call.RECEIVE).entries * 20 / 64)


@given(st.floats(0, 1e5), st.floats(0.001, 1), st.integers(1, 50), st.floats(0, 0.1), st.sampled_from([10, 25]))
def test_batches_fill_with_the_rate(rate: float, seconds: float, slots: int, pace: float, most: int) -> None:
    """More entries never make emptier batches, nor fewer requests; an entry alone leaves alone."""

    def entries(at: float) -> float:
        return entries_per_request(at, seconds=seconds, slots=slots, pace_seconds=pace, max_entries=most)

    assert entries(0) == 1
    assert entries(rate) <= entries(rate * 2) <= most
    assert rate / entries(rate) <= 2 * rate / entries(rate * 2) * (1 + 1e-9)


def test_every_limit_and_price_is_told_whole() -> None:
    """Each has a source and a unit, and a limit says what to do about it; none is told twice."""
    assert len({(each.service, each.what) for each in limits.LIMITS}) == len(limits.LIMITS)
    for each in limits.LIMITS:
        assert all((each.service, each.what, each.unit, each.source, each.remedy))
        assert each.value is None or each.value > 0
    assert all(each.usd > 0 and each.unit for each in limits.PRICES)
    named = {name for name, value in vars(limits).items() if isinstance(value, limits.Limit)}
    assert {id(vars(limits)[name]) for name in named} == {id(each) for each in limits.LIMITS}


@given(loads, setups, costs)
def test_the_bill_is_the_sum_of_its_rows(load: Load, setup: Setup, cost: Cost) -> None:
    """Requests of all kinds share the tiers of SQS."""
    capacity = plan_capacity(load, setup, cost)
    rows = sum(each.usd_per_month for each in capacity.requests)
    assert rows == pytest.approx(capacity.usd_per_month["SQS"] + capacity.usd_per_month["DynamoDB writes"])


def test_what_takes_no_time_has_no_limit() -> None:
    """Neither connections nor messages in flight are reached by what is over at once."""
    at_once = Load(1_000, apple_seconds=0.0, ledger_seconds=0.0, queue_seconds=0.0)
    capacity = plan_capacity(at_once, Setup(pace_seconds=0.0), EVEN)
    assert capacity.bound_by == "CPU"
    reached = {each.limit for each in capacity.reached}
    assert not reached & {limits.NAT_CONNECTIONS, limits.SQS_IN_FLIGHT}


@pytest.mark.parametrize("tasks", [1, 3, 8, 20])
@pytest.mark.parametrize("role", [Role.ACTIVE_STANDBY, Role.LOAD_BALANCED])
def test_an_item_of_roles_is_paid_for_by_its_size(tasks: int, role: Role) -> None:
    """Each task renews five times in a lease, and the item of the group grows with the tasks."""
    taken = roles_taken(replace(Setup(), role=role, lease_seconds=30.0), tasks)
    assert taken is not None
    node = Node("ip-10-0-101-222.eu-west-1.compute.internal-abcdef", role, Limits(20_000, 500, 10_000, 12_345.678), 2)
    group = Group()
    for number in range(tasks):
        group = group.renewed(replace(node, name=f"{node.name}{number:02d}"), 2**47, 30.0)
    assert taken.write_units_per_second >= tasks * 5 / 30 * math.ceil(len(record_of(group).content) / 1024) * (1 - 1e-9)
    assert taken.takeover_seconds == 45.0


def test_who_is_alone_needs_no_table_of_roles() -> None:
    """Neither requests nor money; and a rate that Apple bears is divided by hand."""
    capacity = plan_capacity(Load(3_000.0, apple_limit_per_second=3_600.0), Setup(), CURL)
    assert capacity.roles is None
    assert "DynamoDB roles" not in capacity.usd_per_month
    assert capacity.settings.app_store_rate_per_second == 3_600.0 / capacity.tasks


def test_tasks_that_share_are_told_the_whole() -> None:
    """What is of all of them is as much as all of them need; what is a task's own stays that."""
    alone, balanced = (
        plan_capacity(Load(3_000.0, apple_limit_per_second=3_600.0), replace(Setup(), role=role), CURL)
        for role in (Role.ALONE, Role.LOAD_BALANCED)
    )
    assert balanced.settings.ledger_concurrency == alone.settings.ledger_concurrency * balanced.tasks
    assert balanced.settings.app_store_concurrency == alone.settings.app_store_concurrency * balanced.tasks
    assert balanced.settings.app_store_rate_per_second == 3_600.0
    assert balanced.settings.max_in_flight == alone.settings.max_in_flight
