"""A simulated ECS agent: the endpoint by which a task protects itself from scale-in."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from typing import Any, Self

from receipt_actors.sandbox.http_server import HttpServer, Reply, Request, response
from tests.patience import PATIENCE_SECONDS

TASK = "arn:aws:ecs:eu-west-1:123456789012:task/receipts/0123456789abcdef"
NO_ANSWER = Reply(b"", 3600.0, hangs=True)


def success(wish: dict[str, Any]) -> Reply:
    """Answer as the agent does when ECS has done what was wished."""
    protection = {"ProtectionEnabled": wish["ProtectionEnabled"], "TaskArn": TASK}
    if wish["ProtectionEnabled"]:
        protection["ExpirationDate"] = "2026-11-29T12:05:00.000Z"
    return answer(200, {"protection": protection})


def failure(reason: str) -> Reply:
    """Answer as when ECS can't do it for this task."""
    return answer(200, {"failure": {"Arn": TASK, "Detail": None, "Reason": reason}})


def error(code: str, message: str = "", status: int = 400) -> Reply:
    """Answer as when ECS refuses, or was not asked."""
    return answer(status, {"requestID": "1", "error": {"Arn": TASK, "Code": code, "Message": message}})


def answer(status: int, body: object) -> Reply:
    return Reply(response(status, json.dumps(body).encode(), "application/json"))


class EcsAgent(HttpServer):
    """Answers with ``replies`` one after the other, then with success. As a context manager it serves."""

    def __init__(self, replies: Sequence[Reply] = (), always: Callable[[dict[str, Any]], Reply] = success) -> None:
        super().__init__(self._handle)
        self.wishes: list[dict[str, Any]] = []
        self._replies = list(replies)
        self._always = always
        self._changed = threading.Condition()

    @property
    def agent_url(self) -> str:
        """What ECS sets as ``ECS_AGENT_URI``."""
        return f"{self.url}/api/0123456789abcdef"

    def wait_for(self, count: int) -> list[dict[str, Any]]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.wishes) >= count, PATIENCE_SECONDS), self.wishes
            return list(self.wishes)

    def _handle(self, request: Request) -> Reply:
        if (request.method, request.path) != ("PUT", "/api/0123456789abcdef/task-protection/v1/state"):
            return answer(404, {})
        assert request.header("content-type") == "application/json"
        wish = json.loads(request.body)
        with self._changed:
            self.wishes.append(wish)
            self._changed.notify_all()
        return self._replies.pop(0) if self._replies else self._always(wish)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.drop_hanging()
        self.stop()
