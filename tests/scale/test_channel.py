"""What parent and worker send each other, and what becomes of it when one of them is gone."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from math import inf
from pathlib import Path

import pytest

from receipt_actors.domain.limits import Limits
from receipt_actors.domain.messages import Verdict
from receipt_actors.domain.reasons import Reason
from receipt_actors.scale.processes.cores import usable_cores
from receipt_actors.scale.processes.protocol import Grant, Loaded, Report, Started, Stopped
from receipt_actors.scale.processes.worker_process import Channel, _encode
from receipt_actors.telemetry.statistics import StatisticsSnapshot

STATISTICS = StatisticsSnapshot(3, {(Verdict.OK, Reason.CLAIMED): 2}, {("answered", None): 2})


@pytest.fixture
def ends() -> Iterator[tuple[Channel, socket.socket]]:
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    yield channel, theirs
    channel.close()
    theirs.close()


def test_a_message_arrives_as_it_was_sent(ends: tuple[Channel, socket.socket]) -> None:
    channel, other = ends
    grant, stopped = Grant(4, Limits(10, 5, 5), -inf, is_paused=False), Stopped(7, STATISTICS)
    data = b"".join(map(_encode, (grant, stopped)))
    other.sendall(data + data[:3])
    assert channel.receive() == [grant, stopped]
    other.sendall(data[3:-1])
    assert channel.receive() == [grant]
    other.sendall(data[-1:])
    assert channel.receive() == [stopped]


def test_what_was_begun_by_one_who_died_is_dropped(ends: tuple[Channel, socket.socket]) -> None:
    channel, other = ends
    other.sendall(_encode(Loaded()) + _encode(Started())[:-4])
    other.close()
    assert channel.receive() == [Loaded()]
    assert channel.receive() == []
    assert channel.is_over


def test_sending_to_one_who_is_gone_is_no_error(ends: tuple[Channel, socket.socket]) -> None:
    channel, other = ends
    other.close()
    channel.send(Loaded())
    assert channel.send_at_once(Report())


def test_one_who_does_not_read_is_not_waited_for(ends: tuple[Channel, socket.socket]) -> None:
    channel, _ = ends
    while channel.send_at_once(Report()):
        pass


@pytest.mark.parametrize(
    "files", [{"cpu.max": "50000 100000\n"}, {"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}]
)
def test_a_container_may_use_what_its_limit_grants(tmp_path: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_cores(tmp_path) == 1


@pytest.mark.parametrize("text", ["max 100000\n", "nonsense"])
def test_without_a_limit_all_cores_may_be_used(tmp_path: Path, text: str) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert usable_cores(tmp_path) == usable_cores(tmp_path / "nothing") >= 1
