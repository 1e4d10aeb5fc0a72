"""Random state machines live the same lives on Erlang's ``gen_statem`` and on ours."""

from __future__ import annotations

from receipt_actors.otp import Runtime
from tests.differential import statem_player
from tests.differential.erlang_peer import ErlangPeer
from tests.differential.family import Family, assert_same
from tests.differential.statem_model import Scenario, generate

STATE_MACHINES = Family("statem", generate, statem_player.play, lambda _scenario, trace: trace, Scenario.is_fair)


def test_state_machines(erlang: ErlangPeer, runtime: Runtime, seeds: range) -> None:
    assert_same(STATE_MACHINES, erlang, runtime, seeds)
