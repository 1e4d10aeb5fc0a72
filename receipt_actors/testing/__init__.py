"""Fakes for tests: SQS, DynamoDB and Apple in memory, on a clock that a test moves, with faults to order.

For applications that embed ``receipt_actors``::

    from receipt_actors import Settings
    from receipt_actors.errors import LedgerUnavailable
    from receipt_actors.testing import FakeServices

    def test_a_coin_is_paid_for_once():
        services = FakeServices(Settings(backend="aws", bundle_ids=("com.example.game",)))
        receipt = services.app_store.sell("1000001")
        services.ledger.lose_answer("claim", LedgerUnavailable("time-out"))  # the claim is made, its answer is lost
        with services.start() as system:
            services.submit(receipt, user_id=7)
            services.advance(seconds=5, actors=system.actors)  # the ledger's retry pauses for less than that
            assert services.results() == [{"user_id": 7, "transaction_id": "1000001", "status": "OK"}]

The fakes keep the promises of ``domain.ports`` and pass the contract tests of the real clients. All of them can be used
from any thread, and each can be told to ``fail`` the next calls, to carry them out and ``lose_answer``, to
``fail_entries`` of batches, and to ``hold`` calls or their answers until a test releases them.
"""

from receipt_actors.otp import ManualClock
from receipt_actors.testing._app_store import FakeAppStore, FakeServerApi, FakeSignedData, genuine, receipt_data_of
from receipt_actors.testing._audit import AuditReport, SentSubmission, audit
from receipt_actors.testing._faults import PATIENCE_SECONDS, Fake, Hold
from receipt_actors.testing._hostile import HostileMessage, hostile_messages
from receipt_actors.testing._interception import CrashPoint, FaultRates, FaultyCalls, PortCall, intercept
from receipt_actors.testing._ledger import FakeLedger, FakeNotifications, FakeRoles
from receipt_actors.testing._monkey import Manner, Monkey, Strike, faults_of_tree, wait_until_whole
from receipt_actors.testing._queues import Event, FakeQueues, StoredMessage
from receipt_actors.testing._services import FakeServices
from receipt_actors.testing._settling import advance, settle, wait_until

__all__ = [
    "PATIENCE_SECONDS",
    "AuditReport",
    "CrashPoint",
    "Event",
    "Fake",
    "FakeAppStore",
    "FakeLedger",
    "FakeNotifications",
    "FakeQueues",
    "FakeRoles",
    "FakeServerApi",
    "FakeServices",
    "FakeSignedData",
    "FaultRates",
    "FaultyCalls",
    "Hold",
    "HostileMessage",
    "Manner",
    "ManualClock",
    "Monkey",
    "PortCall",
    "SentSubmission",
    "StoredMessage",
    "Strike",
    "advance",
    "audit",
    "faults_of_tree",
    "genuine",
    "hostile_messages",
    "intercept",
    "receipt_data_of",
    "settle",
    "wait_until",
    "wait_until_whole",
]
