"""The command lines of a text that start a program of ours, and whether that program would take them."""

from __future__ import annotations

import configparser
import re
import shlex
from collections.abc import Iterator

import click

from receipt_actors.cli import PROGRAM, cli
from receipt_actors.errors import TraceRefused
from receipt_actors.telemetry.trace_filters import FILTERS, SLOWER_THAN, TraceFilter

from .blocks import ROOT

_ENDS = {"|", "||", "&", "&&", ";", ">", ">>", "<", "2>", "(", ")", "|&", ">&", "&>"}


def commands_of(script: str) -> Iterator[list[str]]:
    lines = re.sub(r"(?m)(^|\s)#.*$", "", script.replace("\\\n", " ")).split("\n")
    lexer = shlex.shlex(" ; ".join(lines), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    words: list[str] = []
    is_target = False
    for word in lexer:
        if word in _ENDS or set(word) <= set("|&;<>()"):
            is_target = set(word) <= set("<>&") and ("<" in word or ">" in word)
            if not is_target:
                if words:
                    yield words
                words = []
        elif is_target:
            is_target = False
        elif words or not re.fullmatch(r"\w+=.*", word):
            words.append(word)
    if words:
        yield words


def fault_of(words: list[str]) -> str | None:
    """Say what our program, or tox, has against the command; None where nothing, or where it is another's."""
    program = words[0].rpartition("/")[2]
    if program == PROGRAM:
        return _click_fault(words[1:])
    if program == "tox" and "-e" in words:
        return _tox_fault(words[words.index("-e") + 1])
    return None


def _click_fault(arguments: list[str]) -> str | None:
    context = click.Context(cli, info_name=PROGRAM)
    if not arguments or arguments[0].startswith("-"):
        return None if set(arguments) <= {"--help", "-h", "--version"} else f"no option of all commands: {arguments}"
    return _fault_in(cli, context, arguments)


def _fault_in(group: click.Group, context: click.Context, arguments: list[str]) -> str | None:
    command = group.get_command(context, arguments[0])
    if command is None:
        return f"there is no command {arguments[0]}"
    if arguments[1:] in (["--help"], ["-h"]):
        return None
    own = click.Context(command, info_name=arguments[0], parent=context)
    try:
        values, left, _ = command.make_parser(own).parse_args(list(arguments[1:]))
    except click.UsageError as error:
        return error.format_message()
    if isinstance(command, click.Group) and left:
        return _fault_in(command, own, left)
    if command.name == "trace":
        try:
            TraceFilter({name: values[name] for name in FILTERS if values.get(name) and name != SLOWER_THAN})
        except TraceRefused as error:
            return str(error)
    missing = [
        parameter.human_readable_name
        for parameter in command.params
        if isinstance(parameter, click.Argument) and parameter.required and values.get(parameter.name or "") is None
    ]
    return f"left over: {left}, missing: {missing}" if left or missing else None


def _tox_fault(names: str) -> str | None:
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini", encoding="utf-8")
    known = {section.removeprefix("testenv:") for section in tox.sections()} | {"py311", "py312", "py313", "py314"}
    unknown = set(names.split(",")) - known
    return f"tox has no {sorted(unknown)}" if unknown else None
