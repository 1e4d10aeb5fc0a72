"""What ``start``, its worker processes and ``notifications`` write to the log, and how a line looks."""

from __future__ import annotations

import logging
import sys

from receipt_actors.settings import LogSettings, OperationsSettings
from receipt_actors.telemetry.decisions import ANSWERED_LOGGER
from receipt_actors.telemetry.log_floods import FloodGuard
from receipt_actors.telemetry.log_lines import JsonLines, TextLines
from receipt_actors.telemetry.log_writer import LogWriter

STDERR = 2


def write_log(settings: LogSettings, worker: str | None = None) -> None:
    """Write to stderr from now on; a worker process names itself in each line."""
    writer = LogWriter(STDERR)
    writer.setFormatter(JsonLines(worker) if _is_json(settings) else TextLines(worker))
    logging.basicConfig(level=settings.log_level, handlers=[FloodGuard(writer)])
    if isinstance(settings, OperationsSettings) and settings.log_decisions == "all":
        logging.getLogger(ANSWERED_LOGGER).setLevel(logging.INFO)
    for library in ("botocore", "boto3", "urllib3"):  # their DEBUG lines hold receipts and credentials
        logging.getLogger(library).setLevel(logging.WARNING)


def _is_json(settings: LogSettings) -> bool:
    return settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
