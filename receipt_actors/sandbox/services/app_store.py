"""The simulated App Store under a load: the answers are encoded in advance, and found by receipt or transaction id."""

from __future__ import annotations

import ssl
import time
from typing import Any

from receipt_actors.domain.ports import Environment
from receipt_actors.sandbox.answers import read_question
from receipt_actors.sandbox.app_store import PRODUCTION_API_PATH, PRODUCTION_PATH, SimulatedAppStore
from receipt_actors.sandbox.http_server import HttpServer, Reply, Request, Run
from receipt_actors.sandbox.services.control import BENCH_PATH, command_reply
from receipt_actors.sandbox.services.load import Load, Way, transaction_id


class FastAppStore(SimulatedAppStore):
    """Answers a prepared load without faults, and to any bearer token. Everything else is the simulated App Store's."""

    def __init__(self, *, latency_seconds: float, jitter_seconds: float, tls: ssl.SSLContext | None, run: Run) -> None:
        super().__init__(latency_seconds=latency_seconds, jitter_seconds=jitter_seconds)
        self._server = HttpServer(self._handle, tls=tls, run=run)
        self._prepared: dict[str | int, bytes] = {}  # by path (Server API), or hash of the receipt
        self._delays_seconds: list[float] = []  # what each prepared answer took
        self._commands = {"load": self._load, "begin": self._begin, "report": self._report}

    def _handle(self, request: Request) -> Reply | None:
        if request.path.startswith(BENCH_PATH):
            return command_reply(self._commands, request)
        answer = self._answer_of(request)
        if answer is None:
            return super()._handle(request)
        began_at = time.monotonic()
        connection = request.connection

        def finish() -> None:
            connection.respond(answer)
            self._delays_seconds.append(time.monotonic() - began_at)

        connection.after(self._delay_seconds(), finish)
        return None

    def _answer_of(self, request: Request) -> bytes | None:
        if request.path != PRODUCTION_PATH:
            has_token = b"\r\nauthorization: bearer " in request.lower_head  # checking it is not the benchmark's work
            return self._prepared.get(request.path) if has_token else None
        receipt_data, _ = read_question(request.body)
        # 64 bits are enough to tell some million receipts apart.
        return None if receipt_data is None else self._prepared.get(hash(receipt_data))

    def _load(self, fields: dict[str, Any]) -> object:
        load = Load(**fields)
        self._prepared.clear()
        for number in range(load.messages):
            if load.way == Way.SERVER_API:
                self.record(load.sample(number))
                said = self._look_up(transaction_id(number), Environment.PRODUCTION, load.sample(number).bundle_id)
                self._prepared[f"{PRODUCTION_API_PATH}{transaction_id(number)}"] = said[1].data
            elif load.way == Way.VERIFY_RECEIPT:
                receipt = load.receipt(number)
                self._prepared[hash(receipt)] = self._judge(receipt, Environment.PRODUCTION)[1].data
        return {}

    def _begin(self, _fields: dict[str, Any]) -> object:
        self._server.concurrent_requests_high_water = 0
        self._delays_seconds = []
        return {}

    def _report(self, _fields: dict[str, Any]) -> object:
        return {
            "requests": len(self._delays_seconds),
            "concurrent_requests_high_water": self._server.concurrent_requests_high_water,
            "delays_seconds": self._delays_seconds,
        }
