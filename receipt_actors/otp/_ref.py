"""References: what one holds of an actor."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pykka
from pykka._envelope import Envelope

from receipt_actors.otp._context import context
from receipt_actors.otp._messages import CastEnvelope, Name

if TYPE_CHECKING:
    from receipt_actors.otp._actor import Actor
    from receipt_actors.otp._process import Process
    from receipt_actors.otp._reasons import ExitReason


class Ref(pykka.ActorRef[Any]):
    """A pykka ``ActorRef`` (``tell``, ``ask``, ``stop``, ``proxy``, ``is_alive``) that speaks OTP as well.

    It may be kept and used after its actor has ended: a cast is dropped then, a call fails.
    """

    def __init__(self, process: Process, actor_class: type[Actor]) -> None:
        # pykka's own __init__ is left out: it would copy what the process has, and make a UUID for each actor.
        self.process = process
        self.actor_class = actor_class

    # --- what pykka's ActorRef keeps as attributes ---

    @property
    def actor_urn(self) -> str:  # type: ignore[override]
        """A name for logs, unique among the actors that live in this Python process."""
        return f"urn:receipt-actors:{id(self.process):x}"

    @property
    def actor_inbox(self) -> Process:  # type: ignore[override]
        """The mailbox."""
        return self.process

    @property
    def actor_stopped(self) -> Process:  # type: ignore[override]
        """The stop flag (``is_set``, ``set``, ``wait`` as a ``threading.Event`` has them)."""
        return self.process

    @property
    def _actor_weakref(self) -> Callable[[], Actor | None]:  # type: ignore[override]
        return lambda: self.process.actor

    def __str__(self) -> str:
        name = self.process.name
        return f"{self.actor_class.__name__} ({self.actor_urn if name is None else name})"

    @property
    def name(self) -> Name | None:
        """The name it was registered under."""
        return self.process.name

    # --- OTP ---

    def send(self, message: object) -> None:
        """Send a message to ``handle_info``; dropped when the actor has ended (pykka's ``tell`` would raise)."""
        self.process.put(Envelope(message))

    def cast(self, request: object) -> None:
        """Send a request without a reply, to ``handle_cast``; dropped when the actor has ended."""
        self.process.put(CastEnvelope(request))

    def call(self, request: object, timeout: float | None = 5.0) -> Any:
        """Send a request to ``handle_call`` and wait for its reply (``gen_server:call``).

        To be used from threads of one's own and from ``THREAD`` actors; a pooled actor uses ``send_request``.

        Args:
            request: what ``handle_call`` gets.
            timeout: seconds to wait, None for ever.

        Raises:
            pykka.Timeout: no reply in time. A late one is dropped.
            pykka.ActorDeadError: the actor has ended, or ended before it answered.
            RuntimeError: called by a pooled actor, which would wait for a reply that its own thread must make.
            Exception: whatever made the actor crash while it handled the request.
        """
        if self.process.system.scheduler.is_current():
            raise RuntimeError("a pooled actor must not block in call(): use send_request() and handle_reply()")
        return self.ask(request, block=True, timeout=timeout)

    def exit(self, reason: ExitReason) -> None:
        """Send an exit signal (``exit/2``). From an actor it comes from that actor."""
        self.process.signal(context.process, reason)

    def kill(self) -> None:
        """End the actor at once, without ``terminate`` (``exit(Pid, kill)``); see ``Process.kill``."""
        self.process.kill()
