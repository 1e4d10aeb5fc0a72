"""How an operator looks into a running system: its admin port, its log, its statistics, traces and alerts."""

from __future__ import annotations

import importlib.util
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from receipt_actors.domain.addresses import Address
from receipt_actors.settings_model.fields import Expected, FilePath, OptionalQueueName, split_commas
from receipt_actors.settings_model.model import SomeSettings

_INSTALL_OPENTELEMETRY = "pip install 'receipt-actors[otel]'"
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{16,}")
MAX_EMF_DIMENSIONS = 29  #: CloudWatch takes 30, and SourceQueue is one
#: What CloudWatch takes for a dimension's name and value; a name may not begin with a colon.
_EMF_DIMENSION = re.compile(r"[A-Za-z0-9_./#-][A-Za-z0-9_./#:-]{0,249}=[!-+\--~][ -+\--~]{0,250}")


def _admin_address(text: str) -> str:
    try:
        return str(Address.parse(text))
    except ValueError as error:
        raise ValueError(f"expected HOST:PORT, such as 127.0.0.1:9464; {error}") from None


def _admin_token(token: SecretStr | None) -> SecretStr | None:
    """Accept what a header can carry, and nobody can guess."""
    if token is not None and not _TOKEN.fullmatch(token.get_secret_value()):
        raise ValueError(
            "expected 16 or more letters, digits and characters of -._~+/=, such as `openssl rand -hex 16` prints"
        )
    return token


def _emf_dimensions(pairs: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if pairs is None:
        return None
    names = [pair.partition("=")[0] for pair in pairs]
    if (
        len(pairs) > MAX_EMF_DIMENSIONS
        or not all(map(_EMF_DIMENSION.fullmatch, pairs))
        or len({*names, "SourceQueue"}) < len(names) + 1
    ):
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
    tuple[str, ...] | None,
    BeforeValidator(split_commas),
    AfterValidator(_emf_dimensions),
    Expected("NAME=VALUE, comma separated, such as Stage=production; at most 29, without SourceQueue"),
]


class LogSettings(SomeSettings, frozen=True):
    """What a log line has to be like."""

    log_level: LogLevel = Field(default="INFO", description="Least severe log line that is written.")
    log_format: Literal["auto", "text", "json"] = Field(
        default="auto",
        description="Form of a log line: text for people, json for machines; auto: text where stderr is a terminal.",
    )


class OperationsSettings(LogSettings, frozen=True):
    """What the system tells those who run it, and where."""

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
            raise ValueError(f"expected OpenTelemetry to be installed; {_INSTALL_OPENTELEMETRY}, or choose none")
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
