"""What ``start`` and its worker processes write to the log, and how a line looks."""

from __future__ import annotations

import logging

from receipt_actors.telemetry.log_floods import FloodGuard
from receipt_actors.telemetry.log_writer import LogWriter

STDERR = 2


def write_log(level: str, worker: str | None = None) -> None:
    """Write to stderr from now on; a worker process names itself in each line."""
    writer = LogWriter(STDERR)
    name = "" if worker is None else f"{worker} "
    writer.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)s {name}%(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[FloodGuard(writer)])
    for library in ("botocore", "boto3", "urllib3"):  # their DEBUG lines hold receipts and credentials
        logging.getLogger(library).setLevel(logging.WARNING)
