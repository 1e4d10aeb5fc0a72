"""``receipt-actors config``: the settings in force, and where each came from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import click
from pydantic import SecretStr

from receipt_actors.cli.options import settings_options
from receipt_actors.settings import SETTINGS, Settings, load_settings
from receipt_actors.settings_model import Setting

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")  # of TOML
DEFAULT = "default"  #: the source of what nobody has given

Value: TypeAlias = "str | int | float | list[str] | dict[str, dict[str, Value]] | None"


@click.command(
    epilog="""\b
Examples:
  receipt-actors config --database receipts.db --bundle-ids com.example.game
  # what a container would see
  receipt-actors config --json
  # a file to begin with
  receipt-actors config --database receipts.db --bundle-ids com.example.game --toml > receipts.toml
  receipt-actors start --config receipts.toml

Settings that cannot work end with code 2 and one line a fault, as they would for start.
"""
)
@click.option("--json", "style", flag_value="json", help="Print a JSON object: value and source of each setting.")
@click.option("--toml", "style", flag_value="toml", help="Print a commented file that --config takes.")
@settings_options
def command(flags: Mapping[str, object], config: Path | None, style: str | None) -> None:
    """Print the settings in force, and where each came from. Secrets are masked."""
    settings = load_settings(flags, config=config)
    match style:
        case "json":
            values = {name: {"value": _value(settings, name), "source": _source(settings, name)} for name in SETTINGS}
            click.echo(json.dumps(values, indent=2))
        case "toml":
            for line in _toml(settings):
                click.echo(line)
        case _:
            width = max(map(len, SETTINGS))
            for name in SETTINGS:
                click.echo(f"{name:{width}}  {_shown(_value(settings, name))}  ({_source(settings, name)})")
            for queue, table in settings.sources.items():
                click.echo(f"\nsources.{queue}, where it differs:")
                of_source = settings.of_source(queue)
                for name in table:
                    click.echo(f"{name:{width}}  {_shown(_value(of_source, name))}  ({_source(of_source, name)})")


def _value(settings: Settings, name: str) -> Value:
    if name == "sources":
        return {
            queue: {each: _value(settings.of_source(queue), each) for each in settings.sources[queue]}
            for queue in settings.sources
        }
    value: Value = settings.model_dump(mode="json", include={name})[name]
    return value


def _source(settings: Settings, name: str) -> str:
    return settings.origins.get(name, DEFAULT)


def _shown(value: Value) -> str:
    if isinstance(value, dict):
        value = list(value)  # the tables have lines of their own
    return "-" if value is None or value == [] else ",".join(value) if isinstance(value, list) else str(value)


def _toml(settings: Settings) -> Iterator[str]:
    """Write what was given as it is, and the defaults as comments, so that later versions may have better ones."""
    yield "# Settings of receipt-actors. What is commented out has its default value."
    for name, setting in SETTINGS.items():
        value = _value(settings, name)
        yield ""
        yield f"# {setting.description}"
        yield f"# {setting.expected}; from: {_source(settings, name)}"
        yield _toml_line(setting, settings, value)
    for queue, table in settings.sources.items():  # after all that stands at the top level
        of_source = settings.of_source(queue)
        yield ""
        yield f"[sources.{queue if _BARE_KEY.fullmatch(queue) else json.dumps(queue)}]"
        for name in table:
            yield _toml_line(SETTINGS[name], of_source, _value(of_source, name))


def _toml_line(setting: Setting, settings: Settings, value: Value) -> str:
    if value is None:
        return f"#{setting.name} ="
    if isinstance(value, dict):
        return f"#{setting.name} = {{}}  # or tables, at the end of this file"
    if isinstance(getattr(settings, setting.name), SecretStr):
        is_of_a_source = _source(settings, setting.name).startswith("sources.")
        return f"#{setting.name} =  # not shown; {'write it here' if is_of_a_source else f'set {setting.variable}'}"
    line = f"{setting.name} = {_toml_value(value)}"
    return line if setting.name in settings.origins else f"#{line}"


def _toml_value(value: Value) -> str:
    """TOML's basic strings take the escapes of JSON's, but need one for DEL, too."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
