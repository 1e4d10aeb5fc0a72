"""Random processes see the same of each other on Erlang and on ours: links, monitors, signals, calls, names."""

from __future__ import annotations

import itertools
import json
from typing import Any

from receipt_actors.otp import Runtime
from tests.differential import process_player
from tests.differential.erlang_peer import ErlangPeer
from tests.differential.family import Family, assert_same
from tests.differential.process_model import Scenario, generate

ENDS = {"exit", "down"}  #: what the end of another process brings
ANSWERS = {"reply", "failure"}  #: what comes whenever somebody else gets to it


def canonical(_scenario: Scenario, trace: list[Any]) -> list[Any]:
    """Leave to each process its own view, as nobody can tell in what order different processes saw things.

    Who ended in a step may or may not have come to see what the same end brought besides.
    """
    steps = []
    ended_before: list[Any] = []
    for step in trace:
        ended = [end for end in step["ended"] if end not in ended_before]
        ended_before = step["ended"]
        dead = {number for number, _ in ended}
        views: dict[int, list[Any]] = {}
        for number, *event in step["events"]:
            views.setdefault(number, []).append(event)
        seen = {
            f"process {number}": view
            for number, events in views.items()
            if (view := _last_view(events) if number in dead else _view(events))
        }
        steps.append({"answer": step["answer"], "ended": sorted(ended), **seen})
    return steps


def _view(events: list[Any]) -> list[Any]:
    """Sort what one end brings, and put answers last."""
    answers = [event for event in events if event[0] in ANSWERS]
    others = [event for event in events if event[0] not in ANSWERS]
    view: list[Any] = []
    for is_end, group in itertools.groupby(others, lambda event: event[0] in ENDS):
        run = list(group)
        view += _sorted(run) if is_end else run
    return view + _sorted(answers)


def _last_view(events: list[Any]) -> list[Any]:
    """Leave what it did of its own; nothing where it was ended from outside, in the middle of something perhaps."""
    in_order = any(event[0] == "terminate" for event in events)
    return [event for event in events if in_order and event[0] not in ENDS | ANSWERS]


def _sorted(items: list[Any]) -> list[Any]:
    return sorted(items, key=json.dumps)


PROCESSES = Family("process", generate, process_player.play, canonical, Scenario.is_fair)


def test_processes(erlang: ErlangPeer, runtime: Runtime, seeds: range) -> None:
    assert_same(PROCESSES, erlang, runtime, seeds)
