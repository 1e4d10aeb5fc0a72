"""What a person is told about a setting that cannot work: where from, what was found, what was expected, what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import TypeAlias

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from receipt_actors.domain.values import printable
from receipt_actors.errors import ConfigurationError
from receipt_actors.settings._removed import REMOVED
from receipt_actors.settings._setting import Setting, describe, settings_of

_MASK = "**********"

#: The setting that it is about, and what a person is told.
Fault: TypeAlias = tuple[str, str]


class SettingFaults(ConfigurationError):
    """Faults, and the setting that each is about."""

    def __init__(self, by_setting: Sequence[Fault]) -> None:
        super().__init__([words for _name, words in by_setting])
        self.by_setting = tuple(by_setting)


def place_of_table(queue: str, origins: Mapping[str, str], name: str | None = None) -> str:
    """Say where a table ``[sources.QUEUE]`` is, or one setting of it."""
    key = printable(queue)
    place = "sources." + (f'"{key}"' if "." in key else key) + ("" if name is None else f".{printable(name)}")
    origin = origins.get("sources")
    if origin is None:
        return place
    return f"{place} in {origin.removeprefix('sources in ')}"


def unknown_in_table(
    queue: str, name: str, near: Sequence[str], allowed: Collection[str], origins: Mapping[str, str]
) -> str:
    """Name a setting that no source has, and the one that it is most like."""
    hint = f"did you mean {near[0]}?" if near else f"a source has {', '.join(allowed)}"
    return f"{place_of_table(queue, origins, name)}: found it, expected a setting of a source; {hint}"


def table_in_table(queue: str, name: str, origins: Mapping[str, str]) -> str:
    """Say that the table of a source has a table, and how a name with a dot is written."""
    hint = f'a queue whose name has a dot has quotes in TOML: [sources."{printable(f"{queue}.{name}")}"]'
    return f"{place_of_table(queue, origins, name)}: found a table, expected settings of a source; {hint}"


def unknown(
    origin: str, name: str, known: Mapping[str, Setting], spell: Callable[[Setting], str] = attrgetter("name")
) -> str:
    """Name an unknown setting, and the known one that it is most like as its layer spells it."""
    if (instead := REMOVED.get(name.replace("-", "_"))) is not None:
        return f"{origin}: found a setting that was removed; {instead}"
    near = difflib.get_close_matches(name.replace("-", "_"), known, n=1)
    hint = f"did you mean {spell(known[near[0]])}?" if near else "the settings reference lists all there are"
    return f"{origin}: found an unknown setting, expected a known one; {hint}"


def fault(model: type[BaseModel], details: ErrorDetails, origins: Mapping[str, str]) -> Fault:
    """Name the setting that a finding of pydantic is about, and put it into our words."""
    name = str(details["loc"][0])
    return name, _words(name, model, details, origins)


def _words(name: str, model: type[BaseModel], details: ErrorDetails, origins: Mapping[str, str]) -> str:
    if name not in model.model_fields:
        return unknown(origins.get(name, name), name, settings_of(model))
    setting = describe(name, model.model_fields[name])
    if details["type"] == "missing":
        return (
            f"{name}: found nothing, expected {setting.expected}; "
            f"give {setting.flag}, {setting.variable} or the key {name} of a TOML file"
        )
    found = "nothing" if details["input"] is None else _shown(setting, details["input"])
    if details["type"] == "value_error":
        advice = str(details["ctx"]["error"])
    else:
        is_of_a_source = origins.get(name, "").startswith("sources.")  # which has the top level's for its default
        way_out = f"; leave it out for the default {setting.default}" if setting.default and not is_of_a_source else ""
        advice = f"expected {setting.expected}{way_out}"
    return f"{origins.get(name, name)}: found {found}, {advice}"


def _shown(setting: Setting, value: object) -> str:
    """Show a value as it was found, but never a secret, nor a password inside a URL."""
    if setting.secret:
        return _MASK
    if isinstance(value, tuple | list):
        value = ",".join(map(str, value))
    return re.sub(r"//[^/@]*@", f"//{_MASK}@", repr(str(value) if isinstance(value, Path) else value))
