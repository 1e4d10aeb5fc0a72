"""``Monkey``: ends actors of a running tree at random; ``faults_of_tree``: is the tree again what its specs say?

Any ``otp.ActorSystem`` will do, with the real clock: the end of a supervisor takes time. All of it blocks, so call it
from a thread of your own, not from an actor.
"""

from __future__ import annotations

import random
import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import pykka

from receipt_actors.otp import (
    TEMPORARY,
    ActorSystem,
    ChildInfo,
    ChildSpec,
    Ref,
    RestartWindow,
    SimpleOneForOneSupervisor,
    Start,
    Supervisor,
    get_child_spec,
    which_children,
)
from receipt_actors.otp import sys as otp_sys
from receipt_actors.testing._faults import PATIENCE_SECONDS

ANSWER_SECONDS = 5.0  #: for a supervisor to answer a question; it may be waiting for the end of a child
LOOK_SECONDS = 0.02  #: between two looks at a tree that is not whole yet

_GONE = (pykka.ActorDeadError, pykka.Timeout)


class Manner(StrEnum):
    """How an actor is ended."""

    CRASH = "crash"  #: its callback raises, as a bug would have it; ``terminate`` runs
    KILL = "kill"  #: by ``Ref.kill()``, at once, in the middle of whatever it does


@dataclass(frozen=True, slots=True)
class Strike:
    """One actor that the monkey went for."""

    place: Hashable  #: the name of the actor, or of its class where it has none
    actor: str
    supervisor: str
    manner: Manner
    at_seconds: float  #: monotonic, of the system's clock
    ended: bool  #: False: it is busy still (it will crash when it comes to it), or minds no unknown cast


class StruckByMonkey:
    """A cast that no actor knows; a ``GenServer`` crashes at it, and its crash report names it."""


class Monkey:
    """Ends one actor at a time, chosen by ``rng`` and weight. Never one without a supervisor: it would be gone.

    First a place in the tree is drawn, then one of the actors that are there: a hundred nameless children of a
    simple_one_for_one supervisor are one place, so that they don't get all the strikes.

    Args:
        actors: whose actors.
        rng: draws; the same seed makes the same choices among the same actors.
        weights: how often a place is drawn beside the others, by an actor's name, or else by the name of its class; 0
            spares it.
        elsewhere: the weight of the places that ``weights`` does not name.
        kills: the share of strikes that kill, from 0 to 1; the others crash.
        respects_budgets: True: a supervisor's restarts within ``period_seconds`` stay within its ``intensity``, and its
            killed children that still run within its ``max_zombies``: a tree survives any number of such strikes.
            False: a crash storm, which ends the tree sooner or later.

    Raises ``ValueError`` if a weight is negative, or ``kills`` is no share.
    """

    def __init__(
        self,
        actors: ActorSystem,
        rng: random.Random,
        *,
        weights: Mapping[Hashable, float] | None = None,
        elsewhere: float = 1.0,
        kills: float = 0.5,
        respects_budgets: bool = True,
    ) -> None:
        self._actors = actors
        self._random = rng
        self._weights = dict(weights or {})
        self._elsewhere = elsewhere
        if any(weight < 0 for weight in (elsewhere, *self._weights.values())):
            raise ValueError(f"weights must be 0 or more, not {self._weights}, elsewhere {elsewhere}")
        if not 0 <= kills <= 1:
            raise ValueError(f"kills must be a share from 0 to 1, not {kills}")
        self._kills = kills
        self._respects_budgets = respects_budgets
        self._still_to_end: list[Ref] = []
        self.strikes: list[Strike] = []  #: oldest first

    def strike(self) -> Strike | None:
        """End one actor and wait for its end; None if no actor may be struck now."""
        places = self._places()
        while places:
            (place,) = self._random.choices(list(places), [self._weight(refs[0]) for refs in places.values()])
            refs = places[place]
            victim = refs.pop(self._random.randrange(len(refs)))
            manner = Manner.KILL if self._random.random() < self._kills else Manner.CRASH
            if not refs:
                del places[place]
            if not self._respects_budgets or self._is_within_budget(victim, manner):
                return self._strike(place, victim, manner)
        return None

    def _places(self) -> dict[Hashable, list[Ref]]:
        places: dict[Hashable, list[Ref]] = {}
        for ref in self._actors.processes():
            if _supervisor_of(ref) is not None and self._weight(ref) > 0:
                places.setdefault(_place_of(ref), []).append(ref)
        return places

    def _weight(self, ref: Ref) -> float:
        return self._weights.get(_place_of(ref), self._weights.get(ref.actor_class.__name__, self._elsewhere))

    def _strike(self, place: Hashable, victim: Ref, manner: Manner) -> Strike:
        if manner is Manner.KILL:
            victim.kill()
        else:
            victim.cast(StruckByMonkey())
        ended = victim.wait(PATIENCE_SECONDS) is not None
        if not ended:
            self._still_to_end.append(victim)
        strike = Strike(place, str(victim), str(_supervisor_of(victim)), manner, self._actors.clock.monotonic(), ended)
        self.strikes.append(strike)
        return strike

    def _is_within_budget(self, victim: Ref, manner: Manner) -> bool:
        """Tell whether its supervisor can bear one more end; no, where the supervisor does not say.

        Temporary children are free, and those with a backoff that never gives up.
        """
        supervisor = _supervisor_of(victim)
        assert supervisor is not None
        try:
            spec = _spec_of(supervisor, victim)
            # Its own count, which has the ends that were not strikes, too; asked after every end that it knows of.
            state = otp_sys.get_state(supervisor, ANSWER_SECONDS)
        except _GONE:
            return False
        if spec is None:  # it has ended meanwhile
            return False
        zombies = sum(_supervisor_of(ref) is supervisor for ref in self._actors.zombies())
        if manner is Manner.KILL and zombies >= state["_max_zombies"]:
            return False
        if spec.backoff is not None:
            return spec.backoff.give_up_after is None
        window: RestartWindow = state["_window"]
        return spec.restart is TEMPORARY or self._restarts(supervisor, window) < window.intensity

    def _restarts(self, supervisor: Ref, window: RestartWindow) -> int:
        now = self._actors.clock.monotonic()
        self._still_to_end = [ref for ref in self._still_to_end if ref.is_alive()]
        to_come = sum(_supervisor_of(ref) is supervisor for ref in self._still_to_end)
        return to_come + sum(now - at <= window.period_seconds for at in window.restarts)


def _place_of(ref: Ref) -> Hashable:
    return ref.actor_class.__name__ if ref.name is None else ref.name


def _supervisor_of(ref: Ref) -> Ref | None:
    parent = ref.process.parent
    return parent.ref if parent is not None and _is_supervisor(parent.ref) else None


def _is_supervisor(ref: Ref) -> bool:
    return issubclass(ref.actor_class, Supervisor | SimpleOneForOneSupervisor)


def _is_simple(ref: Ref) -> bool:
    return issubclass(ref.actor_class, SimpleOneForOneSupervisor)


def _spec_of(supervisor: Ref, child: Ref) -> ChildSpec | None:
    """Ask for the spec of a child; None where it is none (any more)."""
    ids: list[Hashable] = [child]
    if not _is_simple(supervisor):
        ids = [info.id for info in which_children(supervisor, ANSWER_SECONDS) if info.child is child]
    spec = get_child_spec(supervisor, ids[0], ANSWER_SECONDS) if ids else None
    return spec if isinstance(spec, ChildSpec) else None


def wait_until_whole(
    actors: ActorSystem, spec: ChildSpec | None = None, timeout_seconds: float = PATIENCE_SECONDS
) -> None:
    """Wait until the tree is whole. Raises ``TimeoutError``, which says what is missing."""
    deadline = time.monotonic() + timeout_seconds
    while faults := faults_of_tree(actors, spec):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the tree is not whole after {timeout_seconds:g} s: {'; '.join(faults)}")
        time.sleep(LOOK_SECONDS)


def faults_of_tree(actors: ActorSystem, spec: ChildSpec | None = None) -> tuple[str, ...]:
    """Compare a running tree with its specs, and explain each fault; nothing where the tree is whole.

    A fault is: a static child (one that a supervisor was started with, unless it is temporary) that is unknown or out
    of order; a child that does not run, is being restarted, or is not the one its name names; a supervisor that has
    ended or does not answer; an actor that has outlived its supervisor; no supervisor at all. Children that were added,
    and those of simple_one_for_one supervisors, come and go; only their restarts that are due are faults.

    A busy tree changes while it is looked at: ``wait_until_whole`` tells what is wrong with it for long. ``spec`` is
    how the root was started, to compare its own children with; supervisors are asked for the specs of those below.
    """
    processes = actors.processes()
    roots = [ref for ref in processes if ref.process.parent is None and _is_supervisor(ref)]
    faults = [] if roots else ["no supervisor runs"]
    for root in roots:
        faults += _faults_under(root, spec)
    for ref in processes:
        supervisor = _supervisor_of(ref)
        if supervisor is not None and supervisor.process.is_set() and not ref.process.is_set():
            faults.append(f"{ref} has outlived its supervisor")
    return tuple(faults)


def _faults_under(supervisor: Ref, spec: ChildSpec | None) -> Iterator[str]:
    try:
        children = which_children(supervisor, ANSWER_SECONDS)
        yield from _faults_of_order(supervisor, children, spec)
        for info in children:
            yield from _faults_of_child(supervisor, info)
    except pykka.Timeout:
        yield f"{supervisor} does not answer"
    except pykka.ActorDeadError:
        yield f"{supervisor} has ended"


def _faults_of_order(supervisor: Ref, children: Sequence[ChildInfo], spec: ChildSpec | None) -> Iterator[str]:
    wanted = [child.id for child in _static_children(spec) if child.restart is not TEMPORARY]
    found = [info.id for info in children if info.id in wanted]
    if found != wanted:
        yield f"{supervisor} has the children {found}, expected {wanted}"


def _static_children(spec: ChildSpec | None) -> Sequence[ChildSpec]:
    start = None if spec is None else spec.start
    if not isinstance(start, Start) or not issubclass(start.actor_class, Supervisor):
        return ()
    children: Sequence[ChildSpec] = start.args[0] if start.args else start.kwargs.get("children", ())
    return children


def _faults_of_child(supervisor: Ref, info: ChildInfo) -> Iterator[str]:
    child = info.child
    who = "a child" if info.id is None else f"child {info.id!r}"
    if not isinstance(child, Ref):
        yield f"{supervisor}: {who} {'does not run' if child is None else 'is being restarted'}"
    elif _is_simple(supervisor):
        return  # it may end at any time
    elif not child.is_alive():
        yield f"{supervisor}: {who} has ended"
    elif child.name is not None and child.process.system.whereis(child.name) not in (child, None):
        yield f"{supervisor}: {who} is not the one who has its name"
    elif _is_supervisor(child):
        spec = get_child_spec(supervisor, info.id, ANSWER_SECONDS)
        yield from _faults_under(child, spec if isinstance(spec, ChildSpec) else None)
