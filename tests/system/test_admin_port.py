"""The running program, watched from outside: its admin port, and what it tells systemd."""

from __future__ import annotations

import json
import re
import signal
from contextlib import closing
from functools import partial
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest
from prometheus_client import parser

from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.receipts import Fault
from tests.patience import PATIENCE_SECONDS

from .processes import Program
from .worlds import RESULTS, EmbeddedWorld, genuine_messages

TOKEN = "0123456789abcdef"
ANY_PORT = "127.0.0.1:0"
PROCESSES = [1, 2]
GENUINE = genuine_messages(30, 7)


class Port:
    def __init__(self, program: Program) -> None:
        program.wait_for_log("the admin port is ")
        match = re.search(r"the admin port is (http://\S+:[0-9]+)/", program.stderr)
        assert match is not None
        self.url = match[1]

    def ask(self, path: str, data: object = None) -> tuple[int, bytes]:
        """GET, or POST where there is data; status 0 where nobody listens."""
        body = None if data is None else json.dumps(data).encode()
        request = Request(self.url + path, data=body, headers={"Content-Type": "application/json"})
        try:
            with urlopen(request, timeout=PATIENCE_SECONDS) as response:
                return response.status, response.read()
        except HTTPError as error:
            with closing(error):
                return error.code, error.read()
        except (URLError, ConnectionError):
            return 0, b""

    def status(self, path: str) -> int:
        return self.ask(path)[0]

    def state(self) -> Any:
        return json.loads(self.ask("/readyz")[1] or b"{}").get("state")

    def metric(self, name: str, **labels: str) -> float:
        status, text = self.ask("/metrics")
        families = parser.text_string_to_metric_families(text.decode()) if status == 200 else ()
        samples = (sample for family in families for sample in family.samples)
        fitting = (sample for sample in samples if sample.name == name and labels.items() <= sample.labels.items())
        return sum(sample.value for sample in fitting)


@pytest.mark.short("2")
@pytest.mark.parametrize("processes", PROCESSES)
def test_the_metrics_add_up(embedded: EmbeddedWorld, processes: int, store: SimulatedAppStore) -> None:
    embedded.send(GENUINE)
    program = embedded.start(store, admin=ANY_PORT, processes=processes)
    port = Port(program)
    answered = partial(port.metric, "receipt_actors_messages_finished_total", fate="answered")
    program.wait_until(lambda: answered() == len(GENUINE), "all are counted as answered")
    assert port.metric("receipt_actors_messages_received_total") == len(GENUINE)
    assert port.metric("receipt_actors_results_posted_total", verdict="OK") == len(GENUINE)
    assert port.metric("receipt_actors_message_duration_seconds_count") == len(GENUINE)
    assert port.metric("receipt_actors_process_threads") > processes
    # One process may have done all of it while the other was still being started.
    program.wait_until(lambda: port.state() == "consuming", "every process consumes")
    assert (port.status("/healthz"), port.status("/readyz")) == (200, 200)
    assert port.status("/") == 200
    program.stop()
    assert "Traceback" not in program.stderr


@pytest.mark.short("1")
@pytest.mark.parametrize("processes", PROCESSES)
def test_it_is_paused_and_resumed(embedded: EmbeddedWorld, processes: int, store: SimulatedAppStore) -> None:
    program = embedded.start(store, admin=ANY_PORT, processes=processes)
    port = Port(program)
    program.wait_until(lambda: port.status("/readyz") == 200, "it is ready")
    assert port.ask("/api/pause", {})[0] == 204
    program.wait_until(lambda: port.state() == "paused", "it is paused")
    assert (port.status("/healthz"), port.status("/readyz")) == (200, 503)
    embedded.send(GENUINE)
    assert port.ask("/api/resume", {})[0] == 204
    program.wait_until(lambda: embedded.visible(RESULTS) == len(GENUINE), "all are answered")
    program.wait_until(lambda: port.status("/readyz") == 200, "it is ready again")


@pytest.mark.parametrize("processes", PROCESSES)
def test_the_port_stays_open_until_a_drain_is_over(
    embedded: EmbeddedWorld, processes: int, store: SimulatedAppStore
) -> None:
    embedded.send(GENUINE)
    store.outage(Fault.hang(600))
    program = embedded.start(store, admin=ANY_PORT, processes=processes, app_store_read_timeout_seconds=60)
    port = Port(program)
    in_flight = partial(port.metric, "receipt_actors_messages_in_flight")
    program.wait_until(lambda: in_flight() == len(GENUINE), "all are in flight")
    program.send_signal(signal.SIGTERM)
    program.wait_until(lambda: port.state() == "draining", "it drains")
    assert (port.status("/healthz"), port.status("/readyz")) == (200, 503)
    store.recover()
    assert program.wait_for_end() == 0
    assert port.status("/healthz") == 0
