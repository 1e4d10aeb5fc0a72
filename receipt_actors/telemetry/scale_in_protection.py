"""``ScaleInProtection``: asks the ECS agent to leave this task alone while ending it would waste work.

The manual (operations) says when. If the program hangs, the protection ends by itself.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any

import urllib3

from receipt_actors.domain.values import printable
from receipt_actors.telemetry.control import SystemControl, Watcher
from receipt_actors.telemetry.overview import Overview, State

PATH = "/task-protection/v1/state"
#: In flight. It is no setting: it has to be longer than answers take and much shorter than a drain, whatever the load.
#: A task under steady load always has messages in flight; protected for that, its service could never scale in.
LONG_SECONDS = 5.0
EXPIRES_IN_MINUTES = 5  #: how long a program that hangs stays protected, at most
_TIMEOUT = urllib3.Timeout(connect=2.0, read=10.0)
_MAX_ANSWER_BYTES = 16_384
MAX_TOLD_CHARACTERS = 500  #: of what an agent answers, before some are replaced by longer escape sequences
_NO_LIFE = frozenset({State.ENDED, State.SILENT})

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Timing:
    look_seconds: float = 2.0  #: between two looks at the system
    renew_seconds: float = 120.0  #: after the agent said yes
    quiet_seconds: float = 10.0  #: without a reason; one slow message after the other is not a call each
    first_pause_seconds: float = 5.0  #: after a failure; doubles each time
    max_pause_seconds: float = 300.0
    close_seconds: float = 1.0  #: for a call under way when the program ends


def reason_to_protect(overview: Overview) -> str | None:
    """Return why ending this task now would waste work; None if it would not."""
    busy = [process for process in overview.processes if process.in_flight and process.state not in _NO_LIFE]
    if not busy:
        return None
    messages = sum(process.in_flight for process in busy)
    if any(process.state is State.DRAINING for process in busy):
        return f"it drains, with {messages} messages in flight"
    if unavailable := sorted({service for process in busy for service in process.unavailable}):
        return f"{messages} messages are kept until there is again: {', '.join(unavailable)}"
    oldest_seconds = max(process.oldest_in_flight_seconds for process in busy)
    return f"a message has been in flight for {oldest_seconds:.0f} s" if oldest_seconds >= LONG_SECONDS else None


class ScaleInProtection(Watcher):
    def __init__(
        self, agent_url: str, timing: Timing = Timing(), monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__("scale-in-protection", timing.close_seconds)
        self._url = agent_url.rstrip("/") + PATH
        self._timing = timing
        self._monotonic = monotonic
        self._pool = urllib3.PoolManager(num_pools=1, timeout=_TIMEOUT, retries=False)
        self._may_be_protected = False  # an answer that got lost may have been a yes
        self._renews_at = -inf
        self._wanted_at = -inf
        self._failures = 0  # in a row
        self._not_before = -inf

    def watch(self, system: SystemControl) -> None:
        if not self._url.startswith(("http://", "https://")):
            found = self._url.removesuffix(PATH)
            logger.warning("ECS_AGENT_URI is %r, expected an http URL: no protection from scale-in", found)
        else:
            super().watch(system)

    def close(self) -> None:
        super().close()  # the protection stays until it expires, or the task has ended
        self._pool.clear()

    def _run(self, system: SystemControl) -> None:
        while not self._is_over.wait(self._timing.look_seconds):
            if not self.look(system.overview(looks_at_queues=False)):
                return

    def look(self, overview: Overview) -> bool:
        """Ask the agent for what this system needs, if that is news. Return whether to go on."""
        why, now = reason_to_protect(overview), self._monotonic()
        if why is not None:
            self._wanted_at = now
        is_over = self._may_be_protected and now - self._wanted_at >= self._timing.quiet_seconds
        if now < self._not_before or not (is_over if why is None else now >= self._renews_at):
            return True
        self._may_be_protected |= why is not None
        failure = self.failure_of(why is not None)
        return self._done(why) if failure is None else self._failed(failure)

    def _done(self, why: str | None) -> bool:
        if self._failures:
            logger.info("the ECS agent protects from scale-in again")
        self._failures, self._may_be_protected = 0, why is not None
        self._renews_at = -inf if why is None else self._monotonic() + self._timing.renew_seconds
        logger.info("protected from scale-in no more" if why is None else f"protected from scale-in: {why}")
        return True

    def _failed(self, failure: str) -> bool:
        if failure.startswith("TASK_NOT_VALID"):
            logger.info("no service of ECS owns this task, which needs no protection from scale-in: %s", failure)
            return False
        if not self._failures:
            words = "the ECS agent does not change the protection from scale-in, and is asked again: %s"
            logger.warning(words, failure)
        pause_seconds = self._timing.first_pause_seconds * 2.0 ** min(self._failures, 30)
        self._not_before = self._monotonic() + min(self._timing.max_pause_seconds, pause_seconds)
        self._renews_at = -inf
        self._failures += 1
        return True

    def failure_of(self, wish: bool) -> str | None:
        """Ask for protection, or for none; return why that was not done, or None."""
        body = {"ProtectionEnabled": wish, **({"ExpiresInMinutes": EXPIRES_IN_MINUTES} if wish else {})}
        try:
            response = self._pool.request(
                "PUT", self._url, json=body, redirect=False, preload_content=False, decode_content=False
            )
            try:
                text = response.read(_MAX_ANSWER_BYTES)
            finally:
                response.close()
        except urllib3.exceptions.HTTPError as error:
            return _told(type(error).__name__, error)
        return failure_in(response.status, text, wish)


def failure_in(status: int, text: bytes, wish: bool) -> str | None:
    """Return why the agent has not done what was wished; None if it has."""
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return f"status {status}, and no JSON: {text[:100]!r}"
    match answer:
        case {"protection": {"ProtectionEnabled": bool(is_protected)}} if is_protected is wish:
            return None
        case {"failure": {"Reason": reason, **more}} if reason:  # ECS could not, for this task
            return _told(reason, more.get("Detail"))
        case {"error": {"Code": code, **more}} if code:  # ECS was not asked, or refused
            return _told(code, more.get("Message"))
    return f"status {status}: {text[:100]!r}"


def _told(name: Any, detail: Any) -> str:
    words = f"{name}: {detail}" if detail else str(name)
    return printable(words[:MAX_TOLD_CHARACTERS])  # it goes to the log, and is untrusted
