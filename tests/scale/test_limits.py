"""Limits over processes: how they are divided, and that no more than the whole is ever held, whoever dies when."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from receipt_actors.domain.limits import Division, Limits, Share, divide

counts = st.integers(1, 5_000)
rates = st.none() | st.floats(0.001, 10_000)
wholes = st.builds(Limits, counts, counts, counts, rates)


def counted(limits: Limits) -> tuple[int, int, int]:
    return limits.max_in_flight, limits.ledger_concurrency, limits.app_store_concurrency


@given(wholes, st.integers(1, 64))
def test_shares_sum_up_to_the_whole(whole: Limits, parts: int) -> None:
    shares = divide(whole, parts)
    assert len(shares) == parts
    assert tuple(map(sum, zip(*map(counted, shares), strict=True))) == counted(whole)
    rate = whole.app_store_rate_per_second
    for share in shares:
        assert share.app_store_rate_per_second == (None if rate is None else rate / parts)


@given(wholes, st.integers(1, 64))
def test_a_part_is_within_the_whole(whole: Limits, parts: int) -> None:
    assert all(part.is_within(whole) for part in divide(whole, parts))
    for more in ({"max_in_flight": whole.max_in_flight + 1}, {"ledger_concurrency": whole.ledger_concurrency + 1}):
        assert not replace(whole, **more).is_within(whole)
    assert not replace(whole, app_store_concurrency=whole.app_store_concurrency + 1).is_within(whole)
    assert replace(whole, app_store_rate_per_second=None).is_within(whole) == (whole.app_store_rate_per_second is None)
    assert whole.is_within(replace(whole, app_store_rate_per_second=None))


def test_a_whole_that_becomes_smaller_is_exceeded_until_enough_has_been_given_back() -> None:
    division, _ = Division(Limits(10, 4, 8)).joined("a")
    division, orders = division.of(Limits(4, 2, 2))
    assert {name: share.told for name, share in orders.items()} == {"a": Limits(4, 2, 2)}
    assert not division.is_kept
    division, _ = division.confirmed("a", orders["a"].number)
    assert division.is_kept
    division, orders = division.of(Limits(10, 4, 8))
    assert orders["a"].told == Limits(10, 4, 8)
    assert division.is_kept


@pytest.mark.parametrize(("before", "after"), [(None, 6.0), (6.0, None)])
def test_a_rate_that_comes_or_goes_is_told(before: float | None, after: float | None) -> None:
    division, _ = Division(Limits(4, 4, 4, before)).joined("a")
    division, orders = division.of(Limits(4, 4, 4, after))
    assert orders["a"].told == Limits(4, 4, 4, after)
    assert division.is_kept


def test_nothing_is_given_back_as_a_whole() -> None:
    division, _ = Division(Limits(4, 4, 4, 6.0)).joined("a")
    division, orders = division.of(division.whole.nothing)
    assert not division.is_kept
    division, _ = division.confirmed("a", orders["a"].number)
    assert division.is_kept
    assert division.shares == {"a": None}
    _, orders = division.of(Limits(4, 4, 4, 6.0))
    assert orders["a"].told == Limits(4, 4, 4, 6.0)


def test_a_number_is_given_once() -> None:
    division, orders = Division(Limits(4, 4, 4)).joined("a")
    numbers = [orders["a"].number]
    for _ in range(2):
        division, orders = division.of(division.whole.nothing)
        numbers.append(orders["a"].number)
        division, _ = division.confirmed("a", numbers[-1])
        division, orders = division.of(Limits(4, 4, 4))
        numbers.append(orders["a"].number)
        division, _ = Division(division.whole).found(division.shares)
    assert numbers == sorted(set(numbers))


class Redivision(RuleBasedStateMachine):
    """Workers come, die and confirm in any order, and what they were told arrives in any delay.

    The model is what each worker really keeps to: the most that any order on its way or obeyed allows it.
    """

    workers: Bundle[str] = Bundle("workers")
    orders: Bundle[tuple[str, int, Share]] = Bundle("orders")

    def __init__(self) -> None:
        super().__init__()
        self.division: Division = Division(Limits(23, 11, 17, 7.3))
        self.lives: dict[str, int] = {}  # of each name, to tell a successor from the one before
        self.living: dict[str, int] = {}
        self.may_use: dict[str, Limits] = {}
        self.on_the_way: dict[str, list[Share]] = {}

    def note(self, orders: dict[str, Share]) -> None:
        for name, share in orders.items():
            assert name in self.living, "a worker was told something that has left"
            self.on_the_way.setdefault(name, []).append(share)

    @rule(name=st.sampled_from("abcde"))
    def join(self, name: str) -> None:
        if name in self.living:
            return
        self.lives[name] = self.living[name] = self.lives.get(name, 0) + 1
        self.division, orders = self.division.joined(name)
        self.note(dict(orders))

    @rule(name=st.sampled_from("abcde"))
    def die(self, name: str) -> None:
        if self.living.pop(name, None) is None:
            return
        self.may_use.pop(name, None)
        self.on_the_way.pop(name, None)
        self.division, orders = self.division.left(name)
        self.note(dict(orders))

    @rule(name=st.sampled_from("abcde"))
    def obey(self, name: str) -> None:
        """The oldest order arrives and is obeyed; its confirmation reaches the parent at once, others never left."""
        if waiting := self.on_the_way.get(name):
            share = waiting.pop(0)
            self.may_use[name] = share.told
            self.division, orders = self.division.confirmed(name, share.number)
            self.note(dict(orders))

    @rule(name=st.sampled_from("abcde"))
    def obey_only_the_newest(self, name: str) -> None:
        """What was on its way before is out of date and never confirmed."""
        if waiting := self.on_the_way.get(name):
            del waiting[:-1]
            self.obey(name)

    @rule(name=st.sampled_from("abcde"), number=st.integers(0, 3))
    def confirm_what_is_out_of_date(self, name: str, number: int) -> None:
        share = self.division.shares.get(name)
        if share is not None and number < share.number:
            self.division, orders = self.division.confirmed(name, number)
            assert not orders

    @rule()
    def forget(self) -> None:
        self.division, orders = Division(self.division.whole).found(self.division.shares)
        self.note(dict(orders))

    @rule()
    def settle(self) -> None:
        """When all have obeyed everything, each has exactly what is due to it."""
        while any(self.on_the_way.values()):
            for name in list(self.living):
                self.obey(name)
        due = divide(self.division.whole, max(1, len(self.living)))
        for name, limits in zip(sorted(self.living), due, strict=False):
            assert self.may_use[name] == limits

    @invariant()
    def never_more_than_the_whole(self) -> None:
        used = []
        for name in self.living:
            possible = [share.told for share in self.on_the_way.get(name, ())]
            possible += [self.may_use[name]] if name in self.may_use else []
            if possible:
                used.append([max(amounts) for amounts in zip(*map(amounts_of, possible), strict=True)])
        for kind, whole in enumerate(amounts_of(self.division.whole)):
            total = sum(amounts[kind] for amounts in used)
            assert total <= whole * (1 + 1e-6)
            if kind < 3:
                assert total <= whole

    @invariant()
    def whoever_has_anything_has_some_of_everything(self) -> None:
        for share in self.division.shares.values():
            assert share is None or min(amounts_of(share.told)) > 0


def amounts_of(limits: Limits) -> tuple[float, ...]:
    assert limits.app_store_rate_per_second is not None
    return *counted(limits), limits.app_store_rate_per_second


TestRedivision = Redivision.TestCase
