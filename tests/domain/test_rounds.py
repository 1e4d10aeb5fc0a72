"""In which order the messages of one receive are begun."""

from __future__ import annotations

from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from receipt_actors.domain.messages import Unanswerable
from receipt_actors.domain.ports import ReceivedMessage
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.rounds import Rounds, into_rounds

WORK = Unanswerable(Reason.NOT_JSON, "whatever it is")


def received(*names: str) -> list[tuple[ReceivedMessage, Unanswerable | None]]:
    """``a1`` is of group ``a``, ``-1`` of none, ``a1!`` a corrupt copy."""
    return [
        (
            ReceivedMessage(name.rstrip("!"), "", "", "", group_id=None if name[0] == "-" else name[0]),
            None if name.endswith("!") else WORK,
        )
        for name in names
    ]


def begun(rounds: Rounds) -> list[list[str]]:
    return [[delivery.message_id for delivery, _ in one] for one in rounds.rounds]


def ids(deliveries: object) -> list[str]:
    return [delivery.message_id for delivery in deliveries]  # type: ignore[attr-defined]


def test_a_round_has_one_of_each_group() -> None:
    """In the order in which they came; what is of no group is begun at once."""
    rounds = into_rounds(received("a1", "-1", "a2", "b1", "-2", "a3", "b2"))
    assert begun(rounds) == [["a1", "-1", "b1", "-2"], ["a2", "b2"], ["a3"]]
    assert (rounds.corrupt, rounds.behind) == ([], [])


def test_what_is_behind_a_corrupt_copy_is_not_begun() -> None:
    """What is before it is; one of no group has nothing behind it."""
    rounds = into_rounds(received("-1!", "a1", "a2!", "-2", "a3", "a4!", "b1"))
    assert begun(rounds) == [["a1", "-2", "b1"]]
    assert (ids(rounds.corrupt), ids(rounds.behind)) == (["-1", "a2"], ["a3", "a4"])


def test_a_receive_that_brought_nothing_has_no_rounds() -> None:
    """Nor has one of corrupt copies alone."""
    assert begun(into_rounds([])) == begun(into_rounds(received("a1!", "-1!"))) == []


def test_what_is_behind_one_that_did_not_begin_is_not_begun() -> None:
    """The other groups go on; those that did not have their turn are told once."""
    rounds = into_rounds(received("a1", "b1", "a2", "b2", "a3", "b3")).after_first({"a"})
    assert (begun(rounds), ids(rounds.behind)) == ([["b2"], ["b3"]], ["a2", "a3"])
    rounds = rounds.after_first(set())
    assert (begun(rounds), ids(rounds.behind)) == ([["b3"]], [])
    rounds = rounds.after_first({"b"})
    assert (begun(rounds), ids(rounds.behind)) == ([], [])


@given(
    st.lists(st.sampled_from(["a", "b", "c", "-", "a!", "-!"]), max_size=10),
    st.lists(st.sets(st.sampled_from(["a", "b", None])), min_size=10, max_size=10),
)
def test_a_group_keeps_its_order_and_has_no_gaps(kinds: list[str], gaps: list[set[str | None]]) -> None:
    """Whatever comes, and whatever does not begin: each message has one fate, and none passes one before it."""
    names = [f"{kind[0]}{number}{kind[1:]}" for number, kind in enumerate(kinds)]
    rounds = into_rounds(received(*names))
    fates: list[str] = [*ids(rounds.corrupt), *ids(rounds.behind)]
    on_their_way: list[str] = []
    for groups_with_gap in gaps:
        if not rounds.rounds:
            break
        first = begun(rounds)[0]
        assert len({name[0] for name in first if name[0] != "-"}) == sum(name[0] != "-" for name in first)
        fates += first
        on_their_way += [name for name in first if name[0] not in groups_with_gap]
        rounds = rounds.after_first(groups_with_gap)
        fates += ids(rounds.behind)
    assert sorted(fates) == sorted(name.rstrip("!") for name in names)
    for group in "abc":
        of_group = [name for name in names if name[0] == group]
        there = [name for name in on_their_way if name[0] == group]
        assert there == of_group[: len(there)]
    assert list(chain.from_iterable(begun(rounds))) == []
