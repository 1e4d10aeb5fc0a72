"""The differential tests themselves: they see what matters, and would find what is wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from receipt_actors.otp import Runtime
from tests.differential import process_model, statem_model, supervisor_model
from tests.differential.erlang_peer import ErlangPeer
from tests.differential.family import Family, differences
from tests.differential.scenario import plain
from tests.differential.test_process import PROCESSES
from tests.differential.test_statem import STATE_MACHINES
from tests.differential.test_supervisor import SUPERVISION

Change = Callable[[Any], Any]


def words(value: Any) -> Iterator[str]:
    """Walk through all strings of a trace."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from words(item)


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        (
            SUPERVISION,
            "start terminate exit_message ok error exit no_process bad_specs stopping already_started already_present "
            "not_found running restarting simple_one_for_one permanent transient temporary infinity brutal_kill",
        ),
        (
            PROCESSES,
            "send cast request reply late failure exit down mark continue trap_exit whereis spawned ignore "
            "already_started killed noproc acted stopping terminate",
        ),
        (STATE_MACHINES, "enter call cast info internal timeout state_timeout timer1 timer2 exit stopping terminate"),
    ],
    ids=lambda value: value.name if isinstance(value, Family) else "",
)
def test_what_scenarios_bring_about(erlang: ErlangPeer, family: Family[Any], expected: str) -> None:
    """Among a thousand scenarios of a family, everything happens that can happen, on Erlang."""
    seen: set[str] = set()
    for seed in range(1000):
        seen |= set(words(erlang.play({"family": family.name, **plain(family.generate(seed))})))
    assert set(expected.split()) - seen == set()


def changed(value: Any, kind: type, change: Change) -> Any:
    """Apply a change to all values of a kind in a scenario."""
    if isinstance(value, tuple):
        return tuple(changed(item, kind, change) for item in value)
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    fields = dataclasses.fields(value)
    inner = replace(value, **{field.name: changed(getattr(value, field.name), kind, change) for field in fields})
    return change(inner) if isinstance(inner, kind) else inner


@pytest.mark.parametrize(
    ("family", "kind", "change"),
    [
        pytest.param(*wrong, id=name)
        for name, wrong in {
            "one restart too many": (
                SUPERVISION,
                supervisor_model.Tree,
                lambda tree: replace(tree, intensity=tree.intensity + 1),
            ),
            "transient is permanent": (
                SUPERVISION,
                supervisor_model.Spec,
                lambda spec: replace(spec, restart="permanent") if spec.restart == "transient" else spec,
            ),
            "messages in another order": (
                SUPERVISION,
                supervisor_model.Burst,
                lambda burst: replace(burst, steps=burst.steps[::-1]),
            ),
            "demonitor that never flushes": (
                PROCESSES,
                process_model.Signal,
                lambda op: replace(op, afterwards="demonitor") if op.afterwards == "flush" else op,
            ),
            "link that ties nobody": (
                PROCESSES,
                process_model.Relate,
                lambda op: replace(op, how="unlink") if op.how == "link" else op,
            ),
            "postpone that does nothing": (
                STATE_MACHINES,
                statem_model.Postpone,
                lambda action: replace(action, flag=False),
            ),
            "time-out that can't be cancelled": (
                STATE_MACHINES,
                statem_model.Timeout,
                lambda action: replace(action, time="update") if action.time == "cancel" else action,
            ),
        }.items()
    ],
)
def test_what_is_wrong_is_found(erlang: ErlangPeer, family: Family[Any], kind: type, change: Change) -> None:
    def play_wrongly(scenario: Any, runtime: Runtime) -> Any:
        return family.play(changed(scenario, kind, change), runtime)

    found = differences(replace(family, play=play_wrongly), erlang, Runtime.POOLED, range(1000), most=1)
    assert len(found) == 1
    assert len(found[0].splitlines()) < 25
