"""A simulated ECS agent: the endpoint by which a task protects itself from scale-in."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, and when it came (monotonic)."""

    wish: dict[str, Any]
    at_seconds: float


class EcsAgent:
    """Answers with ``replies`` one after the other, then with success. As a context manager it serves."""

    def __init__(self, replies: Sequence[Reply] = (), always: Callable[[dict[str, Any]], Reply] = success) -> None:
        self._server = HttpServer(self._handle)
        self._replies = list(replies)
        self._always = always
        self._asked: list[Asked] = []
        self._changed = threading.Condition()

    @property
    def url(self) -> str:
        """What ECS sets as ``ECS_AGENT_URI``."""
        return f"{self._server.url}/api/0123456789abcdef"

    @property
    def wishes(self) -> list[dict[str, Any]]:
        with self._changed:
            return [asked.wish for asked in self._asked]

    @property
    def is_protected(self) -> bool:
        """Whether the last wish was for protection."""
        return bool(self.wishes) and self.wishes[-1]["ProtectionEnabled"]

    def wait_for(self, count: int) -> list[dict[str, Any]]:
        """Return all wishes once there are so many."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        with self._changed:
            while len(self._asked) < count:
                assert self._changed.wait(deadline - time.monotonic()), f"{len(self._asked)} requests, not {count}"
        return self.wishes

    def _handle(self, request: Request) -> Reply:
        if (request.method, request.path) != ("PUT", "/api/0123456789abcdef/task-protection/v1/state"):
            return answer(404, {})
        assert request.header("content-type") == "application/json"
        wish = json.loads(request.body)
        with self._changed:
            self._asked.append(Asked(wish, time.monotonic()))
            reply = self._replies.pop(0) if self._replies else self._always(wish)
            self._changed.notify_all()
        return reply

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.drop_hanging()
        self._server.stop()
