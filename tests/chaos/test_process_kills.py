"""kill -9 of the whole program, again and again, while messages are delivered twice; then the books are checked.

A process is stopped (SIGSTOP) before it is killed, and looked at: what it has received and not deleted dies with it. A
kill that has to hit work waits for such a moment, so it does not depend on how fast the machine is.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import cast

import pytest

from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.load import Kind, SampleMessage, make_scenario
from receipt_actors.sandbox.receipts import Fault
from receipt_actors.testing import AuditReport, SentSubmission
from tests.patience import PATIENCE_SECONDS
from tests.system.ministack import IS_INSTALLED, WHY_NOT, MiniStack
from tests.system.processes import Program, Programs
from tests.system.worlds import (
    BUNDLE_ID,
    DEAD_LETTERS,
    RESULTS,
    SOURCE,
    AwsWorld,
    EmbeddedWorld,
    Letter,
    Outcome,
    World,
    genuine_messages,
)

from .aws_proxy import AwsProxy, Rates
from .traffic import judge, posted, submissions_of

STARTED = "consumers take receipts"
DRAINING = "draining for at most"
START_SECONDS = 0.6  #: about what the program takes to start; to die in the middle of it
MAX_RUNS = 12  #: of the last program, until nothing is left
MOST_CATCHES = 100  #: of a process that may have finished before it stops

#: Short, so that what a dead process holds comes back soon; few in flight, so that not everything is held by the dead.
SETTINGS = {"visibility_timeout_seconds": 10, "max_in_flight": 150, "app_store_concurrency": 100, "drain_seconds": 5}


class Load:
    def __init__(self, count: int, seed: int, *, without: Collection[Kind] = ()) -> None:
        sent_twice = count // 40
        scenario = make_scenario(count - 2 * sent_twice, seed, BUNDLE_ID, RESULTS)
        scenario = replace(scenario, messages=tuple(each for each in scenario.messages if each.kind not in without))
        others = make_scenario(4 * sent_twice + 20, seed + 1, BUNDLE_ID, RESULTS).messages
        self.scenario = scenario
        genuine = [replace(message, attributes={}) for message in others if message.kind == Kind.GENUINE]
        self.sent_twice = genuine[:sent_twice]
        self._spare = _genuine_ones(seed + 2)
        self._beside = {message.user_id for message in self.sent_twice}  #: users of what is not of the scenario
        self._to_come = [*scenario.messages, *self.sent_twice, *self.sent_twice]
        random.Random(seed).shuffle(self._to_come)
        self.submissions: list[SentSubmission] = []

    @property
    def left(self) -> int:
        return len(self._to_come)

    def send(self, world: World, count: int) -> None:
        messages, self._to_come = self._to_come[:count], self._to_come[count:]
        self._send(world, messages)

    def send_one(self, world: World) -> None:
        if self.left:
            self.send(world, 1)
            return
        message = next(self._spare)
        self._beside.add(message.user_id)
        self._send(world, [message])

    def faults(self, answers: Sequence[Letter], dead_letters: Sequence[Letter]) -> list[str]:
        """Say whose status or reason is not as it should be (of what is sent twice, or beside, ``audit`` says more)."""
        others = [letter for letter in answers if letter.fields["user_id"] not in self._beside]
        return [*Outcome(others, dead_letters).faults(self.scenario)]

    def _send(self, world: World, messages: Sequence[SampleMessage]) -> None:
        self.submissions += submissions_of(messages, world.send(messages))


def _genuine_ones(seed: int) -> Iterator[SampleMessage]:
    for number in itertools.count(seed):
        yield from genuine_messages(100, number)


class Deliveries:
    """The deliveries of an SQLite file: counted by a trigger, and some made twice behind the program's back.

    On AWS the ``AwsProxy`` does the same.
    """

    def __init__(self, world: EmbeddedWorld, seed: int) -> None:
        self._world = world
        self._random = random.Random(seed)
        self._born_at = time.time()
        self._is_calm = False
        self._doubled = 0
        ((self._source,),) = world.sql("SELECT queue_id FROM queues WHERE name = ?", SOURCE)
        world.sql("CREATE TABLE observed (received INTEGER NOT NULL)")
        world.sql("INSERT INTO observed VALUES (0)")
        world.sql(
            "CREATE TRIGGER observe AFTER UPDATE OF receive_count ON messages"
            f" WHEN new.queue_id = {self._source} BEGIN UPDATE observed SET received = received + 1; END"
        )

    def begin_life(self) -> None:
        self._born_at = time.time()

    def disturb(self) -> None:
        if self._is_calm or self._random.random() > 0.1:
            return
        update = (
            "UPDATE messages SET visible_at_seconds = ? WHERE row_id IN (SELECT row_id FROM messages"
            " WHERE queue_id = ? AND visible_at_seconds > ? AND received_at_seconds >= ?"
            " ORDER BY RANDOM() LIMIT ?) RETURNING 1"
        )
        now, most = time.time(), self._random.randrange(1, 10)
        self._doubled += len(self._world.sql(update, now, self._source, now, self._born_at, most))

    def in_flight(self, receives: int = 1) -> int:
        """Count what the process has received and not deleted, and what was received so often or more often."""
        select = (
            "SELECT COUNT(*) FROM messages"
            " WHERE queue_id = ? AND received_at_seconds >= ? AND visible_at_seconds > ? AND receive_count >= ?"
        )
        return int(self._world.sql(select, self._source, self._born_at, time.time(), receives)[0][0])

    @property
    def messages_received(self) -> int:
        return int(self._world.sql("SELECT received FROM observed")[0][0])

    def calm(self) -> None:
        self._is_calm = True

    def bring_back(self) -> None:
        self._world.sql("UPDATE messages SET visible_at_seconds = MIN(visible_at_seconds, ?)", time.time())

    def figures(self) -> str:
        return f"{self._doubled} made visible while in flight"


@dataclass(slots=True)
class Tally:
    kills: Counter[str] = field(default_factory=Counter)  #: by phase
    hits: int = 0  #: kills that found messages in flight
    in_flight: int = 0  #: messages, over all kills

    def note(self, victim: str, in_flight: int) -> None:
        self.kills[victim] += 1
        self.hits += in_flight > 0
        self.in_flight += in_flight


class Killer:
    def __init__(
        self,
        world: World,
        deliveries: Deliveries | AwsProxy,
        store: SimulatedAppStore,
        load: Load,
        settings: Mapping[str, object],
        seed: int,
    ) -> None:
        self.world = world
        self.deliveries = deliveries
        self.load = load
        self.answers: list[Letter] = []
        self.tally = Tally()
        self.lives: list[Program] = []
        self._store = store
        self._settings = settings
        self._random = random.Random(seed)

    @property
    def must_hit(self) -> bool:
        """Tell whether the next kill must hit work, so that half of all kills do: the claim is about these."""
        return 2 * self.tally.hits <= self.tally.kills.total()

    def is_done(self, times: int) -> bool:
        return self.tally.kills.total() >= times

    def kill(self, times: int) -> None:
        while not self.is_done(times):
            portion = -(-self.load.left // max(1, times - self.tally.kills.total()))
            phase = self._random.choices(("start-up", "work", "drain"), (15, 65, 20))[0]
            self._live_and_die("work" if self.must_hit else phase, portion)
            assert len(self.lives) < times + MAX_RUNS
        self.load.send(self.world, self.load.left)

    def start(self, **settings: object) -> Program:
        self.deliveries.begin_life()
        program = self.world.start(self._store, **self._settings, **settings)
        self.lives.append(program)
        return program

    def read_answers(self) -> None:
        self.answers += self.world.read(RESULTS)

    def _live_and_die(self, phase: str, portion: int) -> None:
        program = self.start()
        self.read_answers()  # of the one before
        if phase == "start-up":
            self._let_live(program, self._random.uniform(0, START_SECONDS))
        else:
            program.wait_for_log(STARTED)
            life_seconds = self._random.uniform(0.4, 2.0)
            for part in _parts(portion, self._random.randint(1, 4)):
                self.load.send(self.world, part)
                self._let_work(program, self._random.uniform(0, life_seconds / 3))
            if phase == "drain":
                program.send_signal(signal.SIGTERM)
                program.ends_within(self._random.uniform(0, 0.4))  # or not
        in_flight = 0 if program.ends_within(0) else self._catch(program)
        if program.kill_if_running():
            self.tally.note(_phase_of(program), in_flight)
        else:
            assert phase == "drain", f"the program ended by itself:\n{program.stderr[-2000:]}"

    def _catch(self, program: Program) -> int:
        """Stop it, at work where it has to be; returns how many messages it has in its hands."""
        for _ in range(MOST_CATCHES):
            program.pause()
            in_flight = self.deliveries.in_flight()
            if in_flight > 0 or not self.must_hit:
                return in_flight
            program.resume()
            self._wait_for_work(program)
        raise AssertionError("the program is never found at work")

    def _let_live(self, program: Program, seconds: float) -> None:
        end = time.monotonic() + seconds

        def is_over() -> bool:
            self.deliveries.disturb()
            return time.monotonic() >= end

        program.wait_until(is_over, "its time has come")

    def _let_work(self, program: Program, seconds: float) -> None:
        """Let it live; but where it must be hit at work, only until it works on something."""
        if self.must_hit:
            self._wait_for_work(program)
        else:
            self._let_live(program, seconds)

    def _wait_for_work(self, program: Program) -> None:
        def is_at_work() -> bool:
            self.deliveries.disturb()
            if self.world.total(SOURCE) == 0:  # it was faster than we looked
                self.load.send_one(self.world)
            return self.deliveries.in_flight() > 0

        program.wait_until(is_at_work, "it works on something")


class GroupKiller(Killer):
    """Kills workers of a program with several processes, and then its parent, whose other workers drain meanwhile."""

    def _live_and_die(self, phase: str, portion: int) -> None:
        program = self.start()
        self.read_answers()
        if phase != "start-up":
            program.wait_for_log(STARTED)
        for part in _parts(portion, self._random.randint(1, 4)):
            self.load.send(self.world, part)
            self._let_work(program, self._random.uniform(0, 0.7))
            in_flight = self._catch(program)
            if workers := program.children():
                self.tally.note("worker", in_flight)
                os.kill(self._random.choice(workers), signal.SIGKILL)
            program.resume()
        self._let_work(program, self._random.uniform(0, 0.7))
        self.tally.note("parent", self._catch(program))
        program.resume()  # workers that are stopped when their parent dies are ended by the kernel
        program.kill()


class ExhaustingKiller(Killer):
    """What a process held when it died comes back at once, so that receive counts are used up within a few lives.

    Each kill hits work until something has died that was received as often as may be.
    """

    _used_up = 0  # messages, over all kills

    @property
    def must_hit(self) -> bool:
        return super().must_hit or self._used_up == 0

    def is_done(self, times: int) -> bool:
        return super().is_done(times) and self._used_up > 0

    def _catch(self, program: Program) -> int:
        in_flight = super()._catch(program)
        self._used_up += self.deliveries.in_flight(receives=int(str(self._settings["max_receive_count"])))
        return in_flight

    def start(self, **settings: object) -> Program:
        self.deliveries.bring_back()
        return super().start(**settings)


class Drainer(Killer):
    """Ends one process after the other by SIGTERM, at any moment: each drain is in order."""

    slowest_seconds = 0.0

    def _live_and_die(self, phase: str, portion: int) -> None:
        self.load.send(self.world, portion)
        program = self.start()
        moment = self._random.choices(["start-up", "at work", "while Apple hangs"], [3, 5, 2])[0]
        if moment == "start-up":
            program.pass_time(1.5 * self._random.random())
        else:
            program.wait_for_log(STARTED)
            if moment == "while Apple hangs":
                self._store.outage(Fault.hang(600))
            program.pass_time(self._random.random())
        told_at = time.monotonic()
        program.send_signal(signal.SIGTERM)
        if program.wait_for_end() == -signal.SIGTERM:
            assert STARTED not in program.stderr, "it had begun, and did not drain"
            moment = "before Python was up"
        else:
            assert program.wait_for_end() == 0
            assert "Traceback" not in program.stderr
            self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - told_at)
        self._store.recover()
        hidden = self.world.total(SOURCE) - self.world.visible(SOURCE)
        assert hidden == 0, f"{moment}: {hidden} messages are left to their visibility timeout"
        self.tally.note(moment, 0)


def _phase_of(program: Program) -> str:
    log = program.stderr
    return "drain" if DRAINING in log else "work" if STARTED in log else "start-up"


def _parts(count: int, parts: int) -> Iterator[int]:
    for number in range(parts):
        yield count * (number + 1) // parts - count * number // parts


@dataclass(frozen=True, slots=True)
class Books:
    report: AuditReport
    faults: list[str]  #: of the audit, and of the scenario's own expectations
    left_on_source: int
    redriven: int


def settle_up(killer: Killer, *, redrives: bool) -> Books:
    world = killer.world
    killer.deliveries.calm()
    redriven = 0
    for _ in range(MAX_RUNS):
        _finish(killer)
        if not redrives:
            break
        moved = _redrive(world)
        redriven += moved
        if not moved:
            break
    killer.read_answers()
    dead_letters = world.read(DEAD_LETTERS)
    report = judge(killer.load.submissions, map(posted, killer.answers), dead_letters, world)
    unreasoned = [f"{letter.message_id}: no reason" for letter in dead_letters if "reason" not in letter.attributes]
    faults = [*report.faults, *unreasoned, *killer.load.faults(killer.answers, dead_letters)]
    return Books(report, faults, world.total(SOURCE), redriven)


def _finish(killer: Killer) -> None:
    for _ in range(MAX_RUNS):
        killer.deliveries.bring_back()
        program = killer.start(exit_when_idle_seconds=0.6)
        assert program.wait_for_end(2 * PATIENCE_SECONDS) == 0, program.stderr[-2000:]
        killer.read_answers()
        if killer.world.total(SOURCE) == 0:
            return


def _redrive(world: World) -> int:
    command = world.command("redrive", "--reason", "none")
    assert command.wait_for_end() == 0, command.stderr
    return int(command.stdout.partition(": ")[2].partition(" moved")[0])


_CLAIM_RATES = {"refused": 0.01, "throttled": 0.01, "lost": 0.02, "cut": 0.02, "slow": 0.001, "late": 0.001}
#: Answers that are late cost the client 5 s and more, so they are rare.
RATES: Rates = {
    "ReceiveMessage": {"refused": 0.01, "throttled": 0.01, "lost": 0.01, "cut": 0.01, "slow": 0.0005, "doubled": 0.05},
    "SendMessageBatch": {"refused": 0.01, "throttled": 0.01, "lost": 0.02, "cut": 0.02, "slow": 0.001, "late": 0.001},
    "DeleteMessageBatch": {"refused": 0.01, "throttled": 0.01, "lost": 0.01, "cut": 0.01, "late": 0.001},
    "ChangeMessageVisibilityBatch": {"refused": 0.02, "lost": 0.02, "late": 0.01},
    "PutItem": _CLAIM_RATES,
    "BatchExecuteStatement": _CLAIM_RATES,
    "GetItem": {"refused": 0.01, "throttled": 0.01, "lost": 0.01, "cut": 0.01, "slow": 0.001},
}


@dataclass(frozen=True, slots=True)
class Size:
    messages: int
    kills: int
    max_receive_count: int


@dataclass(frozen=True, slots=True)
class Case:
    size: Size
    short: Size | None  #: None: as another one is, but for its size
    killer_class: type[Killer] = Killer
    redrives: bool = False
    processes: int = 1


#: Nothing is received a thousand times; kills and duplicates alone come to five.
CASES = {
    "embedded": Case(Size(20_400, 204, 1000), None),
    "embedded-workers_and_parents": Case(Size(10_200, 102, 1000), Size(240, 6, 1000), GroupKiller, processes=2),
    "embedded-receive_counts": Case(Size(6_000, 60, 5), Size(160, 3, 2), ExhaustingKiller, redrives=True),
    "aws": Case(Size(20_400, 204, 1000), Size(160, 3, 1000)),
    # A redriven message has another message id on SQS, and is the same submission all the same.
    "aws-receive_counts": Case(Size(6_000, 60, 5), None, ExhaustingKiller, redrives=True),
}


@pytest.mark.short("embedded-workers_and_parents")
@pytest.mark.parametrize(
    "name", [name if case.short else pytest.param(name, marks=pytest.mark.full) for name, case in CASES.items()]
)
def test_kills_break_no_promise(
    name: str, programs: Programs, request: pytest.FixtureRequest, is_full: bool, figure: Callable[[str], None]
) -> None:
    case = CASES[name]
    size = case.size if is_full or case.short is None else case.short
    # A malformed receipt is tried for seconds before it is moved: too long for the short size.
    load = Load(size.messages, seed=3, without=() if is_full else (Kind.MALFORMED, Kind.TEMPORARY_FAILURE))
    settings = {**SETTINGS, "max_receive_count": size.max_receive_count, "processes": case.processes}
    with ExitStack() as stack:
        store = stack.enter_context(SimulatedAppStore(latency_seconds=0.1, jitter_seconds=0.4))
        world: World
        deliveries: Deliveries | AwsProxy
        if name.startswith("embedded"):
            world = request.getfixturevalue("embedded")
            deliveries = Deliveries(world, seed=1)
        else:
            if not IS_INSTALLED:
                pytest.skip(WHY_NOT)
            emulator = MiniStack(programs)
            deliveries = stack.enter_context(closing(AwsProxy(emulator.url, RATES, seed=2)))
            world = stack.enter_context(closing(AwsWorld(programs, emulator, deliveries.url)))
            world.create_queues(max_receive_count=size.max_receive_count)
            world.create_table()
        killer = case.killer_class(world, deliveries, store, load, settings, seed=4)
        killer.kill(size.kills)
        books = settle_up(killer, redrives=case.redrives)
    tally = killer.tally
    phases = ", ".join(f"{count} in {phase}" for phase, count in sorted(tally.kills.items()))
    figure(
        f"{tally.kills.total()} kills ({phases}), {tally.hits} of them with messages in flight,"
        f" {tally.in_flight / tally.kills.total():.0f} on average"
    )
    figure(f"{deliveries.messages_received} deliveries; {deliveries.figures()}; {books.redriven} redriven")
    figure(str(books.report))
    assert books.faults == []
    assert books.left_on_source == 0
    # The claim is about work that was hit; also that of a process that was draining, or had just begun.
    assert tally.hits >= tally.kills.total() / 2
    assert books.report.repeated_answers > 0
    assert books.redriven > 0 or not case.redrives
    crashed = [life.stderr[-2000:] for life in killer.lives if "Traceback" in life.stderr]
    assert crashed == [], "an actor crashed, which no fault of the world outside may bring about"


@pytest.mark.short("embedded-1-100")
@pytest.mark.parametrize(("backend", "short", "full"), [("embedded", 1, 100), ("aws", 1, 10)])
def test_a_drain_at_any_moment_is_in_order(
    backend: str, short: int, full: int, request: pytest.FixtureRequest, is_full: bool, figure: Callable[[str], None]
) -> None:
    world: World = request.getfixturevalue(backend)
    runs = full if is_full else short
    # One that is tried for longer than any of these runs takes comes back more often than is handed back at once.
    load = Load(60 * runs, seed=8000, without=[Kind.MALFORMED])
    settings = {"app_store_concurrency": 20, "drain_seconds": 7, "consumers": 3}
    as_they_are = SimpleNamespace(
        begin_life=lambda: None, calm=lambda: None, bring_back=lambda: world.bring_back(SOURCE)
    )
    with SimulatedAppStore(latency_seconds=0.05, jitter_seconds=0.3) as store:
        drainer = Drainer(world, cast(Deliveries, as_they_are), store, load, settings, seed=5)
        drainer.kill(runs)
        books = settle_up(drainer, redrives=False)
    figure(
        f"{backend}: SIGTERM {dict(drainer.tally.kills)}; the slowest drain took {drainer.slowest_seconds:.1f} s of 7"
    )
    figure(f"{backend}: {books.report}")
    assert books.faults == []
    assert books.left_on_source == 0
