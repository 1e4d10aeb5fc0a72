"""Every setting once: its name, type, unit, default and meaning; and where its value comes from.

A setting named ``max_in_flight`` is the key ``max_in_flight`` of a TOML file, the environment variable
``RECEIPT_ACTORS_MAX_IN_FLIGHT`` and the flag ``--max-in-flight``. A flag beats a variable, a variable beats the file.
The flags and the settings reference of the manual are generated from ``SETTINGS``.

``Settings`` has them all. A command that needs a part takes a smaller model, such as ``QueueSettings``. Embedding
applications build ``Settings`` themselves: the checks are the same, and the environment is not read.
"""

# pydantic-settings is left out on purpose: it cannot say which file, variable or flag a bad value came from, overlooks
# misspelt variables, reads the environment behind an embedder's back, and doubles the import time.

from __future__ import annotations

import importlib.util
import os
import re
import select
import socket
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import ceil
from operator import attrgetter
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from receipt_actors.domain.addresses import Address
from receipt_actors.domain.limits import (
    DEFAULT_CURL_CONCURRENCY,
    MAX_BLOCKING_CONCURRENCY,
    MAX_CURL_CONCURRENCY,
    Limits,
)
from receipt_actors.domain.policy import misuses
from receipt_actors.domain.ports import MAX_VISIBILITY_SECONDS
from receipt_actors.domain.roles import LONGEST_LEASE_SECONDS, RENEWALS_PER_LEASE
from receipt_actors.domain.sqs_rules import dead_letter_queue_fault, dead_letter_queue_of
from receipt_actors.domain.values import JsonRefused, parse_object, printable
from receipt_actors.errors import ConfigurationError
from receipt_actors.settings_model import (
    REMOVED,
    VARIABLE_PREFIX,
    Expected,
    Fault,
    FilePath,
    OptionalQueueName,
    QueueNames,
    Setting,
    SomeSettings,
    SourceSettings,
    TableName,
    place_of_table,
    settings_of,
    split_commas,
    unknown,
)
from receipt_actors.stores.apple.settings import (
    SERVER_API,
    SERVER_API_RATE_PER_SECOND,
    AppStoreSettings,
    PolicySettings,
    SignatureSettings,
)

_AWS_VARIABLE = re.compile(
    r"AWS_(ENDPOINT_URL|REGION|DEFAULT_REGION|PROFILE|ACCESS_KEY_ID|ROLE_ARN|CONTAINER_CREDENTIALS_.+)"
)
_AWS_SETTINGS = ("source_queue", "post_queues", "ledger_table", "notifications_table", "role_table")
_TO_BE_CHOSEN: Any = None
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{16,}")
MAX_EMF_DIMENSIONS = 29  #: CloudWatch takes 30, and SourceQueue is one
#: What CloudWatch takes for a dimension's name and value; a name may not begin with a colon.
_EMF_DIMENSION = re.compile(r"[A-Za-z0-9_./#-][A-Za-z0-9_./#:-]{0,249}=[!-+\--~][ -+\--~]{0,250}")


class BackendSettings(SomeSettings, frozen=True):
    database: Annotated[FilePath | None, Expected("a path")] = Field(
        default=None, description="SQLite file that holds queues and claims: the embedded backend."
    )
    backend: Literal["aws", "embedded"] = Field(
        default=_TO_BE_CHOSEN,
        description="Where queues and claims live. Left out: embedded where a database is given, else aws where a "
        "queue, a table or the environment (such as AWS_REGION) points to it.",
    )

    @model_validator(mode="before")
    @classmethod
    def _choose_a_backend(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("backend") is None and (chosen := choose_backend(data, environ={})):
            return {**data, "backend": chosen[0]}
        return data

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


class QueueSettings(SourceSettings, BackendSettings, frozen=True):
    post_queues: QueueNames = Field(
        default=("ResultsSQS",), description="Every queue that a message may name for its answer."
    )
    dead_letter_queue: OptionalQueueName = Field(
        default=None,
        description="Queue that messages without an answer are moved to. Left out: the one of the source queue's "
        "redrive policy; with the embedded backend, the source queue's name followed by DLQ (before .fifo).",
    )
    max_receive_count: int = Field(
        default=20,
        ge=1,
        le=1000,
        description="Deliveries before the embedded queue moves a message to its dead-letter queue. An existing queue "
        "takes it over at a start only.",
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
        source_queue = info.data.get("source_queue")
        if name is not None and source_queue is not None and (fault := dead_letter_queue_fault(source_queue, name)):
            raise ValueError(fault)
        return name

    @property
    def known_dead_letter_queue(self) -> str | None:
        """The dead-letter queue, as far as the settings name it; on AWS the queue's redrive policy may name it too."""
        default = dead_letter_queue_of(self.source_queue) if self.backend == "embedded" else None
        return self.dead_letter_queue or default

    @property
    def all_post_queues(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(queue for source in self.every_source for queue in source.post_queues))

    def faults_together(self) -> Iterator[Fault]:
        yield from super().faults_together()
        uses = [
            (each.source_queue, frozenset(each.post_queues), each.known_dead_letter_queue) for each in self.every_source
        ]
        for misuse in misuses(uses):
            place = self.origins.get(misuse.setting, misuse.setting)
            if misuse.source_queue != self.source_queue:
                place = place_of_table(misuse.source_queue, self.origins, misuse.setting)
            yield misuse.setting, f"{place}: found {misuse.queue!r}, expected {misuse.expected}"


class LedgerSettings(BackendSettings, frozen=True):
    ledger_table: TableName = Field(default="TransactionIdTable", description="DynamoDB table that holds the claims.")


def choose_backend(values: Mapping[str, object], environ: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the backend that the other settings, else the environment, point to, and why."""
    if values.get("database") is not None:
        return "embedded", "chosen because database is given"
    signs = [*(name for name in _AWS_SETTINGS if name in values), *filter(_AWS_VARIABLE.fullmatch, sorted(environ))]
    return ("aws", f"chosen because {signs[0]} is given") if signs else None


def most_requests(transport: str) -> int:
    """Return how many requests to Apple one process can have under way."""
    return MAX_CURL_CONCURRENCY if uses_curl(transport) else MAX_BLOCKING_CONCURRENCY


def uses_curl(transport: str) -> bool:
    """Return whether libcurl makes the requests, so that no thread waits for each."""
    return transport == "auto" and curl_fault() is None


def curl_fault() -> str | None:
    """Return why libcurl can't be used here; None if it can."""
    if not hasattr(select, "epoll"):
        return "it needs Linux's epoll"
    try:
        import pycurl
    except ImportError as error:  # also where it is there, and its libcurl is not, or has another TLS library
        return f"{error}; pip install pycurl"
    found = pycurl.version.split()[0]  # such as PycURL/7.49.0
    if tuple(map(int, re.findall(r"[0-9]+", found)[:2])) < (7, 49):  # a distribution's own, say
        return f"{found} is older than 7.49"
    return None


Processes = Annotated[Annotated[int, Field(ge=1)] | Literal["auto"], Expected("an integer, 1 or more, or auto")]


class WorkSettings(SomeSettings, frozen=True):
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
        default=10,
        ge=0,
        le=20,
        description="Long poll of a receive; shorter than the drain. With exit_when_idle_seconds it is no longer than "
        "that, or than 1 s: its answer is waited for.",
    )
    transport: Literal["auto", "threads"] = Field(
        default="auto",
        description="How Apple, SQS and DynamoDB are called. auto has libcurl make any number of requests at once, at "
        "a fraction of the cost, where it can: on Linux with pycurl, and not through a proxy. threads keeps a thread "
        "for each request under way.",
    )
    app_store_concurrency: int | None = Field(
        default=None,
        ge=1,
        description="Requests to Apple under way at once, of all processes, and of all nodes of a group. Left out: a "
        f"process has {DEFAULT_CURL_CONCURRENCY}, of at most {MAX_CURL_CONCURRENCY}; one with threads "
        f"{MAX_BLOCKING_CONCURRENCY}, of as many.",
    )
    app_store_rate_per_second: float | None = Field(
        default=None,
        gt=0,
        description="Requests to Apple a second, of all processes, and of all nodes of a group. Left out: no limit for "
        f"verifyReceipt, and {SERVER_API_RATE_PER_SECOND:g} for the App Store Server API, as Apple documents.",
    )
    ledger_concurrency: int = Field(
        default=50,
        ge=1,
        description="Requests to the ledger under way at once, of all processes, and of all nodes of a group.",
    )
    drain_seconds: float = Field(
        default=25, gt=0, description="Time to finish messages in flight when the process is stopped."
    )
    exit_when_idle_seconds: float | None = Field(
        default=None,
        ge=0,
        description="Stop after this time without a message, once every source queue has answered a receive with "
        "nothing since the last one. Hidden messages (handed back for later, or held by a process that was killed) are "
        "left to the next run. If the queues cannot be reached, the run waits. Default: run until stopped.",
    )

    @field_validator("app_store_rate_per_second")
    @classmethod
    def _the_server_api_has_a_limit(cls, per_second: float | None, info: ValidationInfo) -> float | None:
        if per_second is None and info.data.get("app_receipts") == SERVER_API:
            return SERVER_API_RATE_PER_SECOND
        return per_second

    @field_validator("drain_seconds")
    @classmethod
    def _a_drain_outlasts_a_receive(cls, seconds: float, info: ValidationInfo) -> float:
        wait = info.data.get("receive_wait_seconds", 0)
        if seconds <= wait:
            raise ValueError(f"expected more than receive_wait_seconds ({wait}): a drain waits for receives under way")
        return seconds

    @property
    def effective_receive_wait_seconds(self) -> int:
        """Long poll of a receive. A batch run ends with its answer, so there it is as short as possible."""
        wait, limit = self.receive_wait_seconds, self.exit_when_idle_seconds
        if limit is None or limit >= wait:
            return wait
        return max(1, ceil(limit))  # only a long poll asks all servers of a queue

    @property
    def uses_curl(self) -> bool:
        return uses_curl(self.transport)

    @property
    def effective_app_store_concurrency(self) -> int:
        """Requests to Apple that one process may ever have under way."""
        return min(self.limits_of(1).app_store_concurrency, most_requests(self.transport))

    def limits_of(self, processes: int) -> Limits:
        """Return the limits of so many processes together."""
        a_process = DEFAULT_CURL_CONCURRENCY if self.uses_curl else MAX_BLOCKING_CONCURRENCY
        by_default = min(self.max_in_flight, a_process * processes)
        concurrency = self.app_store_concurrency or by_default
        return Limits(self.max_in_flight, self.ledger_concurrency, concurrency, self.app_store_rate_per_second)

    @field_validator("app_store_concurrency")
    @classmethod
    def _no_process_has_too_many_requests(cls, concurrency: int | None, info: ValidationInfo) -> int | None:
        transport, processes = info.data.get("transport"), info.data.get("processes")
        if concurrency is None or transport is None or not isinstance(processes, int):  # already a fault, or "auto"
            return concurrency
        is_shared = info.data.get("role") == "load-balanced"  # other nodes have a part of it
        if is_shared or concurrency <= most_requests(transport) * processes:
            return concurrency
        if uses_curl(transport):
            raise ValueError(f"expected at most {MAX_CURL_CONCURRENCY} a process; or give more processes")
        remedy = "with transport auto" if (fault := curl_fault()) is None else f"with libcurl ({fault})"
        raise ValueError(
            f"expected at most {MAX_BLOCKING_CONCURRENCY} a process with threads, of which each request takes one; "
            f"up to {MAX_CURL_CONCURRENCY} a process {remedy}"
        )

    @field_validator("max_in_flight", "ledger_concurrency", "app_store_concurrency")
    @classmethod
    def _each_process_has_a_share(cls, whole: int | None, info: ValidationInfo) -> int | None:
        processes = info.data.get("processes")
        if whole is not None and isinstance(processes, int) and whole < processes:
            raise ValueError(f"expected {processes} or more: each of the {processes} processes gets a share of it")
        return whole


def _admin_address(text: str) -> str:
    try:
        return str(Address.parse(text))
    except ValueError as error:
        raise ValueError(f"expected HOST:PORT, such as 127.0.0.1:9464; {error}") from None


def _admin_token(token: SecretStr | None) -> SecretStr | None:
    """Accept what a header can carry and what can't be guessed."""
    if token is not None and not _TOKEN.fullmatch(token.get_secret_value()):
        raise ValueError(
            "expected 16 or more letters, digits and characters of -._~+/=, such as `openssl rand -hex 16` prints"
        )
    return token


def _emf_dimensions(pairs: tuple[str, ...]) -> tuple[str, ...]:
    names = ["SourceQueue", *(pair.partition("=")[0] for pair in pairs)]
    if not all(map(_EMF_DIMENSION.fullmatch, pairs)) or len(set(names)) < len(names):
        raise PydanticCustomError("emf_dimensions", "no dimensions")
    return pairs


AdminAddress = Annotated[
    Annotated[str, AfterValidator(_admin_address)] | None, Expected("HOST:PORT, such as 127.0.0.1:9464")
]
AdminToken = Annotated[
    SecretStr | None, AfterValidator(_admin_token), Expected("16 or more letters, digits and -._~+/=")
]
LogLevel = Annotated[
    Literal["DEBUG", "INFO", "WARNING", "ERROR"],
    BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value),
]
EmfDimensions = Annotated[
    Annotated[tuple[str, ...], Field(max_length=MAX_EMF_DIMENSIONS), AfterValidator(_emf_dimensions)] | None,
    BeforeValidator(split_commas),
    Expected("NAME=VALUE, comma separated, such as Stage=production; at most 29, without SourceQueue"),
]


class LogSettings(SomeSettings, frozen=True):
    log_level: LogLevel = Field(default="INFO", description="Least severe log line that is written.")
    log_format: Literal["auto", "text", "json"] = Field(
        default="auto",
        description="Form of a log line: text for people, json for machines; auto: text where stderr is a terminal.",
    )


class OperationsSettings(LogSettings, frozen=True):
    admin: AdminAddress = Field(
        default=None,
        description="Where `start` serves the page, metrics and health of the running system, and takes orders; port 0 "
        "is any free one. Left out: nowhere.",
    )
    admin_token: AdminToken = Field(
        default=None,
        description="Secret that the admin port wants to be given. Without it only this machine may be served. Prefer "
        "the variable: other users of a machine can see its flags.",
    )
    statistics_file: Annotated[FilePath | None, Expected("a path")] = Field(
        default=None, description="File that gets the statistics, as JSON, when the command ends. Left out: none."
    )
    traces: Literal["none", "otlp"] = Field(
        default="none",
        description="Where a trace of each receipt goes. otlp: to an OpenTelemetry collector, by OTLP over HTTP, as "
        "the variables OTEL_EXPORTER_OTLP_... say; it needs the extra otel. OTEL_TRACES_SAMPLER says "
        "which receipts; without it, all.",
    )
    log_decisions: Literal["problems", "all"] = Field(
        default="problems",
        description="Messages whose fate is logged, a line each: those that were not answered, or all, at level INFO.",
    )
    metrics_log: Literal["none", "emf"] = Field(
        default="none",
        description="Metrics as lines on standard output, once a minute; emf: in CloudWatch's embedded metric format.",
    )
    emf_dimensions: EmfDimensions = Field(
        default=None,
        description="Dimensions of the metrics beside SourceQueue; each metric is there with and without them. "
        "Left out: none.",
    )
    alerts_queue: OptionalQueueName = Field(
        default=None,
        description="Queue that alerts are sent to: what somebody should know of at once. Left out: none are sent.",
    )

    @field_validator("admin_token")
    @classmethod
    def _other_machines_need_a_token(cls, token: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        admin = info.data.get("admin")
        if token is None and admin is not None and not Address.parse(admin).is_loopback:
            raise ValueError(
                f"expected a token: other machines may reach admin, {admin}; give one, or let admin be 127.0.0.1:PORT"
            )
        return token

    @field_validator("traces")
    @classmethod
    def _opentelemetry_is_there(cls, traces: str) -> str:
        if traces == "otlp" and not _is_installed("opentelemetry.exporter.otlp.proto.http", "opentelemetry.sdk"):
            raise ValueError(
                "expected OpenTelemetry to be installed; pip install 'receipt-actors[otel]', or choose none"
            )
        return traces

    @field_validator("alerts_queue")
    @classmethod
    def _alerts_have_their_own_queue(cls, name: str | None, info: ValidationInfo) -> str | None:
        others = (info.data.get("source_queue"), info.data.get("dead_letter_queue"), *info.data.get("post_queues", ()))
        if name is not None and name in others:
            raise ValueError("expected a queue of its own, with no receipts, answers or dead letters on it")
        return name


def _is_installed(*modules: str) -> bool:
    try:
        return all(importlib.util.find_spec(module) is not None for module in modules)
    except ModuleNotFoundError:  # what it is a part of is missing
        return False


class NotificationSettings(SignatureSettings, PolicySettings, LedgerSettings, QueueSettings, frozen=True):
    """What it takes to handle Apple's server notifications."""

    notifications_table: TableName = Field(
        default="NotificationIdTable",
        description="DynamoDB table of the notifications of Apple's that were dealt with.",
    )

    @field_validator("notifications_table")
    @classmethod
    def _claims_have_a_table_of_their_own(cls, name: str, info: ValidationInfo) -> str:
        if name == info.data.get("ledger_table"):
            raise ValueError("expected a table other than ledger_table: it has another key, and its items expire")
        return name


class RoleSettings(LedgerSettings, QueueSettings, frozen=True):
    role: Literal["alone", "active-standby", "load-balanced"] = Field(
        default="alone",
        description="How this command shares the work with those on other machines that take receipts from the same "
        "source_queue. alone: it knows of none. active-standby: one works, the others wait to take over. "
        "load-balanced: all work, and share the limits that are said to be of all processes.",
    )
    role_table: TableName = Field(
        default="RoleTable", description="DynamoDB table by which nodes agree on their roles; unused where alone."
    )
    lease_seconds: float = Field(
        default=10,
        ge=1,
        le=LONGEST_LEASE_SECONDS,
        description="Time for which a role is lent to a node that is not heard of; renewed "
        f"{RENEWALS_PER_LEASE} times meanwhile. Another one takes over within half as much again. It may be changed "
        "node by node.",
    )

    @field_validator("role_table")
    @classmethod
    def _roles_have_a_table_of_their_own(cls, name: str, info: ValidationInfo) -> str:
        if name in (info.data.get("ledger_table"), info.data.get("notifications_table")):
            raise ValueError("expected a table of its own, neither ledger_table nor notifications_table")
        return name

    @property
    def is_alone(self) -> bool:
        return self.role == "alone"


def node_name() -> str:
    """Return the variable HOSTNAME, which containers have, else the name of the machine."""
    name = os.environ.get("HOSTNAME") or socket.gethostname()
    return re.sub(r"[^A-Za-z0-9_.:-]", "-", name)[:100] or "node"


# The fields of the last base come first: in help texts, in the manual, and where a check looks at fields above its own.
class Settings(OperationsSettings, WorkSettings, RoleSettings, AppStoreSettings, NotificationSettings, frozen=True):
    """Values that passed every check. Raises ``ConfigurationError`` with all faults otherwise."""

    @property
    def all_consumers(self) -> int:
        return self.consumers * len(self.every_source)

    @property
    def batchers(self) -> int:
        """How many queues a process sends to, deletes from or changes visibility timeouts of at once."""
        return len(self.all_post_queues) + 3 * len(self.every_source)  # dead letters, deletes, visibility of each


SETTINGS: Mapping[str, Setting] = MappingProxyType(settings_of(Settings))

CONFIG_VARIABLE = VARIABLE_PREFIX + "CONFIG"  #: names the TOML file, where no flag does
JSON_VARIABLE = VARIABLE_PREFIX + "SETTINGS"  #: holds what such a file may hold, as JSON: for a place without files

# Kubernetes puts these into every pod beside a Service named "receipt-actors"; they are not meant for us.
_KUBERNETES_VARIABLE = re.compile(VARIABLE_PREFIX + r"(SERVICE_(HOST|PORT)|PORT)(_.+)?")

Chosen = TypeVar("Chosen", bound=SomeSettings)
Queues = TypeVar("Queues", bound=SourceSettings)


def load_settings(
    flags: Mapping[str, object], *, config: Path | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    """Load all settings; see ``load_some_settings``."""
    return load_some_settings(Settings, flags, config=config, environ=environ)


def load_some_settings(
    model: type[Chosen],
    flags: Mapping[str, object],
    *,
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Chosen:
    """Read the TOML file, the environment and the flags, the later over the earlier, and check what ``model`` has.

    The values of other settings are not checked, but an unknown name is always a fault.

    ``flags`` has settings by name; None means not given. ``config`` is the TOML file; left out, the variable
    ``RECEIPT_ACTORS_CONFIG`` may name one. The variable ``RECEIPT_ACTORS_SETTINGS`` may hold the same keys as a JSON
    object, which beat the file's. ``environ`` defaults to the process's environment; an empty variable means not given.
    Raises ``ConfigurationError`` with every fault of every layer.
    """
    environ = os.environ if environ is None else environ
    return _checked(model, _find(flags, config, environ), environ)


def load_source_settings(
    model: type[Queues],
    flags: Mapping[str, object],
    *,
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Queues:
    """Load the settings of one source: the one that the flag ``source_queue`` names, else the first.

    If there are no ``sources``, the flag sets the first source's queue.
    """
    environ = os.environ if environ is None else environ
    found = _find({name: value for name, value in flags.items() if name != "source_queue"}, config, environ)
    queue = flags.get("source_queue")
    if queue is None or not found.values.get("sources"):
        return load_some_settings(model, flags, config=config, environ=environ)
    settings = _checked(model, found, environ)
    queues = [source.source_queue for source in settings.every_source]
    if queue not in queues:
        raise ConfigurationError([f"--source-queue: found {queue!r}, expected one of {', '.join(queues)}"])
    return settings.every_source[queues.index(str(queue))]


def _find(flags: Mapping[str, object], config: Path | None, environ: Mapping[str, str]) -> _Findings:
    found = _Findings()
    if config is not None:
        found.read_file(config, named_by="--config")
    elif environ.get(CONFIG_VARIABLE):
        found.read_file(Path(environ[CONFIG_VARIABLE]), named_by=CONFIG_VARIABLE)
    if environ.get(JSON_VARIABLE):
        found.read_json(environ[JSON_VARIABLE])
    found.read_variables(environ)
    found.read_flags(flags)
    return found


def _checked(model: type[Chosen], found: _Findings, environ: Mapping[str, str]) -> Chosen:
    if "backend" not in found.values and (chosen := choose_backend(found.values, environ)):
        found.put("backend", *chosen)
    values = {name: value for name, value in found.values.items() if name in model.model_fields}
    try:
        settings = model.model_validate(values, context=found.origins)
    except ConfigurationError as error:
        raise ConfigurationError([*found.faults, *error.faults]) from None
    if found.faults:
        raise ConfigurationError(found.faults)
    return settings


@dataclass(slots=True)
class _Findings:
    """What the layers gave so far, the later over the earlier, and their faults."""

    values: dict[str, object] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def put(self, name: str, value: object, origin: str) -> None:
        self.values[name], self.origins[name] = value, origin

    def read_file(self, path: Path, *, named_by: str) -> None:
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            self.faults.append(f"{named_by}: found {str(path)!r}, expected a readable TOML file; {error.strerror}")
            return
        except ValueError as error:  # no UTF-8, or no TOML: the text of the latter ends in line and column
            self.faults.append(f"{named_by}: found {str(path)!r}, expected TOML; {error}")
            return
        self._read_table(table, str(path))

    def read_json(self, text: str) -> None:
        try:
            table = parse_object(text)
        except JsonRefused as refused:
            self.faults.append(f"{JSON_VARIABLE}: expected a JSON object of settings; {refused}")
            return
        self._read_table(table, JSON_VARIABLE)

    def _read_table(self, table: Mapping[str, object], home: str) -> None:
        for key, value in table.items():
            if key in SETTINGS:
                self.put(key, value, f"{key} in {home}")
            else:
                self.faults.append(unknown(f"{printable(key)} in {home}", key, SETTINGS))

    def read_variables(self, environ: Mapping[str, str]) -> None:
        names = {setting.variable: name for name, setting in SETTINGS.items()}
        for variable, value in sorted(environ.items()):
            if variable in names:
                if value:
                    self.put(names[variable], value, variable)
            elif (
                variable.startswith(VARIABLE_PREFIX)
                and variable not in (CONFIG_VARIABLE, JSON_VARIABLE)
                and not _KUBERNETES_VARIABLE.fullmatch(variable)
            ):
                name = variable.removeprefix(VARIABLE_PREFIX).lower()
                self.faults.append(unknown(variable, name, SETTINGS, attrgetter("variable")))

    def read_flags(self, flags: Mapping[str, object]) -> None:
        for name, value in flags.items():
            if name not in SETTINGS:
                self.faults.append(unknown(f"--{name.replace('_', '-')}" if name in REMOVED else name, name, SETTINGS))
            elif value is not None:
                self.put(name, value, SETTINGS[name].flag)
