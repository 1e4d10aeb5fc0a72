"""What ``receipt-actors demo`` shows at the end: Apple refunds purchases, and takes one of the refunds back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace

from receipt_actors.domain.ports import ReceivedMessage
from receipt_actors.domain.reasons import Reason
from receipt_actors.notifications import NotificationHandler, open_handler
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.check import AnswerSeen
from receipt_actors.sandbox.http_server import Handler, HttpServer, Reply, Request, response
from receipt_actors.sandbox.load import INVALID, OK, Answered, Kind, Scenario
from receipt_actors.settings import Settings

REFUNDS = 3
DELIVERY_SECONDS = 20.0  #: for all of them
_GENUINE = (Kind.GENUINE, Kind.SIGNED)  # one message each


def refund_some(scenario: Scenario, store: SimulatedAppStore, settings: Settings) -> Sequence[AnswerSeen]:
    """Have Apple refund some purchases that count, reverse the last refund, and notify us over HTTP.

    Returns what is to be posted.
    """
    refunded = [
        AnswerSeen(message.user_id, message.expected.transaction_ids[0], INVALID, Reason.REFUNDED)
        for message in scenario.messages
        if message.kind in _GENUINE and isinstance(message.expected, Answered)
    ][:REFUNDS]
    given_again = [replace(each, status=OK, reason=Reason.REFUND_REVERSED) for each in refunded[-1:]]
    with open_handler(settings) as handler:
        server = HttpServer(_taken_by(handler)).start()
        try:
            for answer in refunded:
                store.notify("REFUND", answer.transaction_id, url=f"{server.url}/")
            store.wait_until_delivered(DELIVERY_SECONDS)
            for answer in given_again:
                store.notify("REFUND_REVERSED", answer.transaction_id, url=f"{server.url}/")
            store.wait_until_delivered(DELIVERY_SECONDS)
        finally:
            server.stop()
    return [*refunded, *given_again]


def faults_of(due: Sequence[AnswerSeen], messages: Iterable[ReceivedMessage]) -> list[str]:
    """Say what is wrong with what was posted for the refunds."""
    posted = {_answer(message) for message in messages}
    return [
        *(f"refund of transaction {each.transaction_id}: nothing was posted" for each in due if each not in posted),
        *(f"answer to user {each.user_id} after the refunds: {each.status}" for each in posted - set(due)),
    ]


def _taken_by(handler: NotificationHandler) -> Handler:
    """Put the handler into a server for a few; ``receipt-actors notifications`` puts it into one for all."""

    def take(request: Request) -> Reply:
        answer = handler.handle(request.body)
        return Reply(response(answer.status, answer.text.encode(), "text/plain"))

    return take


def _answer(message: ReceivedMessage) -> AnswerSeen:
    body = json.loads(message.body)
    return AnswerSeen(body["user_id"], body["transaction_id"], body["status"], message.attributes.get("reason", ""))
