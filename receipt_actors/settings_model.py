"""What a setting is: its type, its words, the model that checks it, and the tables of further source queues.

``receipt_actors.settings`` has all settings. A fault says where the value came from, what was found, what was
expected, and what to do. All faults are raised at once.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from types import MappingProxyType, NoneType
from typing import Annotated, Any, Self, TypeAlias, get_args

import annotated_types
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from receipt_actors.domain.values import JsonRefused, is_queue_name, json_type, parse_object, printable
from receipt_actors.errors import ConfigurationError

VARIABLE_PREFIX = "RECEIPT_ACTORS_"
ANY = "*"  #: alone in a list of ids: accept any


@dataclass(frozen=True, slots=True)
class Expected:
    """Annotates a type with what a value of it looks like, in words."""

    text: str


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting as a fault, a flag's help and the manual show it."""

    name: str  #: of the attribute, and of the TOML key
    expected: str  #: what a value looks like
    default: str | None  #: as one would write it; None: it has to be given, or being left out has its own meaning
    required: bool
    secret: bool  #: never to be shown
    description: str

    @property
    def variable(self) -> str:
        return VARIABLE_PREFIX + self.name.upper()

    @property
    def flag(self) -> str:
        # This flag's value has its unit in the help text, so its name does without.
        name = "exit_when_idle" if self.name == "exit_when_idle_seconds" else self.name
        return "--" + name.replace("_", "-")


def settings_of(model: type[BaseModel]) -> dict[str, Setting]:
    return {name: describe(name, info) for name, info in model.model_fields.items()}


def describe(name: str, info: FieldInfo) -> Setting:
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
    """Turn ``"a, b"`` into ``["a", "b"]``; leave a list as it is."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def some_and_unique(values: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse an empty list, and drop repetitions."""
    if not values:
        raise PydanticCustomError("empty", "nothing listed")
    return tuple(dict.fromkeys(values))


def _expand_home(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:  # ~someone, who has no home here
        raise ValueError(f"expected a path; {error}") from None


def _queue_name(name: str) -> str:
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

#: Settings that were removed, and what does their work now. A value for one is refused with these words.
REMOVED: Mapping[str, str] = MappingProxyType(
    {
        "alert_dead_letters": "more than 10 dead letters within a minute are an alert",
        "alert_outage_seconds": "an outage of 60 s is an alert",
        "app_account_token_namespace": "give the namespace as app_account_token_rule",
        "app_store_client": "transport says how Apple is asked: auto (libcurl where it can) or threads (was: requests)",
        "app_store_attempts": "Apple is asked up to 4 times for a delivery, then the message comes back later",
        **dict.fromkeys(
            (
                "app_store_production_url",
                "app_store_sandbox_url",
                "server_api_production_url",
                "server_api_sandbox_url",
            ),
            "give the root of what stands in for Apple as app_store_url",
        ),
        "app_store_connect_timeout_seconds": "connecting to Apple may take 0.3 of app_store_read_timeout_seconds",
        "aws_client": "transport says how AWS is called, and Apple asked: auto or threads",
        "batch_requests": "a batcher has up to 4 requests under way",
        "emf_interval_seconds": "metrics are written once a minute",
        "emf_namespace": "the namespace is ReceiptActors; emf_dimensions tell deployments apart",
        "ledger_attempts": "the ledger is asked up to 5 times for a claim, then the message comes back later",
        "result_batcher_idle_seconds": "a result batcher ends after 60 s without results",
        "node_name": "a node is called as its machine is, or as the variable HOSTNAME says",
        "role_group": "nodes with the same source_queue are a group; a role_table of its own keeps others apart",
        "scale_in_protection": "a task protects itself where ECS_AGENT_URI is set; unset that to do without",
        "server_api_key_file": "give the path of the .p8 file as server_api_key",
        "signature_processes": "one process beside each that works verifies signatures",
        "traces_sample_ratio": "set OTEL_TRACES_SAMPLER=parentbased_traceidratio and OTEL_TRACES_SAMPLER_ARG",
    }
)

_MASK = "**********"

Fault: TypeAlias = tuple[str, str]  #: the name of the setting, and the words


class SettingFaults(ConfigurationError):
    """``by_setting`` says which setting each fault is about."""

    def __init__(self, by_setting: Sequence[Fault]) -> None:
        super().__init__([words for _name, words in by_setting])
        self.by_setting = tuple(by_setting)


class SomeSettings(BaseModel, frozen=True):
    """Base of every choice of settings: all faults are raised at once, and each value's source is known.

    The order of fields matters: a check sees the fields above its own; help texts and the manual keep the order.
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
        """Where each value that is no default came from: a flag, a variable, a key of a file, a choice."""
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
    """Return the fault of an unknown setting, with the most similar known one as its layer spells it."""
    if (now := REMOVED.get(name)) is not None:
        return f"{origin}: found a setting that was removed; {now}"
    near = difflib.get_close_matches(name.replace("-", "_"), known, n=1)
    hint = f"did you mean {spell(known[near[0]])}?" if near else "the settings reference lists all there are"
    return f"{origin}: found an unknown setting, expected a known one; {hint}"


def _fault(model: type[BaseModel], details: ErrorDetails, origins: Mapping[str, str]) -> Fault:
    """Put a finding of pydantic into our words."""
    name = str(details["loc"][0])
    place = origins.get(name, name)
    if name not in model.model_fields:
        return name, unknown(place, name, settings_of(model))
    setting = describe(name, model.model_fields[name])
    if details["type"] == "missing":
        ways = f"give {setting.flag}, {setting.variable} or the key {name} of a TOML file"
        return name, f"{name}: found nothing, expected {setting.expected}; {ways}"
    found = "nothing" if details["input"] is None else _shown(setting, details["input"])
    if details["type"] == "value_error":
        advice = str(details["ctx"]["error"])
    else:
        is_of_a_source = place.startswith("sources.")  # its default is the top level's value
        way_out = f"; leave it out for the default {setting.default}" if setting.default and not is_of_a_source else ""
        advice = f"expected {setting.expected}{way_out}"
    return name, f"{place}: found {found}, {advice}"


def _shown(setting: Setting, value: object) -> str:
    """Show a value as it was found, without secrets and passwords in URLs."""
    if setting.secret:
        return _MASK
    if isinstance(value, tuple | list):
        value = ",".join(map(str, value))
    return re.sub(r"//[^/@]*@", f"//{_MASK}@", repr(str(value) if isinstance(value, Path) else value))


# Further source queues are tables [sources.QUEUE] beside the source queue that all other settings speak of. What a
# table leaves out it has from the top level, so the settings of a source have the same class and the same checks.

#: What a table may set.
SOURCE_SETTINGS = (
    "post_queues",
    "dead_letter_queue",
    "bundle_ids",
    "product_ids",
    "environments",
    "unidentified",
    "product_types",
    "family_sharing",
    "app_account_token",
    "app_account_token_rule",
    "shared_secret",
)
#: What no source has from the top level. With one dead-letter queue for two sources, no redrive could tell them apart.
_OWN = frozenset({"sources", "source_queue", "dead_letter_queue"})


class SourceSettings(SomeSettings, frozen=True):
    """Which queues receipts are taken from."""

    source_queue: QueueName = Field(default="ReceiptsSQS", description="Queue that receipts are taken from.")
    sources: Annotated[
        dict[str, dict[str, Any]],
        Expected("in the file, a table [sources.QUEUE] for each; elsewhere the same as JSON, {'QUEUE': {...}}"),
    ] = Field(
        default={},
        description="Further queues that receipts are taken from. Each may have its own "
        f"{', '.join(SOURCE_SETTINGS)}; what it leaves out is as for source_queue, except for dead_letter_queue.",
    )

    _of_sources: dict[str, Self] = PrivateAttr(default_factory=dict)

    def of_source(self, queue: str) -> Self:
        """Return the settings of one of ``sources``, as though it were the only source. Raises ``KeyError``."""
        return self._of_sources[queue]

    @property
    def every_source(self) -> tuple[Self, ...]:
        return (self, *self._of_sources.values())

    @property
    def source_queues(self) -> tuple[str, ...]:
        return tuple(source.source_queue for source in self.every_source)

    @model_validator(mode="wrap")
    @classmethod
    def _check_each_source(cls, data: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        """Check the top level, then each source, then all together. Only the last check needs the others to pass."""
        if not isinstance(data, dict) or not data.get("sources"):
            return handler(data)
        origins: Mapping[str, str] = info.context or {}
        faults: list[Fault] = []
        tables = dict(_tables(data["sources"], origins.get("sources", "sources"), faults))
        settings: Self | None = None
        with _added_to(faults):
            settings = handler({**data, "sources": {}})
        told = {name for name, _ in faults}
        of_sources: dict[str, Self] = {}
        for queue, table in tables.items():
            faults += _unknown(queue, table, origins)
            own = {name: value for name, value in table.items() if name in cls.model_fields and name in SOURCE_SETTINGS}
            with _added_to(faults, but=told - own.keys()):  # faults of the top level are reported there
                of_sources[queue] = cls._of_one_source(queue, own, data, origins)
        if settings is None or faults:
            raise SettingFaults(faults)
        settings._of_sources.update(of_sources)
        for queue, source in of_sources.items():  # ``sources`` shows the checked values that the tables gave
            settings.sources[queue] = {
                name: getattr(source, name) for name in tables[queue] if name in cls.model_fields
            }
        settings.model_fields_set.add("sources")
        if "sources" in origins:
            settings._origins["sources"] = origins["sources"]
        if faults := list(settings.faults_together()):
            raise SettingFaults(faults)
        return settings

    @classmethod
    def _of_one_source(
        cls, queue: str, own: Mapping[str, object], top_level: Mapping[str, object], origins: Mapping[str, str]
    ) -> Self:
        inherited = {name: value for name, value in top_level.items() if name not in _OWN}
        if own.get("app_account_token") == "ignore":  # then a rule for it has no use
            inherited.pop("app_account_token_rule", None)
        # A fault is in the table, or where the value is inherited from.
        table = place_of_table(queue, {})
        places = {name: f"{origins.get(name, name)}, for {table}" for name in cls.model_fields}
        places["source_queue"] = place_of_table(queue, origins)
        own_places = {name: place_of_table(queue, origins, name) for name in own}
        values = {**inherited, **own, "source_queue": queue}
        source = cls.model_validate(values, context={**places, **own_places})
        # The context has a place for a fault of every setting; origins name only the settings that were given.
        given = {name: origin for name, origin in origins.items() if name in cls.model_fields and name not in _OWN}
        source._origins.clear()
        source._origins.update({**given, **own_places})
        return source

    def faults_together(self) -> Iterator[Fault]:
        """Yield what cannot work among several sources."""
        for queue in self._of_sources:
            if queue == self.source_queue:
                place = place_of_table(queue, self.origins)
                yield "sources", f"{place}: found the queue of source_queue, expected another one"


@contextmanager
def _added_to(faults: list[Fault], *, but: Collection[str] = ()) -> Iterator[None]:
    """Collect the faults that are raised, except those about the settings ``but``, and go on."""
    try:
        yield
    except SettingFaults as found:
        faults += [(name, words) for name, words in found.by_setting if name not in but]


def _tables(value: object, origin: str, faults: list[Fault]) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Read the tables. A fault quotes nothing of them: they may have secrets."""
    if isinstance(value, str):
        try:
            value = parse_object(value)
        except JsonRefused as refused:
            faults.append(("sources", f"{origin}: found no JSON object, expected one; {refused.words}"))
            return
    if not isinstance(value, Mapping):
        faults.append(("sources", f"{origin}: found {json_type(value)}, expected a table for each queue"))
        return
    seen: set[str] = set()
    for name, table in value.items():
        queue = name.strip() if isinstance(name, str) else name  # as any other name of a queue: two would be one
        if isinstance(queue, str) and isinstance(table, Mapping):
            if queue in seen:
                place = f"{origin}: {printable(queue)!r}"
                faults.append(("sources", f"{place}: found two tables of this queue, expected one"))
            seen.add(queue)
            yield queue, table
        else:
            place = f"{origin}: {printable(str(queue))!r}"
            faults.append(("sources", f"{place}: found {json_type(table)}, expected a table of settings"))


def _unknown(queue: str, table: Mapping[str, object], origins: Mapping[str, str]) -> Iterator[Fault]:
    for name in map(str, table):
        if name in SOURCE_SETTINGS:
            continue
        place = place_of_table(queue, origins, name)
        if isinstance(table.get(name), Mapping):  # a queue's name with a dot, without the quotes
            hint = f'a queue whose name has a dot has quotes in TOML: [sources."{printable(f"{queue}.{name}")}"]'
            yield "sources", f"{place}: found a table, expected settings of a source; {hint}"
        elif name in REMOVED:
            yield "sources", f"{place}: found a setting that was removed; {REMOVED[name]}"
        else:
            near = difflib.get_close_matches(name.replace("-", "_"), SOURCE_SETTINGS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"a source has {', '.join(SOURCE_SETTINGS)}"
            yield "sources", f"{place}: found it, expected a setting of a source; {hint}"


def place_of_table(queue: str, origins: Mapping[str, str], name: str | None = None) -> str:
    """Return where a table ``[sources.QUEUE]`` is, or one setting of it."""
    key = printable(queue)
    place = "sources." + (f'"{key}"' if "." in key else key) + ("" if name is None else f".{printable(name)}")
    origin = origins.get("sources")
    if origin is None:
        return place
    return f"{place} in {origin.removeprefix('sources in ')}"
