"""Which process the current thread is running (Erlang: ``self()``)."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from receipt_actors.otp._process import Process


class _Context(threading.local):
    process: Process | None = None


context = _Context()
