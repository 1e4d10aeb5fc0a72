"""``FloodGuard``: a log handler that lets the first of many like lines through, and sums up the others.

When a service fails or a bug meets every message, the log says the same thousands of times, and the one line that
matters drowns. Lines are alike when they differ in ids and numbers only.
"""

from __future__ import annotations

import logging
import re
import time
from collections import OrderedDict
from collections.abc import Callable

MAX_FLOODS = 1_000  #: different lines that are remembered at a time; the oldest is summed up early for another one

#: What tells lines apart that say the same: numbers, and ids of any make (UUIDs, hexadecimal, URNs).
_VARIABLE = re.compile(r"\b(?=[\w:-]*\d)[\w:-]+")
_SHAPE_CHARACTERS = 160


class _Flood:
    """The lines of one shape within one period."""

    __slots__ = ("last", "left_out", "passed", "until_seconds")

    def __init__(self, until_seconds: float) -> None:
        self.until_seconds = until_seconds
        self.passed = 0
        self.left_out = 0
        self.last: logging.LogRecord | None = None


class FloodGuard(logging.Handler):
    """Hands records on to ``target``: of those that are alike ``burst`` in each period, and one that counts the rest.

    What is less than a warning has ``info_burst``. DEBUG is not counted, nor what tells an ``event``, as a trace of an
    actor does: somebody has asked for all of it. The count comes with the next record of any sort after the period, or
    with ``close``. A crash of the process forgets it.
    """

    def __init__(
        self,
        target: logging.Handler,
        *,
        burst: int = 5,
        info_burst: int = 20,
        period_seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._target = target
        self._burst = burst
        self._info_burst = info_burst
        self._period_seconds = period_seconds
        self._clock = clock
        self._floods: OrderedDict[tuple[str, int, str], _Flood] = OrderedDict()  # oldest first

    def emit(self, record: logging.LogRecord) -> None:
        """Hand the record on, or count it."""
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
            flood = self._floods[key] = _Flood(now + self._period_seconds)
        if flood.passed < (self._burst if record.levelno >= logging.WARNING else self._info_burst):
            flood.passed += 1
            self._target.handle(record)
        else:
            flood.left_out += 1
            flood.last = record

    def close(self) -> None:
        """Say what has been left out until now."""
        self.acquire()
        try:
            self._sum_up(float("inf"))
        finally:
            self.release()
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
        text = f"{flood.left_out} more like this in {self._period_seconds:g} s: {_text(last)}"
        self._target.handle(
            logging.LogRecord(last.name, last.levelno, last.pathname, last.lineno, text, (), None, last.funcName)
        )


def shape(text: str) -> str:
    """Return what is the same in lines that say the same."""
    return _VARIABLE.sub("#", text[:_SHAPE_CHARACTERS])


def _text(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):  # arguments that do not fit: the target will complain of it
        return str(record.msg)
