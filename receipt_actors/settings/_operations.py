"""How an operator looks into a running system: its admin port, its log, its statistics."""

from __future__ import annotations

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
)


class OperationsSettings(SomeSettings, frozen=True):
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
    log_level: LogLevel = Field(default="INFO", description="Least severe log line that is written.")
    log_format: Literal["auto", "text", "json"] = Field(
        default="auto",
        description="Form of a log line: text for people, json for machines; auto: text where stderr is a terminal.",
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

    @field_validator("admin_token")
    @classmethod
    def _other_machines_need_a_token(cls, token: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        admin = info.data.get("admin")
        if token is None and admin is not None and not Address.parse(admin).is_loopback:
            raise ValueError(
                f"expected a token: other machines may reach admin, {admin}; give one, or let admin be 127.0.0.1:PORT"
            )
        return token
