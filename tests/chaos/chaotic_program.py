"""The command ``receipt-actors`` itself, in which something goes wrong that a variable names.

``CRASH_AT``             it dies at one of its steps (``claim 2 after``: see ``CrashPoint``). If it lives to its end,
                         the last line of stdout says which steps it took; with an empty variable it lives
``SOAK_STRIKE_SECONDS``  a monkey strikes so often, and memories are full before long: what gateways remember on purpose
                         is bounded, but by more than a soak has, and would look like a leak or hide one
``RECEIPT_STORM``        an actor of this name is killed again and again, whatever the budget of restarts; ``consumers``
                         crash because from some moment on every receive raises
"""

from __future__ import annotations

import itertools
import json
import os
import random
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from receipt_actors import ReceiptSystem, application, receipt_system
from receipt_actors.backends import Backend, open_backend, open_queues
from receipt_actors.cli import main, redrive
from receipt_actors.pipeline import ledger_gateway
from receipt_actors.settings import QueueSettings, Settings
from receipt_actors.stores.apple import referee_gateway
from receipt_actors.testing import CrashPoint, FakeServices, Monkey, PortCall, intercept

SOUND_RECEIVES = 5
REMEMBERED = 500


class Storm(Exception):
    """No part of the program expects it."""


def crash(at: str) -> CrashPoint:
    point = CrashPoint()
    if at:
        operation, number, when = at.split()
        point = CrashPoint(operation, int(number), after=when == "after")

    def open_crashing_queues(settings: QueueSettings, **options: Any) -> Any:
        queues = open_queues(settings, **options)
        # The command asks nothing else.
        others = FakeServices(Settings(database=settings.database, bundle_ids=("*",))).backend
        crashing: Any = intercept(replace(others, queues=queues), point).queues
        crashing.close = queues.close  # no operation of the port
        return crashing

    receipt_system.open_backend = lambda settings: intercept(open_backend(settings), point)
    redrive.open_queues = open_crashing_queues
    return point


def soak(seconds: float) -> None:
    ledger_gateway.KNOWN_CLAIMS = REMEMBERED
    application.RESULT_BATCHER_IDLE_SECONDS = 1.0
    referee_gateway.REMEMBERED_REFUSALS = REMEMBERED

    def strike(system: ReceiptSystem) -> None:
        over = threading.Event()
        system.on_end(over.set)
        monkey = Monkey(system.actors, random.Random(0))
        while not over.wait(seconds):
            monkey.strike()
            monkey.strikes.clear()  # a long run would keep them all

    beside_the_system(strike)


def storm(victim: str) -> None:
    def strike(system: ReceiptSystem) -> None:
        weights = {victim: 1}
        monkey = Monkey(system.actors, random.Random(0), weights=weights, elsewhere=0, kills=1, respects_budgets=False)
        while system.in_flight().in_flight < 20:
            pass
        while system.end_reason is None:
            monkey.strike()

    if victim == "consumers":
        receipt_system.open_backend = open_stormy_backend
    else:
        beside_the_system(strike)


def open_stormy_backend(settings: Settings) -> Backend:
    numbers = itertools.count(1)

    def around(call: PortCall) -> Any:
        if call.operation == "receive" and call.queue == settings.source_queue and next(numbers) > SOUND_RECEIVES:
            raise Storm("ordered")
        return call.carry_out()

    return intercept(open_backend(settings), around)


def beside_the_system(work: Callable[[ReceiptSystem], None]) -> None:
    start = ReceiptSystem.start

    def start_and_work(settings: Settings, **arguments: Any) -> ReceiptSystem:
        system = start(settings, **arguments)
        threading.Thread(target=work, args=(system,), daemon=True).start()
        return system

    ReceiptSystem.start = start_and_work  # type: ignore[method-assign, assignment]


def run() -> int:
    if "SOAK_STRIKE_SECONDS" in os.environ:
        soak(float(os.environ["SOAK_STRIKE_SECONDS"]))
    elif "RECEIPT_STORM" in os.environ:
        storm(os.environ["RECEIPT_STORM"])
    else:
        point = crash(os.environ.get("CRASH_AT", ""))
        code = main()
        sys.stdout.write(json.dumps(point.steps) + "\n")
        return code
    return main()


if __name__ == "__main__":
    sys.exit(run())
