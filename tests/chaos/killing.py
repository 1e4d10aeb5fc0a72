"""kill -9 of the whole program, again and again, at random moments of its life; then the books are checked.

``Load`` is what producers send, ``Scene`` a backend with the duplicates that it delivers, ``Killer`` lets one process
after another live for a moment, and ``settle_up`` lets the last one finish and holds everything against what was sent.

A process is stopped (SIGSTOP) before it is killed, and looked at: what it has in its hands then is what dies with it. A
kill that has to hit work waits for such a moment, and so does not depend on how fast anybody is.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import sqlite3
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.load import Kind, SampleMessage, make_scenario
from receipt_actors.testing import AuditReport, SentSubmission
from tests.patience import PATIENCE_SECONDS
from tests.system.processes import Program
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

from .aws_proxy import AwsProxy
from .books import judge, posted, submissions_of

STARTED = "consumers take receipts"
DRAINING = "draining for at most"
START_SECONDS = 0.6  #: about what the program takes to start; to die in the middle of it
MAX_RUNS = 12  #: of the last program, until nothing is left
MOST_CATCHES = 100  #: of a process that may have finished before it stops

#: Short, so that what a dead process holds comes back soon; few in flight, so that not everything is held by the dead.
SETTINGS = {"visibility_timeout_seconds": 10, "max_in_flight": 150, "app_store_concurrency": 100, "drain_seconds": 5}


class Load:
    """What producers send: messages of every kind, and genuine ones twice that do not name their submission."""

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
        """How many messages are still to be sent."""
        return len(self._to_come)

    def send(self, world: World, count: int) -> None:
        """Send the next ones."""
        messages, self._to_come = self._to_come[:count], self._to_come[count:]
        self._send(world, messages)

    def send_one(self, world: World) -> None:
        """Send the next one; or one that is genuine, where all have been sent."""
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


class Scene(ABC):
    """A backend that delivers some messages twice, and tells what the process had in its hands when it died."""

    world: World

    @abstractmethod
    def begin_life(self) -> None:
        """Another process begins."""

    @abstractmethod
    def disturb(self) -> None:
        """Called every now and then while a process lives."""

    @abstractmethod
    def in_flight(self, receives: int = 1) -> int:
        """Count the messages that the process has received and not deleted, and that were received so often or more."""

    @abstractmethod
    def received(self) -> int:
        """Count the deliveries from the source queue, of all processes."""

    @abstractmethod
    def calm(self) -> None:
        """From now on nothing is delivered twice, and nothing fails."""

    @abstractmethod
    def bring_back(self) -> None:
        """Make visible what dead processes have in their hands."""

    def figures(self) -> str:
        """Say what else happened."""
        return ""


class EmbeddedScene(Scene):
    """Deliveries are counted by a trigger, and doubled behind the program's back: both in the SQLite file."""

    def __init__(self, world: EmbeddedWorld, seed: int) -> None:
        self.world = world
        self._database = world.database
        self._random = random.Random(seed)
        self._born_at = time.time()
        self._is_calm = False
        self._doubled = 0
        with closing(sqlite3.connect(self._database, timeout=PATIENCE_SECONDS)) as connection, connection:
            (self._source,) = connection.execute("SELECT queue_id FROM queues WHERE name = ?", (SOURCE,)).fetchone()
            connection.execute("CREATE TABLE observed (received INTEGER NOT NULL)")
            connection.execute("INSERT INTO observed VALUES (0)")
            connection.execute(
                "CREATE TRIGGER observe AFTER UPDATE OF receive_count ON messages"
                f" WHEN new.queue_id = {self._source} BEGIN UPDATE observed SET received = received + 1; END"
            )

    def begin_life(self) -> None:
        self._born_at = time.time()

    def disturb(self) -> None:
        if self._is_calm or self._random.random() > 0.1:
            return
        with closing(sqlite3.connect(self._database, timeout=PATIENCE_SECONDS)) as connection, connection:
            self._doubled += connection.execute(
                "UPDATE messages SET visible_at_seconds = ? WHERE row_id IN (SELECT row_id FROM messages"
                " WHERE queue_id = ? AND visible_at_seconds > ? AND received_at_seconds >= ?"
                " ORDER BY RANDOM() LIMIT ?)",
                (time.time(), self._source, time.time(), self._born_at, self._random.randrange(1, 10)),
            ).rowcount

    def in_flight(self, receives: int = 1) -> int:
        with closing(sqlite3.connect(self._database, timeout=PATIENCE_SECONDS)) as connection:
            (count,) = connection.execute(
                "SELECT COUNT(*) FROM messages"
                " WHERE queue_id = ? AND received_at_seconds >= ? AND visible_at_seconds > ? AND receive_count >= ?",
                (self._source, self._born_at, time.time(), receives),
            ).fetchone()
            return int(count)

    def received(self) -> int:
        with closing(sqlite3.connect(self._database, timeout=PATIENCE_SECONDS)) as connection:
            (count,) = connection.execute("SELECT received FROM observed").fetchone()
            return int(count)

    def calm(self) -> None:
        self._is_calm = True

    def bring_back(self) -> None:
        with closing(sqlite3.connect(self._database, timeout=PATIENCE_SECONDS)) as connection, connection:
            connection.execute("UPDATE messages SET visible_at_seconds = MIN(visible_at_seconds, ?)", (time.time(),))

    def figures(self) -> str:
        return f"{self._doubled} made visible while in flight"


class AwsScene(Scene):
    """An emulator behind a proxy that doubles deliveries, loses answers and refuses requests."""

    def __init__(self, world: AwsWorld, proxy: AwsProxy) -> None:
        self.world = world
        self._proxy = proxy

    def begin_life(self) -> None:
        self._proxy.begin_life()

    def disturb(self) -> None:
        """The proxy does, all the time."""

    def in_flight(self, receives: int = 1) -> int:
        return self._proxy.in_flight(receives)

    def received(self) -> int:
        return self._proxy.messages_received

    def calm(self) -> None:
        self._proxy.calm()

    def bring_back(self) -> None:
        self._proxy.bring_back()

    def figures(self) -> str:
        requests = sum(self._proxy.requests.values())
        faults = Counter[str]()
        for (_, fault), count in self._proxy.happened.items():
            faults[fault] += count
        return f"{requests} requests, of which " + ", ".join(f"{count} {name}" for name, count in faults.most_common())


@dataclass(slots=True)
class Tally:
    """What the killer did."""

    kills: Counter[str] = field(default_factory=Counter)  #: by phase
    hits: int = 0  #: kills that found messages in flight
    in_flight: int = 0  #: messages, over all kills

    @property
    def is_short_of_hits(self) -> bool:
        """Tell whether, to have half of the kills hit work, the next one must: the claim is about work that is hit."""
        return 2 * self.hits <= self.kills.total()

    def note(self, victim: str, in_flight: int) -> None:
        """Count a kill."""
        self.kills[victim] += 1
        self.hits += in_flight > 0
        self.in_flight += in_flight


class Killer:
    """Lets one process after another live for a moment, and reads the answers meanwhile."""

    def __init__(self, scene: Scene, store: SimulatedAppStore, load: Load, settings: Mapping[str, object], seed: int):
        self.scene = scene
        self.load = load
        self.answers: list[Letter] = []
        self.tally = Tally()
        self.lives: list[Program] = []
        self._store = store
        self._settings = settings
        self._random = random.Random(seed)

    @property
    def must_hit(self) -> bool:
        """Tell whether the next kill must hit work: the claim is about work that is hit."""
        return self.tally.is_short_of_hits

    def is_done(self, times: int) -> bool:
        """Tell whether so many kills were enough."""
        return self.tally.kills.total() >= times

    def kill(self, times: int) -> None:
        """Kill so often; by then the whole load is sent."""
        while not self.is_done(times):
            portion = -(-self.load.left // max(1, times - self.tally.kills.total()))
            phase = self._random.choices(("start-up", "work", "drain"), (15, 65, 20))[0]
            self._live_and_die("work" if self.must_hit else phase, portion)
            assert len(self.lives) < times + MAX_RUNS
        self.load.send(self.scene.world, self.load.left)

    def start(self, **settings: object) -> Program:
        self.scene.begin_life()
        program = self.scene.world.start(self._store, **self._settings, **settings)
        self.lives.append(program)
        return program

    def read_answers(self) -> None:
        self.answers += self.scene.world.read(RESULTS)

    def _live_and_die(self, phase: str, portion: int) -> None:
        world = self.scene.world
        program = self.start()
        self.read_answers()  # of the one before
        if phase == "start-up":
            self._let_live(program, self._random.uniform(0, START_SECONDS))
        else:
            program.wait_for_log(STARTED)
            life_seconds = self._random.uniform(0.4, 2.0)
            for part in _parts(portion, self._random.randint(1, 4)):
                self.load.send(world, part)
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
            in_flight = self.scene.in_flight()
            if in_flight > 0 or not self.must_hit:
                return in_flight
            program.resume()
            self._wait_for_work(program)
        raise AssertionError("the program is never found at work")

    def _let_live(self, program: Program, seconds: float) -> None:
        end = time.monotonic() + seconds

        def is_over() -> bool:
            self.scene.disturb()
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
            self.scene.disturb()
            if self.scene.world.total(SOURCE) == 0:  # it was faster than we looked
                self.load.send_one(self.scene.world)
            return self.scene.in_flight() > 0

        program.wait_until(is_at_work, "it works on something")


class GroupKiller(Killer):
    """Kills workers of a program with several processes, and then its parent, whose other workers drain meanwhile."""

    def _live_and_die(self, phase: str, portion: int) -> None:
        program = self.start()
        self.read_answers()
        if phase != "start-up":
            program.wait_for_log(STARTED)
        for part in _parts(portion, self._random.randint(1, 4)):
            self.load.send(self.scene.world, part)
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
        self._used_up += self.scene.in_flight(receives=int(str(self._settings["max_receive_count"])))
        return in_flight

    def start(self, **settings: object) -> Program:
        self.scene.bring_back()
        return super().start(**settings)


def _phase_of(program: Program) -> str:
    log = program.stderr
    return "drain" if DRAINING in log else "work" if STARTED in log else "start-up"


def _parts(count: int, parts: int) -> Iterator[int]:
    for number in range(parts):
        yield count * (number + 1) // parts - count * number // parts


@dataclass(frozen=True, slots=True)
class Books:
    """What came out in the end."""

    report: AuditReport
    faults: list[str]  #: of the audit, and of the scenario's own expectations
    left_on_source: int
    redriven: int


def settle_up(killer: Killer, *, redrives: bool) -> Books:
    """Let the last process finish, redrive what the queue itself gave up (where that is wanted), and judge."""
    scene, world = killer.scene, killer.scene.world
    scene.calm()
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
    """Run the program, undisturbed, until the source queue is empty."""
    for _ in range(MAX_RUNS):
        killer.scene.bring_back()
        program = killer.start(exit_when_idle_seconds=0.6)
        assert program.wait_for_end(2 * PATIENCE_SECONDS) == 0, program.stderr[-2000:]
        killer.read_answers()
        if killer.scene.world.total(SOURCE) == 0:
            return


def _redrive(world: World) -> int:
    """Run our own command; returns how many it moved."""
    command = world.command("redrive", "--reason", "none")
    assert command.wait_for_end() == 0, command.stderr
    return int(command.stdout.partition(": ")[2].partition(" moved")[0])
