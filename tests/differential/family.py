"""A family of scenarios, how it is played on both sides, and what differs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import pytest

from receipt_actors.otp import Runtime
from tests.differential.erlang_peer import ErlangPeer
from tests.differential.scenario import difference, plain, shrink

ScenarioT = TypeVar("ScenarioT")


@dataclass(frozen=True, slots=True)
class Family(Generic[ScenarioT]):
    name: str  #: as the Erlang side knows it
    generate: Callable[[int], ScenarioT]
    play: Callable[[ScenarioT, Runtime], Any]  #: on our side
    canonical: Callable[[ScenarioT, Any], Any]  #: takes what may be in any order out of a trace
    is_fair: Callable[[ScenarioT], bool]  #: tells whether nothing in it races; what is generated is fair
    is_explained: Callable[[ScenarioT, Any, Any], bool] = lambda _scenario, _erlang, _ours: False

    def traces(self, erlang: ErlangPeer, runtime: Runtime, scenario: ScenarioT) -> tuple[Any, Any]:
        """Play a scenario on both sides; a dictionary instead of a list says that this failed."""
        theirs = erlang.play({"family": self.name, **plain(scenario)})
        try:
            ours = self.play(scenario, runtime)
        except AssertionError as error:
            ours = {"failure": repr(error)}
        if isinstance(theirs, list) and isinstance(ours, list):
            theirs, ours = self.canonical(scenario, theirs), self.canonical(scenario, ours)
            if theirs != ours and self.is_explained(scenario, theirs, ours):
                theirs = ours
        return theirs, ours


def differences(
    family: Family[ScenarioT], erlang: ErlangPeer, runtime: Runtime, seeds: Iterable[int], most: int = 3
) -> list[str]:
    def differing() -> Iterator[str]:
        for seed in seeds:
            scenario = family.generate(seed)
            traces = family.traces(erlang, runtime, scenario)
            if traces[0] != traces[1]:
                yield f"seed {seed}, {runtime}: {smallest(scenario, traces)}"

    def smallest(scenario: ScenarioT, traces: tuple[Any, Any]) -> str:
        failing = traces  # those of the smallest scenario so far: what races may not fail again

        def differs(other: ScenarioT) -> bool:
            nonlocal failing
            if not family.is_fair(other):
                return False
            theirs, ours = family.traces(erlang, runtime, other)
            if theirs == ours or (type(theirs), type(ours)) != (type(traces[0]), type(traces[1])):
                return False
            failing = theirs, ours
            return True

        return difference(shrink(scenario, differs), *failing)

    return list(itertools.islice(differing(), most))


def assert_same(family: Family[ScenarioT], erlang: ErlangPeer, runtime: Runtime, seeds: Iterable[int]) -> None:
    found = differences(family, erlang, runtime, seeds)
    if found:
        pytest.fail("\n\n".join(found), pytrace=False)
