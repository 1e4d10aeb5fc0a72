"""``GenServer``: the callbacks of Erlang's ``gen_server``."""

from __future__ import annotations

import logging
from typing import Any

import pykka
from pykka._envelope import Envelope

from receipt_actors.otp._actor import Actor
from receipt_actors.otp._calls import From
from receipt_actors.otp._log import log
from receipt_actors.otp._messages import CastEnvelope, ReplyEnvelope
from receipt_actors.otp._reasons import ExitReason

PYKKA_REQUESTS = frozenset(
    {
        pykka.messages.ProxyCall,
        pykka.messages.ProxyGetAttr,
        pykka.messages.ProxySetAttr,
        pykka.messages._ActorStop,
    }
)


class GenServer(Actor):
    """An actor with a request for each callback: calls, casts, and everything else.

    ===================  ====================================  ========================================================
    callback             for                                   returns
    ===================  ====================================  ========================================================
    ``init``             the start                             as ``handle_cast``, ``IGNORE``, ``NotStarted(reason)``
    ``handle_call``      ``call``, ``ask``, ``send_request``   the reply, ``NO_REPLY``, or as ``handle_cast``
    ``handle_cast``      ``cast``                              None, ``Stop(reason)``, ``Continue(term)``,
                                                               ``IdleTimeout(seconds)``
    ``handle_info``      ``send``, ``tell``, timers, ``Down``  as ``handle_cast``
    ``handle_continue``  ``Continue``                          as ``handle_cast``
    ``handle_reply``     answers to ``send_request``           as ``handle_cast``
    ``handle_failure``   requests that got no answer           as ``handle_cast``
    ``terminate``        the end                               nothing
    ===================  ====================================  ========================================================

    From ``handle_call``, ``Stop``, ``Continue`` and ``IdleTimeout`` carry the ``reply``; without one it comes later.
    Any callback may be a generator that yields ``Receive`` to wait for one message. An exception ends the actor.
    """

    def init(self) -> Any:
        """Get ready; see the class."""

    def handle_call(self, request: Any, from_: From) -> Any:
        """Answer a call; see the class."""
        raise NotImplementedError(f"{type(self).__name__} has no answer to a call of {type(request).__name__}")

    def handle_cast(self, request: Any) -> Any:
        """Handle a cast; see the class."""
        raise NotImplementedError(f"{type(self).__name__} does not know the cast {type(request).__name__}")

    def handle_info(self, message: Any) -> Any:
        """Handle any other message. By default it is logged and dropped, as in OTP."""
        log(logging.WARNING, "%s dropped an unexpected message of type %s", self.ref, type(message).__name__)

    def terminate(self, reason: ExitReason) -> Any:
        """Clean up; see ``Actor.terminate``."""

    def _otp_deliver(self, envelope: Envelope[Any]) -> Any:
        """See ``Actor``."""
        kind = type(envelope)
        if kind is CastEnvelope:
            return self.handle_cast(envelope.message)
        if isinstance(envelope, ReplyEnvelope):
            if envelope.failure is None:
                return self.handle_reply(envelope.label, envelope.value)
            return self.handle_failure(envelope.label, envelope.failure)
        message = envelope.message
        if type(message) in PYKKA_REQUESTS:
            return super()._otp_deliver(envelope)
        if envelope.reply_to is None:
            return self.handle_info(message)
        return self.handle_call(message, From(self._otp_process, envelope.reply_to))
