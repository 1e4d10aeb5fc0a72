"""A crash at every single step of the walk: before each call of a port, and after it while its answer is unknown.

The calls of the ports are all that a process does to the world. With one message in flight at a time they come in the
same order in every run, so one run lists the moments at which a process can die, and then one process dies at each.
"""

from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

import pytest

from receipt_actors.domain.ports import Environment
from receipt_actors.domain.reasons import Reason
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.load import Answered, DeadLettered, Kind, OneOfGroup, SampleMessage
from receipt_actors.sandbox.receipts import Purchase, SampleReceipt, forge, mint
from receipt_actors.testing import SentSubmission
from tests.system.processes import Program, Programs
from tests.system.worlds import BUNDLE_ID, DEAD_LETTERS, RESULTS, SOURCE, EmbeddedWorld

from .traffic import judge, posted, submissions_of

SETTINGS = {
    "consumers": 1,
    "max_in_flight": 1,  # one message after the other: the same order in every run
    "ledger_concurrency": 1,
    "receive_wait_seconds": 0,
    # Nobody asks twice because a busy machine takes its time.
    "app_store_read_timeout_seconds": 60,
    "environments": "Production,Sandbox",
    "max_receive_count": 1000,
}
LONG_IDLE_SECONDS = 3.0  #: longer than a busy machine stands still between two messages
SHORT_IDLE_SECONDS = 0.2  #: for a successor, which is started once more if that was too short
MAX_SUCCESSORS = 10
SHORT = 3  #: steps of the short size


#: A moment to die at, as ``claim 2 after`` says it: before or after the second claim.
Step = str


def _receipt(*transaction_ids: str, environment: Environment = Environment.PRODUCTION) -> str:
    purchases = tuple(Purchase(each) for each in transaction_ids)
    return mint(SampleReceipt(BUNDLE_ID, purchases, environment=environment))


def _message(kind: Kind, user_id: int, receipt: str, expected: Answered | OneOfGroup | DeadLettered) -> SampleMessage:
    attributes = {"submission_id": f"bundle of {user_id}"} if kind == Kind.BUNDLE else {}
    body = json.dumps({"receipt": receipt, "user_id": user_id, "post_queue": RESULTS})
    return SampleMessage(kind, body, attributes, user_id, expected)


_TWICE = _message(Kind.GENUINE, 8, _receipt("800"), Answered("OK", ("800",)))
_FORGED = forge(SampleReceipt(BUNDLE_ID, (Purchase("900"),)))

#: One of each sort.
MESSAGES = (
    _message(Kind.GENUINE, 1, _receipt("100"), Answered("OK", ("100",))),
    _message(Kind.BUNDLE, 2, _receipt("201", "202", "203"), Answered("OK", ("201", "202", "203"))),
    _message(Kind.REPLAYED, 3, _receipt("300"), OneOfGroup("300")),
    _message(Kind.REPLAYED, 4, _receipt("300"), OneOfGroup("300")),
    SampleMessage(Kind.GARBAGE, '{"user_id": 5', {}, 5, DeadLettered(Reason.NOT_JSON)),
    _message(Kind.FORGED, 6, _FORGED, DeadLettered(Reason.NOT_AUTHENTIC)),
    _message(Kind.SANDBOX, 7, _receipt("700", environment=Environment.SANDBOX), Answered("OK", ("700",))),
    _TWICE,  # its producer sends it again, and does not say that it is the same submission
    _TWICE,
)


@dataclass(frozen=True, slots=True)
class Case:
    world: EmbeddedWorld
    store: SimulatedAppStore
    submissions: list[SentSubmission]

    def start(self, crash_at: Step = "", idle_seconds: float = LONG_IDLE_SECONDS) -> Program:
        self.world.environment["CRASH_AT"] = crash_at
        return self.world.start(self.store, **SETTINGS, exit_when_idle_seconds=idle_seconds)

    def redrive(self, crash_at: Step = "") -> Program:
        self.world.environment["CRASH_AT"] = crash_at
        return self.world.command("redrive", "--reason", "none")

    def finish(self) -> list[str]:
        """Let a successor finish; returns what is not as it was promised."""
        self.world.bring_back(SOURCE)
        for _ in range(MAX_SUCCESSORS):
            successor = self.start(idle_seconds=SHORT_IDLE_SECONDS)
            if successor.wait_for_end() != 0:
                return [f"the successor failed: {successor.stderr[-1000:]}"]
            if not self.world.visible(SOURCE):  # what is hidden was taken in and not finished: a fault
                break
        return self.faults()

    def faults(self) -> list[str]:
        dead_letters = self.world.take(DEAD_LETTERS)
        report = judge(self.submissions, map(posted, self.world.take(RESULTS)), dead_letters, self.world)
        left = self.world.total(SOURCE)
        reasons = {letter.attributes.get("reason") for letter in dead_letters}
        return [
            *report.faults,
            *([f"{left} messages are left on the source queue"] if left else []),
            *([f"dead letters for {reasons}"] if reasons != {Reason.NOT_JSON, Reason.NOT_AUTHENTIC} else []),
        ]

    def exhaust(self) -> None:
        self.world.sql("UPDATE messages SET receive_count = 1000, visible_at_seconds = ?", time.time())
        assert self.world.take(SOURCE) == []


@pytest.fixture
def new_case(programs: Programs, tmp_path: Path, store: SimulatedAppStore) -> Iterator[Callable[[], Case]]:
    with ExitStack() as worlds:

        def make() -> Case:
            world = worlds.enter_context(closing(EmbeddedWorld(programs, Path(mkdtemp(dir=tmp_path)))))
            world.module = "tests.chaos.chaotic_program"
            return Case(world, store, submissions_of(MESSAGES, world.send(MESSAGES)))

        yield make


def test_a_crash_at_every_step_breaks_no_promise(
    new_case: Callable[[], Case], is_full: bool, figure: Callable[[str], None]
) -> None:
    steps = _steps_of_a_run(new_case)
    # How often an empty queue is asked depends on the time: of a few steps none may be one that does not come again.
    certain = [step for step in steps if not step.startswith("receive")]
    chosen = steps if is_full else random.Random(7).sample(certain, SHORT)
    _try_all(chosen, lambda step: _die_and_finish(new_case, step), figure)


@pytest.mark.short
def test_two_crashes_in_a_row_break_no_promise(
    new_case: Callable[[], Case], is_full: bool, figure: Callable[[str], None]
) -> None:
    steps = _steps_of_a_run(new_case) if is_full else ["claim 2 after"]

    def die_twice(step: Step) -> list[str] | None:
        operation, _number, when = step.split()
        return _die_and_finish(new_case, step, f"{operation} 1 {when}")

    _try_all(steps, die_twice, figure, must_occur=False)  # near the end nothing is left for the second to die at


def test_a_crash_of_redrive_breaks_no_promise(
    new_case: Callable[[], Case], is_full: bool, figure: Callable[[str], None]
) -> None:
    steps = _steps_of_a_redrive(new_case) if is_full else ["send 1 after"]

    def die_redriving(step: Step) -> list[str] | None:
        case = _given_up(new_case)
        died = _dies(case.redrive(step))
        case.world.bring_back(DEAD_LETTERS)
        again = case.redrive()
        if again.wait_for_end() != 0:
            return [f"the second redrive failed: {again.stderr[-1000:]}"]
        return _told(case, died)

    _try_all(steps, die_redriving, figure)


def _given_up(new_case: Callable[[], Case]) -> Case:
    case = new_case()
    assert _dies(case.start("delete 2 before")), "nothing is deleted"
    case.exhaust()
    return case


def _die_and_finish(new_case: Callable[[], Case], *steps: Step) -> list[str] | None:
    """Have a process die at each of these steps and another one finish; None where the first step did not occur."""
    case = new_case()
    died = True
    for number, step in enumerate(steps):
        if number:
            case.world.bring_back(SOURCE)
        died = _dies(case.start(step)) and died
    return _told(case, died)


def _dies(program: Program) -> bool:
    """Wait for the end of a process; tell whether it died where it was to."""
    code = program.wait_for_end()
    assert code in (0, -signal.SIGKILL), program.stderr[-2000:]
    return code != 0


def _told(case: Case, died: bool) -> list[str] | None:
    return case.finish() or (None if not died else [])


def _steps_of_a_run(new_case: Callable[[], Case]) -> list[Step]:
    case = new_case()
    program = case.start()
    assert program.wait_for_end() == 0, program.stderr
    assert case.faults() == []
    return _steps(program)


def _steps_of_a_redrive(new_case: Callable[[], Case]) -> list[Step]:
    case = _given_up(new_case)
    redrive = case.redrive()
    assert redrive.wait_for_end() == 0, redrive.stderr
    assert case.finish() == []
    return _steps(redrive)


def _steps(program: Program) -> list[Step]:
    taken: list[tuple[str, int]] = json.loads(program.stdout.splitlines()[-1])
    return [f"{operation} {number} {when}" for operation, number in taken for when in ("before", "after")]


def _try_all(
    steps: Iterable[Step],
    attempt: Callable[[Step], list[str] | None],
    figure: Callable[[str], None],
    *,
    must_occur: bool = True,
) -> None:
    found = {step: attempt(step) for step in steps}
    missed = [step for step, faults in found.items() if faults is None]
    broken = {step: faults for step, faults in found.items() if faults}
    operations = Counter(step.partition(" ")[0] for step in found)
    figure(
        f"a crash at each of {len(found)} steps: {', '.join(f'{count} {each}' for each, count in operations.items())};"
        f" {len(broken)} broke a promise"
        + (f"; not all processes came to their step for {', '.join(missed)}" if missed else "")
    )
    assert broken == {}
    if must_occur:  # but how often an empty queue is asked depends on the time
        assert [step for step in missed if not step.startswith("receive")] == []
    assert len(missed) <= len(found) / 3
