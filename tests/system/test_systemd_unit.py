"""The unit of the manual: systemd takes it, and what it says of the program is so."""

from __future__ import annotations

import configparser
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.settings import SETTINGS
from tests.telemetry.test_systemd import Manager

from .processes import Program
from .worlds import RESULTS, EmbeddedWorld, genuine_messages

UNIT = Path(__file__).parents[2] / "doc/examples/receipt-actors.service"
MANUAL = Path(__file__).parents[2] / "doc/operations.rst"
EXPOSURE = 1.1  #: as systemd 257 rates it, from 0 (none) to 10; the manual says so
TO_END_SECONDS = 5  # after a drain: to kill a worker that has not, to write the last lines of log and metrics


def read_unit() -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(UNIT.read_text(encoding="utf-8"))
    return parser


SERVICE = read_unit()["Service"]


@pytest.fixture
def analyze() -> str:
    command = shutil.which("systemd-analyze")
    if command is None:
        assert "REQUIRE_SYSTEMD" not in os.environ, "systemd-analyze is missing"
        pytest.skip("needs systemd-analyze")
    return command


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    copy = tmp_path / UNIT.name
    command = SERVICE["ExecStart"].partition(" ")[0]
    copy.write_text(UNIT.read_text(encoding="utf-8").replace(command, sys.executable), encoding="utf-8")
    return copy


def test_systemd_understands_every_line(analyze: str, unit: Path) -> None:
    done = subprocess.run([analyze, "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False)
    told = [line for line in done.stderr.splitlines() if unit.name in line]
    newer = ("RestartSteps", "RestartMaxDelaySec")  # since 254
    assert [line for line in told if not any(key in line for key in newer)] == []
    assert done.returncode == 0, done.stderr


def test_the_service_is_as_locked_in_as_the_manual_says(analyze: str, unit: Path) -> None:
    threshold = ["--offline=true", f"--threshold={EXPOSURE * 10:.0f}"]
    done = subprocess.run([analyze, "security", *threshold, str(unit)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-200:]
    assert f"**{EXPOSURE}**" in MANUAL.read_text(encoding="utf-8")


def test_its_times_fit_the_drain() -> None:
    drain_seconds = float(SETTINGS["drain_seconds"].default or 0)
    assert float(SERVICE["TimeoutStopSec"]) == drain_seconds + TO_END_SECONDS
    assert float(SERVICE["WatchdogSec"]) >= 3 * 10.0


class Service:
    def __init__(self, world: EmbeddedWorld, folder: Path, lines: list[str]) -> None:
        self.manager = Manager(str(folder / "notify"))
        file = folder / "receipts.env"
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        pairs = (line.split("=", 1) for line in file.read_text(encoding="utf-8").splitlines())
        own = dict(pair.split("=", 1) for pair in shlex.split(SERVICE["Environment"]))
        program, *arguments = shlex.split(SERVICE["ExecStart"])
        assert Path(program).name == "receipt-actors"
        watchdog_us = str(int(float(SERVICE["WatchdogSec"]) * 1e6))
        told = {"NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": watchdog_us}
        self.program: Program = world.programs.start(*arguments, environment={**own, **dict(pairs), **told})

    def close(self) -> None:
        self.manager.close()


@pytest.fixture
def service(embedded: EmbeddedWorld, tmp_path: Path) -> Iterator[Service]:
    with SimulatedAppStore() as store:
        lines = [
            f"RECEIPT_ACTORS_DATABASE={embedded.database}",
            "RECEIPT_ACTORS_BUNDLE_IDS=com.example.game",
            "RECEIPT_ACTORS_PROCESSES=2",
            f"RECEIPT_ACTORS_APP_STORE_URL={store.url}",
        ]
        with closing(Service(embedded, tmp_path, lines)) as service:
            yield service


def test_the_service_says_when_it_is_ready_that_it_lives_and_that_it_ends(
    service: Service, embedded: EmbeddedWorld
) -> None:
    assert SERVICE["Type"] == "notify"
    lines = service.manager.receive_until("READY=1")
    if "WATCHDOG=1" not in lines:
        service.manager.receive_until("WATCHDOG=1")
    embedded.send(genuine_messages(3, 91))
    service.program.wait_until(lambda: embedded.total(RESULTS) == 3, "all messages are answered")
    began = time.monotonic()
    service.program.send_signal(signal.SIGTERM)
    assert "STOPPING=1" in service.manager.receive_until("STOPPING=1")
    assert service.program.wait_for_end() == 0
    assert time.monotonic() - began < float(SERVICE["TimeoutStopSec"])


def test_wrong_settings_are_not_tried_again(embedded: EmbeddedWorld, tmp_path: Path) -> None:
    with closing(Service(embedded, tmp_path, ["RECEIPT_ACTORS_DATABASE=receipts.db"])) as service:
        assert service.program.wait_for_end() == int(SERVICE["RestartPreventExitStatus"])
        assert "bundle_ids" in service.program.stderr
    assert SERVICE["Restart"] == "on-failure"
