"""Chaos, in two sizes: short as a part of every check, and ``--full``, which is what the manual's figures come from."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.system.conftest import (
    account,
    aws,
    aws_server,
    embedded,
    programs,
    pytest_runtest_makereport,
    store,
    world,
)

#: The worlds of the system's tests, and what the processes of a failing test have written.
__all__ = ["account", "aws", "aws_server", "embedded", "programs", "pytest_runtest_makereport", "store", "world"]

_figures: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="run chaos at full size: more than an hour, not minutes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--full"):
        for item in items:
            if item.get_closest_marker("full") is not None:
                item.add_marker(pytest.mark.skip("at full size only (--full)"))


@pytest.fixture
def is_full(request: pytest.FixtureRequest) -> bool:
    full: bool = request.config.getoption("--full")
    return full


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    def note(text: str) -> None:
        # By way of the test's own report, which also comes back from a process of pytest-xdist.
        request.node.user_properties.append(("figure", text))

    return note


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call":
        _figures.extend(f"{report.nodeid.rpartition('::')[2]}: {text}" for _, text in report.user_properties)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _figures:
        terminalreporter.section("figures")
        for line in _figures:
            terminalreporter.write_line(line)
