"""How an operator looks into a running system: its admin port, its log, its statistics."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from receipt_actors.domain.addresses import Address
from receipt_actors.settings._base import SomeSettings
from receipt_actors.settings._types import AdminAddress, AdminToken, Expected, FilePath, LogLevel


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

    @field_validator("admin_token")
    @classmethod
    def _other_machines_need_a_token(cls, token: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        admin = info.data.get("admin")
        if token is None and admin is not None and not Address.parse(admin).is_loopback:
            raise ValueError(
                f"expected a token: other machines may reach admin, {admin}; give one, or let admin be 127.0.0.1:PORT"
            )
        return token
