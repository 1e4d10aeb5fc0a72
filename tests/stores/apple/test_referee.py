"""Whether refusals are believed: in a storm of forgeries, in an outage, and where nothing tells one from the other."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import event, given
from hypothesis import strategies as st

from receipt_actors.stores.apple.referee import CONTROL_RENEWAL_SECONDS, MAX_CONTROLS, MIN_USERS, RECENT_USERS, Referee

HONEST, FORGED = "honest", "forged"


@dataclass
class Model:
    """Apple, the users, and a gateway that does as the rule says."""

    works: bool = True
    referee: Referee[str] = field(default_factory=Referee)
    held: list[str] = field(default_factory=list)
    believed: list[str] = field(default_factory=list)  # refusals, by who was refused
    answered: int = 0
    outages: int = 0
    now: float = 0.0

    def message(self, kind: str, number: int) -> None:
        self.now += 1.0
        user = f"{kind}-{number}"
        if kind == HONEST and self.works:
            self.answered += 1
            if self.referee.is_out:
                self.referee = self.referee.interrupted()
            self.referee = self.referee.vouched(user, user, self.now)
            if not self.referee.is_contested:
                self.believe()
        elif not self.referee.is_out:  # else the refusal is no answer, and the message is kept
            self.referee = self.referee.refused(user)
            if self.referee.believes_without_control:
                self.believed.append(user)
            else:
                self.held.append(user)

    def believe(self) -> None:
        self.believed += self.held
        self.held.clear()

    def ask_controls(self) -> None:
        while self.referee.next_control is not None:
            if self.works:
                if self.referee.is_out:
                    self.referee = self.referee.interrupted()
                self.referee = self.referee.control_vouched()
                self.believe()
                return
            if self.referee.is_out:
                return
            self.referee = self.referee.control_refused()
            if self.referee.is_out:
                self.outages += 1
                self.held.clear()  # they are asked again when it is over


messages = st.tuples(st.sampled_from([HONEST, FORGED, FORGED]), st.integers(0, 40))
steps = st.lists(messages | st.just("ask"), max_size=120)


def run(model: Model, steps: list[tuple[str, int] | str]) -> None:
    for step in steps:
        if isinstance(step, str):
            model.ask_controls()
        else:
            model.message(*step)


@given(steps)
def test_forgeries_alone_are_never_an_outage(steps: list[tuple[str, int] | str]) -> None:
    model = Model()
    run(model, steps)
    assert model.outages == 0
    assert all(user.startswith(FORGED) for user in model.believed)
    model.message(HONEST, 99)
    model.ask_controls()
    assert model.held == []
    honest, forged = ([step for step in steps if step[0] == kind] for kind in (HONEST, FORGED))
    assert (model.answered, len(model.believed)) == (len(honest) + 1, len(forged))
    event("contested" if model.referee.is_contested else "quiet")


@given(steps, steps)
def test_no_refusal_of_an_outage_is_believed_where_there_is_a_control(
    before: list[tuple[str, int] | str], meanwhile: list[tuple[str, int] | str]
) -> None:
    model = Model()
    run(model, before)
    model.message(HONEST, 99)
    model.ask_controls()
    believed, model.works = len(model.believed), False
    run(model, meanwhile)
    assert model.believed[believed:] == []
    if "ask" in meanwhile:
        assert model.outages == 1
    model.ask_controls()
    assert model.referee.is_out
    model.works = True
    model.ask_controls()
    assert not model.referee.is_out


@given(steps)
def test_without_a_control_the_refusals_of_few_are_believed(steps: list[tuple[str, int] | str]) -> None:
    model = Model(works=False)
    run(model, steps)
    assert len(set(model.believed)) < MIN_USERS
    assert not model.referee.is_out


@given(steps)
def test_it_remembers_little(steps: list[tuple[str, int] | str]) -> None:
    model = Model()
    run(model, steps)
    assert len(model.referee.recent) <= RECENT_USERS
    users = [user for user, _question in model.referee.controls]
    assert len(users) == len(set(users)) <= MAX_CONTROLS


def with_controls(*users: str) -> Referee[str]:
    referee: Referee[str] = Referee()
    for number, user in enumerate(users):
        referee = referee.vouched(user, user, float(number))
    return referee


def test_one_user_with_many_forgeries_counts_once() -> None:
    referee = with_controls("a", "b", "c")
    for _ in range(1000):
        referee = referee.refused("cracker")
    assert not referee.is_contested


def test_most_users_refused_is_contested() -> None:
    referee = with_controls("a", "b", "c")
    for number in range(4):
        assert not referee.is_contested
        referee = referee.refused(f"u{number}")
    assert referee.is_contested
    assert referee.vouched("d", "d", 9.0).is_contested is False


def test_a_control_without_an_answer_comes_last() -> None:
    referee = with_controls("a", "b", "c").control_unanswered()
    assert [user for user, _question in referee.controls] == ["b", "c", "a"]
    referee = with_controls("a", "b", "c").control_refused().control_unanswered()
    assert [user for user, _question in referee.controls] == ["a", "c", "b"]


def test_controls_are_renewed_now_and_then() -> None:
    referee = with_controls("a", "b", "c")
    assert [user for user, _question in referee.vouched("d", "d", 3.0).controls] == ["a", "b", "c"]
    referee = referee.vouched("d", "d", 2.0 + CONTROL_RENEWAL_SECONDS)
    assert [user for user, _question in referee.controls] == ["b", "c", "d"]


def test_what_is_asked_again_is_not_shown() -> None:
    assert "a receipt" not in repr(Referee().vouched("user", "a receipt", 0.0))
