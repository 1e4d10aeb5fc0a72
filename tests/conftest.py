"""What holds for every test."""

from __future__ import annotations

import gc
import importlib
import os
import signal
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

import pytest


@pytest.hookimpl(trylast=True)  # after hypothesis has loaded the profile that it was told
def pytest_configure(config: pytest.Config) -> None:
    """Take SIGINT again where a shell that runs us in the background ignores it: children would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.pluginmanager.hasplugin("hypothesispytest"):  # the package's own tests do without
        _be_patient()


def _be_patient() -> None:
    from hypothesis import HealthCheck, settings

    settings.register_profile("patient", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("patient")


def _register_profiles() -> None:
    """Make ``short``, for every check: fewer examples than hypothesis's own ``ci``, and the same ones each time."""
    with suppress(ImportError):
        from hypothesis import settings

        settings.register_profile("short", settings.get_profile("ci"), max_examples=30)


_register_profiles()  # before hypothesis loads the one that it is told


WHOLE_PROGRAM = ("system", "chaos")
#: Folders of tests that take long each. They come first: at the end nobody waits for one.
LONG = ("packaging", "pykka_suite", "cloudformation", "doc", *WHOLE_PROGRAM)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Have the workers of xdist share the compiling of a fresh checkout; and look for no garbage among modules.

    Each worker collects all tests, and all begin at once: each would rewrite all asserts, for half a minute. So each
    first imports a share of its own; when it comes to those of the others, they are compiled.
    """
    gc.disable()
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is not None:
        _import_share(session.config, int(worker.removeprefix("gw")), int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    try:
        return (yield)
    finally:
        gc.freeze()  # no later collection looks at what is there now
        gc.enable()


def _import_share(config: pytest.Config, share: int, shares: int) -> None:
    root, ignored = config.rootpath, config.getoption("ignore") or []
    without = [root / each for each in ignored]
    files = sorted(file for each in config.args for file in (root / each).rglob("test_*.py"))
    for file in [file for file in files if not any(map(file.is_relative_to, without))][share::shares]:
        with suppress(Exception):  # pytest tells of it when it collects the module
            importlib.import_module(".".join(file.relative_to(root).with_suffix("").parts))


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark as slow what runs the whole program among services, but for the examples that every check takes.

    ``@pytest.mark.short`` makes a test of the whole program such an example; with arguments, only these of its
    parameters. Tests elsewhere that take long are marked slow by themselves.
    """
    if _folder(item) not in WHOLE_PROGRAM:
        return
    example = item.get_closest_marker("short")
    parameters = item.callspec.id if hasattr(item, "callspec") else None
    if example is None or (example.args and parameters not in example.args):
        item.add_marker(pytest.mark.slow)


def _folder(item: pytest.Item) -> str:
    return item.path.relative_to(Path(__file__).parent).parts[0]


@pytest.hookimpl(trylast=True)  # after hypothesis has marked them
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Sort by how long tests take.

    Do not measure the coverage of what hypothesis repeats hundreds of times: it would take twice as long.
    """
    places = {folder: place for place, folder in enumerate(LONG)}
    items.sort(key=lambda item: places.get(_folder(item), len(places)))
    if config.getoption("cov_context", default=None):
        return  # tests/mutation.py wants to know which tests reach a line
    for item in items:
        if item.get_closest_marker("hypothesis") is not None:
            item.add_marker(pytest.mark.no_cover)
