"""One flag for each setting that a command uses, generated from ``SETTINGS``, so that none is missing or outdated."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

import click

from receipt_actors.settings import CONFIG_VARIABLE, SETTINGS, Settings
from receipt_actors.settings_model import REMOVED, Setting, SomeSettings

Result = TypeVar("Result")


def options_of(
    model: type[SomeSettings], *, leave_out: Collection[str] = ()
) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """Add ``--config`` and one flag for each setting of ``model``, but for those in ``leave_out``, to a click command.

    Its function gets ``flags`` (the text of those that were given, by name) and ``config``, as ``load_some_settings``
    takes them: that checks the values, so that all faults are reported together.
    """
    wanted = model.model_fields.keys() - set(leave_out)
    settings = [setting for name, setting in SETTINGS.items() if name in wanted]

    def decorate(command: Callable[..., Result]) -> Callable[..., Result]:
        @functools.wraps(command)
        def with_flags(*args: Any, config: Path | None, **parameters: Any) -> Result:
            given = {name: parameters.pop(name) for name in (*(setting.name for setting in settings), *REMOVED)}
            flags = {name: value for name, value in given.items() if value is not None}
            return command(*args, flags=flags, config=config, **parameters)

        decorated: Callable[..., Result] = with_flags
        for name in REMOVED:  # what does its work now is told with all other faults
            decorated = click.option(f"--{name.replace('_', '-')}", name, hidden=True)(decorated)
        for setting in reversed(settings):  # a decorator applied later comes first in the help text
            decorated = _option(setting)(decorated)
        config_help = f"TOML file with settings. [a path; {CONFIG_VARIABLE}]"
        return click.option("--config", type=click.Path(path_type=Path), help=config_help)(decorated)

    return decorate


settings_options = options_of(Settings)  #: all of them, for ``load_settings``


def _option(setting: Setting) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    facts = [setting.expected, setting.variable]
    if setting.required:
        facts.insert(1, "required")
    elif setting.default is not None:
        facts.insert(1, f"default: {setting.default}")
    return click.option(
        setting.flag, setting.name, metavar=_metavar(setting), help=f"{setting.description} [{'; '.join(facts)}]"
    )


def _metavar(setting: Setting) -> str:
    if setting.name.endswith("_seconds"):
        return "SECONDS"
    if setting.expected.startswith(("an integer", "a number")):
        return "N"
    if setting.expected.startswith("HOST:PORT"):
        return "HOST:PORT"
    return setting.name.rpartition("_")[2].upper()
