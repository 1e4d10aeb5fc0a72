"""What ``start`` and its worker processes write to the log, and how a line looks."""

from __future__ import annotations

import logging

from receipt_actors.telemetry.log_floods import FloodGuard


def write_log(level: str, worker: str | None = None) -> None:
    """Write to stderr from now on; a worker process names itself in each line."""
    handler = logging.StreamHandler()
    name = "" if worker is None else f"{worker} "
    handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)s {name}%(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[FloodGuard(handler)])
    for library in ("botocore", "boto3", "urllib3"):  # their DEBUG lines hold receipts and credentials
        logging.getLogger(library).setLevel(logging.WARNING)
