"""How an operator looks into a running system: its log, its statistics."""

from __future__ import annotations

import importlib.util
from typing import Annotated, Literal

from pydantic import Field, field_validator

from receipt_actors.settings._base import SomeSettings
from receipt_actors.settings._types import Expected, FilePath, LogLevel

_INSTALL_OPENTELEMETRY = "pip install 'receipt-actors[otel]'"


class OperationsSettings(SomeSettings, frozen=True):
    """What the system tells those who run it, and where."""

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
    log_level: LogLevel = Field(default="INFO", description="Least severe log line that is written.")

    @field_validator("traces")
    @classmethod
    def _opentelemetry_is_there(cls, traces: str) -> str:
        if traces == "otlp" and not _is_installed("opentelemetry.exporter.otlp.proto.http", "opentelemetry.sdk"):
            raise ValueError(f"expected OpenTelemetry to be installed; {_INSTALL_OPENTELEMETRY}, or choose none")
        return traces


def _is_installed(*modules: str) -> bool:
    try:
        return all(importlib.util.find_spec(module) is not None for module in modules)
    except ModuleNotFoundError:  # what it is a part of is missing
        return False
