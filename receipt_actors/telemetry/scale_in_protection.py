"""``ScaleInProtection``: keeps ECS from ending this task while that would waste work.

A service on ECS that scales in ends some task, without regard to which one has the least to lose. This looks at the
system from outside and tells the ECS agent (``$ECS_AGENT_URI/task-protection/v1/state``) when this task had better be
left alone:

* it drains, and something is in flight; or
* a service is unavailable, and what is in flight is kept until it is back; or
* something has been in flight for ``LONG_SECONDS`` or more: it has been tried again, or waits. An answer that takes its
  usual time is no reason: a drain finishes it, and a task under steady load always has some, so that it would be
  protected, and its service could not scale in, for ever. That is why the time is no setting: it has to be longer than
  answers take and much shorter than a drain, whatever the load.

Protection is asked for ``EXPIRES_IN_MINUTES``, renewed while there is a reason, and dropped when there has been none
for a while (``Timing``); should the program hang it ends by itself. It delays scaling in and deployments, and nothing
else: an agent that hangs, errs or refuses is asked again, less and less often, on a thread of its own, and
one line of the log says so. A task that no service of ECS owns (``TASK_NOT_VALID``) is not asked about again.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from typing import Any

import urllib3

from receipt_actors.domain.values import printable
from receipt_actors.telemetry.control import SystemControl
from receipt_actors.telemetry.overview import Overview, State
from receipt_actors.telemetry.watcher import Watcher

PATH = "/task-protection/v1/state"
LONG_SECONDS = 5.0  #: in flight; see the module
EXPIRES_IN_MINUTES = 5  #: how long a program that hangs stays protected, at most
_TIMEOUT = urllib3.Timeout(connect=2.0, read=10.0)
_MAX_ANSWER_BYTES = 16_384
MAX_TOLD_CHARACTERS = 500  #: of what an agent answers, before some are replaced by longer escape sequences
_NO_LIFE = frozenset({State.ENDED, State.SILENT})

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Timing:
    """How often to look and to ask, in seconds."""

    look_seconds: float = 2.0  #: between two looks at the system
    renew_seconds: float = 120.0  #: after the agent said yes
    quiet_seconds: float = 10.0  #: without a reason; one slow message after the other is not a call each
    first_pause_seconds: float = 5.0  #: after a failure; doubles each time
    max_pause_seconds: float = 300.0
    close_seconds: float = 1.0  #: for a call under way when the program ends


def reason_to_protect(overview: Overview) -> str | None:
    """Say why ending this task now would waste work; None where it would not."""
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


class ProtectionPlan:
    """Decides what to ask the agent for, and when. Times are monotonic."""

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._may_be_protected = False  # an answer that got lost may have been a yes
        self._granted_at: float | None = None
        self._wanted_at = float("-inf")
        self._failures = 0
        self._not_before = float("-inf")

    def wish(self, is_wanted: bool, now: float) -> bool | None:
        """Return whether to ask for protection (also again), to ask for none, or None: nothing is to be asked for."""
        if is_wanted:
            self._wanted_at = now
        if now < self._not_before:
            return None
        if is_wanted:
            is_fresh = self._granted_at is not None and now - self._granted_at < self._timing.renew_seconds
            return None if is_fresh else True
        return False if self._may_be_protected and now - self._wanted_at >= self._timing.quiet_seconds else None

    def asked(self, wish: bool) -> None:
        self._may_be_protected = self._may_be_protected or wish

    def done(self, wish: bool, now: float) -> None:
        self._may_be_protected = wish
        self._granted_at = now if wish else None
        self._failures, self._not_before = 0, float("-inf")

    def failed(self, now: float) -> None:
        """Note that it did not, or did not say so."""
        self._granted_at = None
        pause_seconds = self._timing.first_pause_seconds * 2.0**self._failures
        self._not_before = now + min(self._timing.max_pause_seconds, pause_seconds)
        self._failures = min(self._failures + 1, 30)

    @property
    def is_failing(self) -> bool:
        return self._failures > 0


class ScaleInProtection(Watcher):
    """See the module. A thread of its own looks at the system; as a context manager it ends with it."""

    def __init__(self, agent_url: str, timing: Timing = Timing()) -> None:
        super().__init__("scale-in-protection", timing.close_seconds)
        self._url = agent_url.rstrip("/") + PATH
        self._timing = timing
        self._plan = ProtectionPlan(timing)
        self._pool = urllib3.PoolManager(num_pools=1, timeout=_TIMEOUT, retries=False)

    def watch(self, system: SystemControl) -> None:
        if not self._url.startswith(("http://", "https://")):
            found = self._url.removesuffix(PATH)
            logger.warning("ECS_AGENT_URI is %r, expected an http URL: no protection from scale-in", found)
        else:
            super().watch(system)

    def close(self) -> None:
        """Ask for nothing any more. What is protected stays so until it expires, or the task has ended."""
        super().close()
        self._pool.clear()

    def _run(self, system: SystemControl) -> None:
        while not self._is_over.wait(self._timing.look_seconds):
            why = reason_to_protect(system.overview(looks_at_queues=False))
            wish = self._plan.wish(why is not None, time.monotonic())
            if wish is not None and not self._ask(wish, why):
                return

    def _ask(self, wish: bool, why: str | None) -> bool:
        """Ask the agent; say whether it is worth asking ever again."""
        self._plan.asked(wish)
        failure = self._failure_of(wish)
        now = time.monotonic()
        if failure is None:
            if self._plan.is_failing:
                logger.info("the ECS agent protects from scale-in again")
            self._plan.done(wish, now)
            logger.info("protected from scale-in: %s", why) if wish else logger.info("protected from scale-in no more")
            return True
        if failure.startswith("TASK_NOT_VALID"):
            logger.info("no service of ECS owns this task, which needs no protection from scale-in: %s", failure)
            return False
        if not self._plan.is_failing:
            logger.warning(
                "the ECS agent does not change the protection from scale-in, and is asked again: %s", failure
            )
        self._plan.failed(now)
        return True

    def _failure_of(self, wish: bool) -> str | None:
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
    """Read the agent's answer; None where it says that the task is protected, or not, as it was wished.

    It says ``protection`` (it was done), ``failure`` (ECS could not, for this task), or ``error`` (ECS was not asked,
    or refused).
    """
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return f"status {status}, and no JSON: {text[:100]!r}"
    match answer:
        case {"protection": {"ProtectionEnabled": bool(is_protected)}} if is_protected is wish:
            return None
        case {"failure": {"Reason": reason, **more}} if reason:
            return _told(reason, more.get("Detail"))
        case {"error": {"Code": code, **more}} if code:
            return _told(code, more.get("Message"))
    return f"status {status}: {text[:100]!r}"


def _told(name: Any, detail: Any) -> str:
    words = f"{name}: {detail}" if detail else str(name)
    return printable(words[:MAX_TOLD_CHARACTERS])  # it goes to the log, and is untrusted
