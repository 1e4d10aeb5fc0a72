"""A pytest plugin that puts an actor of ours in the place of ``pykka.ThreadingActor``, for pykka's own tests.

The tests import ``ThreadingActor`` from pykka, so it is replaced before any of them is loaded. Each of the tests that
``differences.csv`` lists must fail, and no other may.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any, NoReturn

import pykka
import pytest

from receipt_actors.otp import Actor, ActorSystem, ExitReason, Ref, Runtime

DIFFERENCES = Path(__file__).with_name("differences.csv")


def listed_tests() -> dict[str, str]:
    """Read which tests (``FILE::TEST`` below pykka's ``tests/``) must fail, and the difference that each one shows.

    The list is the table of differences that the manual prints.
    """
    with DIFFERENCES.open(encoding="utf-8", newline="") as file:
        return {
            test: f"in pykka: {row['In pykka']}"
            for row in csv.DictReader(file)
            for test in re.findall(r"``(\S+)``", row["Tests of pykka that show it"])
        }


class Suite:
    """One run of the tests with one runtime."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._system = ActorSystem("pykka-suite")

    def replace_threading_actor(self) -> None:
        """Have ``pykka.ThreadingActor`` mean an actor of ours, and see to it that no other is started."""
        system = self._system

        class ThreadingActor(Actor):
            runtime = self._runtime

            @classmethod
            def start(cls, *args: Any, **kwargs: Any) -> Ref:
                return system.start(cls, *args, **kwargs)

            def init(self) -> None:
                pykka.ActorRegistry.register(self.ref)
                try:
                    super().init()
                except BaseException:
                    pykka.ActorRegistry.unregister(self.ref)
                    raise

            def terminate(self, reason: ExitReason) -> Any:
                pykka.ActorRegistry.unregister(self.ref)
                return super().terminate(reason)

        def refuse(*_args: object, **_kwargs: object) -> NoReturn:
            raise TypeError("a test has got at pykka's own ThreadingActor")

        pykka.ThreadingActor.start = refuse
        pykka.ThreadingActor = ThreadingActor

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Expect the listed tests to fail; a list that names a test which does not exist is out of date."""
        for test, reason in listed_tests().items():
            meant = [item for item in items if item.nodeid.partition("[")[0] == f"tests/{test}"]
            if not meant:
                raise pytest.UsageError(f"{DIFFERENCES} names {test}, which pykka's tests do not have")
            for item in meant:
                item.add_marker(pytest.mark.xfail(reason=reason, strict=True))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail the run when an actor's thread does not end."""
        if self._system.stop():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--runtime", type=Runtime, required=True, help="which runtime the actors have: pooled or thread")


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    suite = Suite(early_config.known_args_namespace.runtime)
    suite.replace_threading_actor()  # pykka's conftest.py is loaded next
    early_config.pluginmanager.register(suite)
