"""Actors crash, calls get lost, and every promise is kept: a test of chaos, for an application of your own."""

import random

from receipt_actors import Settings
from receipt_actors.otp import SystemClock
from receipt_actors.testing import FakeServices, FaultRates, FaultyCalls, Monkey, SentSubmission, wait_until_whole

settings = Settings(backend="aws", bundle_ids=("com.example.game",), receive_wait_seconds=1, max_receive_count=1000)
# The real clock: on a ManualClock nothing that takes time would ever end, since nobody moves it meanwhile.
services = FakeServices(settings, SystemClock())
faults = FaultyCalls(FaultRates(refused=0.02, lost=0.02, failed_entries=0.02, delivered_twice=0.02), seed=1)

with services.start(around=faults) as system:
    sent = []
    for number in range(300):
        receipt = services.app_store.sell(f"transaction-{number}")
        services.submit(receipt, user_id=number, submission_id=f"submission-{number}")
        sent.append(SentSubmission(f"submission-{number}", number, frozenset({f"transaction-{number}"})))
    monkey = Monkey(system.actors, random.Random(1))
    for _ in range(10):
        monkey.strike()
        wait_until_whole(system.actors)
    faults.calm()

report = services.audit(sent)  # what was handed back for later is still to come
print(report)
assert report.faults == ()
assert faults.happened
