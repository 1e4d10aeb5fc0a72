"""Every setting once: its name, type, unit, default and meaning; and where its value comes from.

A setting named ``max_in_flight`` is the key ``max_in_flight`` of a TOML file, the environment variable
``RECEIPT_ACTORS_MAX_IN_FLIGHT`` and the flag ``--max-in-flight``; a flag beats a variable, a variable beats the file.
The command line's flags and the settings reference of the manual are both generated from ``SETTINGS``.

``Settings`` has them all. Whoever needs a part takes a smaller model, such as ``QueueSettings``, and demands no more.

Embedding applications build ``Settings(bundle_ids=("com.example.game",), ...)`` themselves: the same checks, and the
environment is not read. Either way, settings that cannot work raise one ``ConfigurationError`` that lists every fault.

pydantic does the validation; pydantic-settings is left out on purpose: it cannot say which file, variable or flag a
bad value came from, overlooks misspelt variables, reads the environment behind an embedder's back, and doubles the
import time.
"""

from __future__ import annotations

import difflib
import os
import re
import select
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from types import MappingProxyType, NoneType
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

import annotated_types
from pydantic import (
    BaseModel,
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

from receipt_actors._setting_types import (
    ANY,
    Environments,
    Expected,
    FilePath,
    Ids,
    LogLevel,
    OptionalQueueName,
    Processes,
    QueueName,
    QueueNames,
    TableName,
    Url,
)
from receipt_actors.domain.limits import (
    DEFAULT_CURL_CONCURRENCY,
    MAX_BLOCKING_CONCURRENCY,
    MAX_CURL_CONCURRENCY,
    Limits,
)
from receipt_actors.domain.ports import MAX_VISIBILITY_SECONDS, Environment
from receipt_actors.errors import ConfigurationError

VARIABLE_PREFIX = "RECEIPT_ACTORS_"
CONFIG_VARIABLE = VARIABLE_PREFIX + "CONFIG"  #: names the TOML file, where no flag does

# Kubernetes puts these into every pod beside a Service named "receipt-actors"; they are not meant for us.
_KUBERNETES_VARIABLE = re.compile(VARIABLE_PREFIX + r"(SERVICE_(HOST|PORT)|PORT)(_.+)?")
_AWS_VARIABLE = re.compile(
    r"AWS_(ENDPOINT_URL|REGION|DEFAULT_REGION|PROFILE|ACCESS_KEY_ID|ROLE_ARN|CONTAINER_CREDENTIALS_.+)"
)
_AWS_SETTINGS = ("source_queue", "post_queues", "ledger_table")
_TO_BE_CHOSEN: Any = None
Chosen = TypeVar("Chosen", bound="SomeSettings")
_MASK = "**********"

_INSTALL_CURL = "pip install 'receipt-actors[fast]'"


class SomeSettings(BaseModel, frozen=True):
    """What every choice of settings has in common: all faults are told at once, and each value's source is known.

    The order of fields matters twice: a check sees the fields above its own, and help texts and the manual keep it.
    """

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True, allow_inf_nan=False, validate_default=True)

    _sources: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def sources(self) -> Mapping[str, str]:
        """Where each value that is no default came from, for people: a flag, a variable, a key of a file, a choice."""
        return MappingProxyType(self._sources)

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
        if isinstance(data, dict) and "backend" in cls.model_fields and data.get("backend") is None:
            chosen = _choose_backend(data, environ={})
            data = {**data, "backend": chosen[0]} if chosen else data
        try:
            return handler(data)
        except ValidationError as error:
            sources: Mapping[str, str] = info.context or {}
            raise ConfigurationError([_fault(details, sources) for details in error.errors()]) from None


class BackendSettings(SomeSettings, frozen=True):
    """Where queues and claims live."""

    database: Annotated[FilePath | None, Expected("a path")] = Field(
        default=None, description="SQLite file that holds queues and claims: the embedded backend."
    )
    backend: Literal["aws", "embedded"] = Field(
        default=_TO_BE_CHOSEN,
        description="Where queues and claims live. Left out: embedded where a database is given, else aws where a "
        "queue, a table or the environment (such as AWS_REGION) points to it.",
    )

    @field_validator("backend", mode="before")
    @classmethod
    def _a_backend_is_chosen(cls, value: object, info: ValidationInfo) -> object:
        if value is None:
            raise ValueError(
                "expected a sign of where queues and claims live: give database (a path) to run on this machine alone, "
                "or backend aws (or AWS_REGION, or source_queue) to use SQS and DynamoDB"
            )
        if value == "embedded" and "database" in info.data and info.data["database"] is None:
            raise ValueError("expected database to be given too: the path of the SQLite file to use")
        return value


class QueueSettings(BackendSettings, frozen=True):
    """What it takes to reach the queues."""

    source_queue: QueueName = Field(default="ReceiptsSQS", description="Queue that receipts are taken from.")
    post_queues: QueueNames = Field(
        default=("ResultsSQS",), description="Every queue that a message may name for its answer."
    )
    dead_letter_queue: OptionalQueueName = Field(
        default=None,
        description="Queue that messages without an answer are moved to. Left out: the one of the source queue's "
        "redrive policy; with the embedded backend, the source queue's name followed by DLQ.",
    )
    max_receive_count: int = Field(
        default=20,
        ge=1,
        le=1000,
        description="Deliveries before the embedded queue moves a message to its dead-letter queue.",
    )

    @field_validator("post_queues")
    @classmethod
    def _answers_do_not_go_to_the_source(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if info.data.get("source_queue") in names:
            raise ValueError(
                "expected queues other than source_queue: an answer sent there would come back as a receipt"
            )
        return names

    @field_validator("dead_letter_queue")
    @classmethod
    def _dead_letters_have_their_own_queue(cls, name: str | None, info: ValidationInfo) -> str | None:
        if name is not None and name in (info.data.get("source_queue"), *info.data.get("post_queues", ())):
            raise ValueError("expected a queue that is neither source_queue nor one of post_queues")
        return name


class LedgerSettings(BackendSettings, frozen=True):
    """What it takes to reach the claims."""

    ledger_table: TableName = Field(default="TransactionIdTable", description="DynamoDB table that holds the claims.")


class AppStoreSettings(SomeSettings, frozen=True):
    """What it takes to have Apple asked about a receipt, and to judge the answer."""

    bundle_ids: Annotated[Ids, Expected("your app's bundle ids, comma separated, or * to accept any")] = Field(
        description="Apps whose purchases count."
    )
    product_ids: Annotated[Ids, Expected("product ids, comma separated, or * to accept any")] = Field(
        default=(ANY,), description="Products whose purchases count."
    )
    environments: Environments = Field(
        default=(Environment.PRODUCTION,),
        description="Apple's environments whose purchases count. App Review and TestFlight buy in the Sandbox.",
    )
    unidentified: Literal["dead-letter", "reply"] = Field(
        default="dead-letter",
        description="What becomes of a receipt that Apple refuses for good without a transaction id: it is moved to "
        "the dead-letter queue, or answered INVALID with an empty transaction id.",
    )
    app_store_production_url: Url = Field(
        default="https://buy.itunes.apple.com/verifyReceipt", description="Apple's verifyReceipt, asked first."
    )
    app_store_sandbox_url: Url = Field(
        default="https://sandbox.itunes.apple.com/verifyReceipt",
        description="Apple's verifyReceipt for sandbox receipts.",
    )
    shared_secret: Annotated[SecretStr | None, Expected("the app's shared secret")] = Field(
        default=None,
        min_length=1,
        description="The app's shared secret, needed for subscriptions. Prefer the variable: other users of a machine "
        "can see its flags.",
    )
    app_store_connect_timeout_seconds: float = Field(default=3, gt=0, description="Time to connect to Apple.")
    app_store_read_timeout_seconds: float = Field(default=10, gt=0, description="Time to wait for Apple's answer.")


class Settings(AppStoreSettings, LedgerSettings, QueueSettings, frozen=True):
    """Values that passed every check. Raises ``ConfigurationError`` with all faults otherwise."""

    processes: Processes = Field(
        default=1,
        description="Processes of `start` that share the work, supervised by one more; auto: one for each core that "
        "may be used. What is said of all processes is divided among them.",
    )
    consumers: int = Field(default=4, ge=1, description="Receives under way at once, in each process.")
    max_in_flight: int = Field(
        default=2000, ge=1, description="Messages taken in and not finished yet, at most; by all processes together."
    )
    visibility_timeout_seconds: int = Field(
        default=120,
        ge=10,
        le=MAX_VISIBILITY_SECONDS,
        description="Time after which a message comes back if this process dies. It is extended while work goes on.",
    )
    receive_wait_seconds: int = Field(
        default=10, ge=0, le=20, description="Long poll of a receive; shorter than the drain."
    )
    batch_requests: int = Field(
        default=4, ge=1, description="Sends or deletes under way at once, for each batcher of each process."
    )
    result_batcher_idle_seconds: float = Field(
        default=60, gt=0, description="Time without answers that ends a result batcher."
    )
    app_store_client: Literal["auto", "requests", "curl"] = Field(
        default="auto",
        description="Client that asks Apple. requests keeps a thread for each answer that it waits for; curl has one "
        "thread for thousands, at a fraction of the cost, and needs pycurl (the extra fast). auto takes curl where it "
        "is installed.",
    )
    aws_client: Literal["auto", "threads"] = Field(
        default="auto",
        description="How SQS and DynamoDB are called. threads keeps a thread for each call under way; auto has one "
        "thread for all of them, at a lower cost, unless something calls for the other (a proxy, no Linux).",
    )
    app_store_concurrency: int | None = Field(
        default=None,
        ge=1,
        description="Requests to Apple under way at once, of all processes. Left out: a process with curl has "
        f"{DEFAULT_CURL_CONCURRENCY}, of at most {MAX_CURL_CONCURRENCY}; one with requests {MAX_BLOCKING_CONCURRENCY}, "
        "of as many.",
    )
    app_store_rate_per_second: float | None = Field(
        default=None, gt=0, description="Requests to Apple a second, of all processes. Left out: no limit."
    )
    app_store_attempts: int = Field(
        default=4, ge=1, description="Requests to Apple for one delivery of a message, at most."
    )
    ledger_concurrency: int = Field(
        default=50, ge=1, description="Requests to the ledger under way at once, of all processes."
    )
    ledger_attempts: int = Field(default=5, ge=1, description="Requests to the ledger for one claim, at most.")
    drain_seconds: float = Field(
        default=25, gt=0, description="Time to finish what is in flight when the process is told to stop."
    )
    exit_when_idle_seconds: float | None = Field(
        default=None, ge=0, description="Stop after this time without a message. Left out: run until told to stop."
    )
    statistics_file: Annotated[FilePath | None, Expected("a path")] = Field(
        default=None, description="File that gets the statistics, as JSON, when the command ends. Left out: none."
    )
    log_level: LogLevel = Field(default="INFO", description="Least severe log line that is written.")

    @field_validator("drain_seconds")
    @classmethod
    def _a_drain_outlasts_a_receive(cls, seconds: float, info: ValidationInfo) -> float:
        wait = info.data.get("receive_wait_seconds", 0)
        if seconds <= wait:
            raise ValueError(f"expected more than receive_wait_seconds ({wait}): a drain waits for receives under way")
        return seconds

    @property
    def uses_curl(self) -> bool:
        """Whether Apple is asked by way of curl, and not of requests."""
        return _is_curl(self.app_store_client)

    @property
    def effective_app_store_concurrency(self) -> int:
        """Requests to Apple that one process may ever have under way."""
        concurrency = self.limits_of(1).app_store_concurrency
        return min(concurrency, _most_requests(self.app_store_client))

    def limits_of(self, processes: int) -> Limits:
        """Return what so many processes keep to together."""
        a_process = DEFAULT_CURL_CONCURRENCY if self.uses_curl else MAX_BLOCKING_CONCURRENCY
        by_default = min(self.max_in_flight, a_process * processes)
        concurrency = self.app_store_concurrency or by_default
        return Limits(self.max_in_flight, self.ledger_concurrency, concurrency, self.app_store_rate_per_second)

    @field_validator("app_store_client")
    @classmethod
    def _curl_is_there(cls, client: str) -> str:
        if client == "curl" and (fault := _curl_fault()) is not None:
            raise ValueError(f"expected pycurl to be usable: {fault}; {_INSTALL_CURL}, or choose requests")
        return client

    @field_validator("app_store_concurrency")
    @classmethod
    def _no_process_has_too_many_requests(cls, concurrency: int | None, info: ValidationInfo) -> int | None:
        client, processes = info.data.get("app_store_client"), info.data.get("processes")
        if concurrency is None or client is None or not isinstance(processes, int):  # a fault told already, or "auto"
            return concurrency
        if concurrency <= _most_requests(client) * processes:
            return concurrency
        if _is_curl(client):
            raise ValueError(f"expected at most {MAX_CURL_CONCURRENCY} a process with curl; or give more processes")
        way_out = "" if _curl_fault() is None else f" ({_INSTALL_CURL})"
        raise ValueError(
            f"expected at most {MAX_BLOCKING_CONCURRENCY} a process with requests, of which each takes a thread; "
            f"up to {MAX_CURL_CONCURRENCY} a process with app_store_client curl{way_out}"
        )

    @field_validator("max_in_flight", "ledger_concurrency", "app_store_concurrency")
    @classmethod
    def _each_process_has_a_share(cls, whole: int | None, info: ValidationInfo) -> int | None:
        processes = info.data.get("processes")
        if whole is not None and isinstance(processes, int) and whole < processes:
            raise ValueError(f"expected {processes} or more: each of the {processes} processes gets a share of it")
        return whole


def default_app_store_client() -> Literal["curl", "requests"]:
    """Say which client ``auto`` takes here."""
    return "curl" if _is_curl("auto") else "requests"


def _most_requests(client: str) -> int:
    """How many requests to Apple one process can have under way."""
    return MAX_CURL_CONCURRENCY if _is_curl(client) else MAX_BLOCKING_CONCURRENCY


def _is_curl(client: str) -> bool:
    return client == "curl" or (client == "auto" and _curl_fault() is None)


def _curl_fault() -> str | None:
    """Say why the client on curl can't be used; None where it can."""
    if not hasattr(select, "epoll"):
        return "it would need Linux's epoll"
    try:
        import pycurl
    except ImportError as error:  # also where it is there, and its libcurl is not, or has another TLS library
        return str(error)
    found = pycurl.version.split()[0]  # such as PycURL/7.49.0
    if tuple(map(int, re.findall(r"[0-9]+", found)[:2])) < (7, 49):  # a distribution's own, say
        return f"{found} is older than 7.49"
    return None


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as people meet it, in a fault, a flag's help or the manual."""

    name: str  #: of the attribute, and of the TOML key
    expected: str  #: what a value looks like
    default: str | None  #: as one would write it; None: it has to be given, or being left out has its own meaning
    required: bool
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


def _describe(name: str, info: FieldInfo) -> Setting:
    """Read a field's type, bounds and default into words."""
    default = None if info.is_required() else info.default
    if isinstance(default, tuple):
        default = ",".join(default)
    return Setting(
        name=name,
        expected=_expected(info),
        default=None if default is None else str(default),
        required=info.is_required(),
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


SETTINGS: Mapping[str, Setting] = MappingProxyType(
    {name: _describe(name, info) for name, info in Settings.model_fields.items()}
)


def load_settings(
    flags: Mapping[str, object], *, config: Path | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    """Read the TOML file, the environment and the flags, the later over the earlier, and check the whole.

    See ``load_some_settings``.
    """
    return load_some_settings(Settings, flags, config=config, environ=environ)


def load_some_settings(
    model: type[Chosen],
    flags: Mapping[str, object],
    *,
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Chosen:
    """Do the same for what ``model`` has, so that nobody has to give settings that a command does not use.

    The values of all other settings are left unchecked, but an unknown name is a fault in any case.

    ``flags`` has the settings that were given, by name; a value of None says not given. ``config`` is the TOML file;
    left out, the variable ``RECEIPT_ACTORS_CONFIG`` may name one. ``environ`` defaults to the process's environment; a
    variable that is empty says not given. Raises ``ConfigurationError`` with every fault of every layer.
    """
    environ = os.environ if environ is None else environ
    found = _Findings()
    if config is not None:
        found.read_file(config, named_by="--config")
    elif environ.get(CONFIG_VARIABLE):
        found.read_file(Path(environ[CONFIG_VARIABLE]), named_by=CONFIG_VARIABLE)
    found.read_variables(environ)
    found.read_flags(flags)
    if "backend" not in found.values and (chosen := _choose_backend(found.values, environ)):
        found.put("backend", *chosen)
    values = {name: value for name, value in found.values.items() if name in model.model_fields or name not in SETTINGS}
    try:
        settings = model.model_validate(values, context=found.sources)
    except ConfigurationError as error:
        raise ConfigurationError([*found.faults, *error.faults]) from None
    if found.faults:
        raise ConfigurationError(found.faults)
    settings._sources.update({name: source for name, source in found.sources.items() if name in values})
    return settings


@dataclass(slots=True)
class _Findings:
    """What the layers said so far, the later over the earlier, and what was wrong with them."""

    values: dict[str, object] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def put(self, name: str, value: object, source: str) -> None:
        self.values[name], self.sources[name] = value, source

    def read_file(self, path: Path, *, named_by: str) -> None:
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            self.faults.append(f"{named_by}: found {str(path)!r}, expected a readable TOML file; {error.strerror}")
            return
        except ValueError as error:  # no UTF-8, or no TOML: the text of the latter ends in line and column
            self.faults.append(f"{named_by}: found {str(path)!r}, expected TOML; {error}")
            return
        for key, value in table.items():
            if key in SETTINGS:
                self.put(key, value, f"{key} in {path}")
            else:
                self.faults.append(_unknown(f"{key} in {path}", key))

    def read_variables(self, environ: Mapping[str, str]) -> None:
        names = {setting.variable: name for name, setting in SETTINGS.items()}
        for variable, value in sorted(environ.items()):
            if variable in names:
                if value:
                    self.put(names[variable], value, variable)
            elif (
                variable.startswith(VARIABLE_PREFIX)
                and variable != CONFIG_VARIABLE
                and not _KUBERNETES_VARIABLE.fullmatch(variable)
            ):
                name = variable.removeprefix(VARIABLE_PREFIX).lower()
                self.faults.append(_unknown(variable, name, attrgetter("variable")))

    def read_flags(self, flags: Mapping[str, object]) -> None:
        for name, value in flags.items():
            if value is not None:
                self.put(name, value, SETTINGS[name].flag if name in SETTINGS else name)


def _choose_backend(values: Mapping[str, object], environ: Mapping[str, str]) -> tuple[str, str] | None:
    """Choose the backend that the other settings, else the environment, point to; and say why."""
    if values.get("database") is not None:
        return "embedded", "chosen because database is given"
    signs = [*(name for name in _AWS_SETTINGS if name in values), *filter(_AWS_VARIABLE.fullmatch, sorted(environ))]
    return ("aws", f"chosen because {signs[0]} is given") if signs else None


def _unknown(origin: str, name: str, spell: Callable[[Setting], str] = attrgetter("name")) -> str:
    """Name an unknown setting, and the known one that it is most like as its layer spells it."""
    near = difflib.get_close_matches(name.replace("-", "_"), SETTINGS, n=1)
    hint = f"did you mean {spell(SETTINGS[near[0]])}?" if near else "the settings reference lists all there are"
    return f"{origin}: found an unknown setting, expected a known one; {hint}"


def _fault(details: ErrorDetails, sources: Mapping[str, str]) -> str:
    """Put one finding of pydantic into our words: where from, what was found, what was expected, what to do."""
    name = str(details["loc"][0])
    if name not in SETTINGS:
        return _unknown(sources.get(name, name), name)
    setting = SETTINGS[name]
    if details["type"] == "missing":
        return (
            f"{name}: found nothing, expected {setting.expected}; "
            f"give {setting.flag}, {setting.variable} or the key {name} of a TOML file"
        )
    found = "nothing" if details["input"] is None else _shown(name, details["input"])
    if details["type"] == "value_error":
        advice = str(details["ctx"]["error"])
    else:
        way_out = f"; leave it out for the default {setting.default}" if setting.default else ""
        advice = f"expected {setting.expected}{way_out}"
    return f"{sources.get(name, name)}: found {found}, {advice}"


def _shown(name: str, value: object) -> str:
    """Show a value as it was found, but never a secret, nor a password inside a URL."""
    if Settings.model_fields[name].annotation == SecretStr | None:
        return _MASK
    if isinstance(value, tuple | list):
        value = ",".join(map(str, value))
    return re.sub(r"//[^/@]*@", f"//{_MASK}@", repr(str(value) if isinstance(value, Path) else value))
