"""One setting as people meet it, read from the field that defines it."""

from __future__ import annotations

from dataclasses import dataclass
from types import NoneType
from typing import get_args

import annotated_types
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from receipt_actors.settings._types import Expected

VARIABLE_PREFIX = "RECEIPT_ACTORS_"


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as people meet it, in a fault, a flag's help or the manual."""

    name: str  #: of the attribute, and of the TOML key
    expected: str  #: what a value looks like
    default: str | None  #: as one would write it; None: it has to be given, or being left out has its own meaning
    required: bool
    secret: bool  #: never to be shown
    description: str

    @property
    def variable(self) -> str:
        """The environment variable."""
        return VARIABLE_PREFIX + self.name.upper()

    @property
    def flag(self) -> str:
        """The command line's flag. Where the flag's value has its unit in the help text, its name does without."""
        return "--" + _FLAG_NAMES.get(self.name, self.name).replace("_", "-")


_FLAG_NAMES = {"exit_when_idle_seconds": "exit_when_idle"}


def settings_of(model: type[BaseModel]) -> dict[str, Setting]:
    """Return every setting that ``model`` has, by name."""
    return {name: describe(name, info) for name, info in model.model_fields.items()}


def describe(name: str, info: FieldInfo) -> Setting:
    """Read a field's type, bounds and default into words."""
    default = None if info.is_required() else info.default
    if isinstance(default, tuple):
        default = ",".join(default)
    elif default == {}:
        default = None  # no table at all
    return Setting(
        name=name,
        expected=_expected(info),
        default=None if default is None else str(default),
        required=info.is_required(),
        secret=SecretStr in (info.annotation, *get_args(info.annotation)),
        description=info.description or "",
    )


def _expected(info: FieldInfo) -> str:
    for note in info.metadata:
        if isinstance(note, Expected):
            return note.text
    kinds = [kind for kind in get_args(info.annotation) if kind is not NoneType] or [info.annotation]
    if int not in kinds and float not in kinds:
        return " or ".join((", ".join(kinds[:-1]), kinds[-1]))  # a Literal
    text = "an integer" if int in kinds else "a number"
    bounds = {type(note): note for note in info.metadata}
    match bounds.get(annotated_types.Ge), bounds.get(annotated_types.Le), bounds.get(annotated_types.Gt):
        case annotated_types.Ge(low), annotated_types.Le(high), _:
            return f"{text} from {low} to {high}"
        case annotated_types.Ge(low), None, _:
            return f"{text}, {low} or more"
        case _, _, annotated_types.Gt(low):
            return f"{text} above {low}"
    return text
