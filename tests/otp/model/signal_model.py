"""A pure model of links, monitors and exit signals, written from Erlang's reference manual ("Processes", "Signals").

Processes behave as ``gen_server`` does: one that traps exits ends when its parent's exit signal arrives, and its
``terminate`` runs; so it does after a crash or a stop, but not where a signal ends the process.

One stimulus has one cause of death, whose reason spreads over links; so which of two reasons comes first, which nobody
could say, is never asked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from receipt_actors.otp import KILLED, NO_PROCESS, NORMAL, ExitReason


@dataclass(eq=False)
class Process:
    number: int
    traps: bool
    parent: Process | None
    alive: bool = True
    links: set[Process] = field(default_factory=set)
    monitors: dict[int, Process] = field(default_factory=dict)  #: whom it watches, by the monitor


Heard: TypeAlias = defaultdict[Process, list[tuple[Any, ...]]]


@dataclass
class Model:
    """What is alive, and what each stimulus brought."""

    processes: list[Process] = field(default_factory=list)
    ends: dict[Process, ExitReason] = field(default_factory=dict)
    terminated: dict[Process, ExitReason] = field(default_factory=dict)  #: whose ``terminate`` ran
    heard: Heard = field(default_factory=lambda: defaultdict(list))  #: what stands in each mailbox
    may_hear: Heard = field(default_factory=lambda: defaultdict(list))  #: what came before it was no longer wanted

    def forget(self) -> None:
        """Begin a new stimulus."""
        self.ends, self.terminated = {}, {}
        self.heard.clear()
        self.may_hear.clear()

    @property
    def living(self) -> list[Process]:
        return [each for each in self.processes if each.alive]

    # --- what a process does ---

    def start(self, traps: bool, parent: Process | None = None) -> Process:
        process = Process(len(self.processes), traps, parent)
        self.processes.append(process)
        if parent is not None:
            self.link(parent, process)
        return process

    def link(self, one: Process, other: Process) -> None:
        if not other.alive and one.traps:
            self._receive_exit(one, other, NO_PROCESS)
        elif not other.alive:
            self.stop(one, NO_PROCESS)  # link/1 raises noproc
        elif other is not one:
            one.links.add(other)
            other.links.add(one)

    def unlink(self, one: Process, other: Process) -> None:
        one.links.discard(other)
        other.links.discard(one)
        self._take_back(one, lambda message: message[:2] == ("exit", other), flush=False)

    def monitor(self, watcher: Process, target: Process, monitor: int) -> None:
        if target.alive:
            watcher.monitors[monitor] = target
        else:
            self.heard[watcher].append(("down", monitor, target, NO_PROCESS))

    def demonitor(self, watcher: Process, monitor: int, *, flush: bool) -> None:
        watcher.monitors.pop(monitor, None)
        self._take_back(watcher, lambda message: message[:2] == ("down", monitor), flush=flush)

    def send(self, sender: Process, target: Process, text: object) -> None:
        self.heard[target].append(("message", sender, text))

    def exit(self, sender: Process, target: Process, reason: ExitReason) -> None:
        """``exit(target, reason)``."""
        if not target.alive:
            return
        if sender is target and reason == NORMAL and not target.traps:
            self._end(target, NORMAL)
        else:
            self._receive_exit(target, sender, reason)

    def kill(self, target: Process) -> None:
        """``exit(target, kill)``."""
        if target.alive:
            self._end(target, KILLED)

    def stop(self, process: Process, reason: ExitReason) -> None:
        """A callback stops it, or crashes."""
        self.terminated[process] = reason
        self._end(process, reason)

    # --- what signals do ---

    def _receive_exit(self, process: Process, sender: Process, reason: ExitReason) -> None:
        if not process.traps:
            if reason != NORMAL:
                self._end(process, reason)
        elif sender is process.parent:
            self.stop(process, reason)
        else:
            self.heard[process].append(("exit", sender, reason))

    def _take_back(self, process: Process, unwanted: Callable[[tuple[Any, ...]], bool], *, flush: bool) -> None:
        messages = self.heard[process]
        if not flush:
            self.may_hear[process] += filter(unwanted, messages)
        messages[:] = [message for message in messages if not unwanted(message)]

    def _end(self, process: Process, reason: ExitReason) -> None:
        process.alive = False
        self.ends[process] = reason
        for watcher in self.living:
            for monitor, target in list(watcher.monitors.items()):
                if target is process:
                    del watcher.monitors[monitor]
                    self.heard[watcher].append(("down", monitor, process, reason))
        linked, process.links = process.links, set()
        for other in linked:
            other.links.discard(process)
        for other in linked:
            if other.alive:
                self._receive_exit(other, process, reason)
