"""How an operator looks into a running system: its log, its statistics."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from receipt_actors.settings._base import SomeSettings
from receipt_actors.settings._types import Expected, FilePath, LogLevel


class OperationsSettings(SomeSettings, frozen=True):
    """What the system tells those who run it, and where."""

    statistics_file: Annotated[FilePath | None, Expected("a path")] = Field(
        default=None, description="File that gets the statistics, as JSON, when the command ends. Left out: none."
    )
    log_level: LogLevel = Field(default="INFO", description="Least severe log line that is written.")
