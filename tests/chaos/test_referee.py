"""Apple refuses what it should not: everybody's purchases, for a while. And the other way round: a storm of forgeries.

The program, a simulated App Store over HTTP, and nothing between them.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from functools import partial

import pytest

from receipt_actors.domain.ports import Environment
from receipt_actors.domain.reasons import Reason
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.load import DeadLettered, Kind, SampleMessage
from receipt_actors.sandbox.receipts import Fault, Purchase, SampleReceipt, forge
from tests.system.worlds import BUNDLE_ID, DEAD_LETTERS, RESULTS, SOURCE, EmbeddedWorld, genuine_messages

Figure = Callable[[str], None]

full = partial(pytest.param, marks=pytest.mark.full)
REFUSALS = {"malformed": 21002, "a status that nobody knows": 21999, "not authentic": 21003}


def forgeries(count: int, seed: int) -> list[SampleMessage]:
    messages = []
    for number in range(count):
        user_id = seed * 10_000_000 + number
        receipt = forge(SampleReceipt(BUNDLE_ID, (Purchase(str(5 * 10**14 + user_id)),)))
        body = json.dumps({"receipt": receipt, "user_id": user_id, "post_queue": RESULTS})
        messages.append(SampleMessage(Kind.FORGED, body, {}, user_id, DeadLettered(Reason.NOT_AUTHENTIC)))
    return messages


def assert_all_ok(world: EmbeddedWorld, messages: list[SampleMessage]) -> None:
    answers = [(letter.fields["user_id"], letter.fields["status"]) for letter in world.take(RESULTS)]
    assert sorted(answers) == sorted((message.user_id, "OK") for message in messages)


@pytest.mark.parametrize("refusal", ["malformed", *(full(each) for each in REFUSALS if each != "malformed")])
@pytest.mark.parametrize("moment", ["while it works", "before it starts"])
def test_apple_refuses_everybody_for_a_while(
    embedded: EmbeddedWorld, is_full: bool, figure: Figure, refusal: str, moment: str
) -> None:
    count, seconds = (800, 40.0) if is_full else (60, 9.0)
    early, late = genuine_messages(10, 61), genuine_messages(count, 62)
    with SimulatedAppStore(latency_seconds=0.1) as store:
        is_working = moment == "while it works"
        if not is_working:
            store.outage(Fault.apple(REFUSALS[refusal]))
        program = embedded.start_consuming(store)
        embedded.send(early)
        if is_working:
            program.wait_until(lambda: embedded.total(RESULTS) == len(early), "the first are answered")
            store.outage(Fault.apple(REFUSALS[refusal]))
        embedded.send(late)
        program.wait_for_log("app_store is unavailable")
        program.pass_time(seconds)
        dead = embedded.total(DEAD_LETTERS)
        store.recover()
        ended_at = time.monotonic()
        program.wait_until(lambda: embedded.total(SOURCE) == 0, "everything is done")
        all_seconds = time.monotonic() - ended_at
        program.stop()
        assert (dead, embedded.total(DEAD_LETTERS)) == (0, 0)
        assert_all_ok(embedded, [*early, *late])
    figure(f"{seconds:.0f} s, {len(late)} purchases: none dead-lettered, all OK {all_seconds:.1f} s after its end")


@pytest.mark.parametrize("moment", ["while it works", full("before it starts")])
def test_a_storm_of_forgeries_disturbs_nobody(
    embedded: EmbeddedWorld, is_full: bool, figure: Figure, moment: str
) -> None:
    count = 200 if is_full else 20
    honest, forged = genuine_messages(count, 63), forgeries(19 * count, 64)
    with SimulatedAppStore(latency_seconds=0.1) as store:
        program = embedded.start_consuming(store)
        quiet = genuine_messages(10, 65)
        if moment == "while it works":
            embedded.send(quiet)
            program.wait_until(lambda: embedded.total(RESULTS) == len(quiet), "the first are answered")
        else:
            quiet = []
            embedded.send(forgeries(100, 66))
            program.wait_until(lambda: store.statistics().answers.get("21003", 0) >= 100, "the first are refused")
            assert embedded.total(DEAD_LETTERS) <= 2
        waits = []
        for number, message in enumerate(honest):
            embedded.send(forged[19 * number : 19 * number + 19])
            answered = embedded.total(RESULTS) + 1
            sent_at = time.monotonic()
            embedded.send([message])
            program.wait_until(lambda count=answered: embedded.total(RESULTS) >= count, "the honest one is answered")
            waits.append(time.monotonic() - sent_at)
        program.wait_until(lambda: embedded.total(SOURCE) == 0, "everything is done")
        program.stop()
        assert_all_ok(embedded, [*quiet, *honest])
        assert embedded.total(DEAD_LETTERS) == len(forged) + (0 if quiet else 100)
        assert {store.requests_for(json.loads(message.body)["receipt"]) for message in forged[40:]} == {1}
        assert "unavailable" not in program.stderr or moment == "before it starts"
        statistics_of_store = store.statistics()
    controls = statistics_of_store.requests[Environment.PRODUCTION] - len(honest) - len(forged) - len(quiet)
    figure(
        f"{len(forged)} forged of {len(forged) + len(honest)}: honest p50 {statistics.median(waits):.2f} s, "
        f"worst {max(waits):.2f} s; {controls} requests more than receipts"
    )
