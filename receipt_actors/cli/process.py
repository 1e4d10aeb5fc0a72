"""What long-running processes share: log, stop signals, observers, how they end, when garbage is collected."""

from __future__ import annotations

import gc
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Self

from receipt_actors.cli import EXIT_WORLD_FAILED
from receipt_actors.domain.addresses import Address
from receipt_actors.errors import StartAbandoned
from receipt_actors.otp import Crash, ExitReason
from receipt_actors.settings import LogSettings, OperationsSettings, Settings
from receipt_actors.stores.apple.settings import SignatureSettings
from receipt_actors.telemetry.control import SystemControl
from receipt_actors.telemetry.logs import ANSWERED_LOGGER, FloodGuard, JsonLines, LogWriter, TextLines

if TYPE_CHECKING:
    from receipt_actors.admin.server import AdminServer

logger = logging.getLogger("receipt_actors")

STDOUT, STDERR = 1, 2
AGENT_VARIABLE = "ECS_AGENT_URI"  #: which ECS sets in every container
ECHO_SECONDS = 0.2  #: in which the same signal counts once; shorter than anybody presses Ctrl-C twice
#: New objects between two looks at the youngest; looks at one generation for each at the next (Python: 700, 10, 10).
GARBAGE_THRESHOLDS = (50_000, 5, 10)


def write_log(settings: LogSettings, worker: str | None = None) -> None:
    """Write to stderr from now on; a worker process names itself in each line."""
    writer = LogWriter(STDERR)
    writer.setFormatter(JsonLines(worker) if _is_json(settings) else TextLines(worker))
    logging.basicConfig(level=settings.log_level, handlers=[FloodGuard(writer)])
    if isinstance(settings, OperationsSettings) and settings.log_decisions == "all":
        logging.getLogger(ANSWERED_LOGGER).setLevel(logging.INFO)
    for library in ("botocore", "boto3", "urllib3"):  # their DEBUG lines hold receipts and credentials
        logging.getLogger(library).setLevel(logging.WARNING)


def warn_of_foreign_roots(settings: SignatureSettings) -> None:
    """Log which root certificates are trusted that are not Apple's. Raises ``ConfigurationError`` if they are none."""
    if settings.apple_roots is None:
        return
    from receipt_actors.stores.apple.opening import foreign_roots  # a start without them must not wait for it

    if names := foreign_roots(settings):
        origin = settings.origins.get("apple_roots", "apple_roots")
        logger.warning(
            "%s trusts %s, not Apple's: its owner can sign purchases that count here", origin, " and ".join(names)
        )


def _is_json(settings: LogSettings) -> bool:
    return settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())


def collect_seldom() -> None:
    """Look for cycles less often, and never again among the objects of the start: modules and AWS's models."""
    # A message leaves a cycle of a kilobyte (an actor that has ended and its reference), so some ten megabytes may
    # gather. In return a receipt costs 0.05 to 0.08 ms of CPU time less, of 0.6.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)


def log_end(reason: ExitReason) -> None:
    if isinstance(reason, Crash):
        logger.critical(
            "the actor system has failed, see above: %s. Messages in flight come back by their visibility timeout",
            type(reason.exception).__name__,
        )
    else:
        logger.critical("the supervision tree has ended: too many crashes, see above. Messages were handed back")


@contextmanager
def ending_with_threads() -> Iterator[None]:
    """End the process at once, with exit code 1, when any thread dies of an error: without it nothing is right.

    What is in flight comes back by its visibility timeout. Worker processes drain when their parent is gone.
    """

    def end(args: threading.ExceptHookArgs, /) -> None:
        try:
            hook_before(args)
            thread = "a thread" if args.thread is None else f"thread {args.thread.name}"
            with suppress(OSError):
                os.write(2, f"{thread} has died, and the process ends with it\n".encode())
        finally:
            os._exit(EXIT_WORLD_FAILED)

    hook_before = threading.excepthook
    threading.excepthook = end
    try:
        yield
    finally:
        threading.excepthook = hook_before


class StopSignals:
    """Waits for a signal to stop, or for ``wake``. A context manager, for the main thread; the handlers are its own.

    The second signal ends the process on the spot, after ``before_end``, with the exit code 128 + its number.
    The same one at the same moment is no second one: coreutils' ``timeout`` signals the process, then its whole group.
    """

    # It waits for a byte in a socket (``signal.set_wakeup_fd``). A lock of ``threading`` would not do: a signal that
    # comes when the main thread is about to block on it is not noticed until the lock is free, and a handler that sets
    # an event deadlocks when it interrupts the ``wait`` for it.

    def __init__(self, numbers: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGINT)) -> None:
        self._numbers = numbers
        self.before_end: Callable[[], None] | None = None
        self._received: str | None = None
        self._received_at_seconds = 0.0  # monotonic
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)

    @property
    def received(self) -> str | None:
        return self._received

    def wake(self) -> None:
        """End the wait. May be called from any thread, and at any time."""
        with suppress(OSError):  # full of wake-ups, or closed
            self._writer.send(b"\0")

    def fileno(self) -> int:
        """Return what ``select`` finds readable once ``wait`` would not wait any more."""
        return self._reader.fileno()

    def wait(self, seconds: float | None) -> bool:
        """Wait for a signal or ``wake``, at most so long; tell whether there was one, now or earlier."""
        readable, _, _ = select.select([self._reader], [], [], seconds)
        return bool(readable)

    def pause_start(self, seconds: float) -> None:
        """Wait for the next try of something that a start needs; raise ``StartAbandoned`` if it is to end."""
        if self.wait(seconds):
            logger.info("%s: it has not started", self.received)
            raise StartAbandoned

    def __enter__(self) -> Self:
        self._descriptor_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._handlers_before = {number: signal.signal(number, self._stop) for number in self._numbers}
        return self

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._handlers_before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._descriptor_before)
        self._reader.close()
        self._writer.close()

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self._received is None:
            self._received, self._received_at_seconds = name, time.monotonic()
        elif name != self._received or time.monotonic() - self._received_at_seconds > ECHO_SECONDS:
            if self.before_end is not None:
                self.before_end()
            os._exit(128 + number)


@contextmanager
def watched(settings: Settings) -> Iterator[Callable[[SystemControl], None]]:
    """Open the admin port and the other observers that are set; yields what gives them a system to look at.

    Each is imported only if it is set: a start without it must not wait for it.

    Raises:
        ConfigurationError: other machines could reach the port without a token.
        AddressRefused: the address can't be listened on.
    """
    watches: list[Callable[[SystemControl], None]] = []
    with ExitStack() as opened:
        if settings.admin is not None:
            watches.append(opened.enter_context(admin_server(settings, settings.admin)).serve)
        if settings.metrics_log != "none":
            from receipt_actors.telemetry.embedded_metrics import MetricsLog

            dimensions = dict(pair.split("=", 1) for pair in settings.emf_dimensions or ())
            watches.append(opened.enter_context(MetricsLog(STDOUT, dimensions=dimensions)).watch)
        if agent_url := os.environ.get(AGENT_VARIABLE):
            from receipt_actors.telemetry.scale_in_protection import ScaleInProtection

            watches.append(opened.enter_context(ScaleInProtection(agent_url)).watch)

        def watch(system: SystemControl) -> None:
            for each in watches:
                each(system)

        yield watch


def admin_server(settings: Settings, address: str) -> AdminServer:
    """Return the admin port, open; raises as ``watched`` does."""
    from receipt_actors.admin.server import AdminServer

    token = None if settings.admin_token is None else settings.admin_token.get_secret_value()
    server = AdminServer(Address.parse(address), token)
    logger.info("the admin port is %s", server.url)
    return server
