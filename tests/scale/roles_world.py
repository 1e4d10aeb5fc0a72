"""A simulated world of nodes that share a record: true time, clocks that differ, a network that loses and delays.

After each event the ``World`` checks what ``domain.roles`` promises, and raises ``Violation``. What a node *may begin*
is the most that it was ever allowed and has not given back, while it holds its lease by its own clock. Work that it
began before its lease was over is not counted: it cannot be called back.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import inf
from typing import Any, ClassVar

from receipt_actors.domain.limits import Limits, Share, divide
from receipt_actors.domain.places import Place, Read, Step, Wait, Write
from receipt_actors.domain.ports import RoleRecord
from receipt_actors.domain.roles import Group, Lease, Node, Role, StepDown, Work, group_in, record_of

TIME_OUT = 0.25  #: of a lease, for the answer to a call
LATENCY_SECONDS = 0.02
ROUNDING = 1e-6

LIMITS = Limits(100, 40, 60)

Numbers = tuple[float, ...]
NOTHING: Numbers = (0.0, 0.0, 0.0, 0.0)


class Violation(AssertionError):
    pass


@dataclass
class Clock:
    offset_seconds: float = 0.0
    rate: float = 1.0

    def at(self, true_seconds: float) -> float:
        return self.offset_seconds + self.rate * true_seconds


@dataclass
class Fault:
    """Of the next call of a node."""

    is_carried_out: bool = True
    is_answered: bool = True
    delay_seconds: float = 0.0  #: before it is carried out
    answer_delay_seconds: float = 0.0


@dataclass
class Seen:
    """A record as it was read."""

    epoch: int  #: of the item's lives: it may be deleted
    version: int = 0
    text: str | None = None

    @cached_property
    def group(self) -> Group:
        return Group() if self.text is None else group_in(RoleRecord(self.version, self.text))


class SimulatedNode:
    """A node: its keeper, which does with the ``Place`` what ``Membership`` does and may crash, and its workers."""

    def __init__(self, world: World, node: Node, lease_seconds: float, clock: Clock) -> None:
        self.world, self.node, self.lease_seconds, self.clock = world, node, lease_seconds, clock
        self.is_running = True
        self.is_paused = False
        self.is_cut = False
        self.obey_seconds = 0.1  # for workers to give something back
        self.unable_since_seconds: float | None = None  # by its clock; an outage keeps everything away
        self.answered = 0
        self.faults: list[Fault] = []
        self._put_off: list[Callable[[], None]] = []
        self.limit = node.limits.nothing
        self.in_use = NOTHING  # the most that they may have begun and not given back
        self.held_until_seconds = -inf
        self._open_questions: list[tuple[int, Share | None]] = []  # keeper, and what it asked about
        self.epoch = 0
        self._keeper = 0
        self._start_keeper()

    def _start_keeper(self) -> None:
        self._keeper += 1
        lease = self.world.lease_class(self.node, self.lease_seconds, beat=self._keeper * 1_000_000)
        self.place = Place(lease, StepDown.of(self.lease_seconds, 0.0), self)
        self._timer = 0
        self._do(self.place.renew(self.now()))

    def now(self) -> float:
        return self.clock.at(self.world.now)

    @property
    def lease(self) -> Lease:
        return self.place.lease

    def _do(self, step: Step) -> None:
        match step:
            case Read():
                self._timer += 1
                self._call(lambda: self.world.record, self._found)
            case Write(content, stored):
                epoch, known = self.epoch, self.lease.group
                self._call(lambda: self.world.write(content, stored, known, epoch), partial(self._found, after=step))
            case Wait(seconds):
                self.later(seconds / self.clock.rate, partial(self._renew, self._timer))

    def _renew(self, timer: int) -> None:
        if timer == self._timer:
            self._do(self.place.renew(self.now()))

    def _found(self, seen: Seen, after: Write | None = None) -> None:
        before, self.epoch = self.epoch, seen.epoch
        if after is not None and (seen.version, seen.text) == (after.content.version, record_of(after.content).content):
            step = self.place.written(after, self.now())
        else:
            step = self.place.found(seen.group, self.now(), after)
        if self.lease.me is None:
            self.in_use = NOTHING  # what it had begun is no more of the group's
        elif before != seen.epoch:  # likewise, where it had more than is known of
            share = self.lease.share
            self.in_use = tuple(map(min, self.in_use, NOTHING if share is None else numbers(share.held)))
        self._do(step)

    # --- as ``Holder`` ---

    def grant(self, share: Share | None, limits: Limits) -> None:
        self.limit = limits
        self._open_questions.append((self._keeper, share))
        self.later(self.obey_seconds, self.give_back)

    def lend_until(self, seconds: float) -> None:
        self.held_until_seconds = seconds

    def release(self) -> None:
        pass

    def work(self) -> Work:
        if self.unable_since_seconds is None:
            return Work(self.answered)
        return Work(self.answered, self.now() - self.unable_since_seconds)

    def give_back(self) -> None:
        self.in_use = tuple(map(min, self.in_use, numbers(self.limit)))
        questions, self._open_questions = self._open_questions, []
        for keeper, share in questions:
            if keeper == self._keeper:
                self._do(self.place.obeyed(share, self.now()))

    def _call(self, function: Callable[[], Seen], then: Callable[[Seen], None]) -> None:
        fault = self.faults.pop(0) if self.faults else Fault()
        call, keeper = next(self.world.numbers), self._keeper
        answered: set[int] = set()

        def over(handle: Callable[[], None]) -> None:
            if call in answered or keeper != self._keeper:
                return
            answered.add(call)
            handle()

        def carry_out() -> None:
            if not fault.is_carried_out or self.is_cut:
                return
            seen = function()
            if fault.is_answered:
                self.later(LATENCY_SECONDS + fault.answer_delay_seconds, lambda: over(lambda: then(seen)))

        self.world.later(LATENCY_SECONDS + fault.delay_seconds, carry_out)
        self.later(TIME_OUT * self.lease_seconds, lambda: over(lambda: self._do(self.place.failed(self.now()))))

    def later(self, true_seconds: float, event: Callable[[], Any]) -> None:
        """Do something later; a node that is paused then does it when it goes on."""

        def happen() -> None:
            if not self.is_running:
                return
            if self.is_paused:
                self._put_off.append(happen)
            else:
                event()

        self.world.later(true_seconds, happen)

    # --- what befalls it ---

    def fall(self) -> None:
        if self.unable_since_seconds is None:
            self.unable_since_seconds = self.now()

    def rise(self) -> None:
        self.unable_since_seconds = None
        self.answered += 1

    def resume(self) -> None:
        self.is_paused = False
        put_off, self._put_off = self._put_off, []
        for event in put_off:
            event()

    def crash_keeper(self) -> None:
        if not self.is_paused:
            self._start_keeper()

    def kill(self) -> None:
        self.is_running = False
        self.world.nodes.remove(self)

    @property
    def is_holding(self) -> bool:
        return self.now() < self.held_until_seconds

    @property
    def obeys_number(self) -> int:
        """The number of the share that it keeps to; 0 while it still gives something back."""
        return 0 if self._open_questions else _number(self.place.granted)


class World:
    lease_class: ClassVar[type[Lease]] = Lease

    def __init__(self) -> None:
        self.now = 0.0
        self.numbers = itertools.count(1)
        self.nodes: list[SimulatedNode] = []
        self.record = Seen(0)
        self._held = NOTHING
        self._whole: Limits | None = None
        self.epoch_began_at_seconds = -inf
        self.longest_lease_seconds = 0.0
        self.is_all_active_standby = True
        self.steps_down = 0
        self._events: list[tuple[float, int, Callable[[], Any]]] = []
        self._highest_token = 0

    def start(
        self,
        role: Role = Role.LOAD_BALANCED,
        limits: Limits = LIMITS,
        processes: int = 1,
        *,
        shares_app_store_concurrency: bool = True,
        lease_seconds: float = 10.0,
        clock: Clock | None = None,
    ) -> SimulatedNode:
        name = f"n{next(self.numbers)}"
        node = Node(name, role, limits, processes, shares_app_store_concurrency)
        self.longest_lease_seconds = max(self.longest_lease_seconds, lease_seconds)
        self.is_all_active_standby &= role is Role.ACTIVE_STANDBY
        started = SimulatedNode(self, node, lease_seconds, clock or Clock())
        self.nodes.append(started)
        return started

    def later(self, seconds: float, event: Callable[[], Any]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self.numbers), event))

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        self.look()  # what somebody did since the last event
        while self._events and self._events[0][0] <= end:
            at_seconds, _, happen = heapq.heappop(self._events)
            self.now = max(self.now, at_seconds)
            self._check_bereft()  # time alone can break no other promise: without an event nothing is begun
            happen()
            self.look()
        self.now = end
        self.look()

    def write(self, content: Group, standing: int, known: Group, epoch: int) -> Seen:
        """Put a version on condition of what stands; its writer knows the one before it, or what it puts back."""
        if self.is_refused(standing):
            return self.record
        if epoch != self.record.epoch and self.record.text is not None:
            self._new_epoch()  # a write of an earlier life of the item, whose version fits by chance
        elif 0 < standing < known.version:
            self._new_epoch()  # what its writer knows takes the place of what stood
        self.record = Seen(self.record.epoch, content.version, record_of(content).content)
        self._check_record(known, self.record.group)
        self._check_steps_down(known, self.record.group)
        self._held, self._whole = sum_of_held(self.record.group), self.record.group.whole
        return self.record

    def is_refused(self, standing: int) -> bool:
        return standing != self.record.version

    def delete(self) -> None:
        self._new_epoch()
        self.record = Seen(self.record.epoch)

    def _new_epoch(self) -> None:
        self.record = replace(self.record, epoch=self.record.epoch + 1)
        self.epoch_began_at_seconds = self.now
        self._highest_token = 0

    # --- what is promised ---

    def _check_record(self, before: Group, after: Group) -> None:
        """Check that shares sum up to no more than the whole, and that tokens go up."""
        whole = after.whole
        if whole is not None:
            for old, new, most_of_it in zip(sum_of_held(before), sum_of_held(after), numbers(whole), strict=True):
                if new > most_of_it * (1 + ROUNDING) and new > old * (1 + ROUNDING):
                    raise Violation(f"version {after.version}: {new} is held of {most_of_it}, after {old}")
        new_tokens = [
            member.token
            for name, member in after.members.items()
            if member.token is not None and (name not in before.members or before.members[name].token != member.token)
        ]
        if any(token != after.version or token <= self._highest_token for token in new_tokens):
            raise Violation(f"version {after.version}: tokens {new_tokens} after {self._highest_token}")
        self._highest_token = max([self._highest_token, *new_tokens])

    def _check_steps_down(self, before: Group, after: Group) -> None:
        """Check that one node steps down at a time, is last in line with nothing, and one that stood by follows."""
        both = [(before.members[name], member) for name, member in after.members.items() if name in before.members]
        stepped_down = [member for was, member in both if was.token is not None and member.joined > was.joined]
        for member in stepped_down:
            if member.token is not None:
                raise Violation(f"version {after.version}: {member.node.name} has stepped down and is active")
            self.steps_down += 1
            if len(stepped_down) > 1 or max(other.joined for other in after.members.values()) > after.version:
                raise Violation(f"version {after.version}: {member.node.name} is not the last in line")
            if not any(was.token is None and other.token == after.version for was, other in both):
                raise Violation(f"version {after.version}: no node follows {member.node.name}")
            if member.share is not None and numbers(member.share.told) != NOTHING:
                raise Violation(f"version {after.version}: {member.node.name} is told to go on")

    def look(self) -> None:
        """Check that nodes may begin no more than the record says that they hold."""
        self._check_bereft()
        members = self.record.group.members
        active = 0
        used = [0.0] * 4
        for node in self.nodes:
            if not node.is_holding:
                continue
            node.in_use = most_of(node.in_use, numbers(node.limit))  # it may begin that at any moment
            if self._is_bereft(node):
                continue
            member = members.get(node.node.name)
            may_begin = node.in_use
            if member is None:
                raise Violation(f"{node.node.name} holds a lease and is out of the group")
            held = numbers(member.share.held if member.share is not None else node.limit.nothing)
            if may_begin[3] == inf and _number(member.share) != node.obeys_number:
                may_begin = (*may_begin[:3], min(inf, held[3]))  # there is a rate now, and it has not obeyed yet
            if any(one > other * (1 + ROUNDING) for one, other in zip(may_begin, held, strict=True)):
                raise Violation(f"{node.node.name} may begin {may_begin}, holds {held}")
            used = [one + other for one, other in zip(used, may_begin, strict=True)]
            active += any(may_begin[:3])
        if self.is_all_active_standby and active > 1:
            raise Violation(f"{active} nodes are active")
        if self._whole is not None:
            bounds = most_of(numbers(self._whole), self._held)
            if any(one > other * (1 + ROUNDING) for one, other in zip(used, bounds, strict=True)):
                raise Violation(f"{used} may be begun of {bounds}")

    def _is_bereft(self, node: SimulatedNode) -> bool:
        return node.epoch != self.record.epoch or node.lease.puts_back

    def _check_bereft(self) -> None:
        """Once the item is deleted, a node goes on for no longer than its lease, or its next look."""
        for node in self.nodes:
            is_late = self.now - self.epoch_began_at_seconds > node.lease_seconds / 0.98 + ROUNDING
            if is_late and node.is_holding and self._is_bereft(node):
                raise Violation(f"{node.node.name} holds what was lent before the item was deleted")

    def settle(self) -> None:
        """End all faults, and check that within a bounded time all nodes have what is due to them."""
        for node in list(self.nodes):
            node.faults.clear()
            node.is_cut, node.obey_seconds = False, 0.1
            node.unable_since_seconds = None
            if node.is_paused:
                node.resume()
            node.give_back()
        self.advance(3.0 * self.longest_lease_seconds + 1.0)
        group = self.record.group
        living = {node.node.name for node in self.nodes}
        if group.members.keys() != living and living:
            raise Violation(f"{sorted(living)} live, {sorted(group.members)} are known")
        for node in self.nodes:
            share = group.members[node.node.name].share
            due = due_to(group, node.node.name)
            if not node.is_holding:
                raise Violation(f"{node.node.name} is not lent anything")
            if numbers(node.limit) != numbers(due) or (share is not None and share.held != share.told):
                raise Violation(f"{node.node.name} has {node.limit}, {due} is due to it")


def due_to(group: Group, name: str) -> Limits:
    """Compute independently what is due to a node of a group that is at rest."""
    active = sorted(name for name, member in group.members.items() if member.token is not None)
    nodes = [group.members[each].node for each in active]
    if name not in active:
        return group.members[name].node.limits.nothing
    whole = group.whole
    assert whole is not None
    part = divide(whole, len(active))[active.index(name)]
    own = nodes[active.index(name)].limits
    is_shared = any(node.shares_app_store_concurrency for node in nodes)
    app_store = min(part.app_store_concurrency, own.app_store_concurrency) if is_shared else own.app_store_concurrency
    return replace(part, max_in_flight=own.max_in_flight, app_store_concurrency=app_store)


def numbers(limits: Limits) -> Numbers:
    """Return the values; no limit is more than any. Nothing has no rate, either."""
    counts = (limits.max_in_flight, limits.ledger_concurrency, limits.app_store_concurrency)
    if counts == (0, 0, 0):
        return NOTHING
    rate = limits.app_store_rate_per_second
    return (*counts, inf if rate is None else rate)


def sum_of_held(group: Group) -> Numbers:
    held = [numbers(member.share.held) for member in group.members.values() if member.share is not None]
    return tuple(map(sum, zip(*held, strict=True))) if held else NOTHING


def most_of(one: Numbers, other: Numbers) -> Numbers:
    return tuple(map(max, one, other))


def _number(share: Share | None) -> int:
    return 0 if share is None else share.number
