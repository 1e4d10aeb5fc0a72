"""Server-sent events: how one is written, and a response that is made of them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

KEEP_ALIVE = b":\n\n"  #: a comment: says nothing, and finds out whether somebody is still there
MEDIA_TYPE = "text/event-stream"


def event(kind: str, data: Mapping[str, Any]) -> bytes:
    """Write one event."""
    return f"event: {kind}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


class EventStream(StreamingResponse):
    """Sends events until there are no more, or the client is gone. ``on_close`` is called in any case."""

    media_type = MEDIA_TYPE

    def __init__(self, events: AsyncIterator[bytes], on_close: Callable[[], None] = lambda: None) -> None:
        super().__init__(events, headers={"X-Accel-Buffering": "no"})  # or nginx would keep them back
        self._on_close = on_close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_close()
