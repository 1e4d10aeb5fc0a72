"""A start that fails in the middle, at any place: the error is told, and nothing is left of what had been begun."""

from __future__ import annotations

import os
import resource
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from receipt_actors import ReceiptSystem, Settings
from receipt_actors.backends import Backend, open_backend
from receipt_actors.errors import ConfigurationError, LedgerUnavailable, ReceiptActorsError
from receipt_actors.otp import StartError
from receipt_actors.scale.processes.group import ProcessGroup
from receipt_actors.sqlite import EmbeddedQueues
from receipt_actors.testing import ManualClock
from tests.open_files import open_files
from tests.patience import PATIENCE_SECONDS

from .processes import children_of

pytestmark = [pytest.mark.short, pytest.mark.skipif(sys.platform != "linux", reason="/proc says what is left")]

WORKER_PROGRAM = ("-m", "receipt_actors.cli.worker")


class Fault(Exception):
    """Nobody expects it."""


def settings_of(folder: Path, **changes: Any) -> Settings:
    return Settings(database=folder / "receipts.db", bundle_ids=("com.example.game",), log_level="error", **changes)


@contextmanager
def nothing_left() -> Iterator[None]:
    threads, processes, files = set(threading.enumerate()), set(children_of(os.getpid())), open_files()
    yield
    for thread in set(threading.enumerate()) - threads:
        thread.join(PATIENCE_SECONDS)
    assert set(threading.enumerate()) - threads == set()
    assert set(children_of(os.getpid())) - processes == set()
    assert [name for number, name in open_files().items() if number not in files] == []


# --- one process ---


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_args: object, **_keywords: object) -> None:
        raise error

    return fail


class Broken:
    def __getattr__(self, name: str) -> Any:
        raise Fault(name)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"run_on": raising(Fault())}, Fault),
        ({"run_on": raising(KeyboardInterrupt())}, KeyboardInterrupt),
        ({"app_store": Broken()}, Fault),
        ({"queues": Broken()}, Fault),
    ],
    ids=["a loop", "Ctrl-C", "a client", "the queues"],
)
def test_an_error_in_the_middle_closes_everything(tmp_path: Path, change: dict[str, Any], expected: Any) -> None:
    settings = settings_of(tmp_path)
    with nothing_left():
        opened = open_backend(settings)
        closed: list[Backend] = []
        backend = replace(opened, close=lambda: (closed.append(opened), opened.close()), **change)
        with pytest.raises(expected):
            ReceiptSystem.start(settings, backend=backend)
        assert closed == [opened]


class Stopped(ManualClock):
    def monotonic(self) -> float:
        raise Fault


class Interrupted(ReceiptSystem):
    """The tree has started, and consumers poll already."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("system", "changes", "options", "expected"),
    [
        pytest.param(ReceiptSystem, {}, {"clock": Stopped()}, StartError, id="an actor"),
        pytest.param(ReceiptSystem, {}, {"clock": object()}, TypeError, id="no clock"),
        pytest.param(ReceiptSystem, {"source_queue": "no queue's name!"}, {}, ConfigurationError, id="no queue"),
        pytest.param(Interrupted, {}, {}, KeyboardInterrupt, id="after the tree has started"),
    ],
)
def test_what_does_not_start_takes_all_along_that_did(
    tmp_path: Path, system: type[ReceiptSystem], changes: dict[str, Any], options: dict[str, Any], expected: Any
) -> None:
    settings = settings_of(tmp_path).model_copy(update=changes)
    with nothing_left(), pytest.raises(expected):
        system.start(settings, **options)


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
def test_a_machine_without_threads_has_none_of_them_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    left = iter(range(threads))
    start = threading.Thread.start

    def start_if_there_is_one(thread: threading.Thread) -> None:
        if next(left, None) is None:
            raise RuntimeError("can't start new thread")  # as CPython says it
        start(thread)

    with nothing_left(), monkeypatch.context() as machine:
        machine.setattr(threading.Thread, "start", start_if_there_is_one)
        with pytest.raises((StartError, RuntimeError)):
            ReceiptSystem.start(settings_of(tmp_path))


# --- several processes ---


@pytest.mark.parametrize("error", [LedgerUnavailable("down"), OSError("no more"), KeyboardInterrupt(), Fault()])
def test_an_error_before_the_workers_leaves_no_parent(tmp_path: Path, error: BaseException) -> None:
    closed: list[str] = []

    class Refused(ProcessGroup):
        def _join_others(self, processes: int) -> Any:
            self._open.callback(closed.append, "roles")
            raise error

    with nothing_left(), pytest.raises(type(error)):
        Refused.start(settings_of(tmp_path, role="active-standby"), 2, WORKER_PROGRAM)
    assert closed == ["roles"]


def test_an_error_after_the_workers_were_started_leaves_none(tmp_path: Path) -> None:
    class Interrupted(ProcessGroup):
        def _begin(self, processes: int) -> None:
            super()._begin(processes)
            assert all(self._group.processes.values())
            raise KeyboardInterrupt

    with nothing_left(), pytest.raises(KeyboardInterrupt):
        Interrupted.start(settings_of(tmp_path), 3, WORKER_PROGRAM)


def test_a_worker_for_which_no_socket_is_left_takes_the_others_along(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    EmbeddedQueues(settings.database).close()  # type: ignore[arg-type]
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with nothing_left():
        few = sorted(set(range(1000)) - set(map(int, open_files())))[12]
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (few, most))
        try:
            is_refused = threading.Event()
            with pytest.raises(ReceiptActorsError, match="no process can be started"):  # noqa: PT012 - when it is known
                group = ProcessGroup.start(settings, 30, WORKER_PROGRAM, on_refusal=is_refused.set)
                assert is_refused.wait(PATIENCE_SECONDS)
                group.check()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
