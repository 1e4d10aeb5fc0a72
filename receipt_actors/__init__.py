"""Validates Apple in-app purchases: SQS in, Apple asked, transaction claimed once in DynamoDB, verdict out.

The embedding API::

    from receipt_actors import ReceiptSystem, Settings

    with ReceiptSystem.start(Settings(database="receipts.db", bundle_ids=("com.example.game",))) as system:
        ...

The Erlang/OTP layer underneath can be used alone: ``receipt_actors.otp``. It should cost no more than itself to import,
so the names here are looked up when they are first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from receipt_actors.errors import ReceiptActorsError
    from receipt_actors.receipt_system import ReceiptSystem
    from receipt_actors.settings import Settings

__all__ = ["ReceiptActorsError", "ReceiptSystem", "Settings"]

_HOMES = {"ReceiptActorsError": "errors", "ReceiptSystem": "receipt_system", "Settings": "settings"}


def __getattr__(name: str) -> object:
    """Import a public name from where it lives."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
