"""How an operator looks into a running system: its admin port, its log, its statistics, traces and alerts."""

from __future__ import annotations

import importlib.util
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from receipt_actors.domain.addresses import Address
from receipt_actors.settings._base import SomeSettings
from receipt_actors.settings._types import (
    AdminAddress,
    AdminToken,
    EmfDimensions,
    EmfNamespace,
    Expected,
    FilePath,
    LogLevel,
    OptionalQueueName,
)

_INSTALL_OPENTELEMETRY = "pip install 'receipt-actors[otel]'"


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
        "is any free one. Needs the extra admin. Left out: nowhere.",
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
        "the variables OTEL_EXPORTER_OTLP_... say; it needs the extra otel.",
    )
    traces_sample_ratio: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Share of the receipts that are traced, of those that belong to no trace yet; of the others "
        "whoever began the trace decides. Left out: what OTEL_TRACES_SAMPLER says, else all.",
    )
    log_decisions: Literal["problems", "all"] = Field(
        default="problems",
        description="Messages whose fate is logged, a line each: those that were not answered, or all, at level INFO.",
    )
    metrics_log: Literal["none", "emf"] = Field(
        default="none",
        description="Metrics as lines on standard output; emf: in CloudWatch's embedded metric format.",
    )
    emf_interval_seconds: float = Field(default=60, ge=1, description="Time from one line of metrics to the next.")
    emf_namespace: EmfNamespace = Field(default="ReceiptActors", description="CloudWatch namespace of the metrics.")
    emf_dimensions: EmfDimensions = Field(
        default=None,
        description="Dimensions of the metrics beside SourceQueue; each metric is there with and without them. "
        "Left out: none.",
    )
    alerts_queue: OptionalQueueName = Field(
        default=None,
        description="Queue that alerts are sent to: what somebody should know of at once. Left out: none are sent.",
    )
    alert_outage_seconds: float = Field(
        default=60, gt=0, description="Time that a service is unavailable before that is an alert."
    )
    alert_dead_letters: int = Field(
        default=10,
        ge=0,
        description="Messages moved to the dead-letter queue within a minute, by a process, that are no alert yet.",
    )

    scale_in_protection: Literal["auto", "off"] = Field(
        default="auto",
        description="Whether ECS is kept from ending this task, when it scales in or deploys, while that would waste "
        "work; auto: where there is an ECS agent (ECS_AGENT_URI).",
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
