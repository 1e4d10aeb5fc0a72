"""What parent and worker process tell each other: one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeAlias

from receipt_actors.domain.limits import Limits
from receipt_actors.settings import Settings
from receipt_actors.telemetry.statistics import StatisticsSnapshot

# --- parent -> worker ---


@dataclass(frozen=True, slots=True)
class Configure:
    """The first of all: the settings. They do not travel as arguments, which everybody on the machine can see."""

    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class UseLimits:
    """Keep to these limits; the first time: start with them. Answered by ``LimitsObeyed``, or ``Started``."""

    number: int
    limits: Limits


@dataclass(frozen=True, slots=True)
class Report:
    """Say how it goes: ``Reported``."""


@dataclass(frozen=True, slots=True)
class Drain:
    """Take nothing in, finish what is in flight, and end."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Stop:
    """Hand back what is in flight, and end."""


# --- worker -> parent ---


@dataclass(frozen=True, slots=True)
class Loaded:
    """Everything is imported and open; what is missing is a share of the limits."""


@dataclass(frozen=True, slots=True)
class Started:
    """The tree runs and consumes."""


@dataclass(frozen=True, slots=True)
class StartRefused:
    """It cannot start, for reasons that are to be expected; the process ends."""

    faults: Sequence[str]
    is_configuration: bool  #: whether settings are at fault, rather than the world


@dataclass(frozen=True, slots=True)
class LimitsObeyed:
    """No more is in flight or under way than the newest limits allow, at least those of this number."""

    number: int


@dataclass(frozen=True, slots=True)
class Reported:
    """The answer to ``Report``."""

    in_flight: int
    reserved: int
    unavailable: Sequence[str]
    idle_seconds: float
    statistics: StatisticsSnapshot


@dataclass(frozen=True, slots=True)
class Draining:
    """Somebody else told it to end: it drains, and listens to nothing any more."""

    seconds: float  #: how long that may take


@dataclass(frozen=True, slots=True)
class Stopped:
    """It has drained; the process ends."""

    handed_back: int  #: what could not be finished, and is not in the statistics
    statistics: StatisticsSnapshot


Message: TypeAlias = (
    Configure
    | UseLimits
    | Report
    | Drain
    | Stop
    | Loaded
    | Started
    | StartRefused
    | LimitsObeyed
    | Reported
    | Draining
    | Stopped
)

_KINDS: Mapping[str, type[Any]] = {kind.__name__: kind for kind in Message.__args__}


def encode(message: Message) -> bytes:
    """Write a message as a line."""
    values = {field.name: getattr(message, field.name) for field in fields(message)}
    for name, value in values.items():
        if isinstance(value, StatisticsSnapshot):
            values[name] = value.as_json()
        elif isinstance(value, Limits):
            values[name] = asdict(value)
    return json.dumps({"message": type(message).__name__, **values}).encode() + b"\n"


def decode(line: bytes) -> Message:
    """Read what ``encode`` wrote."""
    values = json.loads(line)
    kind = _KINDS[values.pop("message")]
    if "statistics" in values:
        values["statistics"] = StatisticsSnapshot.from_json(values["statistics"])
    if "limits" in values:
        values["limits"] = Limits(**values["limits"])
    message: Message = kind(**values)
    return message


def settings_as_json(settings: Settings) -> Mapping[str, Any]:
    """Return the settings, as ``Settings.model_validate`` takes them: with the secret that is needed, no other."""
    secret = settings.shared_secret
    plain = settings.model_dump(mode="json")
    of_the_parent = {"admin": None, "admin_token": None}
    return {**plain, **of_the_parent, "shared_secret": None if secret is None else secret.get_secret_value()}
