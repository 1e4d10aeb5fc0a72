"""Receipts in files: as text (base64, or a signed transaction), or binary, as an app finds its own on the device."""

from __future__ import annotations

import base64
import sys
from pathlib import Path

import click

from receipt_actors.domain.ports import MAX_BATCH_BYTES

STDIN = "-"

_DER_SEQUENCE = b"\x30"  # what a PKCS #7 container begins with


def read_receipt(path: str) -> str:
    """Read one receipt, ``-`` from standard input; what is around it (a last line break) is left out.

    Raises ``OSError`` for a file that cannot be read, ``click.UsageError`` for one that holds no receipt.
    """
    data = _read(path, MAX_BATCH_BYTES + 1)
    if len(data) > MAX_BATCH_BYTES:
        raise click.UsageError(f"{path}: expected a receipt, found more than {MAX_BATCH_BYTES} bytes")
    try:
        return data.decode("ascii").strip()
    except UnicodeDecodeError:
        if not data.startswith(_DER_SEQUENCE):
            raise click.UsageError(f"{path}: expected a receipt, found neither text nor DER") from None
        return base64.b64encode(data).decode("ascii")


def _read(path: str, limit_bytes: int) -> bytes:
    if path == STDIN:
        return sys.stdin.buffer.read(limit_bytes)
    with Path(path).open("rb") as file:
        return file.read(limit_bytes)
