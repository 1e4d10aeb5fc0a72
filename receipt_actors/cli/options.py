"""One flag for every setting, generated from ``settings.SETTINGS``, so that no flag can be missing or lag behind."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from receipt_actors.settings import CONFIG_VARIABLE, SETTINGS, Setting

Result = TypeVar("Result")


def settings_options(command: Callable[..., Result]) -> Callable[..., Result]:
    """Add ``--config`` and one flag for each setting to a click command's function.

    The function gets ``flags``, the settings that were given by name with their text as typed, and ``config``, the
    path of the TOML file or None: exactly what ``settings.load_settings(flags, config=config)`` takes. It is left to
    that function to check the values, so that all faults are told at once.
    """

    @functools.wraps(command)
    def with_flags(*args: Any, config: Path | None, **parameters: Any) -> Result:
        given = {name: parameters.pop(name) for name in SETTINGS}
        flags = {name: value for name, value in given.items() if value is not None}
        return command(*args, flags=flags, config=config, **parameters)

    decorated: Callable[..., Result] = with_flags
    for setting in reversed(list(SETTINGS.values())):  # a decorator applied later comes first in the help text
        decorated = _option(setting)(decorated)
    config_help = f"TOML file with settings. [a path; {CONFIG_VARIABLE}]"
    return click.option("--config", type=click.Path(path_type=Path), help=config_help)(decorated)


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
    return setting.name.rpartition("_")[2].upper()
