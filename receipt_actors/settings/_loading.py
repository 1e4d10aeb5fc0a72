"""Where the values come from: a TOML file, the environment, flags; the later over the earlier."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import TypeVar

from receipt_actors.domain.strict_json import JsonRefused, parse_object
from receipt_actors.domain.values import printable
from receipt_actors.errors import ConfigurationError
from receipt_actors.settings._all import SETTINGS, Settings
from receipt_actors.settings._backend import choose_backend
from receipt_actors.settings_model.fields import VARIABLE_PREFIX
from receipt_actors.settings_model.model import SomeSettings, unknown
from receipt_actors.settings_model.removed import REMOVED
from receipt_actors.settings_model.sources import SourceSettings

CONFIG_VARIABLE = VARIABLE_PREFIX + "CONFIG"  #: names the TOML file, where no flag does
JSON_VARIABLE = VARIABLE_PREFIX + "SETTINGS"  #: holds what such a file may hold, as JSON: for a place without files

# Kubernetes puts these into every pod beside a Service named "receipt-actors"; they are not meant for us.
_KUBERNETES_VARIABLE = re.compile(VARIABLE_PREFIX + r"(SERVICE_(HOST|PORT)|PORT)(_.+)?")

Chosen = TypeVar("Chosen", bound=SomeSettings)
Queues = TypeVar("Queues", bound=SourceSettings)


def load_settings(
    flags: Mapping[str, object], *, config: Path | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    """Read the TOML file, the environment and the flags, the later over the earlier, and check the whole.

    See ``load_some_settings``.
    """
    return load_some_settings(Settings, flags, config=config, environ=environ)


def load_some_settings(
    model: type[Chosen],
    flags: Mapping[str, object],
    *,
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Chosen:
    """Do the same for what ``model`` has, so that nobody has to give settings that a command does not use.

    The values of all other settings are left unchecked, but an unknown name is a fault in any case.

    ``flags`` has the settings that were given, by name; a value of None says not given. ``config`` is the TOML file;
    left out, the variable ``RECEIPT_ACTORS_CONFIG`` may name one. The variable ``RECEIPT_ACTORS_SETTINGS`` may hold the
    same keys as a JSON object, which beat the file's. ``environ`` defaults to the process's environment; a variable
    that is empty says not given. Raises ``ConfigurationError`` with every fault of every layer.
    """
    environ = os.environ if environ is None else environ
    found = _find(config, environ)
    found.read_flags(flags)
    return _checked(model, found, environ)


def load_source_settings(
    model: type[Queues],
    flags: Mapping[str, object],
    *,
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Queues:
    """Do the same for one source alone: the one that the flag ``source_queue`` names, else the first.

    It may be the first, or one of ``sources``; where there are no others the flag says what the first is.
    """
    environ = os.environ if environ is None else environ
    found = _find(config, environ)
    found.read_flags({name: value for name, value in flags.items() if name != "source_queue"})
    queue = flags.get("source_queue")
    if queue is None or not found.values.get("sources"):
        return load_some_settings(model, flags, config=config, environ=environ)
    settings = _checked(model, found, environ)
    queues = [source.source_queue for source in settings.every_source]
    if queue not in queues:
        raise ConfigurationError([f"--source-queue: found {queue!r}, expected one of {', '.join(queues)}"])
    return settings.every_source[queues.index(str(queue))]


def _find(config: Path | None, environ: Mapping[str, str]) -> _Findings:
    found = _Findings()
    if config is not None:
        found.read_file(config, named_by="--config")
    elif environ.get(CONFIG_VARIABLE):
        found.read_file(Path(environ[CONFIG_VARIABLE]), named_by=CONFIG_VARIABLE)
    if environ.get(JSON_VARIABLE):
        found.read_json(environ[JSON_VARIABLE])
    found.read_variables(environ)
    return found


def _checked(model: type[Chosen], found: _Findings, environ: Mapping[str, str]) -> Chosen:
    if "backend" not in found.values and (chosen := choose_backend(found.values, environ)):
        found.put("backend", *chosen)
    values = {name: value for name, value in found.values.items() if name in model.model_fields}
    try:
        settings = model.model_validate(values, context=found.origins)
    except ConfigurationError as error:
        raise ConfigurationError([*found.faults, *error.faults]) from None
    if found.faults:
        raise ConfigurationError(found.faults)
    return settings


@dataclass(slots=True)
class _Findings:
    """What the layers said so far, the later over the earlier, and what was wrong with them."""

    values: dict[str, object] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def put(self, name: str, value: object, origin: str) -> None:
        self.values[name], self.origins[name] = value, origin

    def read_file(self, path: Path, *, named_by: str) -> None:
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            self.faults.append(f"{named_by}: found {str(path)!r}, expected a readable TOML file; {error.strerror}")
            return
        except ValueError as error:  # no UTF-8, or no TOML: the text of the latter ends in line and column
            self.faults.append(f"{named_by}: found {str(path)!r}, expected TOML; {error}")
            return
        self._read_table(table, str(path))

    def read_json(self, text: str) -> None:
        try:
            table = parse_object(text)
        except JsonRefused as refused:
            self.faults.append(f"{JSON_VARIABLE}: expected a JSON object of settings; {refused}")
            return
        self._read_table(table, JSON_VARIABLE)

    def _read_table(self, table: Mapping[str, object], home: str) -> None:
        for key, value in table.items():
            if key in SETTINGS:
                self.put(key, value, f"{key} in {home}")
            else:
                self.faults.append(unknown(f"{printable(key)} in {home}", key, SETTINGS))

    def read_variables(self, environ: Mapping[str, str]) -> None:
        names = {setting.variable: name for name, setting in SETTINGS.items()}
        for variable, value in sorted(environ.items()):
            if variable in names:
                if value:
                    self.put(names[variable], value, variable)
            elif (
                variable.startswith(VARIABLE_PREFIX)
                and variable not in (CONFIG_VARIABLE, JSON_VARIABLE)
                and not _KUBERNETES_VARIABLE.fullmatch(variable)
            ):
                name = variable.removeprefix(VARIABLE_PREFIX).lower()
                self.faults.append(unknown(variable, name, SETTINGS, attrgetter("variable")))

    def read_flags(self, flags: Mapping[str, object]) -> None:
        for name, value in flags.items():
            if name not in SETTINGS:
                self.faults.append(unknown(f"--{name.replace('_', '-')}" if name in REMOVED else name, name, SETTINGS))
            elif value is not None:
                self.put(name, value, SETTINGS[name].flag)
