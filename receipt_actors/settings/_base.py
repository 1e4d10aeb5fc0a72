"""What every choice of settings has in common: how it is checked, and what it knows of its values' sources."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Self

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
from pydantic_core import PydanticCustomError

from receipt_actors.settings._faults import SettingFaults, fault


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
            raise SettingFaults([fault(cls, details, origins) for details in error.errors()]) from None
        settings._origins.update({name: origin for name, origin in origins.items() if name in cls.model_fields})
        return settings
