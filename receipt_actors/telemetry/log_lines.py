"""How a log line looks: for people (``TextLines``), or as a JSON object for machines (``JsonLines``).

What comes from elsewhere is only ever read: control characters stand as escape sequences in either form, so that
nobody can forge a line or command a terminal. A JSON line has the fields in ``FIELDS`` and no others: what another
library adds to its records may be anything, and is left out.

The standard library's ``logging`` does the rest. structlog (0.1 s to import, where a start takes 0.6) and
python-json-logger (which writes whatever a record has) were looked at.
"""

from __future__ import annotations

import json
import logging
import time
from typing import Any

from receipt_actors.domain.values import printable

#: What a record may have beside its words: a decision's facts, an answer's.
FIELDS = (
    "event",
    "fate",
    "message_id",
    "user_id",
    "results",
    "reason",
    "seconds",
    "service",
    "queue",
    "group",
    "node",
    "standing",
)
_PLAIN = (str, int, float, list)


class TextLines(logging.Formatter):
    """``2026-11-25 04:09:57,342 WARNING receipt_actors.decisions: ...``, with a worker's name after the level."""

    def __init__(self, worker: str | None = None) -> None:
        name = "" if worker is None else f"{worker} "
        super().__init__(f"%(asctime)s %(levelname)s {name}%(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Write the line, and a traceback below it."""
        text = super().format(record)
        return text if text.isprintable() else "\n".join(map(printable, text.split("\n")))


class JsonLines(logging.Formatter):
    """An object on one line.

    It has ``time`` (UTC), ``level``, ``logger``, ``process`` (the name of a worker) and ``message``, then those of
    ``FIELDS`` that the record has, ``report`` where it is one of the OTP layer, and ``traceback``.
    """

    def __init__(self, worker: str | None = None) -> None:
        super().__init__()
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        """Write the line."""
        line: dict[str, Any] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03}Z",
            "level": record.levelname,
            "logger": record.name,
        }
        if self._worker is not None:
            line["process"] = self._worker
        line["message"] = record.getMessage()
        has = record.__dict__
        for name in FIELDS:
            value = has.get(name)
            if isinstance(value, _PLAIN):
                line[name] = value
        report = has.get("report")
        if report is not None and hasattr(report, "as_dict"):
            line["report"] = report.as_dict()
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)
