"""Fixtures of the system tests; what the processes of a failing test have written is shown with the failure."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from receipt_actors.sandbox.app_store import SimulatedAppStore

from .processes import Programs
from .worlds import AwsServer, AwsWorld, EmbeddedWorld, World

_open_programs: list[Programs] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Generator[None, Any, Any]:
    report = yield
    if report.failed:
        report.sections += [output for programs in _open_programs for output in programs.outputs()]
    return report


@contextmanager
def open_programs(folder: Path) -> Iterator[Programs]:
    programs = Programs(folder)
    _open_programs.append(programs)
    try:
        yield programs
    finally:
        _open_programs.remove(programs)
        programs.close()


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    with open_programs(tmp_path) as programs:
        yield programs


@pytest.fixture
def store() -> Iterator[SimulatedAppStore]:
    with SimulatedAppStore() as store:
        yield store


@pytest.fixture(scope="session")
def aws_server() -> Iterator[AwsServer]:
    server = AwsServer()
    yield server
    server.close()


@pytest.fixture
def account(programs: Programs, aws_server: AwsServer) -> Iterator[AwsWorld]:
    with empty_account(programs, aws_server) as account:
        yield account


@pytest.fixture
def aws(account: AwsWorld) -> AwsWorld:
    account.create_queues()
    account.create_table()
    return account


@pytest.fixture
def embedded(programs: Programs, tmp_path: Path) -> Iterator[EmbeddedWorld]:
    world = EmbeddedWorld(programs, tmp_path)
    yield world
    world.close()


@pytest.fixture(params=["embedded", "aws"])
def world(request: pytest.FixtureRequest, programs: Programs) -> World:
    world: World = request.getfixturevalue(request.param)
    return world


@contextmanager
def empty_account(programs: Programs, server: AwsServer) -> Iterator[AwsWorld]:
    server.reset()
    account = AwsWorld(programs, server)
    yield account
    account.close()
