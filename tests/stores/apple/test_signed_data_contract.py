"""What every adapter of the port ``SignedData`` promises: Apple's library, processes of it, and the fake for tests."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from receipt_actors.domain.reasons import Reason
from receipt_actors.errors import ConfigurationError
from receipt_actors.stores.apple.ports import SignatureRefused, SignedDataCalls, SignedKind
from receipt_actors.stores.apple.signatures.apple_library import AppleSignedData
from receipt_actors.stores.apple.signatures.jws import MAX_AHEAD_SECONDS, MAX_SIGNED_CHARACTERS
from receipt_actors.stores.apple.signatures.process import SignedDataAtOnce, SignedDataProcess
from receipt_actors.stores.apple.signatures.trust import Trust
from receipt_actors.testing import PATIENCE_SECONDS, FakeSignedData
from receipt_actors.transport.messages import wait_for
from tests.stores.apple.signing import NOTIFICATION, TRANSACTION, TestAuthority, part
from tests.transport.places import running

APPLE = TestAuthority()
STRANGER = TestAuthority()


@dataclass(frozen=True)
class Subject:
    calls: SignedDataCalls
    sign: Callable[[Mapping[str, object]], str]
    sign_as_another: Callable[[Mapping[str, object]], str]

    def verify(self, kind: SignedKind, signed: str) -> Mapping[str, object] | SignatureRefused:
        return wait_for(lambda done: self.calls.begin(kind, signed, done))


@pytest.fixture(scope="module", params=["library", "processes", "fake"])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    if request.param == "fake":
        fake = FakeSignedData()
        yield Subject(fake, fake.sign, FakeSignedData().sign)
    elif request.param == "library":
        library = AppleSignedData([APPLE.root.der])
        yield Subject(SignedDataAtOnce(lambda: library), APPLE.sign, STRANGER.sign)
    else:
        with running(SignedDataProcess(lambda: Trust([APPLE.root.der]))) as processes:
            yield Subject(processes, APPLE.sign, STRANGER.sign)


def refused(subject: Subject, signed: str, kind: SignedKind = SignedKind.TRANSACTION) -> Reason:
    outcome = subject.verify(kind, signed)
    assert isinstance(outcome, SignatureRefused), outcome
    return outcome.reason


@pytest.mark.parametrize("environment", ["Production", "Sandbox"])
def test_a_transaction_comes_back_as_it_was_signed(environment: str, subject: Subject) -> None:
    payload = {**TRANSACTION, "environment": environment, "new": {"nested": [1, 2.5, None, "é🪙\ud800", True]}}
    assert subject.verify(SignedKind.TRANSACTION, subject.sign(payload)) == payload


@pytest.mark.parametrize("bundle_id", ["com.example.game", "com.example.another", "", None])
def test_a_transaction_of_any_app_is_apples(bundle_id: str | None, subject: Subject) -> None:
    payload = dict(TRANSACTION)
    del payload["bundleId"]
    if bundle_id is not None:
        payload["bundleId"] = bundle_id
    assert subject.verify(SignedKind.TRANSACTION, subject.sign(payload)) == payload


def about(name: str, subject: Mapping[str, object] | None, **more: object) -> dict[str, object]:
    return {key: value for key, value in NOTIFICATION.items() if key != "data"} | {name: subject} | more


DATA: Any = NOTIFICATION["data"]


@pytest.mark.parametrize(
    "payload",
    [
        NOTIFICATION,
        about("data", {**DATA, "environment": "Sandbox", "appAppleId": None}),
        about("summary", {**DATA, "requestIdentifier": "1", "succeededCount": 5}),
        about("appData", DATA),
        about("externalPurchaseToken", {"externalPurchaseId": "SANDBOX_1", "bundleId": "com.example.game"}),
        about("externalPurchaseToken", {"externalPurchaseId": "1", "appAppleId": 7, "bundleId": "com.example.game"}),
        about("data", DATA, notificationType="OF_NEXT_YEAR", subtype="UNHEARD_OF"),
    ],
    ids=["production", "sandbox", "summary", "app data", "token, sandbox", "token, production", "new type"],
)
def test_a_notification_comes_back_as_it_was_signed(payload: Mapping[str, object], subject: Subject) -> None:
    assert subject.verify(SignedKind.NOTIFICATION, subject.sign(payload)) == payload


def test_the_one_is_not_the_other(subject: Subject) -> None:
    assert refused(subject, subject.sign(NOTIFICATION)) is Reason.JWS_ENVIRONMENT
    assert refused(subject, subject.sign(TRANSACTION), SignedKind.NOTIFICATION) is Reason.JWS_ENVIRONMENT


def test_what_another_has_signed_is_refused(subject: Subject) -> None:
    assert refused(subject, subject.sign_as_another(TRANSACTION)) is Reason.JWS_FOREIGN_ROOT


def test_what_was_changed_is_refused(subject: Subject) -> None:
    header, _, signature = subject.sign(TRANSACTION).split(".")
    changed = f"{header}.{part({**TRANSACTION, 'transactionId': '2'})}.{signature}"
    assert refused(subject, changed) is Reason.JWS_SIGNATURE


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", Reason.JWS_MALFORMED),
        ("\ud800", Reason.JWS_MALFORMED),
        ("a.b.c", Reason.JWS_MALFORMED),
        ("x" * (MAX_SIGNED_CHARACTERS + 1), Reason.JWS_MALFORMED),
        (f"{part({'alg': 'none'})}.{part(TRANSACTION)}.", Reason.JWS_ALGORITHM),
        (f"{part({'alg': 'ES256'})}.{part(TRANSACTION)}.", Reason.JWS_CHAIN_LENGTH),
        (f"{part({'alg': 'ES256'})}.{part({'environment': 'Xcode'})}.", Reason.JWS_ENVIRONMENT),
    ],
    ids=["empty", "surrogate", "three letters", "oversized", "none", "no chain", "Xcode"],
)
def test_what_is_no_signed_data_is_refused_for_its_reason(text: str, reason: Reason, subject: Subject) -> None:
    """``test_signed_data_hostile`` has the whole table; here, that all adapters give the same reasons."""
    assert refused(subject, text) is reason


def test_a_date_of_signing_that_has_not_come_says_that_the_clock_is_wrong(subject: Subject) -> None:
    """Only Apple can have chosen it: it is no reason to refuse what Apple signed. Anybody else's is refused as ever."""
    ahead = {**TRANSACTION, "signedDate": int(time.time() + 2 * MAX_AHEAD_SECONDS) * 1000}
    with pytest.raises(ConfigurationError, match="clock of this machine"):
        subject.verify(SignedKind.TRANSACTION, subject.sign(ahead))
    assert refused(subject, subject.sign_as_another(ahead)) is Reason.JWS_FOREIGN_ROOT
    soon = {**TRANSACTION, "signedDate": int(time.time() + MAX_AHEAD_SECONDS / 2) * 1000}
    assert subject.verify(SignedKind.TRANSACTION, subject.sign(soon)) == soon


def test_what_is_begun_is_done_once(subject: Subject) -> None:
    begin, sign = subject.calls.begin, subject.sign
    told: list[tuple[int, object]] = []
    all_told = threading.Event()

    def done(number: int, outcome: object) -> None:
        told.append((number, outcome))
        if len(told) == 100:
            all_told.set()

    expected: dict[int, object] = {}
    for number in range(100):
        match number % 3:
            case 0:
                payload: Mapping[str, object] = {**TRANSACTION, "transactionId": str(number)}
                kind, text, expected[number] = SignedKind.TRANSACTION, sign(payload), payload
            case 1:
                payload = {**NOTIFICATION, "notificationUUID": str(number)}
                kind, text, expected[number] = SignedKind.NOTIFICATION, sign(payload), payload
            case _:
                kind, text, expected[number] = SignedKind.TRANSACTION, json.dumps(number), Reason.JWS_MALFORMED
        begin(kind, text, lambda outcome, number=number: done(number, outcome))  # type: ignore[misc]
    assert all_told.wait(PATIENCE_SECONDS)
    found = {number: getattr(outcome, "reason", outcome) for number, outcome in told}
    assert found == expected
    assert len(told) == 100
