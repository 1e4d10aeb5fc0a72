"""One process under its part of a load."""

from __future__ import annotations

import math

from receipt_actors.domain import service_limits as limits
from receipt_actors.domain.capacity._values import MAX_ENTRIES, Call, Cost, Load, Requests, Setup, TaskSettings
from receipt_actors.domain.service_limits import SECONDS_A_MONTH

MAX_IN_FLIGHT = 5_000  #: messages that one process carries well
ITEM_BYTES = 400  #: of a claim, attribute names included
MIN_APP_STORE_CONCURRENCY = 10  #: a handful that comes at once should not queue, however low the rate


class Process:
    """One process under a part of the load: ``rate`` is what it has, in receipts a second."""

    def __init__(self, load: Load, setup: Setup, cost: Cost) -> None:
        self.load = load
        self.setup = setup
        self._cost = cost
        self.write_units = load.claims * math.ceil(ITEM_BYTES / limits.DYNAMODB_WRITE_UNIT_BYTES)
        # A message waits for others three times, half the pace on average: as a claim, as an answer and as a delete.
        self.apple_seconds = load.apple_requests * load.apple_seconds
        requests = self.apple_seconds + load.ledger_seconds + 2 * load.queue_seconds
        self.in_house_seconds = requests + 3 * setup.pace_seconds / 2

    def most_by_reason(self) -> dict[str, float]:
        """The highest rate for each of what a process runs out of, at the utilisation that is aimed at."""
        cost, setup = self._cost, self.setup
        most = {"CPU": setup.core_speed / cost.cpu_seconds}
        if self.apple_seconds:
            reason = f"requests to Apple at once ({cost.client.name})"
            most[reason] = cost.client.max_concurrency / self.apple_seconds
        if self.in_house_seconds:
            most["messages in flight"] = MAX_IN_FLIGHT / self.in_house_seconds
        return {reason: rate * setup.utilisation for reason, rate in most.items()}

    def cpu_seconds(self, rate: float) -> float:
        """CPU seconds a second; a core that is used up lets entries gather for longer, so there is no more than one."""
        cost = self._cost
        of_calls = sum(self.requests_per_second(call, rate) * cost.cpu_seconds_of_call[call] for call in Call)
        return min(rate * cost.base_cpu_seconds + of_calls, self.setup.core_speed)

    def entries(self, call: Call, rate: float) -> float:
        load, setup = self.load, self.setup
        slots = {
            Call.RECEIVE: self._consumers(rate),
            Call.CLAIM: max(1.0, self._ledger_concurrency(rate) / setup.processes_of_task),
        }.get(call, self._batch_requests(rate))
        return entries_per_request(
            rate * load.claims if call is Call.CLAIM else rate,
            seconds=load.ledger_seconds if call is Call.CLAIM else load.queue_seconds,
            slots=slots,
            pace_seconds=0.0 if call is Call.RECEIVE else setup.pace_seconds,  # SQS answers with what it has
            max_entries=MAX_ENTRIES[call],
        )

    def requests_per_second(self, call: Call, rate: float) -> float:
        per_second = rate * (self.load.claims if call is Call.CLAIM else 1.0) / self.entries(call, rate)
        if call is Call.RECEIVE:  # those that find nothing
            return max(per_second, self._consumers(rate) / self.setup.receive_wait_seconds)
        return per_second

    def requests(self, call: Call, processes: int) -> Requests:
        """All processes together, at the rate of the long run."""
        load = self.load
        rate = load.rate_per_second / processes
        entries = self.entries(call, rate)
        per_second = self.requests_per_second(call, rate) * processes
        if call is Call.CLAIM:
            billed = load.rate_per_second * self.write_units * SECONDS_A_MONTH
            usd = billed * limits.DYNAMODB_WRITES.usd
        else:
            parts = math.ceil(entries * load.message_bytes / limits.SQS_BILLED_BYTES) if call is Call.RECEIVE else 1
            billed = per_second * parts * SECONDS_A_MONTH
            usd = 0.0  # the tiers are for all of SQS together
        return Requests(call, entries, per_second, per_second / load.rate_per_second, billed, usd)

    # --- what to set ---

    def settings(self, rate: float) -> TaskSettings:
        """Return what a task needs whose processes have this rate each."""
        setup = self.setup
        of_task = setup.processes_of_task
        consumers = self._consumers(rate)
        in_flight = rate * self.in_house_seconds / setup.utilisation + consumers * MAX_ENTRIES[Call.RECEIVE]
        asking = max(MIN_APP_STORE_CONCURRENCY, rate * self.apple_seconds / setup.utilisation)
        return TaskSettings(
            processes=of_task,
            max_in_flight=_rounded_up(in_flight * of_task),
            app_store_concurrency=_rounded_up(asking * of_task),
            ledger_concurrency=self._ledger_concurrency(rate),
            consumers=consumers,
            batch_requests=self._batch_requests(rate),
        )

    def memory_bytes(self, settings: TaskSettings) -> int:
        """With as much in flight as may be, which is what an outage leads to."""
        of_message = self._cost.in_flight_bytes + self.load.message_bytes
        return self._cost.process_bytes + math.ceil(settings.max_in_flight / settings.processes) * of_message

    def _consumers(self, rate: float) -> int:
        return max(self.setup.consumers, self._slots(rate * self.load.queue_seconds, Call.RECEIVE))

    def _batch_requests(self, rate: float) -> int:
        return max(self.setup.batch_requests, self._slots(rate * self.load.queue_seconds, Call.SEND))

    def _ledger_concurrency(self, rate: float) -> int:
        slots = self._slots(rate * self.load.claims * self.load.ledger_seconds, Call.CLAIM)
        return max(self.setup.ledger_concurrency, slots * self.setup.processes_of_task)

    def _slots(self, busy: float, call: Call) -> int:
        """Requests that must be under way at once when batches are full, and slots for them to be free in time."""
        return math.ceil(busy / MAX_ENTRIES[call] / self.setup.utilisation)


def entries_per_request(
    rate_per_second: float, *, seconds: float, slots: float, pace_seconds: float, max_entries: int
) -> float:
    """Return how many entries a request has on average, when entries come at this rate: see the module."""
    while_gathering = rate_per_second * pace_seconds
    while_busy = rate_per_second * seconds / slots
    return min(float(max_entries), max(1.0, while_gathering, while_busy))


def _rounded_up(number: float) -> int:
    """Round up to two digits: what is set by hand should be easy to read."""
    exact = math.ceil(number - 1e-9)
    unit: int = 10 ** max(0, len(str(exact)) - 2)
    return math.ceil(exact / unit) * unit
