"""What a program meets on a machine that runs out of something. A ``sitecustomize`` calls ``install``.

A fault begins when a file of its name is made in the folder that ``RECEIPT_TESTS_FAULTS`` names:

``memory``   the next poll of the scheduler of a process that polls raises ``MemoryError``
``stuck``    the next poll never ends
``verifier`` a process that verifies signatures ends before it has begun
``channel``  reading what a worker process has said raises ``MemoryError``
"""

from __future__ import annotations

import os
import pickle
import select
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

FOLDER = "RECEIPT_TESTS_FAULTS"
SITECUSTOMIZE = "from tests.system import exhausted_machine\n\nexhausted_machine.install()\n"
TICK_SECONDS = 0.2  #: of the heartbeat, which takes a minute to notice anything else


def install() -> None:
    folder = Path(os.environ[FOLDER])
    if "receipt_actors.stores.apple.signatures.worker" in sys.orig_argv and (folder / "verifier").exists():
        os._exit(127)  # as a program that can't be found
    from receipt_actors.otp import Heartbeat, _scheduler
    from receipt_actors.scale.processes import worker_process

    class Epoll:
        def __init__(self) -> None:
            self._epoll = epoll = select.epoll()
            self.register, self.unregister, self.close = epoll.register, epoll.unregister, epoll.close

        def poll(self, seconds: float) -> list[tuple[int, int]]:
            if (folder / "memory").exists():
                raise MemoryError
            if (folder / "stuck").exists():
                threading.Event().wait()
            return self._epoll.poll(seconds)

    _scheduler.select = SimpleNamespace(epoll=Epoll, EPOLLIN=select.EPOLLIN)  # type: ignore[attr-defined]
    Heartbeat.__init__.__kwdefaults__["tick_seconds"] = TICK_SECONDS
    loads = pickle.loads

    def loads_with_memory(data: bytes) -> Any:
        if (folder / "channel").exists():
            raise MemoryError
        return loads(data)

    worker_process.pickle = SimpleNamespace(loads=loads_with_memory, dumps=pickle.dumps)  # type: ignore[attr-defined]
