"""What every choice of settings has in common, and what a person is told about a value that cannot work.

A fault says where the value came from, what was found, what was expected, and what to do. All faults are told at once.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from receipt_actors.errors import ConfigurationError
from receipt_actors.settings_model.fields import Setting, describe, settings_of
from receipt_actors.settings_model.removed import REMOVED

_MASK = "**********"

#: The setting that it is about, and what a person is told.
Fault: TypeAlias = tuple[str, str]


class SettingFaults(ConfigurationError):
    """Faults, and the setting that each is about."""

    def __init__(self, by_setting: Sequence[Fault]) -> None:
        super().__init__([words for _name, words in by_setting])
        self.by_setting = tuple(by_setting)


class SomeSettings(BaseModel, frozen=True):
    """What every choice of settings has in common: all faults are told at once, and each value's source is known.

    The order of fields matters twice: a check sees the fields above its own, and help texts and the manual keep it.
    """

    model_config = ConfigDict(
        extra="forbid",
        str_strip_whitespace=True,
        allow_inf_nan=False,
        validate_default=True,
        defer_build=True,  # most of the choices are bases of others, and check nothing themselves
    )

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def origins(self) -> Mapping[str, str]:
        """Where each value that is no default came from, for people: a flag, a variable, a key of a file, a choice."""
        return MappingProxyType(self._origins)

    @field_validator("*", mode="before")
    @classmethod
    def _no_setting_is_a_boolean(cls, value: object) -> object:
        if isinstance(value, bool):  # pydantic reads True as 1, a typing slip in a TOML file
            raise PydanticCustomError("boolean", "a boolean")
        return value

    @model_validator(mode="wrap")
    @classmethod
    def _raise_every_fault_at_once(
        cls, data: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo
    ) -> Self:
        origins: Mapping[str, str] = info.context or {}
        try:
            settings = handler(data)
        except ValidationError as error:
            faults = (_fault(cls, details, origins) for details in error.errors())
            raise SettingFaults(list(dict.fromkeys(faults))) from None  # a union has one for each of its types
        settings._origins.update({name: origin for name, origin in origins.items() if name in cls.model_fields})
        return settings


def unknown(
    origin: str, name: str, known: Mapping[str, Setting], spell: Callable[[Setting], str] = attrgetter("name")
) -> str:
    """Name an unknown setting, and the known one that it is most like as its layer spells it."""
    if (now := REMOVED.get(name)) is not None:
        return f"{origin}: found a setting that was removed; {now}"
    near = difflib.get_close_matches(name.replace("-", "_"), known, n=1)
    hint = f"did you mean {spell(known[near[0]])}?" if near else "the settings reference lists all there are"
    return f"{origin}: found an unknown setting, expected a known one; {hint}"


def _fault(model: type[BaseModel], details: ErrorDetails, origins: Mapping[str, str]) -> Fault:
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
