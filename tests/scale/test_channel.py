"""What parent and worker send each other, and what becomes of it when one of them is gone."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from math import inf
from pathlib import Path

import pytest
from pydantic import SecretStr

from receipt_actors.domain.limits import Limits
from receipt_actors.domain.messages import Verdict
from receipt_actors.domain.reasons import Reason
from receipt_actors.scale.processes.cores import usable_cores
from receipt_actors.scale.processes.messages import (
    ActorDescribed,
    DescribeActor,
    Drain,
    Draining,
    Grant,
    LimitsObeyed,
    Loaded,
    Message,
    Release,
    Report,
    Reported,
    Started,
    StartRefused,
    StartTrace,
    Stop,
    Stopped,
    StopTrace,
    TraceEnded,
    TraceEvent,
    encode,
    settings_as_json,
)
from receipt_actors.scale.processes.worker_process import Channel
from receipt_actors.settings import Settings
from receipt_actors.telemetry.overview import (
    ActorOverview,
    Incident,
    ProcessOverview,
    ServiceOverview,
    State,
    Usage,
)
from receipt_actors.telemetry.statistics import StatisticsSnapshot

PROCESS = ProcessOverview(
    name="worker-1",
    pid=7,
    started_at_seconds=1.0,
    state=State.WAITING,
    in_flight=1,
    reserved=2,
    unavailable=("ledger",),
    usage=Usage(1.5, 2, 3, 4),
    services=(ServiceOverview("ledger", False, 5, 6, 7, 8.0),),
    tree=ActorOverview("root", "supervisor", "running"),
    statistics=StatisticsSnapshot(received=9),
    idle_seconds=0.5,
)
STATISTICS = StatisticsSnapshot(3, {(Verdict.OK, Reason.CLAIMED): 2}, {("answered", None): 2})


@pytest.fixture
def ends() -> Iterator[tuple[Channel, socket.socket]]:
    """A channel, and the socket at its other end."""
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    yield channel, theirs
    channel.close()
    theirs.close()


@pytest.mark.parametrize(
    "message",
    [
        Grant(3, Limits(10, 5, 5, 2.5), 17.25, is_paused=True),
        Grant(4, Limits(10, 5, 5), -inf, is_paused=False),
        Grant(4, Limits(10, 5, 5), inf, is_paused=False),
        Report(),
        Drain(25.0),
        Stop(),
        Loaded(),
        Started(),
        StartRefused(["no queue"], is_configuration=False),
        LimitsObeyed(3),
        Reported(PROCESS),
        Reported(
            PROCESS, {"ReceiptsSQS": 3, "ResultsSQS": None}, (Incident(1.0, "crash", "a crash", ("here", "there")),)
        ),
        Release(),
        DescribeActor(1, "intake"),
        ActorDescribed(1, {"state": {"waits": 3}}),
        ActorDescribed(2, None),
        StartTrace(1, {"event": ["claim"], "user_id": ["42"]}, 10, 15.0),
        StopTrace(1),
        TraceEvent(1, {"event": "claim", "user_id": 42}),
        TraceEnded(1, 412),
        Draining(25.0),
        Stopped(7, STATISTICS),
    ],
)
def test_a_message_arrives_as_it_was_sent(ends: tuple[Channel, socket.socket], message: Message) -> None:
    """Several in one piece, or one in several pieces: it is the line that counts."""
    channel, other = ends
    line = encode(message)
    other.sendall(line + line + line[:3])
    assert channel.receive() == [message, message]
    other.sendall(line[3:-1])
    assert channel.receive() == []
    other.sendall(line[-1:])
    assert channel.receive() == [message]


def test_what_was_begun_by_one_who_died_is_dropped(ends: tuple[Channel, socket.socket]) -> None:
    """Half a line is no message."""
    channel, other = ends
    other.sendall(encode(Loaded()) + encode(Started())[:-4])
    other.close()
    assert channel.receive() == [Loaded()]
    assert channel.receive() == []
    assert channel.is_over


def test_sending_to_one_who_is_gone_is_no_error(ends: tuple[Channel, socket.socket]) -> None:
    """It is found out by what is received, or rather is not."""
    channel, other = ends
    other.close()
    channel.send(Loaded())
    assert channel.send_at_once(Report())


def test_one_who_does_not_read_is_not_waited_for(ends: tuple[Channel, socket.socket]) -> None:
    """The parent has others to look after."""
    channel, _ = ends
    while channel.send_at_once(Report()):
        pass


def test_settings_arrive_as_they_are(tmp_path: Path) -> None:
    """The secret that workers need among them; what the parent alone has to do with is left out."""
    settings = Settings(
        database=tmp_path / "r.db",
        bundle_ids=("a", "b"),
        environments=("Production", "Sandbox"),
        shared_secret="hush",
        app_store_rate_per_second=2.5,
        processes=2,
    )
    with_admin = settings.model_copy(update={"admin": "127.0.0.1:0", "admin_token": SecretStr("0123456789abcdef")})
    arrived = Settings.model_validate(settings_as_json(with_admin))
    assert arrived == settings
    assert arrived.shared_secret is not None
    assert arrived.shared_secret.get_secret_value() == "hush"


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
    ],
)
def test_a_container_may_use_what_its_limit_grants(tmp_path: Path, files: dict[str, str], cores: int) -> None:
    """Fewer than the machine has; a part of a core counts as one."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_cores(tmp_path) == cores


@pytest.mark.parametrize("text", ["max 100000\n", "nonsense", None])
def test_without_a_limit_all_cores_may_be_used(tmp_path: Path, text: str | None) -> None:
    """Or where the limit can't be read."""
    if text is not None:
        (tmp_path / "cpu.max").write_text(text)
    assert usable_cores(tmp_path) == usable_cores(tmp_path / "nothing") >= 1
