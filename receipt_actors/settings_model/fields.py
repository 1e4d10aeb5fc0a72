"""What a field of the settings can be: its type, which knows in words what it expects, and how people meet it.

A refusal that needs words of its own is a ``ValueError`` that says what was expected and what to do; ``model`` adds
where the value came from, and the words of ``Expected`` to all others.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, get_args

import annotated_types
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from receipt_actors.domain.values import is_queue_name

VARIABLE_PREFIX = "RECEIPT_ACTORS_"
ANY = "*"  #: alone in a list of ids: accept any


@dataclass(frozen=True, slots=True)
class Expected:
    """Annotates a type with what a value of it looks like, in words."""

    text: str


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


def split_commas(value: object) -> object:
    """Turn ``"a, b"`` into ``["a", "b"]``; what is a list already stays as it is."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def some_and_unique(values: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse an empty list, and drop what is listed twice."""
    if not values:
        raise PydanticCustomError("empty", "nothing listed")
    return tuple(dict.fromkeys(values))


def _expand_home(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:  # ~someone, who has no home here
        raise ValueError(f"expected a path; {error}") from None


def _queue_name(name: str) -> str:
    """Accept the names of SQS's queues: 1 to 80 letters, digits, ``-`` and ``_``, ``.fifo`` at the end of some."""
    if "://" in name or name.startswith("arn:"):
        kind, last_part = ("an ARN", name.rpartition(":")[2]) if name.startswith("arn:") else ("a URL", Path(name).name)
        raise ValueError(f"expected a name, not {kind}; try {last_part!r}")
    if not is_queue_name(name):
        raise ValueError("expected 1 to 80 letters, digits, - and _, with .fifo at the end of a FIFO queue's name")
    return name


_A_QUEUE = Expected("the name of an SQS queue")
QueueName = Annotated[str, AfterValidator(_queue_name), _A_QUEUE]
OptionalQueueName = Annotated[QueueName | None, _A_QUEUE]
QueueNames = Annotated[
    tuple[QueueName, ...],
    BeforeValidator(split_commas),
    AfterValidator(some_and_unique),
    Expected("names of SQS queues, comma separated"),
]
TableName = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9_.-]{3,255}$"),
    Expected("the name of a DynamoDB table: 3 to 255 letters, digits, _, - and ."),
]
FilePath = Annotated[Path, AfterValidator(_expand_home)]
