"""``python -m tests.chaos.crashing_program``: the command ``receipt-actors`` itself, which dies at one of its steps.

The variable ``CRASH_AT`` says where, as ``claim 2 after`` (see ``CrashPoint``); without it nothing dies. If it lives to
its end it says on the last line of stdout which steps it took.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from typing import Any

from receipt_actors import receipt_system
from receipt_actors.backends import Backend, open_backend, open_queues
from receipt_actors.cli import main, redrive
from receipt_actors.settings import QueueSettings, Settings
from receipt_actors.testing import CrashPoint, FakeServices, intercept


def run() -> int:
    match os.environ.get("CRASH_AT", "").split():
        case [operation, number, when]:
            point = CrashPoint(operation, int(number), after=when == "after")
        case _:
            point = CrashPoint()

    def open_crashing_backend(settings: Settings) -> Backend:
        return intercept(open_backend(settings), point)

    def open_crashing_queues(settings: QueueSettings, **options: Any) -> Any:
        queues = open_queues(settings, **options)
        # The command asks nobody else.
        others = FakeServices(Settings(database=settings.database, bundle_ids=("*",))).backend
        crashing: Any = intercept(replace(others, queues=queues), point).queues
        crashing.close = queues.close  # no operation of the port
        return crashing

    receipt_system.open_backend = open_crashing_backend
    redrive.open_queues = open_crashing_queues
    code = main()
    sys.stdout.write(json.dumps(point.steps) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(run())
