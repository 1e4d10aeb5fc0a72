"""The program, with a monkey in it that strikes every few seconds, and with memories that are full before long.

What the gateways remember on purpose is bounded, but by more than a soak has: without small bounds it would look like a
leak, or hide one.
"""

from __future__ import annotations

import os
import random
import sys
import threading
from typing import Any

from receipt_actors import ReceiptSystem, application, cli
from receipt_actors.pipeline import ledger_gateway
from receipt_actors.settings import Settings
from receipt_actors.stores.apple import app_store_gateway
from receipt_actors.testing import Monkey

REMEMBERED = 500
STRIKE_SECONDS = float(os.environ["SOAK_STRIKE_SECONDS"])


def start_and_strike(settings: Settings, **arguments: Any) -> ReceiptSystem:
    system = start(settings, **arguments)
    over = threading.Event()
    system.on_end(over.set)
    monkey = Monkey(system.actors, random.Random(0))

    def strike() -> None:
        while not over.wait(STRIKE_SECONDS):
            monkey.strike()
            monkey.strikes.clear()  # a long run would keep them all

    threading.Thread(target=strike, daemon=True).start()
    return system


ledger_gateway.KNOWN_CLAIMS = REMEMBERED
application.RESULT_BATCHER_IDLE_SECONDS = 1.0
app_store_gateway.REMEMBERED_REFUSALS = REMEMBERED
start = ReceiptSystem.start
ReceiptSystem.start = start_and_strike  # type: ignore[method-assign, assignment]
sys.exit(cli.main())
