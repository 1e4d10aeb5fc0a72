"""How an operator looks into a running system: its log, its statistics, its alerts."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from receipt_actors.settings._base import SomeSettings
from receipt_actors.settings._types import Expected, FilePath, LogLevel, OptionalQueueName


class OperationsSettings(SomeSettings, frozen=True):
    """What the system tells those who run it, and where."""

    statistics_file: Annotated[FilePath | None, Expected("a path")] = Field(
        default=None, description="File that gets the statistics, as JSON, when the command ends. Left out: none."
    )
    log_level: LogLevel = Field(default="INFO", description="Least severe log line that is written.")
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

    @field_validator("alerts_queue")
    @classmethod
    def _alerts_have_their_own_queue(cls, name: str | None, info: ValidationInfo) -> str | None:
        others = (info.data.get("source_queue"), info.data.get("dead_letter_queue"), *info.data.get("post_queues", ()))
        if name is not None and name in others:
            raise ValueError("expected a queue of its own, with no receipts, answers or dead letters on it")
        return name
