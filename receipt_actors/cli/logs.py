"""What ``start``, its worker processes and ``notifications`` write to the log, and how a line looks."""

from __future__ import annotations

import logging
import sys

from receipt_actors.settings import LogSettings, OperationsSettings, SignatureSettings
from receipt_actors.telemetry.decisions import ANSWERED_LOGGER
from receipt_actors.telemetry.log_floods import FloodGuard
from receipt_actors.telemetry.log_lines import JsonLines, TextLines
from receipt_actors.telemetry.log_writer import LogWriter

logger = logging.getLogger("receipt_actors")

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


def warn_of_foreign_roots(settings: SignatureSettings) -> None:
    """Say in a line which root certificates are trusted that are not Apple's; for staging and tests that is right.

    Raises ``ConfigurationError`` where what they take is not installed, or they are none.
    """
    if settings.apple_roots is None:
        return
    from receipt_actors.backends import foreign_roots  # a start without them must not wait for it

    if names := foreign_roots(settings):
        origin = settings.origins.get("apple_roots", "apple_roots")
        logger.warning(
            "%s trusts %s, not Apple's: its owner can sign purchases that count here", origin, " and ".join(names)
        )


def _is_json(settings: LogSettings) -> bool:
    return settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
