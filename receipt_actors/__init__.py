"""Validates Apple in-app purchases: SQS in, Apple asked, transaction claimed once in DynamoDB, verdict out.

The embedding API::

    from receipt_actors import ReceiptSystem, Settings

    with ReceiptSystem.start(Settings(database="receipts.db", bundle_ids=("com.example.game",))) as system:
        ...

The Erlang/OTP layer underneath can be used alone: ``receipt_actors.otp``.
"""

from receipt_actors.application import ReceiptSystem
from receipt_actors.errors import ReceiptActorsError
from receipt_actors.settings import Settings

__all__ = ["ReceiptActorsError", "ReceiptSystem", "Settings"]
