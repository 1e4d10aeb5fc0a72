"""A benchmark whose answers are not checked is worthless: what the audit finds, and how figures are made."""

from __future__ import annotations

import json

import pytest

from receipt_actors.sandbox.bench.measurement import (
    Measurement,
    Series,
    figures_of,
    in_flight_peak,
    percentiles_ms,
    slices,
    steady_cpu_ms,
    steady_per_second,
)
from receipt_actors.sandbox.services.load import MAX_SHOWN, POST_QUEUE, Load, SentAnswer, audit, transaction_id, user_id
from receipt_actors.sandbox.services.sqs import Content, Message

CONFIRMED_AFTER = 0.01


def answer(number: int, *, queue: str = POST_QUEUE, at: float = 1.0, **changes: object) -> SentAnswer:
    fields = {"user_id": user_id(number), "transaction_id": transaction_id(number), "status": "OK"} | changes
    return text_answer(json.dumps(fields), queue=queue, at=at)


def text_answer(body: str, *, queue: str = POST_QUEUE, at: float = 1.0) -> SentAnswer:
    return SentAnswer(queue, Content("id", json.dumps(body).encode(), "md5", {}), at)


def delivered(at: float | None = 2.0, *, deliveries: int = 1) -> Message:
    return Message("id", Content("id", b'""', "md5", {}), 0, receive_count=deliveries, deleted_at=at)


def found(*answers: SentAnswer, gone: list[Message], claimed: set[str] | None = None) -> str:
    claims = {transaction_id(number) for number in range(2)} if claimed is None else claimed
    finding = audit(gone, answers, claims, confirmed_after_seconds=CONFIRMED_AFTER)
    assert finding.count == len(finding.shown)
    return " | ".join(finding.shown)


BOTH_GONE = [delivered(), delivered()]


def test_what_is_right_has_nothing_wrong() -> None:
    assert found(answer(1), answer(0), gone=BOTH_GONE) == ""


@pytest.mark.parametrize(
    ("first", "complaint"),
    [
        (answer(0, status="INVALID"), "message 0: expected"),
        (answer(0, transaction_id=transaction_id(1)), "message 0: expected"),
        (answer(0, more="fields"), "message 0: expected"),
        (answer(0, queue="Elsewhere"), "message 0: answered on Elsewhere"),
        (answer(7), "an answer to nobody"),
        (answer(0, user_id=True), "an answer to nobody"),
        (text_answer("no JSON"), "no JSON object"),
        (text_answer("[]"), "no JSON object"),
        (answer(0, at=2.5), "message 0: deleted before its answer was confirmed"),
        (answer(0, at=1.995), "message 0: deleted before its answer was confirmed"),
    ],
)
def test_a_wrong_answer_is_found(first: SentAnswer, complaint: str) -> None:
    assert complaint in found(first, answer(1), gone=BOTH_GONE)


def test_a_missing_or_doubled_step_is_found() -> None:
    assert found(answer(0), answer(0), answer(1), gone=BOTH_GONE) == (
        "message 0: answered more often than it was delivered"
    )
    assert found(answer(1), gone=BOTH_GONE) == "message 0: not answered"
    assert found(answer(0), answer(1), gone=[delivered(None), delivered()]) == "message 0: not deleted"
    assert found(answer(0), answer(1), gone=BOTH_GONE, claimed={transaction_id(1)}) == "message 0: not claimed"
    claimed = {transaction_id(0), transaction_id(1), "another"}
    assert found(answer(0), answer(1), gone=BOTH_GONE, claimed=claimed) == "3 claims of 2 transactions"


def test_an_answer_may_be_repeated_when_its_message_was_delivered_again() -> None:
    gone = [delivered(deliveries=2), delivered()]
    claims = {transaction_id(0), transaction_id(1)}
    answers = [answer(0), answer(1), answer(0)]
    finding = audit(gone, answers, claims, confirmed_after_seconds=CONFIRMED_AFTER)
    assert (finding.count, finding.repeated) == (0, 1)
    finding = audit(gone, [*answers, answer(0)], claims, confirmed_after_seconds=CONFIRMED_AFTER)
    assert (finding.count, finding.repeated) == (1, 1)
    assert "message 0: expected" in found(answer(0), answer(0, status="INVALID"), answer(1), gone=gone)


def test_much_that_is_wrong_is_counted_and_shown_in_part() -> None:
    finding = audit([delivered(None)] * 1000, [], set(), confirmed_after_seconds=0)
    assert (finding.count, len(finding.shown)) == (3000, MAX_SHOWN)


def test_receipts_of_a_load_are_as_heavy_as_asked() -> None:
    load = Load(2)
    bodies = [load.body(0), load.body(1)]
    assert bodies[0] != bodies[1]
    assert all(6_800 < len(body) < 7_600 for body in bodies)
    assert json.loads(bodies[1])["user_id"] == user_id(1)


def test_percentiles_are_values_that_occurred() -> None:
    assert percentiles_ms([0.5]) == {"p50": 500, "p95": 500, "p99": 500}
    assert percentiles_ms([n / 1000 for n in range(100, 0, -1)]) == {"p50": 50, "p95": 95, "p99": 99}
    assert percentiles_ms([]) == {}


def test_the_steady_rate_leaves_ramp_and_tail_out() -> None:
    even = [1.0 + n / 100 for n in range(100)]
    assert steady_per_second([0.0, *even, 10.0]) == pytest.approx(100)
    assert steady_per_second([1.0]) == steady_per_second([]) == 0


def test_the_steady_cpu_leaves_the_start_out() -> None:
    looks = [(0, 5.0), *((done, 6.0 + done / 1000) for done in range(0, 1001, 50))]
    assert steady_cpu_ms(looks) == pytest.approx(1.0)
    assert steady_cpu_ms([(0, 5.0), (500, 6.0), (1000, 7.0)]) == steady_cpu_ms([]) == 0


def test_the_peak_in_flight_counts_overlaps() -> None:
    assert in_flight_peak([0, 1, 2], [3, 3, 3]) == 3
    assert in_flight_peak([0, 1, 2], [1, 2, 3]) == 1
    assert in_flight_peak([], []) == 0


def test_slices_cover_the_whole_run() -> None:
    for end in (0.01, 1.0, 1000.0):
        finished = [(end * n / 100, 0.25) for n in range(1, 101)]
        pieces = slices(finished)
        assert 1 <= len(pieces) <= 60
        width = 2 * pieces[0].at_seconds
        assert sum(piece.per_second * width for piece in pieces) == pytest.approx(100)
    assert slices([]) == []


def measurement(per_second: float = 100.0) -> Measurement:
    percentiles = {"p50": 1.0, "p95": 2.0, "p99": 3.0}
    return Measurement(
        messages=100,
        body_bytes=7_000,
        rate=None,
        seconds=1.0,
        per_second=per_second,
        steady_per_second=per_second,
        cpu_ms=1.0,
        steady_cpu_ms=0.8,
        services_cpu_ms={"aws": 0.1, "app_store": 0.1},
        start_seconds=0.5,
        start_cpu_seconds=0.4,
        rss_start_bytes=900_000,
        rss_peak_bytes=1_000_000,
        in_flight_peak=10,
        latency_ms=percentiles,
        steady_latency_ms=percentiles,
        apple_latency_ms={"p50": 0.5, "p95": 0.6, "p99": 0.7},
        apple_concurrency_peak=5,
        requests={"SendMessageBatch": 20, "PutItem": 100, "GetQueueUrl": 1},
        entries={"SendMessageBatch": 100, "PutItem": 100},
        wrong=0,
        wrong_shown=(),
        redelivered=0,
        repeated=0,
        others_share=0.0,
        slices=(),
    )


def test_figures_say_what_was_measured() -> None:
    figures = {figure.key: figure.value for figure in figures_of(measurement())}
    assert figures["calls a receipt: all"] == pytest.approx(1.21)
    assert figures["entries a call: SendMessageBatch"] == 5
    assert "entries a call: PutItem" not in figures
    assert figures["ms from receive to delete: p99 over Apple's p99"] == pytest.approx(2.3)
    assert figures["memory: KiB a receipt in flight, beyond its body"] == pytest.approx((10_000 - 7_000) / 1024)


def test_medians_are_over_runs() -> None:
    series = Series("all at once", [measurement(rate) for rate in (100, 10, 120)])
    assert series.medians()["rate: receipts a second"].value == 100
    assert series.middle_run().per_second == 100
    told = json.loads(json.dumps(series.as_json()))
    assert told["medians"]["rate: receipts a second"] == 100
    assert [run["per_second"] for run in told["runs"]] == [100, 10, 120]
