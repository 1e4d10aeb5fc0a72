"""What all families of scenarios share: their JSON, comparing two traces, and making a failing scenario small. Pure."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

ScenarioT = TypeVar("ScenarioT")


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
