"""What a person is told about a setting that cannot work: where from, what was found, what was expected, what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from operator import attrgetter
from pathlib import Path

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from receipt_actors.settings._setting import Setting, describe, settings_of

_MASK = "**********"


def unknown(
    origin: str, name: str, known: Mapping[str, Setting], spell: Callable[[Setting], str] = attrgetter("name")
) -> str:
    """Name an unknown setting, and the known one that it is most like as its layer spells it."""
    near = difflib.get_close_matches(name.replace("-", "_"), known, n=1)
    hint = f"did you mean {spell(known[near[0]])}?" if near else "the settings reference lists all there are"
    return f"{origin}: found an unknown setting, expected a known one; {hint}"


def fault(model: type[BaseModel], details: ErrorDetails, sources: Mapping[str, str]) -> str:
    """Put one finding of pydantic into our words: where from, what was found, what was expected, what to do."""
    name = str(details["loc"][0])
    if name not in model.model_fields:
        return unknown(sources.get(name, name), name, settings_of(model))
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
        way_out = f"; leave it out for the default {setting.default}" if setting.default else ""
        advice = f"expected {setting.expected}{way_out}"
    return f"{sources.get(name, name)}: found {found}, {advice}"


def _shown(setting: Setting, value: object) -> str:
    """Show a value as it was found, but never a secret, nor a password inside a URL."""
    if setting.secret:
        return _MASK
    if isinstance(value, tuple | list):
        value = ",".join(map(str, value))
    return re.sub(r"//[^/@]*@", f"//{_MASK}@", repr(str(value) if isinstance(value, Path) else value))
