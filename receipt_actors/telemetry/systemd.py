"""``SystemdNotifier``: tells systemd when the system is ready, healthy, and about to stop; see sd_notify(3)."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

from receipt_actors.telemetry.control import SystemControl, Watcher
from receipt_actors.telemetry.health import Health, HealthWatch
from receipt_actors.telemetry.overview import Overview

STATUS_SECONDS = 10.0  #: between two looks, unless the watchdog wants more
START_SECONDS = 0.2  #: between two looks until it is ready

logger = logging.getLogger(__name__)


class SystemdNotifier(Watcher):
    """Reports to systemd; doc/operations.rst says what and when."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        super().__init__("systemd")
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._period_seconds = min(STATUS_SECONDS, _watchdog_seconds(environ) / 2)
        self._has_watchdog = _watchdog_seconds(environ) < float("inf")
        self._is_ready = False
        self._status = ""
        self._socket = None
        if self._address is not None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)

    def watch(self, system: SystemControl) -> None:
        if self._socket is not None:
            super().watch(system)

    def stopping(self) -> None:
        self._tell(["STOPPING=1"])

    def close(self) -> None:
        super().close()
        if self._socket is not None:
            self._socket.close()

    def _run(self, system: SystemControl) -> None:
        watch = HealthWatch()
        pause_seconds = 0.0
        while not self._is_over.wait(pause_seconds):
            overview = system.overview()
            self._tell_news(overview, watch.judge(overview))
            pause_seconds = self._period_seconds if self._is_ready else min(START_SECONDS, self._period_seconds)

    def _tell_news(self, overview: Overview, health: Health) -> None:
        is_ready, status = self._is_ready or health.is_ready, _status(overview, health)
        news = []
        if is_ready and not self._is_ready:
            news.append("READY=1")
        if status != self._status:
            news.append(f"STATUS={status}")
        if self._has_watchdog and health.is_healthy:
            news.append("WATCHDOG=1")
        if self._tell(news):
            self._is_ready, self._status = is_ready, status

    def _tell(self, news: list[str]) -> bool:
        """Send this; False if there is no room for it now, and it has to be sent again."""
        if self._socket is None or self._address is None or not news:
            return True
        try:
            self._socket.sendto("\n".join(news).encode(), self._address)
        except OSError as error:
            logger.warning("systemd can't be told %s: %s", news[0], error)
            return not isinstance(error, BlockingIOError)
        return True


def _address(text: str) -> str | None:
    if text.startswith("@"):  # it has no file
        return "\0" + text[1:]
    if text and not text.startswith("/"):
        logger.warning("NOTIFY_SOCKET is %r, expected a path or @ and a name: systemd is told nothing", text)
        return None
    return text or None


def _watchdog_seconds(environ: Mapping[str, str]) -> float:
    # Between two signs of life of this process; infinity: the watchdog wants none.
    microseconds, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if pid and pid != str(os.getpid()):
        return float("inf")
    is_number = microseconds.isascii() and microseconds.isdigit() and int(microseconds) > 0
    return int(microseconds) / 1e6 if is_number else float("inf")


def _status(overview: Overview, health: Health) -> str:
    in_flight = sum(process.in_flight for process in overview.processes)
    answered, moved = overview.statistics.count("answered"), overview.statistics.count("moved")
    text = f"{overview.state}: {in_flight} in flight, {answered} answered, {moved} moved to the dead-letter queue"
    return "; ".join((text, *health.why)).replace("\n", " ")
