"""Queues and ledger in one SQLite file: everything on one machine, nothing else to install.

Any number of threads and processes of that machine may use the file at once (SQLite's write-ahead log does not work
over a network file system).
"""

from __future__ import annotations

from receipt_actors.sqlite.ledger import EmbeddedLedger
from receipt_actors.sqlite.notifications import EmbeddedNotifications
from receipt_actors.sqlite.queues import EmbeddedQueues, look
from receipt_actors.sqlite.roles import EmbeddedRoles

__all__ = ["EmbeddedLedger", "EmbeddedNotifications", "EmbeddedQueues", "EmbeddedRoles", "look"]
