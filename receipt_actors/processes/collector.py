"""The collector: one view of all workers, from what each says of itself every second.

It owns the newest report of each worker, and the counts of those that have ended: a worker that dies takes with it what
it counted since its last report. A crash of the collector forgets the counts of dead workers; the living ones' come
again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from receipt_actors.otp import NO_REPLY, ExitReason, From, GenServer
from receipt_actors.processes.messages import Stopped
from receipt_actors.processes.protocol import (
    DescribeGroup,
    DescribeInFlight,
    DescribeWorker,
    Group,
    WorkerReport,
)
from receipt_actors.telemetry.statistics import StatisticsSnapshot

REPORT_SECONDS = 1.0  #: between two questions to a worker


@dataclass(frozen=True, slots=True)
class GroupTotals:
    """What all workers together have done."""

    statistics: StatisticsSnapshot
    handed_back: int  #: at the end, and not in the statistics


@dataclass(frozen=True, slots=True)
class _AskEveryone:
    """To itself: it is time."""


@dataclass(slots=True)
class _Look:
    """A question about what is in flight now, under way."""

    from_: From
    until_seconds: float  #: monotonic; by then nobody waits for the answer any more
    missing: set[str]
    reports: list[WorkerReport]


class Collector(GenServer):
    """See the module."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._newest: dict[str, WorkerReport] = {}
        self._before = StatisticsSnapshot()  # of processes that have ended
        self._handed_back = 0
        self._asked: set[str] = set()  # who has not answered yet: one that hangs is not asked on and on
        self._looks: list[_Look] = []

    def init(self) -> None:
        """Begin to ask."""
        self.send_after(REPORT_SECONDS, _AskEveryone())

    def _ask_everyone(self) -> None:
        for name in self._group.names:
            if name not in self._asked:
                self._asked.add(name)
                self.send_request(name, DescribeWorker(), name)

    def handle_info(self, message: Any) -> Any:
        """Ask how it goes."""
        if not isinstance(message, _AskEveryone):
            return super().handle_info(message)
        now = self.clock.monotonic()
        self._looks = [look for look in self._looks if look.until_seconds > now]
        self._ask_everyone()
        self.send_after(REPORT_SECONDS, _AskEveryone())
        return None

    def handle_reply(self, label: Any, value: Any) -> None:
        """Keep what a worker said."""
        self._asked.discard(label)
        if value is not None:
            self._keep(value)
        self._tell(label, value)

    def handle_failure(self, label: Any, reason: ExitReason) -> None:
        """There is no such worker just now."""
        self._asked.discard(label)
        self._tell(label, None)

    def handle_cast(self, request: Any) -> Any:
        """Keep the last words of a process."""
        if not isinstance(request, WorkerReport):
            return super().handle_cast(request)
        self._keep(request)
        return None

    def _keep(self, report: WorkerReport) -> None:
        former = self._newest.get(report.name)
        if former is not None and former.pid != report.pid:
            self._before = self._before.merged(former.said.statistics)
        self._newest[report.name] = report
        if isinstance(report.said, Stopped):
            self._handed_back += report.said.handed_back

    def _tell(self, name: str, report: WorkerReport | None) -> None:
        """Answer those who want to know what is in flight, when all have been heard or one is not there."""
        for look in list(self._looks):
            look.missing.discard(name)
            if report is not None:
                look.reports.append(report)
            if report is None or not look.missing:
                self._looks.remove(look)
                look.from_.reply(None if report is None else tuple(look.reports))

    def handle_call(self, request: Any, from_: From) -> Any:
        """Sum up."""
        match request:
            case DescribeGroup():
                total = self._before
                for report in self._newest.values():
                    total = total.merged(report.said.statistics)
                return GroupTotals(total, self._handed_back)
            case DescribeInFlight():
                until = self.clock.monotonic() + request.patience_seconds
                self._looks.append(_Look(from_, until, set(self._group.names), []))
                self._ask_everyone()
                return NO_REPLY
            case _:
                return super().handle_call(request, from_)
