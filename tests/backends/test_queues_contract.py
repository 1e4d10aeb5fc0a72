"""What every adapter of the port ``Queues`` promises: the same tests for the embedded queues and for SQS (moto)."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

import pytest

from receipt_actors.domain.ports import MAX_BATCH_BYTES, OutgoingMessage, Queues, ReceivedMessage
from receipt_actors.errors import QueueRefused
from tests.backends.conftest import Begun

if TYPE_CHECKING:
    from tests.backends.conftest import Aws, QueueHouse


def receive(queues: Queues, queue: str, *, max_messages: int = 10, visibility: int = 600) -> Sequence[ReceivedMessage]:
    return queues.receive(queue, max_messages=max_messages, wait_seconds=0, visibility_timeout_seconds=visibility)


def send(queues: Queues, queue: str, *bodies: str) -> None:
    assert queues.send(queue, [OutgoingMessage(body) for body in bodies]) == [None] * len(bodies)


def test_what_was_sent_is_received(house: QueueHouse) -> None:
    queue = house.create()
    body, attributes = '{"receipt": "Zoë 金币 🪙"}', {"submission_id": "pé-🙂", "reason": "claimed"}
    before = time.time()
    assert house.queues.send(queue, [OutgoingMessage(body, attributes)]) == [None]

    (message,) = receive(house.queues, queue)
    send(house.queues, queue, "bare")
    (bare,) = receive(house.queues, queue)

    assert bare.attributes == {}
    assert (message.body, message.attributes) == (body, attributes)
    assert message.body_md5 == hashlib.md5(body.encode()).hexdigest()
    assert message.approximate_receive_count == 1
    assert before - 1 <= message.sent_at_seconds <= time.time() + 1


ATTRIBUTES_OF_ANY_TYPE: dict[str, tuple[dict[str, object], str]] = {
    "a string": ({"DataType": "String", "StringValue": "s-é-🪙"}, "s-é-🪙"),
    "a string of one's own kind": ({"DataType": "String.uuid", "StringValue": "s-1"}, "s-1"),
    "a number": ({"DataType": "Number", "StringValue": "1234567890123456789"}, "1234567890123456789"),
    "a number of one's own kind": ({"DataType": "Number.int", "StringValue": "-7"}, "-7"),
    "text in bytes": ({"DataType": "Binary", "BinaryValue": "s-é-🪙".encode()}, "s-é-🪙"),
    "bytes of one's own kind": ({"DataType": "Binary.id", "BinaryValue": b"s-1"}, "s-1"),
    "bytes that are no text": ({"DataType": "Binary", "BinaryValue": b"\xff\xfe"}, ""),
}


@pytest.mark.parametrize("emulator", ["moto", "simulated", "ministack_sqs"])
@pytest.mark.parametrize("way", ["called", "begun"])
def test_an_attribute_of_any_type_is_read_as_text(request: pytest.FixtureRequest, emulator: str, way: str) -> None:
    """Other producers choose SQS's other types. Empty, which no attribute can be when it is sent, is what has no text.

    The embedded queues and the fakes know text only.
    """
    aws: Aws = request.getfixturevalue(emulator)
    queues = Begun(aws.queues, request.getfixturevalue("calls")) if way == "begun" else aws.queues
    queue = aws.create_queue()
    url = aws.sqs.get_queue_url(QueueName=queue)["QueueUrl"]
    for name, (sent, _read) in ATTRIBUTES_OF_ANY_TYPE.items():
        aws.sqs.send_message(QueueUrl=url, MessageBody=name, MessageAttributes={"submission_id": sent})
    for message in (messages := receive(queues, queue)):
        assert message.attributes == {"submission_id": ATTRIBUTES_OF_ANY_TYPE[message.body][1]}
    assert len(messages) == len(ATTRIBUTES_OF_ANY_TYPE)


def test_full_batches_keep_every_entry(house: QueueHouse) -> None:
    queue = house.create()
    bodies = [f"body {number}" for number in range(10)]
    send(house.queues, queue, *bodies)

    messages = receive(house.queues, queue)

    assert sorted(message.body for message in messages) == bodies
    assert len({message.message_id for message in messages}) == 10
    assert house.queues.delete(queue, [message.receipt_handle for message in messages]) == [None] * 10
    assert house.queues.approximate_number_of_messages(queue) == 0


def test_a_receive_takes_no_more_than_asked(house: QueueHouse) -> None:
    queue = house.create()
    assert receive(house.queues, queue) == []
    send(house.queues, queue, *"abcde")
    for wrong in (0, 11):  # SQS receives 1 to 10 at once
        with pytest.raises(ValueError, match="expected 1 to 10"):
            receive(house.queues, queue, max_messages=wrong)
    assert len(receive(house.queues, queue, max_messages=3)) == 3
    assert house.queues.approximate_number_of_messages(queue) == 2
    assert len(receive(house.queues, queue)) == 2


def test_a_received_message_is_hidden(house: QueueHouse) -> None:
    queue = house.create()
    send(house.queues, queue, "hidden")
    assert house.queues.approximate_number_of_messages(queue) == 1
    assert len(receive(house.queues, queue)) == 1
    assert receive(house.queues, queue) == []
    assert house.queues.approximate_number_of_messages(queue) == 0


def test_visibility_zero_hands_back(house: QueueHouse) -> None:
    queue = house.create()
    send(house.queues, queue, "again")
    (first,) = receive(house.queues, queue)
    assert house.queues.change_visibility(queue, [(first.receipt_handle, 0)]) == [None]

    (second,) = receive(house.queues, queue)

    assert (second.message_id, second.body, second.sent_at_seconds) == (
        first.message_id,
        "again",
        first.sent_at_seconds,
    )
    assert second.receipt_handle != first.receipt_handle
    assert (first.approximate_receive_count, second.approximate_receive_count) == (1, 2)


def test_deleting_twice_is_confirmed(house: QueueHouse) -> None:
    queue = house.create()
    send(house.queues, queue, "once")
    (first,) = receive(house.queues, queue, visibility=0)
    (second,) = receive(house.queues, queue)
    assert house.queues.delete(queue, [second.receipt_handle]) == [None]
    assert house.queues.delete(queue, [second.receipt_handle]) == [None]
    assert house.queues.delete(queue, [first.receipt_handle]) == [None]
    assert house.queues.approximate_number_of_messages(queue) == 0


def test_outcomes_come_in_the_order_of_the_entries(house: QueueHouse) -> None:
    queue = house.create()
    sent = house.queues.send(queue, [OutgoingMessage("first"), OutgoingMessage("bad \x00"), OutgoingMessage("third")])
    assert [failure is None for failure in sent] == [True, False, True]

    messages = {message.body: message.receipt_handle for message in receive(house.queues, queue)}
    assert sorted(messages) == ["first", "third"]

    changed = house.queues.change_visibility(queue, [("bogus", 60), (messages["third"], 0)])
    assert [failure is None for failure in changed] == [False, True]
    deleted = house.queues.delete(queue, [messages["first"], "bogus", messages["third"]])
    assert [failure is None for failure in deleted] == [True, False, True]
    assert changed[0] is not None and deleted[1] is not None
    assert changed[0].sender_fault and deleted[1].sender_fault
    assert receive(house.queues, queue) == []


def test_visibility_of_a_deleted_message_fails(house: QueueHouse) -> None:
    queue = house.create()
    send(house.queues, queue, "gone")
    (message,) = receive(house.queues, queue)
    house.queues.delete(queue, [message.receipt_handle])
    (failure,) = house.queues.change_visibility(queue, [(message.receipt_handle, 60)])
    assert failure is not None and failure.sender_fault


NEVER_PASSING = [
    OutgoingMessage(""),
    OutgoingMessage("control \x0b"),
    OutgoingMessage("surrogate \ud800"),
    OutgoingMessage("noncharacter \uffff"),
    OutgoingMessage("body", {"empty": ""}),
    OutgoingMessage("body", {"control": "\x1f"}),
    OutgoingMessage("body", {"AWS.name": "reserved"}),
    OutgoingMessage("body", {"two..periods": "x"}),
    OutgoingMessage("body", {"": "x"}),
    OutgoingMessage("body", {"n" * 257: "x"}),
    OutgoingMessage("body", {f"a{number}": "x" for number in range(11)}),
    OutgoingMessage("x" * (MAX_BATCH_BYTES + 1)),
    OutgoingMessage("é" * (MAX_BATCH_BYTES // 2), {"a": "over"}),
]


def test_a_message_that_will_never_pass_fails_alone(house: QueueHouse) -> None:
    queue = house.create()
    for message in NEVER_PASSING:
        bad, good = house.queues.send(queue, [message, OutgoingMessage("fine")])
        assert bad is not None and bad.sender_fault, message.body[:12]
        assert good is None
        assert [received.body for received in receive(house.queues, queue)] == ["fine"]


def test_a_message_of_exactly_one_mebibyte_passes(house: QueueHouse) -> None:
    """The limit is SQS's: 1 MiB of body, attribute names, types and values."""
    queue = house.create()
    attributes = {"reason": "claimed"}
    room = MAX_BATCH_BYTES - len("reason" + "String" + "claimed")
    assert house.queues.send(queue, [OutgoingMessage("x" * room, attributes)]) == [None]
    (message,) = receive(house.queues, queue)
    assert len(message.body) == room


def test_a_batch_that_is_too_large_may_be_tried_in_parts(house: QueueHouse) -> None:
    queue = house.create()
    for batch in ([OutgoingMessage("x" * (MAX_BATCH_BYTES // 2 + 1))] * 2, [OutgoingMessage("x")] * 11):
        failures = house.queues.send(queue, batch)
        assert len(failures) == len(batch)
        assert all(failure is not None and not failure.sender_fault for failure in failures)
    assert receive(house.queues, queue) == []
    for failures in (house.queues.delete(queue, ["x"] * 11), house.queues.change_visibility(queue, [("x", 0)] * 11)):
        assert len(failures) == 11
        assert all(failure is not None and not failure.sender_fault for failure in failures)


def test_empty_batches_do_nothing(house: QueueHouse) -> None:
    queue = house.create()
    assert house.queues.send(queue, []) == []
    assert house.queues.delete(queue, []) == []
    assert house.queues.change_visibility(queue, []) == []


def test_the_redrive_policy_moves_what_was_received_too_often(house: QueueHouse) -> None:
    dead_letters = house.create()
    queue = house.create(dead_letters, 2)
    house.queues.send(queue, [OutgoingMessage("poison", {"submission_id": "s-1"})])
    (first,) = receive(house.queues, queue, visibility=0)
    (second,) = receive(house.queues, queue, visibility=0)
    assert (first.approximate_receive_count, second.approximate_receive_count) == (1, 2)

    assert receive(house.queues, queue) == []

    (dead,) = receive(house.queues, dead_letters)
    assert (dead.message_id, dead.body, dead.attributes) == (first.message_id, "poison", {"submission_id": "s-1"})
    assert dead.sent_at_seconds == first.sent_at_seconds
    assert house.queues.approximate_number_of_messages(queue) == 0


def test_good_messages_behind_a_poisoned_one_are_received(house: QueueHouse) -> None:
    queue = house.create(house.create(), 1)
    send(house.queues, queue, "poison")
    receive(house.queues, queue, visibility=0)
    send(house.queues, queue, "good")
    assert [message.body for message in receive(house.queues, queue, max_messages=1)] == ["good"]


def test_the_dead_letter_queue_is_named(house: QueueHouse) -> None:
    dead_letters = house.create()
    assert house.queues.dead_letter_queue(house.create(dead_letters)) == dead_letters
    assert house.queues.dead_letter_queue(dead_letters) is None


NO_QUEUES = ["nobody-made-this", "", "a b", "https://sqs.test/1/q", "arn:aws:sqs:x:1:q", "q.fifo", "q.fifo.fifo"]


def test_a_queue_that_does_not_exist_is_refused(house: QueueHouse) -> None:
    queues = house.queues
    operations: list[Callable[[str], object]] = [
        partial(queues.receive, max_messages=1, wait_seconds=0, visibility_timeout_seconds=1),
        lambda queue: queues.send(queue, in_group("a", "x") if queue.endswith(".fifo") else [OutgoingMessage("x")]),
        lambda queue: queues.delete(queue, ["handle"]),
        lambda queue: queues.change_visibility(queue, [("handle", 0)]),
        queues.dead_letter_queue,
        queues.approximate_number_of_messages,
    ]
    for operation, queue in product(operations, NO_QUEUES):
        with pytest.raises(QueueRefused) as refusal:
            operation(queue)
        assert refusal.value.queue == queue


def test_a_long_poll_returns_what_is_there_at_once(house: QueueHouse) -> None:
    queue = house.create()
    send(house.queues, queue, "here")
    with ThreadPoolExecutor(1) as pool:
        poll = pool.submit(house.queues.receive, queue, max_messages=10, wait_seconds=20, visibility_timeout_seconds=60)
        (message,) = poll.result(timeout=15)
    assert message.body == "here"


# --- FIFO queues ---


def in_group(group: str, *bodies: str) -> list[OutgoingMessage]:
    return [OutgoingMessage(body, {}, group, f"{group}-{body}") for body in bodies]


def send_in_groups(fifo_house: QueueHouse, queue: str, *messages: OutgoingMessage) -> None:
    assert fifo_house.queues.send(queue, messages) == [None] * len(messages)


def bodies(messages: Sequence[ReceivedMessage]) -> list[str]:
    return [message.body for message in messages]


def test_a_fifo_queue_tells_the_group_and_keeps_the_order(fifo_house: QueueHouse) -> None:
    queue = fifo_house.create(fifo=True)
    send_in_groups(fifo_house, queue, *in_group("a", "a1", "a2"), *in_group("b", "b1"), *in_group("a", "a3"))
    messages = receive(fifo_house.queues, queue)
    assert sorted(bodies(messages)) == ["a1", "a2", "a3", "b1"]
    assert [message.body for message in messages if message.group_id == "a"] == ["a1", "a2", "a3"]
    assert [message.body for message in messages if message.group_id == "b"] == ["b1"]

    standard = fifo_house.create()
    send(fifo_house.queues, standard, "plain")
    assert [message.group_id for message in receive(fifo_house.queues, standard)] == [None]


def test_a_group_with_a_hidden_message_gives_nothing(fifo_house: QueueHouse) -> None:
    queue = fifo_house.create(fifo=True)
    send_in_groups(fifo_house, queue, *in_group("a", "a1", "a2"))
    (first,) = receive(fifo_house.queues, queue, max_messages=1)
    send_in_groups(fifo_house, queue, *in_group("b", "b1"))
    assert bodies(receive(fifo_house.queues, queue)) == ["b1"]
    assert receive(fifo_house.queues, queue) == []
    assert fifo_house.queues.delete(queue, [first.receipt_handle]) == [None]
    assert bodies(receive(fifo_house.queues, queue)) == ["a2"]


def test_one_that_is_hidden_keeps_back_those_that_were_handed_back_behind_it(fifo_house: QueueHouse) -> None:
    queue = fifo_house.create(fifo=True)
    send_in_groups(fifo_house, queue, *in_group("a", "a1", "a2", "a3"))
    first, second, third = receive(fifo_house.queues, queue)
    changes = [(second.receipt_handle, 0), (third.receipt_handle, 0)]
    assert fifo_house.queues.change_visibility(queue, changes) == [None, None]
    assert receive(fifo_house.queues, queue) == []
    assert fifo_house.queues.change_visibility(queue, [(first.receipt_handle, 0)]) == [None]
    assert bodies(receive(fifo_house.queues, queue)) == ["a1", "a2", "a3"]


def test_one_that_is_hidden_keeps_back_those_before_it_too(fifo_house: QueueHouse) -> None:
    queue = fifo_house.create(fifo=True)
    send_in_groups(fifo_house, queue, *in_group("a", "a1", "a2"))
    first, second = receive(fifo_house.queues, queue)
    assert fifo_house.queues.change_visibility(queue, [(first.receipt_handle, 0)]) == [None]
    assert receive(fifo_house.queues, queue) == []
    assert fifo_house.queues.change_visibility(queue, [(second.receipt_handle, 0)]) == [None]
    assert bodies(receive(fifo_house.queues, queue)) == ["a1", "a2"]


def test_a_group_comes_back_when_its_visibility_timeouts_are_over(fifo_house: QueueHouse) -> None:
    if fifo_house.is_moto:
        pytest.skip("moto ends visibility timeouts one by one, and may give the second one before the first")
    queue = fifo_house.create(fifo=True)
    send_in_groups(fifo_house, queue, *in_group("a", "a1", "a2"))
    assert len(receive(fifo_house.queues, queue, visibility=1)) == 2
    again = fifo_house.queues.receive(queue, max_messages=10, wait_seconds=10, visibility_timeout_seconds=60)
    assert bodies(again) == ["a1", "a2"]


def test_a_long_poll_notices_that_a_group_is_free(fifo_house: QueueHouse) -> None:
    if fifo_house.is_moto:
        pytest.skip("a long poll of moto's looks once which groups are blocked")
    queue = fifo_house.create(fifo=True)
    send_in_groups(fifo_house, queue, *in_group("a", "a1", "a2"))
    (first,) = receive(fifo_house.queues, queue, max_messages=1)
    with ThreadPoolExecutor(1) as pool:
        poll = pool.submit(
            fifo_house.queues.receive, queue, max_messages=10, wait_seconds=20, visibility_timeout_seconds=60
        )
        fifo_house.queues.delete(queue, [first.receipt_handle])
        assert bodies(poll.result(timeout=15)) == ["a2"]


def test_a_repetition_is_confirmed_and_swallowed(fifo_house: QueueHouse) -> None:
    queue = fifo_house.create(fifo=True)
    send_in_groups(fifo_house, queue, OutgoingMessage("one", {}, "a", "id-1"), OutgoingMessage("two", {}, "a", "id-1"))
    send_in_groups(
        fifo_house, queue, OutgoingMessage("three", {}, "a", "id-1"), OutgoingMessage("four", {}, "a", "id-2")
    )
    assert bodies(receive(fifo_house.queues, queue)) == ["one", "four"]


def test_a_repetition_of_what_is_deleted_is_swallowed(fifo_house: QueueHouse) -> None:
    if fifo_house.is_moto:
        pytest.skip("moto forgets the ids of what has been deleted")
    queue = fifo_house.create(fifo=True)
    send_in_groups(fifo_house, queue, *in_group("a", "a1"))
    (message,) = receive(fifo_house.queues, queue)
    fifo_house.queues.delete(queue, [message.receipt_handle])
    send_in_groups(fifo_house, queue, *in_group("a", "a1"))
    assert receive(fifo_house.queues, queue) == []


def test_another_queue_knows_nothing_of_an_id(fifo_house: QueueHouse) -> None:
    for queue in (fifo_house.create(fifo=True), fifo_house.create(fifo=True)):
        send_in_groups(fifo_house, queue, *in_group("a", "a1"))
        assert bodies(receive(fifo_house.queues, queue)) == ["a1"]


def test_what_lacks_its_ids_fails_alone(fifo_house: QueueHouse) -> None:
    fifo, standard = fifo_house.create(fifo=True), fifo_house.create()
    (good,) = in_group("a", "a1")
    for queue, bad, fine in ((fifo, OutgoingMessage("x"), good), (standard, good, OutgoingMessage("x"))):
        failure, none = fifo_house.queues.send(queue, [bad, fine])
        assert failure is not None and failure.sender_fault
        assert none is None
        assert len(receive(fifo_house.queues, queue)) == 1


def test_the_redrive_policy_keeps_the_group(fifo_house: QueueHouse) -> None:
    dead_letters = fifo_house.create(fifo=True)
    queue = fifo_house.create(dead_letters, 1, fifo=True)
    send_in_groups(fifo_house, queue, *in_group("a", "a1", "a2"))
    (first,) = receive(fifo_house.queues, queue, max_messages=1)
    fifo_house.queues.change_visibility(queue, [(first.receipt_handle, 0)])
    assert bodies(receive(fifo_house.queues, queue)) == ["a2"]
    (dead,) = receive(fifo_house.queues, dead_letters)
    assert (dead.body, dead.group_id, dead.message_id) == ("a1", "a", first.message_id)
    assert fifo_house.queues.dead_letter_queue(queue) == dead_letters
