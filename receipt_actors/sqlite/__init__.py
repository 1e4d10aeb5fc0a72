"""Queues and tables in one SQLite file: everything on one machine, nothing else to install.

Any number of threads and processes of that machine may use the file at once (SQLite's write-ahead log does not work
over a network file system).
"""

from receipt_actors.sqlite.queues import EmbeddedQueues, look
from receipt_actors.sqlite.tables import EmbeddedLedger, EmbeddedNotifications, EmbeddedRoles

__all__ = ["EmbeddedLedger", "EmbeddedNotifications", "EmbeddedQueues", "EmbeddedRoles", "look"]
