"""What systemd is told, read from a socket as systemd's."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from receipt_actors.telemetry import systemd
from receipt_actors.telemetry.overview import ActorOverview, Overview, ProcessOverview, State
from receipt_actors.telemetry.statistics import StatisticsSnapshot
from receipt_actors.telemetry.systemd import SystemdNotifier
from tests.patience import PATIENCE_SECONDS
from tests.stand_in_system import StandInSystem

COUNTS = "3 in flight, 7 answered, 0 moved to the dead-letter queue"
TREE = ActorOverview("root", "supervisor", "running")


class System(StandInSystem):
    def __init__(self, state: State) -> None:
        super().__init__(self._look)
        self.state = state

    def _look(self, _number: int) -> Overview:
        tree = None if self.state is State.ENDED else TREE
        statistics = StatisticsSnapshot(fates={("answered", None): 7})
        process = ProcessOverview("main", 1, 0.0, self.state, 3, tree=tree)
        return Overview(0.0, "1", self.state, "Q", {}, (process,), statistics)


class Manager:
    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(PATIENCE_SECONDS)
        self.socket.bind(address)

    def receive(self) -> list[str]:
        return self.socket.recv(4096).decode().split("\n")

    def receive_until(self, line: str) -> list[str]:
        lines: list[str] = []
        while line not in lines:
            lines += self.receive()
        return lines

    def has_more(self) -> bool:
        return bool(select.select([self.socket], [], [], 0)[0])


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """As ``NOTIFY_SOCKET`` has it."""
    return str(tmp_path / "notify") if request.param == "path" else f"@receipt-actors-test-{os.getpid()}"


@pytest.fixture
def manager(address: str) -> Iterator[Manager]:
    manager = Manager(address.replace("@", "\0"))
    yield manager
    manager.socket.close()


@pytest.fixture(autouse=True)
def short_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "START_SECONDS", 0.01)


def test_it_is_ready_once_it_consumes(manager: Manager, address: str) -> None:
    system = System(State.STARTING)
    with SystemdNotifier({"NOTIFY_SOCKET": address}) as notifier:
        notifier.watch(system)
        assert manager.receive() == [f"STATUS=starting: {COUNTS}; it is being started"]
        system.state = State.CONSUMING
        assert manager.receive() == ["READY=1", f"STATUS=consuming: {COUNTS}"]
        notifier.stopping()
        assert manager.receive() == ["STOPPING=1"]
    assert not manager.has_more()


def test_the_watchdog_hears_of_it_while_the_tree_is_whole(manager: Manager, address: str) -> None:
    system = System(State.CONSUMING)
    environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "20000", "WATCHDOG_PID": str(os.getpid())}
    with SystemdNotifier(environ) as notifier:
        notifier.watch(system)
        assert manager.receive()[::2] == ["READY=1", "WATCHDOG=1"]
        assert manager.receive() == ["WATCHDOG=1"]
        system.state = State.DRAINING
        assert manager.receive_until("WATCHDOG=1")[-1] == "WATCHDOG=1"
        system.state = State.ENDED
        lines = manager.receive_until(f"STATUS=ended: {COUNTS}; the supervision tree has ended")
        assert lines[-1] != "WATCHDOG=1"
    assert not manager.has_more()


@pytest.mark.parametrize("watchdog", [{}, {"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "20000", "WATCHDOG_PID": "1"}])
def test_without_a_watchdog_it_hears_nothing(manager: Manager, address: str, watchdog: Mapping[str, str]) -> None:
    with SystemdNotifier({"NOTIFY_SOCKET": address, **watchdog}) as notifier:
        notifier.watch(System(State.CONSUMING))
        assert "WATCHDOG=1" not in manager.receive()


@pytest.mark.parametrize("text", ["", "vsock:2:1234"])
def test_without_systemd_nothing_is_done(text: str) -> None:
    with SystemdNotifier({"NOTIFY_SOCKET": text} if text else {}) as notifier:
        notifier.watch(System(State.CONSUMING))
        notifier.stopping()


def test_a_systemd_that_does_not_listen_is_no_trouble(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with SystemdNotifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")}) as notifier:
        notifier.stopping()
    assert "systemd can't be told STOPPING=1" in caplog.text


def test_what_found_no_room_is_told_once_there_is_some(manager: Manager, address: str) -> None:
    system = System(State.CONSUMING)
    with SystemdNotifier({"NOTIFY_SOCKET": address}) as notifier:
        for _ in range(1000):
            notifier.stopping()
        notifier.watch(system)
        for _ in range(2):  # the first has been told, or not, when the second is made
            assert system.looked.acquire(timeout=PATIENCE_SECONDS)
        assert manager.receive_until("READY=1")[-2:] == ["READY=1", f"STATUS=consuming: {COUNTS}"]
    assert not manager.has_more()
