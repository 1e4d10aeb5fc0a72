"""Fixtures of the differential tests: an Erlang node to compare with, and how many random scenarios to play."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from receipt_actors.otp import Runtime
from tests.differential.erlang_peer import ErlangPeer, why_missing


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("differential", "the same random scenarios on Erlang/OTP and on receipt_actors.otp")
    group.addoption("--scenarios", type=int, help="how many of each family, and for each runtime (default: 30)")
    group.addoption("--seed", type=int, help="the number of the first of them (default: 0)")


@pytest.fixture
def seeds(request: pytest.FixtureRequest) -> range:
    first: int = request.config.getoption("--seed", None) or 0
    count: int = request.config.getoption("--scenarios", None) or 30
    return range(first, first + count)


@pytest.fixture(scope="session")
def erlang(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ErlangPeer]:
    missing = why_missing()
    if missing is not None:
        pytest.skip(missing)
    with ErlangPeer(tmp_path_factory.mktemp("erlang")) as peer:
        yield peer


@pytest.fixture(params=list(Runtime), ids=lambda runtime: runtime.value)
def runtime(request: pytest.FixtureRequest) -> Runtime:
    value: Runtime = request.param
    return value


@pytest.fixture(autouse=True)
def no_runtime_failures(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail when the runtime itself, not an actor, has raised; do not log the rest: scenarios are full of crashes."""
    with caplog.at_level(logging.CRITICAL, "receipt_actors.otp"):
        yield
    assert [record.getMessage() for record in caplog.get_records("call")] == []
