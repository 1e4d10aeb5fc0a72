"""A gateway to a fake Apple, as the tests of its answers and of its refusals have it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from receipt_actors.domain.limits import Limits, LiveLimits
from receipt_actors.domain.policy import Policy
from receipt_actors.domain.ports import Environment
from receipt_actors.otp import Ref
from receipt_actors.pipeline.protocol import IN_FLIGHT, SIGNATURE_GATEWAY, ServiceUnavailable, VerifyReceipt
from receipt_actors.stores.apple import server_api
from receipt_actors.stores.apple.app_store_gateway import AppStoreGateway, SignatureGateway
from receipt_actors.stores.apple.verify_receipt import receipt_api
from receipt_actors.telemetry.incidents import INCIDENTS, IncidentKind, Noticed
from receipt_actors.testing import FakeAppStore, FakeServerApi, FakeSignedData
from tests.pipeline.stand_ins import SOURCE, THREE_ATTEMPTS, Stage, submission

PRODUCTION, SANDBOX = Environment.PRODUCTION, Environment.SANDBOX
MAX_IN_FLIGHT = 20


class AtOnce(FakeAppStore):
    blocks = False

    def begin(self, receipt_data: str, environment: Environment, done: Callable[[Any], object]) -> None:
        try:
            outcome: Any = self.verify_receipt(receipt_data, environment)
        except Exception as error:  # noqa: BLE001 # whatever the test has ordered
            outcome = error
        done(outcome)


class House:
    pause_seconds = 60.0  #: before there is an answer

    def __init__(
        self,
        stage: Stage,
        *environments: Environment,
        store: FakeAppStore | None = None,
        asks_server_api: bool = False,
        verifies: bool = True,
        max_in_flight: int = MAX_IN_FLIGHT,
    ) -> None:
        self.stage = stage
        self.store: FakeAppStore = stage.with_fake(store or AtOnce())
        self.apple: FakeSignedData = stage.with_fake(FakeSignedData())
        self.api: FakeServerApi = stage.with_fake(FakeServerApi(self.apple))
        self.in_flight = stage.stand_in(IN_FLIGHT)
        self.incidents = stage.stand_in(INCIDENTS)
        self.limits = LiveLimits(Limits(max_in_flight, 20, 20))
        policy = Policy(None, environments=frozenset(environments or {PRODUCTION}))
        api = server_api.receipt_api(self.api, policy) if asks_server_api else receipt_api(self.store, policy)
        self.gateway: Ref = stage.actors.start(
            AppStoreGateway, {SOURCE: api}, self.limits, THREE_ATTEMPTS, self.apple if verifies else None
        )
        if verifies:
            self.signatures: Ref = stage.actors.start(
                SignatureGateway, self.apple, self.limits, THREE_ATTEMPTS, name=SIGNATURE_GATEWAY
            )

    def script(self, *answers: Any, message: int = 1) -> None:
        self.store.script(submission(message).receipt_data, *answers)

    def requests(self, question: str | None = None) -> tuple[int, int]:
        fake = self.store if question is None else self.api
        asked = submission(1).receipt_data if question is None else question
        return fake.requests(asked, PRODUCTION), fake.requests(asked, SANDBOX)

    def verify(self, receipt_data: str | None = None, message: int = 1) -> Ref:
        """Have a message verified, which has a receipt of its own unless one is given."""
        asked = submission(message) if receipt_data is None else submission(message, receipt=receipt_data)
        return self.stage.ask(self.gateway, VerifyReceipt(asked, SOURCE))

    def verified(self, receipt_data: str | None = None, message: int = 1) -> Any:
        asking = self.verify(receipt_data, message)
        self.stage.advance(self.pause_seconds)
        return self.stage.reply_to(asking)

    def outages(self) -> list[bool]:
        """Return what ``in_flight`` was told of outages, change by change: whether each closes the gate."""
        told = [outage.stops_receiving for outage in self.stage.told(self.in_flight, ServiceUnavailable)]
        return [each for index, each in enumerate(told) if index == 0 or told[index - 1] is not each]

    def noticed(self, kind: IncidentKind) -> list[str]:
        return [each.summary for each in self.stage.told(self.incidents, Noticed) if each.kind is kind]
