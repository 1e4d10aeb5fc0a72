"""A load of sample messages of every kind, each with what must become of it (``sandbox.check`` compares afterwards).

A scenario follows from its seed, down to the last byte; another seed has other users and transactions, so that several
can run on one ledger. Every submission has a user of its own, which is how answers are told apart.

The expectations are those of the default policy: production purchases of one app, any product, and receipts that Apple
refuses without a transaction id go to the dead-letter queue. They depend on who is asked about app receipts: the Server
API says of each receipt what it says of one transaction of it, and knows no receipts, so none is a forgery.
"""

from __future__ import annotations

import base64
import json
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from receipt_actors.domain.ports import Environment
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.receipts import ProductType
from receipt_actors.sandbox.apple_ca import Authority
from receipt_actors.sandbox.receipts import DEFAULT_KEY, Fault, Purchase, SampleReceipt, Shape, forge, mint
from receipt_actors.sandbox.signed_transactions import HOSTILE, mint_signed

OK = "OK"
INVALID = "INVALID"

_BOUGHT_MS = 1_750_000_000_000  # June 2025
_LONG_AGO_MS = 1_600_000_000_000  # September 2020
_FAR_AHEAD_MS = 4_100_000_000_000  # December 2099
_DEPTH = 50_000  # deeper than any parser that recurses can go

_FAULT_SCRIPTS = (
    (Fault.apple(21005),),
    (Fault.apple(21009), Fault.apple(21009)),
    (Fault.apple(21100, is_retryable=True),),
    (Fault.apple(21002),),
    (Fault.http(500), Fault.http(502)),
    (Fault.http(503, retry_after="1"),),
    (Fault.html(),),
    (Fault.drop(),),
    (Fault.garbage(), Fault.drop()),
)


class Receipts(StrEnum):
    """What the players' apps send."""

    APP = "app"  #: app receipts and transaction receipts, in base64
    SIGNED = "signed"  #: signed transactions of StoreKit 2
    MIXED = "mixed"  #: both, as from two releases of a game


class Asked(StrEnum):
    """Who is asked about app receipts: the setting ``app_receipts``."""

    VERIFY_RECEIPT = "verify-receipt"
    SERVER_API = "server-api"


class Kind(StrEnum):
    GENUINE = "genuine"
    BUNDLE = "bundle"  #: several transactions in one receipt
    REPLAYED = "replayed"  #: one receipt sent by several users; the one who really bought is among them
    DUPLICATE = "duplicate"  #: one submission sent twice
    TEMPORARY_FAILURE = "temporary failure"  #: genuine, but Apple fails at first
    SANDBOX = "sandbox"
    EXPIRED = "expired"
    REFUNDED = "refunded"
    FORGED = "forged"
    FOREIGN_APP = "foreign app"
    MALFORMED = "malformed receipt"
    NOTHING_BOUGHT = "nothing bought"
    SIGNED = "signed transaction"  #: genuine
    SIGNED_REPLAYED = "signed, replayed"
    BOTH_FORMS = "receipt and signed"  #: one purchase, sent by one user as a receipt and by another as signed
    SIGNED_SANDBOX = "signed, sandbox"
    SIGNED_EXPIRED = "signed, expired"
    SIGNED_REFUNDED = "signed, refunded"
    SIGNED_UPGRADED = "signed, upgraded"
    SIGNED_FOREIGN_APP = "signed, foreign app"
    HOSTILE_SIGNATURE = "not signed by Apple"  #: every way in which a JWS can be wrong
    GARBAGE = "garbage"  #: no message of the contract at all


_APP_SHARES = {
    Kind.BUNDLE: 0.06,
    Kind.REPLAYED: 0.08,
    Kind.DUPLICATE: 0.05,
    Kind.TEMPORARY_FAILURE: 0.06,
    Kind.SANDBOX: 0.03,
    Kind.EXPIRED: 0.03,
    Kind.REFUNDED: 0.02,
    Kind.FORGED: 0.03,
    Kind.FOREIGN_APP: 0.02,
    Kind.MALFORMED: 0.01,
    Kind.NOTHING_BOUGHT: 0.01,
    Kind.GARBAGE: 0.06,
}
_SIGNED_SHARES = {
    Kind.SIGNED_REPLAYED: 0.08,
    Kind.SIGNED_SANDBOX: 0.03,
    Kind.SIGNED_EXPIRED: 0.03,
    Kind.SIGNED_REFUNDED: 0.03,
    Kind.SIGNED_UPGRADED: 0.02,
    Kind.SIGNED_FOREIGN_APP: 0.02,
    Kind.HOSTILE_SIGNATURE: 0.12,
    Kind.GARBAGE: 0.06,
}
_SIGNED_AMONG_APP_SHARES = {
    Kind.SIGNED: 0.15,
    Kind.SIGNED_REPLAYED: 0.03,
    Kind.BOTH_FORMS: 0.04,
    Kind.SIGNED_SANDBOX: 0.01,
    Kind.SIGNED_EXPIRED: 0.01,
    Kind.SIGNED_REFUNDED: 0.01,
    Kind.SIGNED_UPGRADED: 0.01,
    Kind.SIGNED_FOREIGN_APP: 0.01,
    Kind.HOSTILE_SIGNATURE: 0.06,
}
#: The part of each kind in a scenario, and the kind of the rest.
MIXES: Mapping[Receipts, tuple[Mapping[Kind, float], Kind]] = {
    Receipts.APP: (_APP_SHARES, Kind.GENUINE),
    Receipts.SIGNED: (_SIGNED_SHARES, Kind.SIGNED),
    Receipts.MIXED: (_APP_SHARES | _SIGNED_AMONG_APP_SHARES, Kind.GENUINE),
}


@dataclass(frozen=True, slots=True)
class Answered:
    """Each of these transactions is answered with this status, and nothing else is."""

    status: str
    transaction_ids: tuple[str, ...]
    reason: Reason | None = None  #: where it is certain


@dataclass(frozen=True, slots=True)
class OneOfGroup:
    """Of all messages that share this transaction one is answered OK, whichever it is, and the others INVALID."""

    transaction_id: str


@dataclass(frozen=True, slots=True)
class DeadLettered:
    """The message is moved to the dead-letter queue for this reason, and never answered."""

    reason: Reason


Expectation = Answered | OneOfGroup | DeadLettered


@dataclass(frozen=True, slots=True)
class SampleMessage:
    kind: Kind
    body: str  #: no two submissions have the same
    attributes: Mapping[str, str]
    user_id: int  #: whom an answer would be for, also where the body spoils it
    expected: Expectation


@dataclass(frozen=True, slots=True)
class Scenario:
    """Messages in the order in which to send them."""

    messages: tuple[SampleMessage, ...]
    #: What the simulated App Store has to know (``SimulatedAppStore.record``) to answer for it by the Server API, and
    #: to refund it; verifyReceipt and signatures do without.
    sold: tuple[SampleReceipt, ...] = field(default=(), repr=False)


def make_scenario(
    count: int,
    seed: int,
    bundle_id: str,
    post_queue: str,
    key: bytes = DEFAULT_KEY,
    *,
    receipts: Receipts = Receipts.APP,
    asked: Asked = Asked.VERIFY_RECEIPT,
) -> Scenario:
    """Make ``count`` messages for the game ``bundle_id``. From about 100 on every kind of the mix is among them.

    ``key`` is the simulated App Store's.
    """
    maker = _Maker(seed, bundle_id, post_queue, key, asked)
    shares, rest = MIXES[receipts]
    messages: list[SampleMessage] = []
    for kind, share in shares.items():
        wanted = min(len(messages) + round(count * share), count)
        while len(messages) < wanted:
            messages += maker.make(kind)
    del messages[count:]
    while len(messages) < count:
        messages += maker.make(rest)
    maker.random.shuffle(messages)
    return Scenario(tuple(messages), tuple(maker.sold))


_MONTHLY: Mapping[str, Any] = {"product_id": "gold_monthly", "expires_at_ms": _FAR_AHEAD_MS}
_ENDED = {
    "product_id": "gold_monthly",
    "purchased_at_ms": _LONG_AGO_MS,
    "expires_at_ms": _LONG_AGO_MS + 30 * 24 * 3600 * 1000,
}
_CANCELLED = {"cancelled_at_ms": _BOUGHT_MS + 1000}
#: What is special about a genuine purchase that does not count, and the reason of its INVALID. Of an app receipt that
#: has expired Apple says so by its status (21006) in one shape, and by a date in the past in the other.
_REFUSED: Mapping[Kind, tuple[Mapping[str, Any], Reason]] = {
    Kind.EXPIRED: (_ENDED, Reason.EXPIRED),
    Kind.REFUNDED: (_CANCELLED, Reason.REFUNDED),
    Kind.FOREIGN_APP: ({}, Reason.FOREIGN_BUNDLE),
    Kind.SIGNED_EXPIRED: (_ENDED, Reason.EXPIRED),
    Kind.SIGNED_REFUNDED: (_CANCELLED, Reason.REFUNDED),
    Kind.SIGNED_UPGRADED: ({**_MONTHLY, "is_upgraded": True}, Reason.UPGRADED),
    Kind.SIGNED_FOREIGN_APP: ({}, Reason.FOREIGN_BUNDLE),
    Kind.SIGNED_SANDBOX: ({}, Reason.ENVIRONMENT_REFUSED),
}
#: Why a receipt is dead-lettered: where verifyReceipt is asked, and where the Server API is.
_UNANSWERED = {
    Kind.SANDBOX: (Reason.SANDBOX_REFUSED, Reason.TRANSACTION_NOT_FOUND),
    Kind.FORGED: (Reason.NOT_AUTHENTIC, Reason.TRANSACTION_NOT_FOUND),
    Kind.MALFORMED: (Reason.RECEIPT_MALFORMED, Reason.NO_TRANSACTION_ID),
    Kind.NOTHING_BOUGHT: (Reason.NO_TRANSACTION, Reason.NO_TRANSACTION_ID),
}
_GENUINE = (Kind.GENUINE, Kind.BUNDLE, Kind.DUPLICATE, Kind.TEMPORARY_FAILURE, Kind.SIGNED)
_SHARED = (Kind.REPLAYED, Kind.SIGNED_REPLAYED, Kind.BOTH_FORMS)


class _Maker:
    """Makes messages of each kind, with fresh users and transactions every time."""

    def __init__(self, seed: int, bundle_id: str, post_queue: str, key: bytes, asked: Asked) -> None:
        self.random = random.Random(seed)
        self.sold: list[SampleReceipt] = []
        self._authority = Authority(key)
        self._asks_server_api = asked is Asked.SERVER_API
        self._seed = seed
        self._bundle_id = bundle_id
        self._post_queue = post_queue
        self._key = key
        self._last_user_id = self.random.randrange(10**9, 10**12)
        self._last_transaction_id = self.random.randrange(10**14, 10**15)
        self._made: Counter[Kind] = Counter()

    def make(self, kind: Kind) -> list[SampleMessage]:
        """Make one message of this kind, or one group of messages that belong together."""
        self._made[kind] += 1
        number = self._made[kind]
        if kind in _GENUINE:
            return self._genuine(kind, number)
        if kind in _SHARED:
            return self._shared(kind, number)
        if kind in _REFUSED:
            return [self._refused(kind, number)]
        if kind in _UNANSWERED:
            return [self._unanswered(kind)]
        if kind is Kind.HOSTILE_SIGNATURE:
            reason, mint_hostile = HOSTILE[(number - 1) % len(HOSTILE)]
            signed = mint_hostile(SampleReceipt(self._bundle_id, (self._purchase(),)), self._authority)
            return [self._message(kind, signed, DeadLettered(reason))]
        return [self._garbage(number)]

    def _genuine(self, kind: Kind, number: int) -> list[SampleMessage]:
        purchase = self._purchase()
        expected = Answered(OK, (purchase.transaction_id,))
        match kind:
            case Kind.BUNDLE:
                purchases = [purchase, *(self._purchase() for _ in range(1 + number % 4))]
                # The Server API is asked about one id that is in the receipt: only that one is answered for.
                if not self._asks_server_api:
                    expected = Answered(OK, tuple(each.transaction_id for each in purchases))
                return [self._message(kind, self._mint(*purchases), expected)]
            case Kind.DUPLICATE:
                attributes = {"submission_id": f"scenario-{self._seed}-duplicate-{number}"}
                return [self._message(kind, self._mint(purchase), expected, attributes)] * 2
            case Kind.TEMPORARY_FAILURE:
                receipt = self._mint(purchase, faults=_FAULT_SCRIPTS[number % len(_FAULT_SCRIPTS)])
            case Kind.SIGNED:
                if number % 4 == 1:
                    purchase = replace(purchase, **_MONTHLY)
                elif number % 4 == 2:
                    type_ = ProductType.NON_CONSUMABLE
                    purchase = replace(purchase, product_id="no_ads", product_type=type_, is_family_shared=True)
                receipt = self._sign(purchase)
            case _:
                if number % 10 == 0:
                    purchase = replace(purchase, **_MONTHLY)
                receipt = self._mint(purchase, shape=self.random.choice(list(Shape)))
        return [self._message(kind, receipt, expected)]

    def _shared(self, kind: Kind, number: int) -> list[SampleMessage]:
        purchase = self._purchase()
        receipts: list[str] = []
        if kind is not Kind.SIGNED_REPLAYED:
            receipts += [self._mint(purchase, shape=self.random.choice(list(Shape)))]
        if kind is not Kind.REPLAYED:
            receipts += [self._sign(purchase)]
        if kind is not Kind.BOTH_FORMS:
            receipts *= 2 + number % 3
        return [self._message(kind, each, OneOfGroup(purchase.transaction_id)) for each in receipts]

    def _refused(self, kind: Kind, number: int) -> SampleMessage:
        fields, reason = _REFUSED[kind]
        purchase = self._purchase(**fields)
        expected: Expectation = Answered(INVALID, (purchase.transaction_id,), reason)
        bundle_id = f"{self._bundle_id}.cheap-clone" if reason is Reason.FOREIGN_BUNDLE else self._bundle_id
        if kind.value.startswith("signed"):
            environment = Environment.SANDBOX if kind is Kind.SIGNED_SANDBOX else Environment.PRODUCTION
            receipt = self._sign(purchase, bundle_id=bundle_id, environment=environment)
        else:
            receipt = self._mint(purchase, bundle_id=bundle_id, shape=list(Shape)[number % 2])
            if kind is Kind.FOREIGN_APP and self._asks_server_api:
                # Our app's token does not find the other app's transactions.
                expected = DeadLettered(Reason.TRANSACTION_NOT_FOUND)
        return self._message(kind, receipt, expected)

    def _unanswered(self, kind: Kind) -> SampleMessage:
        match kind:
            case Kind.SANDBOX:
                receipt = self._mint(self._purchase(), environment=Environment.SANDBOX)
            case Kind.FORGED:
                forged = SampleReceipt(self._bundle_id, (self._purchase(),))
                receipt = forge(forged, key=self._key)
            case Kind.MALFORMED:
                receipt = base64.b64encode(self.random.randbytes(300)).decode()
            case _:
                receipt = self._mint()
        return self._message(kind, receipt, DeadLettered(_UNANSWERED[kind][self._asks_server_api]))

    def _garbage(self, number: int) -> SampleMessage:
        user_id = self._user_id()
        good = {"receipt": self._mint(self._purchase()), "user_id": user_id, "post_queue": self._post_queue}
        text = json.dumps(good)
        deep = '"deep": ' + "[" * _DEPTH + "]" * _DEPTH

        def changed(**changes: Any) -> str:
            return json.dumps({name: value for name, value in {**good, **changes}.items() if value is not None})

        variants: list[tuple[Reason, str]] = [
            (Reason.NOT_JSON, text[:-20]),
            (Reason.BAD_USER_ID, changed(user_id=str(user_id))),
            (Reason.POST_QUEUE_NOT_ALLOWED, changed(post_queue="SomebodyElsesQueue")),
            (Reason.BAD_RECEIPT, changed(receipt=None)),
            (Reason.NOT_AN_OBJECT, f"[{text}]"),
            (Reason.BAD_POST_QUEUE, changed(post_queue=user_id)),
            (Reason.DUPLICATE_KEY, f'{text[:-1]}, "user_id": {user_id}}}'),
            (Reason.TOO_DEEP, f"{text[:-1]}, {deep}}}"),
            (Reason.BAD_RECEIPT, changed(receipt=user_id)),
            (Reason.BAD_USER_ID, changed(user_id=2**70)),
            (Reason.BAD_POST_QUEUE, changed(post_queue=None)),
            (Reason.NOT_JSON, f"<purchase user='{user_id}'/>"),
            (Reason.BAD_USER_ID, changed(user_id=True)),
            (Reason.BAD_RECEIPT, changed(receipt="no base64, this!")),
            (Reason.BAD_USER_ID, changed(user_id=None)),
            (Reason.BAD_POST_QUEUE, changed(post_queue="https://sqs.eu-west-1.amazonaws.com/1/Results")),
            (Reason.BAD_SUBMISSION_ID, text),
        ]
        reason, body = variants[(number - 1) % len(variants)]
        attributes = {"submission_id": "x" * 257} if reason is Reason.BAD_SUBMISSION_ID else {}
        return SampleMessage(Kind.GARBAGE, body, attributes, user_id, DeadLettered(reason))

    def _message(
        self, kind: Kind, receipt: str, expected: Expectation, attributes: Mapping[str, str] | None = None
    ) -> SampleMessage:
        user_id = self._user_id()
        if attributes is None:  # producers should name their submissions, and some will not
            named = self.random.random() < 0.5
            attributes = {"submission_id": f"scenario-{self._seed}-{user_id}"} if named else {}
        body = json.dumps({"receipt": receipt, "user_id": user_id, "post_queue": self._post_queue})
        return SampleMessage(kind, body, attributes, user_id, expected)

    def _sign(self, purchase: Purchase, **fields: Any) -> str:
        return mint_signed(self._sell(purchase, **fields), self._authority)

    def _mint(self, *purchases: Purchase, **fields: Any) -> str:
        return mint(self._sell(*purchases, **fields), key=self._key)

    def _sell(self, *purchases: Purchase, **fields: Any) -> SampleReceipt:
        receipt = SampleReceipt(**{"bundle_id": self._bundle_id, "purchases": purchases, **fields})
        self.sold.append(receipt)
        return receipt

    def _purchase(self, **fields: Any) -> Purchase:
        self._last_transaction_id += 1
        fields.setdefault("product_id", self.random.choice(("coins_100", "coins_500", "coins_2500")))
        return Purchase(str(self._last_transaction_id), **{"purchased_at_ms": _BOUGHT_MS, **fields})

    def _user_id(self) -> int:
        self._last_user_id += 1
        return self._last_user_id
