"""The program, with somebody in it who ends the same actor again and again: ``RECEIPT_STORM`` names whom.

``consumers`` crash because every receive, from some moment on, raises what nobody expects; anybody else is named by its
name, and is killed by a monkey that minds no budget.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
import threading
from typing import Any

from receipt_actors import ReceiptSystem, cli, receipt_system
from receipt_actors.backends import Backend, open_backend
from receipt_actors.settings import Settings
from receipt_actors.testing import Monkey, PortCall, intercept

SOUND_RECEIVES = 5


class Storm(Exception):
    """Nobody expects it."""


def open_stormy_backend(settings: Settings) -> Backend:
    numbers = itertools.count(1)

    def around(call: PortCall) -> Any:
        if call.operation == "receive" and call.queue == settings.source_queue and next(numbers) > SOUND_RECEIVES:
            raise Storm("ordered")
        return call.carry_out()

    return intercept(open_backend(settings), around)


def start_and_strike(settings: Settings, **arguments: Any) -> ReceiptSystem:
    system = start(settings, **arguments)
    monkey = Monkey(system.actors, random.Random(0), weights={victim: 1}, elsewhere=0, kills=1, respects_budgets=False)

    def strike() -> None:
        while system.in_flight().in_flight < 20:
            pass
        while system.end_reason is None:
            monkey.strike()

    threading.Thread(target=strike, daemon=True).start()
    return system


victim = os.environ["RECEIPT_STORM"]
start = ReceiptSystem.start
if victim == "consumers":
    receipt_system.open_backend = open_stormy_backend
else:
    ReceiptSystem.start = start_and_strike  # type: ignore[method-assign, assignment]
sys.exit(cli.main())
