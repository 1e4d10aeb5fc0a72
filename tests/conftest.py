"""What holds for every test."""

from __future__ import annotations

import signal
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
    """How fast the machine is, is no property of ours."""
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


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark as slow what runs the whole program among services, but for the examples that every check takes.

    ``@pytest.mark.short`` makes a test of the whole program such an example; with arguments, only these of its
    parameters. Tests elsewhere that take long are marked slow by themselves.
    """
    if item.path.relative_to(Path(__file__).parent).parts[0] not in WHOLE_PROGRAM:
        return
    example = item.get_closest_marker("short")
    parameters = item.callspec.id if hasattr(item, "callspec") else None
    if example is None or (example.args and parameters not in example.args):
        item.add_marker(pytest.mark.slow)


@pytest.hookimpl(trylast=True)  # after hypothesis has marked them
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Do not measure the coverage of what hypothesis repeats hundreds of times: it would take twice as long."""
    if config.getoption("cov_context", default=None):
        return  # tests/mutation.py wants to know which tests reach a line
    for item in items:
        if item.get_closest_marker("hypothesis") is not None:
            item.add_marker(pytest.mark.no_cover)
