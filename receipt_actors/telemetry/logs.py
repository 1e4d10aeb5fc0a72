"""The log: what is said of messages, how a line looks, how floods are summed up, and how lines are written."""

# structlog takes 0.1 s to import, where a start takes 0.6; python-json-logger writes all that a record has.

from __future__ import annotations

import json
import logging
import os
import re
import select
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from receipt_actors.domain.messages import Result
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.values import printable

LOGGER = "receipt_actors.decisions"  #: what became of each message; the manual (operations) lists the lines
#: Quiet unless its level is set to INFO (``log_decisions``): a line for each receipt would be most of a log.
ANSWERED_LOGGER = f"{LOGGER}.answered"
_decisions = logging.getLogger(LOGGER)
_answered = logging.getLogger(ANSWERED_LOGGER)
if _answered.level == logging.NOTSET:  # else the program has set a level already
    _answered.setLevel(logging.WARNING)

#: What a record may have beside its words: a decision's facts, an answer's.
FIELDS = (
    *("event", "fate", "message_id", "user_id", "results", "reason", "seconds", "service", "queue"),
    *("group", "node", "state"),  # of a node's place in its group
)
_PLAIN = (str, int, float, list)
BURST, INFO_BURST = 5, 20  #: alike lines that pass in a period; the second number below WARNING
PERIOD_SECONDS = 60.0
MAX_FLOODS = 1_000  #: different lines that are remembered at a time; the oldest is summed up early for another one
#: Numbers and ids of any make (UUIDs, hexadecimal, URNs): alike lines may differ in them.
_VARIABLE = re.compile(r"\b(?=[\w:-]*\d)[\w:-]+")
_SHAPE_CHARACTERS = 160
MAX_WAITING_BYTES = 1024 * 1024  #: of lines that have been logged and not been written
FLUSH_SECONDS = 1.0  #: for the rest to be written when the process ends


class TextLines(logging.Formatter):
    """``2026-11-25 04:09:57,342 WARNING receipt_actors.decisions: ...``, with a worker's name after the level."""

    def __init__(self, worker: str | None = None) -> None:
        name = "" if worker is None else f"{worker} "
        super().__init__(f"%(asctime)s %(levelname)s {name}%(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)  # no untrusted text in it may forge a line or command a terminal
        return text if text.isprintable() else "\n".join(map(printable, text.split("\n")))


class JsonLines(logging.Formatter):
    """An object on one line: time, level and so on, ``FIELDS``, an OTP ``report``, and a ``traceback``."""

    def __init__(self, worker: str | None = None) -> None:
        super().__init__()
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
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


@dataclass(slots=True)
class _Flood:
    """The lines of one shape within one period."""

    until_seconds: float
    passed: int = 0
    left_out: int = 0
    last: logging.LogRecord | None = None


class FloodGuard(logging.Handler):
    """Passes on the first alike lines of each period, and one that counts the rest.

    Otherwise a service that fails fills the log, and the one line that matters drowns. Lines are alike if they differ
    in ids and numbers only. DEBUG and records with an ``event`` all pass: an operator has asked for them. The count
    comes with the next record after the period, or with ``close``.
    """

    def __init__(self, target: logging.Handler, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._target = target
        self._clock = clock
        self._floods: OrderedDict[tuple[str, int, str], _Flood] = OrderedDict()  # oldest first

    def emit(self, record: logging.LogRecord) -> None:
        now = self._clock()
        self._sum_up(now)
        if record.levelno < logging.INFO or hasattr(record, "event"):
            self._target.handle(record)
            return
        key = (record.name, record.levelno, shape(_text(record)))
        flood = self._floods.get(key)
        if flood is None:
            if len(self._floods) >= MAX_FLOODS:
                self._report(self._floods.popitem(last=False)[1])
            flood = self._floods[key] = _Flood(now + PERIOD_SECONDS)
        if flood.passed < (BURST if record.levelno >= logging.WARNING else INFO_BURST):
            flood.passed += 1
            self._target.handle(record)
        else:
            flood.left_out += 1
            flood.last = record

    def close(self) -> None:
        with self.lock or nullcontext():
            self._sum_up(float("inf"))
        super().close()

    def _sum_up(self, now: float) -> None:
        while self._floods:
            key, flood = next(iter(self._floods.items()))
            if flood.until_seconds > now:
                return
            del self._floods[key]
            self._report(flood)

    def _report(self, flood: _Flood) -> None:
        last = flood.last
        if last is None:
            return
        text = f"{flood.left_out} more like this in {PERIOD_SECONDS:g} s: {_text(last)}"
        self._target.handle(
            logging.LogRecord(last.name, last.levelno, last.pathname, last.lineno, text, (), None, last.funcName)
        )


def shape(text: str) -> str:
    """Return what alike lines share."""
    return _VARIABLE.sub("#", text[:_SHAPE_CHARACTERS])


def _text(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):  # arguments that do not fit: the target reports it
        return str(record.msg)


class LogWriter(logging.Handler):
    """Writes lines to a file descriptor, which stays open, on a thread: a slow or stuck reader blocks no actor.

    Lines that do not fit into its bounded queue are lost; a line says how many, as soon as there is room. ``close``,
    which ``logging.shutdown`` calls, waits until all is written, at most ``FLUSH_SECONDS``.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._waiting: SimpleQueue[bytes | None] = SimpleQueue()  # None: the end
        self._lock = threading.Lock()  # guards what follows; ``logging.shutdown`` holds the handler's own in ``close``
        self._waiting_bytes = 0
        self._lost = 0
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            data = self._line(record)
        except Exception:  # noqa: BLE001 # as every handler of the standard library does
            self.handleError(record)
            return
        with self._lock:
            # Once lines are lost there has to be some room again: else each other line would tell of losses.
            room = MAX_WAITING_BYTES // 2 if self._lost else MAX_WAITING_BYTES
            if self._is_closed or self._waiting_bytes + len(data) > room:
                self._lost += 1
                return
            self._tell_losses()
            self._put(data)
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="log", daemon=True)
                thread.start()  # if there is none to be had, the next line tries again
                self._thread = thread

    def close(self) -> None:
        with self._lock:
            self._tell_losses()
            self._is_closed = True
            self._waiting.put(None)
        if self._thread is not None:
            self._thread.join(FLUSH_SECONDS)
        super().close()

    def _line(self, record: logging.LogRecord) -> bytes:
        return f"{self.format(record)}\n".encode(errors="backslashreplace")

    def _tell_losses(self) -> None:
        if self._lost:
            words = "%d lines lost: the log's reader is too slow"
            self._put(self._line(logging.LogRecord(__name__, logging.WARNING, __file__, 0, words, (self._lost,), None)))
            self._lost = 0

    def _put(self, data: bytes) -> None:
        self._waiting_bytes += len(data)
        self._waiting.put(data)

    def _run(self) -> None:
        while (data := self._waiting.get()) is not None:
            with self._lock:
                self._waiting_bytes -= len(data)
            self._write(data)

    def _write(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:  # another process that has this pipe made it non-blocking
                select.select([], [self._descriptor], [])
            except OSError:  # its reader is gone
                return


# --- what became of a message ---


def log_answered(message_id: str, user_id: int, results: Sequence[Result], seconds: float) -> None:
    """Log the answers of a message, once they are confirmed and it is deleted."""
    if not _answered.isEnabledFor(logging.INFO):
        return
    told = "; ".join(f"transaction {each.transaction_id} is {each.verdict}, {each.reason}" for each in results)
    names = ("transaction_id", "verdict", "reason")
    fields = {
        "event": "answered",  # not summed up: an operator asked for all of them
        "message_id": message_id,
        "user_id": user_id,
        "seconds": round(seconds, 3),
        "results": [{name: getattr(each, name) for name in names} for each in results],
    }
    words = "message %s of user %d answered after %.3f s: %s"
    _answered.info(words, message_id, user_id, seconds, told, extra=fields)


def log_moved(message_id: str, reason: Reason, detail: str, seconds: float) -> None:
    """Log that a message is on the dead-letter queue, and deleted."""
    fields = {"fate": "moved", "message_id": message_id, "reason": reason, "seconds": round(seconds, 3)}
    _decisions.info("message %s moved, %s: %s", message_id, reason, detail, extra=fields)


def log_handed_back(message_id: str, reason: Reason, detail: str, seconds: float) -> None:
    """Log that a message comes back later, and what kept it from being answered."""
    fields = {"fate": "handed_back", "message_id": message_id, "reason": reason, "seconds": round(seconds, 3)}
    is_about_the_message = reason not in (Reason.DRAINED, Reason.GROUP_HANDED_BACK)
    level = logging.WARNING if is_about_the_message else logging.INFO
    _decisions.log(level, "message %s is handed back, %s: %s", message_id, reason, detail, extra=fields)


def log_left(message_id: str, reason: Reason, detail: str) -> None:
    """Log that a delivery was left as it is."""
    fields = {"fate": "left", "message_id": message_id, "reason": reason}
    _decisions.warning("message %s %s", message_id, detail, extra=fields)
