"""Hashes of texts, without giving up the interpreter in between.

hashlib lets go of the interpreter's lock to hash ``2048`` bytes or more. Where other threads are busy that costs more
than it brings: a change of threads, and up to five milliseconds (Python's switch interval) until this one goes on. So
longer texts go in smaller pieces; a message of 7 KB takes four.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hashlib import _Hash

PIECE_BYTES = 2047


def md5_hex(data: bytes) -> str:
    """Return the MD5 as SQS writes it. It guards against accidents, and nothing else."""
    return _fed(hashlib.md5(usedforsecurity=False), data)


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256, hexadecimal."""
    return _fed(hashlib.sha256(), data)


def _fed(digest: _Hash, data: bytes) -> str:
    view = memoryview(data)
    for begin in range(0, len(data), PIECE_BYTES):
        digest.update(view[begin : begin + PIECE_BYTES])
    return digest.hexdigest()
