"""Reports: what an operator, or a machine that reads JSON, learns of a tree; and what nobody learns."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from receipt_actors.otp import (
    BRUTAL_KILL,
    IGNORE,
    INFINITY,
    KILLED,
    NO_PROCESS,
    NORMAL,
    PERMANENT,
    SHUTDOWN,
    SUPERVISOR,
    TEMPORARY,
    TRANSIENT,
    ActorSystem,
    ChildSpec,
    Crash,
    CrashReport,
    ExitReason,
    ProgressReport,
    Ref,
    Restart,
    Shutdown,
    SimpleOneForOneSupervisor,
    Start,
    Started,
    StartError,
    Stop,
    Supervisor,
    SupervisorReport,
    restart_child,
    start_child,
    terminate_child,
    which_children,
)
from receipt_actors.otp import sys as otp_sys
from receipt_actors.otp._reports import TEXT_LIMIT, describe_reason, report_crash
from tests.otp.support import Pooled, PooledTrapping, Seen, end, exit_reason_of, link_child, raising, whereis

SECRET = "eyJhbGciOiJFUzI1NiJ9"
BUG = Crash(ValueError("bug"))


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def records(caplog: pytest.LogCaptureFixture) -> Iterator[list[logging.LogRecord]]:
    caplog.set_level(logging.DEBUG, "receipt_actors.otp")
    collector = _Collector()
    logging.getLogger("receipt_actors.otp").addHandler(collector)
    yield collector.records
    logging.getLogger("receipt_actors.otp").removeHandler(collector)


def reports(records: list[logging.LogRecord], kind: type = SupervisorReport) -> list[Any]:
    found = [getattr(record, "report", None) for record in records]
    return [report for report in found if isinstance(report, kind)]


def contexts(records: list[logging.LogRecord]) -> list[tuple[str, str]]:
    return [(report.context, report.reason) for report in reports(records)]


@pytest.mark.parametrize("restart", Restart, ids=lambda restart: restart.value)
@pytest.mark.parametrize("reason", [NORMAL, SHUTDOWN, Shutdown("term"), BUG, KILLED], ids=str)
@pytest.mark.parametrize("simple", [False, True], ids=["supervisor", "simple_one_for_one"])
def test_which_ends_are_reported_and_restarted(
    system: ActorSystem, records: list[logging.LogRecord], simple: bool, restart: Restart, reason: ExitReason
) -> None:
    spec = ChildSpec("a", Start(Pooled), restart)
    supervisor = system.start(SimpleOneForOneSupervisor, spec) if simple else system.start(Supervisor, [spec])
    if simple:
        start_child(supervisor, ())
    ((_, ref, _),) = which_children(supervisor)
    assert isinstance(ref, Ref)
    records.clear()
    end(ref, reason)
    left = [info.child for info in which_children(supervisor)]
    orderly = isinstance(reason, type(NORMAL) | Shutdown)
    if restart is PERMANENT or (restart is TRANSIENT and not orderly):
        (child,) = left
        assert isinstance(child, Ref) and child is not ref and child.is_alive()
    else:  # the spec of a transient child stays known
        assert left == ([None] if restart is TRANSIENT and not simple else [])
    if orderly and restart is not PERMANENT:
        assert contexts(records) == []
        return
    assert contexts(records) == [("child_terminated", describe_reason(reason))]
    (level,) = [record.levelno for record in records if isinstance(getattr(record, "report", None), SupervisorReport)]
    assert level == (logging.ERROR if restart is TEMPORARY else logging.WARNING)


def test_a_report_holds_what_json_can_hold(system: ActorSystem, records: list[logging.LogRecord]) -> None:
    spec = ChildSpec(("a", 1), Start(Pooled, name="a"), TRANSIENT, 2.5)
    supervisor = system.start(Supervisor, [spec], name="root")
    end(whereis(system, "a"), BUG)
    which_children(supervisor)
    (report,) = reports(records)
    assert json.loads(json.dumps(report.as_dict())) == {
        "kind": "supervisor_report",
        "supervisor": "Supervisor (root)",
        "context": "child_terminated",
        "reason": "crash: ValueError: bug",
        "offender": {
            "id": "('a', 1)",
            "actor_class": "Pooled",
            "ref": "Pooled (a)",
            "restart": "transient",
            "shutdown": 2.5,
            "type": "worker",
            "significant": False,
        },
        "children": 1,
        "restarts": 1,
        "note": "restart 1, 1 allowed in 5 s",
    }


def test_a_spec_is_described_in_words(system: ActorSystem, records: list[logging.LogRecord]) -> None:
    def start_somehow() -> Any:
        return Start(Pooled)()

    specs = [
        ChildSpec("a", start_somehow, shutdown=BRUTAL_KILL),
        ChildSpec("b", Start(Supervisor), shutdown=INFINITY, type=SUPERVISOR),
    ]
    system.start(Supervisor, specs)
    described = [(report.started.actor_class, report.started.shutdown) for report in reports(records, ProgressReport)]
    assert described == [("start_somehow", "brutal_kill"), ("Supervisor", "infinity")]


def test_failed_restarts_and_giving_up_are_reported(system: ActorSystem, records: list[logging.LogRecord]) -> None:
    answers = iter([None])
    spec = ChildSpec("a", Start(Pooled, init=lambda _actor: next(answers, Stop(BUG)), name="a"))
    supervisor = system.start(Supervisor, [spec], intensity=2)
    end(whereis(system, "a"), KILLED)
    assert exit_reason_of(supervisor) == SHUTDOWN
    assert [
        (*context, report.restarts) for context, report in zip(contexts(records), reports(records), strict=True)
    ] == [
        ("child_terminated", "killed", 1),
        ("start_error", "crash: ValueError: bug", 1),
        ("start_error", "crash: ValueError: bug", 2),
        ("shutdown", "reached_max_restart_intensity", 3),
    ]


def test_what_is_answered_is_not_reported(system: ActorSystem, records: list[logging.LogRecord]) -> None:
    """As in OTP: a failed start_child or restart_child is known to who asked."""
    answers = iter([Stop(BUG), IGNORE, Stop(BUG)])
    supervisor = system.start(Supervisor)
    spec = ChildSpec("a", Start(Pooled, init=lambda _actor: next(answers)))
    start_child(supervisor, spec)
    start_child(supervisor, spec)
    restart_child(supervisor, "a")
    assert contexts(records) == []


@pytest.mark.parametrize(
    ("restart", "shutdown", "reason", "expected"),
    [
        (PERMANENT, 5, NORMAL, [("shutdown_error", "normal")]),
        (PERMANENT, 5, Shutdown("term"), [("shutdown_error", "shutdown: term")]),
        (PERMANENT, 5, SHUTDOWN, []),
        (TRANSIENT, 5, NORMAL, []),
        (TRANSIENT, 5, Shutdown("term"), []),
        (TEMPORARY, 5, KILLED, [("shutdown_error", "killed")]),
        (PERMANENT, BRUTAL_KILL, KILLED, []),
        (PERMANENT, BRUTAL_KILL, SHUTDOWN, [("shutdown_error", "shutdown")]),
    ],
    ids=lambda value: getattr(value, "value", str(value)),
)
@pytest.mark.parametrize("simple", [False, True], ids=["supervisor", "simple_one_for_one"])
def test_which_ends_of_stopped_children_are_expected(
    system: ActorSystem,
    records: list[logging.LogRecord],
    simple: bool,
    restart: Restart,
    shutdown: Any,
    reason: ExitReason,
    expected: list[tuple[str, str]],
) -> None:
    ended = system.start(Pooled)
    end(ended, reason)
    spec = ChildSpec("a", lambda: Started(ended), restart, shutdown)
    supervisor = system.start(SimpleOneForOneSupervisor, spec) if simple else system.start(Supervisor, [spec])
    if simple:
        start_child(supervisor, ())
    supervisor.exit(SHUTDOWN)
    exit_reason_of(supervisor)
    assert contexts(records) == expected


def test_children_of_one_spec_that_end_alike_are_one_report(
    system: ActorSystem, records: list[logging.LogRecord]
) -> None:
    start = Start(PooledTrapping, terminate=raising(BUG.exception))
    supervisor = system.start(SimpleOneForOneSupervisor, ChildSpec("job", start, TEMPORARY))
    for _ in range(5):
        start_child(supervisor, ())
    supervisor.exit(SHUTDOWN)
    exit_reason_of(supervisor)
    (report,) = reports(records)
    assert (report.context, report.children, report.offender.ref) == ("shutdown_error", 5, None)
    assert "5 children job did not end as told: crash: ValueError: bug" in str(report)


def test_each_start_is_a_progress_report(system: ActorSystem, records: list[logging.LogRecord]) -> None:
    spec = ChildSpec("a", Start(Pooled, name="a"))
    supervisor = system.start(Supervisor, [spec], name="root")
    end(whereis(system, "a"), KILLED)
    terminate_child(supervisor, "a")
    restart_child(supervisor, "a")
    start_child(supervisor, ChildSpec("b", Start(Pooled, name="b")))
    start_child(system.start(SimpleOneForOneSupervisor, ChildSpec("job", Start(Pooled), TEMPORARY)), ())
    progress = reports(records, ProgressReport)
    assert [str(report) for report in progress] == [
        *["Supervisor (root): child a started: Pooled (a)"] * 3,
        "Supervisor (root): child b started: Pooled (b)",
    ]
    assert json.loads(json.dumps(progress[0].as_dict()))["started"]["id"] == "a"
    assert {record.levelno for record in records if getattr(record, "report", None) in progress} == {logging.DEBUG}


def test_nothing_is_reported_that_nobody_wants(system: ActorSystem, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "receipt_actors.otp")
    supervisor = system.start(Supervisor, [ChildSpec("a", Start(Pooled, name="a"))])
    end(whereis(system, "a"), KILLED)
    which_children(supervisor)
    report_crash(supervisor.process, BUG, "Count")
    assert caplog.records == []


def caught(error: BaseException) -> Crash:
    try:
        raising(error)()
    except BaseException as raised:  # noqa: BLE001
        return Crash(raised)
    raise AssertionError


def test_a_crash_report(system: ActorSystem, records: list[logging.LogRecord]) -> None:
    ref = link_child(system.start(Pooled, name="parent"), Pooled, name="counter")
    otp_sys.suspend(ref)
    for _ in range(3):
        ref.send("waits")
    report_crash(ref.process, caught(ValueError("bug")), "Count")
    (record,) = records
    (report,) = reports(records, CrashReport)
    assert record.getMessage() == "Pooled (counter) crashed while handling Count: ValueError: bug"
    assert record.levelno == logging.ERROR
    values = json.loads(json.dumps(report.as_dict()))
    location = values.pop("location")
    assert location.startswith(f"{raising.__code__.co_filename}:") and location.endswith(" in script")
    assert values == {
        "kind": "crash_report",
        "actor": "Pooled (counter)",
        "reason": "ValueError: bug",
        "handling": "Count",
        "mailbox_length": 3,
        "links": ["Pooled (parent)"],
        "parent": "Pooled (parent)",
    }


def test_a_crash_report_says_what_was_under_way(system: ActorSystem, records: list[logging.LogRecord]) -> None:
    with pytest.raises(StartError):
        system.start(Pooled, init=raising(BUG.exception))
    system.start(Pooled, terminate=raising(BUG.exception), name="ending").stop()
    for name, script in (("crashing", raising(BUG.exception)), ("stopping", lambda _actor: Stop(BUG))):
        ref = system.start(Pooled, name=name)
        ref.cast(script)
        exit_reason_of(ref)
    told = reports(records, CrashReport)
    assert [report.handling for report in told] == ["init", "terminate", "function", "its own decision to end"]
    assert str(told[-1]) == "Pooled (stopping) stops because of ValueError: bug"


def test_a_crash_report_has_a_traceback(system: ActorSystem, records: list[logging.LogRecord]) -> None:
    crash = caught(ValueError("x" * 10_000))
    report_crash(system.start(Pooled).process, crash, "Count")
    text = logging.Formatter().format(records[0])
    assert "in script" in text
    assert "raise error" in text
    assert "x" * (TEXT_LIMIT - 3) + "..." in text
    assert "x" * TEXT_LIMIT not in text


class Telling:
    """A value that would tell its secret to anyone who prints it."""

    def __repr__(self) -> str:
        return SECRET


class Keeper(Pooled):
    def __init__(self, secret: object, **options: Any) -> None:
        super().__init__(**options)
        self.secret = secret


def test_no_report_tells_an_argument_or_a_term(system: ActorSystem, records: list[logging.LogRecord]) -> None:
    spec = ChildSpec("a", Start(Keeper, Telling(), name="a"))
    failing = ChildSpec("b", Start(Keeper, Telling(), init=raising(ValueError("no"))))
    supervisor = system.start(Supervisor, [spec], intensity=0)
    jobs = system.start(SimpleOneForOneSupervisor, ChildSpec("job", Start(Keeper), PERMANENT))
    start_child(jobs, (Telling(),))
    with pytest.raises(StartError):
        system.start(Supervisor, [failing])
    end(whereis(system, "a"), Shutdown(Telling()))
    exit_reason_of(supervisor)
    jobs.exit(SHUTDOWN)
    exit_reason_of(jobs)
    assert len(reports(records)) >= 3
    for record in records:
        assert SECRET not in logging.Formatter().format(record)
        report = getattr(record, "report", None)
        assert SECRET not in (json.dumps(report.as_dict()) if report is not None else "")


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        (NORMAL, "normal"),
        (SHUTDOWN, "shutdown"),
        (Shutdown("drained"), "shutdown: drained"),
        (Shutdown(Telling()), "shutdown: <Telling>"),
        (Shutdown(BUG), "shutdown: crash: ValueError: bug"),
        (KILLED, "killed"),
        (NO_PROCESS, "no process"),
        (BUG, "crash: ValueError: bug"),
        (Crash(ValueError()), "crash: ValueError"),
        (Crash(ValueError("two\nlines")), "crash: ValueError: two lines"),
        (Crash(Mute()), "crash: Mute: <Mute>"),
        (Telling(), "<Telling>"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_how_a_reason_is_told(reason: object, text: str) -> None:
    assert describe_reason(reason) == text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("no such receipt: MIITuAYJKoZIhvcNAQcCoIITqTCCE6UCAQExCzAJBgUrDgMC", "no such receipt: ..."),
        ("GET https://h/?r=MIIT%2BAYJKoZI%2FcNAQcCoIITqTCCE6%3D%3D&u=7", "GET https://h/?...&u=7"),
        ("password 5f0c8e6d9b7a41c2a3d4e5f60718293a of the app", "password ... of the app"),
        ("message 550e8400-e29b-41d4-a716-446655440000", "message 550e8400-e29b-41d4-a716-446655440000"),
        ("/srv/receipt-actors/releases/2026/receipts/of/today", "/srv/receipt-actors/releases/2026/receipts/of/today"),
        ("=" * 60, "=" * 60),
    ],
)
def test_what_looks_like_a_key_or_encoded_data_is_not_told(text: str, told: str) -> None:
    assert describe_reason(Crash(ValueError(text))) == f"crash: ValueError: {told}"


def test_a_listener_is_told_each_report_whatever_the_log_level(system: ActorSystem) -> None:
    told = Seen()
    system.add_report_listener(told.put)
    logging.getLogger("receipt_actors.otp").setLevel(logging.CRITICAL)
    try:
        supervisor = system.start(Supervisor, [ChildSpec("a", Start(Pooled, name="a"))])
        started = told.next()
        assert isinstance(started, ProgressReport)
        end(whereis(system, "a"), BUG)
        which_children(supervisor)
        crash, terminated, restarted = told.take(3)
    finally:
        logging.getLogger("receipt_actors.otp").setLevel(logging.NOTSET)
    assert isinstance(crash, CrashReport)
    assert (terminated.context, terminated.offender.ref) == ("child_terminated", crash.actor)
    assert restarted.started.id == "a"


def test_a_listener_that_raises_harms_nobody(system: ActorSystem, caplog: pytest.LogCaptureFixture) -> None:
    told = Seen()
    system.add_report_listener(raising(KeyboardInterrupt("not mine")))
    system.add_report_listener(told.put)
    supervisor = system.start(Supervisor, [ChildSpec("a", Start(Pooled, name="a"))])
    assert isinstance(told.next(), ProgressReport)
    assert supervisor.is_alive()
    assert "report listener" in caplog.text
    system.remove_report_listener(told.put)
    system.remove_report_listener(told.put)
    start_child(supervisor, ChildSpec("b", Start(Pooled)))
    assert told.rest() == []
