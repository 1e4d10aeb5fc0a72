"""A family of scenarios: how it is played on both sides, what differs, and how a failing scenario is made small."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from receipt_actors.otp import Runtime
from tests.differential.erlang_peer import ErlangPeer
from tests.differential.stage import Stage

ScenarioT = TypeVar("ScenarioT")


@dataclass(frozen=True, slots=True)
class Family(Generic[ScenarioT]):
    name: str  #: as the Erlang side knows it
    generate: Callable[[int], ScenarioT]
    player: Callable[[Stage, ScenarioT], Any]  #: ``play`` returns the trace of our side
    canonical: Callable[[ScenarioT, Any], Any] = lambda _scenario, trace: trace  #: takes out what may be in any order
    is_explained: Callable[[ScenarioT, Any, Any], bool] = lambda _scenario, _erlang, _ours: False

    def traces(self, erlang: ErlangPeer, runtime: Runtime, scenario: ScenarioT) -> tuple[Any, Any]:
        """Play a scenario on both sides; a dictionary instead of a list says that this failed."""
        theirs = erlang.play({"family": self.name, **plain(scenario)})
        try:
            with Stage(runtime) as stage:
                ours = self.player(stage, scenario).play()
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
            if not other.is_fair():  # type: ignore[attr-defined]
                return False
            theirs, ours = family.traces(erlang, runtime, other)
            if theirs == ours or (type(theirs), type(ours)) != (type(traces[0]), type(traces[1])):
                return False
            failing = theirs, ours
            return True

        return difference(shrink(scenario, differs), *failing)

    return list(itertools.islice(differing(), most))


def plain(value: Any) -> Any:
    """Turn a scenario into what JSON knows; a dataclass becomes a dictionary with its name as ``kind``."""
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if dataclasses.is_dataclass(value):
        fields = {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"kind": type(value).__name__, **fields}
    return value


def difference(scenario: object, erlang: Any, ours: Any) -> str:
    lines = ["the same scenario, two traces:", *described(scenario)]
    if not (isinstance(erlang, list) and isinstance(ours, list)):
        return "\n".join([*lines, f"Erlang: {erlang}", f"ours:   {ours}"])
    number = next(
        (number for number, (one, other) in enumerate(zip(erlang, ours, strict=False)) if one != other),
        min(len(erlang), len(ours)),
    )
    one, other = ({} if number >= len(trace) else trace[number] for trace in (erlang, ours))
    lines.append(f"they differ after step {number} (0 is the start):")
    for key in sorted({*one, *other}):
        if one.get(key) != other.get(key):
            lines += [f"  {key}, Erlang: {json.dumps(one.get(key))}", f"  {key}, ours:   {json.dumps(other.get(key))}"]
    return "\n".join(lines)


def described(scenario: object) -> Iterator[str]:
    assert dataclasses.is_dataclass(scenario)
    for field in dataclasses.fields(scenario):
        value = getattr(scenario, field.name)
        if isinstance(value, tuple):
            for number, item in enumerate(value, 1):
                yield f"  {field.name} {number}: {_short(item)}"
        else:
            yield f"  {field.name}: {_short(value)}"


def _short(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_short, value))}{',' if len(value) == 1 else ''})"
    if not dataclasses.is_dataclass(value):
        return repr(value)
    told = [field for field in dataclasses.fields(value) if getattr(value, field.name) != field.default]
    return f"{type(value).__name__}({', '.join(f'{f.name}={_short(getattr(value, f.name))}' for f in told)})"


def shrink(scenario: ScenarioT, fails: Callable[[ScenarioT], bool], tries: int = 1000) -> ScenarioT:
    """Make a scenario small, while it still fails: drop parts, give fields their defaults."""
    candidates = _smaller(scenario)
    for _ in range(tries):
        candidate = next(candidates, None)
        if candidate is None:
            break
        if fails(candidate):
            scenario, candidates = candidate, _smaller(candidate)
    return scenario


def _smaller(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple):
        half = len(value) // 2
        if half > 1:
            yield value[:half]
            yield value[half:]
        for index, item in enumerate(value):
            yield value[:index] + value[index + 1 :]
            for smaller in _smaller(item):
                yield (*value[:index], smaller, *value[index + 1 :])
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            current = getattr(value, field.name)
            if field.default is not dataclasses.MISSING and current != field.default:
                yield dataclasses.replace(value, **{field.name: field.default})  # type: ignore[type-var]
            for smaller in _smaller(current):
                yield dataclasses.replace(value, **{field.name: smaller})  # type: ignore[type-var]
