"""What the README and the manual tell the reader to type works, and prints what they say.

Each page is a story: its blocks run one after the other, in a folder of their own, on this machine alone (SQLite, the
simulated App Store). What needs more is marked in the page with ``.. not run: why``, and parsed.
"""

from __future__ import annotations

import ast
import configparser
import importlib
import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import chdir
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from docutils import nodes
from docutils.core import publish_doctree

from receipt_actors.cli import PROGRAM, cli
from receipt_actors.settings import SETTINGS

from .blocks import PAGES, ROOT, Block, Page, read_page, read_text
from .command_lines import commands_of, fault_of
from .terminal import Terminal, is_as_shown

READ = {path: read_page(path) for path in PAGES}
RUN = ("bash", "console", "python")
PARSED = ("json", "toml", "yaml", "ini")
SHOWN = ("text", "none", "promql", "sql", "swift")  #: drawings, output, and the languages of others
EXAMPLES = sorted((ROOT / "doc/examples").glob("*.py"))
NAMES = cli.list_commands(click.Context(cli))
LOGGERS = {"receipt_actors.decisions.answered"}
OTHERS_FLAGS = {"--env-file", "--full", "--preload"}  #: docker's, pytest's, gunicorn's
OTHER_VARIABLES = {"RECEIPT_ACTORS_", "RECEIPT_ACTORS_CONFIG", "RECEIPT_ACTORS_SETTINGS"}


def command_of(name: str) -> click.Command:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return command


def flags_of(command: click.Command) -> set[str]:
    own = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    return own.union(*map(flags_of, command.commands.values())) if isinstance(command, click.Group) else own


FLAGS = {"--help", "--version"}.union(*(flags_of(command) for command in map(command_of, NAMES)))

pages = pytest.mark.parametrize("page", READ.values(), ids=lambda page: page.name)
stories = pytest.mark.parametrize(
    "page",
    [page for page in READ.values() if any(block.language in RUN and not block.not_run for block in page.blocks)],
    ids=lambda page: page.name,
)


@stories
@pytest.mark.filterwarnings("default")
def test_what_a_page_tells_to_type_works(page: Page, tmp_path: Path) -> None:
    missing = [module for words, module in NEEDS.items() if find_spec(module) is None and is_typed(words, page)]
    if missing or (shutil.which("curl") is None and is_typed("curl ", page)):
        pytest.skip(f"needs {', '.join(missing) or 'curl'}; tox -e tests has it")
    names: dict[str, Any] = {"__name__": "__main__"}
    with Terminal(tmp_path) as terminal, chdir(tmp_path):
        for block in page.blocks:
            if block.not_run:
                continue
            if block.language == "python":
                lines = "\n" * (block.line - 1)
                exec(compile(lines + terminal.with_free_ports(block.text), block.page, "exec"), names)
            elif block.language == "bash":
                code, output = terminal.run(block.text)
                assert code == block.exit_code, f"{block.place} ended with {code}:\n{output}"
            elif block.language == "console":
                run_session(terminal, block)


NEEDS = {
    "flask --app": "flask",
    "from flask": "flask",
    "django_app": "django",
    "import django": "django",
    "uvicorn ": "uvicorn",
    "--files apple": "appstoreserverlibrary",
}


def is_typed(words: str, page: Page) -> bool:
    return any(words in block.text for block in page.blocks if not block.not_run)


def run_session(terminal: Terminal, block: Block) -> None:
    seen = ""
    for command, want in session_of(block):
        if command.rstrip().endswith("&"):
            output = terminal.run_in_background(command, want)
        else:
            code, output = terminal.run(command)
            assert code == block.exit_code, f"{block.place}: {command} ended with {code}:\n{output}"
        if want:
            want = terminal.with_free_ports(want)
            told = f"{block.place}: {command}\n--- shown\n{want}\n--- printed\n{output}\n--- before\n{seen}"
            assert is_as_shown(want, output), told
        seen += f"$ {command}\n{output}"


def session_of(block: Block) -> Iterator[tuple[str, str]]:
    """Split a console block into commands (after ``$``, continued after ``>``) and what is shown below each."""
    command, want = "", ""
    for line in block.text.splitlines():
        if line.startswith("$ "):
            if command:
                yield command, want
            command, want = line[2:], ""
        elif line.startswith("> ") and not want:
            command += "\n" + line[2:]
        else:
            want += line + "\n"
    assert command, f"{block.place}: no command"
    yield command, want


@pages
def test_every_block_says_what_it_is_and_can_be_read(page: Page) -> None:
    for block in page.blocks:
        if block.language == "json":
            json.loads(block.text)
        elif block.language == "toml":
            tomllib.loads(block.text)
        elif block.language == "yaml":
            yaml.safe_load(block.text)
        elif block.language == "ini":
            configparser.ConfigParser(interpolation=None).read_string(block.text)
        elif block.language == "python":
            compile(block.text, block.page, "exec")
        elif block.language in ("bash", "console"):
            for script in scripts_of(block):
                done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
                assert done.returncode == 0, f"{block.place}: {done.stderr}"
        else:
            assert block.language in SHOWN, f"{block.place}: name the language ({RUN + PARSED + SHOWN})"


def scripts_of(block: Block) -> list[str]:
    return [command for command, _ in session_of(block)] if block.language == "console" else [block.text]


@pages
def test_every_command_line_is_one_that_the_program_takes(page: Page) -> None:
    faults = [
        f"{block.place}: {' '.join(words)}: {fault}"
        for block in page.blocks
        if block.language in ("bash", "console") and not block.exit_code
        for script in scripts_of(block)
        for words in commands_of(script)
        if (fault := fault_of(words))
    ]
    for line, text in page.literals:
        first, *others = text.split() or [""]
        is_command = first in (PROGRAM, "tox") and others and not others[0].isupper() and "..." not in text
        is_short = first in NAMES and any(word.startswith("--") for word in others) and "|" not in text
        for words in commands_of(" ".join(text.split())) if is_command or is_short else ():
            fault = fault_of(words if is_command else [PROGRAM, *words])
            if fault is not None and "requires an argument" not in fault:
                faults.append(f"{page.name}:{line}: {text}: {fault}")
        if re.fullmatch(r"--[a-z-]+", first) and first not in FLAGS | OTHERS_FLAGS:
            faults.append(f"{page.name}:{line}: no command has {first}")
    assert faults == []


@pages
def test_no_first_cell_of_a_simple_table_is_wrapped(page: Page) -> None:
    """A line with a first cell begins a new row there: what goes on in it needs a list table.

    So a row that says nothing in its last cell, or begins in the middle of a sentence, is the rest of the one above it.
    """
    settings = {"report_level": 5, "halt_level": 5, "syntax_highlight": "none", "file_insertion_enabled": False}
    for table in publish_doctree((ROOT / page.name).read_text(), settings_overrides=settings).findall(nodes.table):
        if "colwidths-given" in table["classes"]:
            continue  # a list table
        for row in ([entry.astext() for entry in row.children] for row in table.findall(nodes.row)):
            assert row[0] == "" or row[-1] != "", f"{page.name}: the rest of a first cell is a row of its own: {row}"
            open_brackets = row[0].count("(") - row[0].count(")")
            assert open_brackets == 0, f"{page.name}: a first cell goes on in the next row: {row}"
            assert not row[0].endswith((",", " or")), f"{page.name}: likewise: {row}"


@pages
def test_every_name_is_one_that_exists(page: Page) -> None:
    faults = []
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = set(setup["options.extras_require"])
    texts = [(line, text, True) for line, text in page.literals]
    texts += [(block.line, block.text, False) for block in page.blocks if block.language in RUN]
    for line, text, is_literal in texts:
        place = f"{page.name}:{line}"
        if "pip install" in text and "receipt-actors[" in text and page.name != "doc/package.rst":
            faults.append(f"{place}: the package is on no index: install it from a checkout or a wheel")
        for extra in re.findall(r"receipt-actors\[([\w,]+)\]", text):
            faults += [f"{place}: no extra {name}" for name in extra.split(",") if name not in extras]
        variables = {setting.variable for setting in SETTINGS.values()} | OTHER_VARIABLES
        for variable in re.findall(r"RECEIPT_ACTORS_\w+", text):
            if variable not in variables:
                faults.append(f"{place}: no variable {variable}")
        if not is_literal:
            continue
        is_file = re.fullmatch(r"(doc|tests|receipt_actors|cloudformation)/[\w./-]+", text)
        is_name = re.fullmatch(r"receipt_actors(\.\w+)+", text) and text not in LOGGERS
        if (is_file and not (ROOT / text).exists()) or (is_name and not is_importable(text)):
            faults.append(f"{place}: there is no {text}")
    assert faults == []


def is_importable(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        return is_importable(module) and hasattr(importlib.import_module(module), attribute)
    return True


@pytest.mark.parametrize("name", NAMES)
def test_the_examples_in_a_help_text_are_command_lines_that_the_program_takes(name: str) -> None:
    script = "\n".join(line for line in (command_of(name).epilog or "").splitlines() if line.startswith(f"  {PROGRAM}"))
    assert [f"{words}: {fault}" for words in commands_of(script) if (fault := fault_of(words))] == []


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_run_by_a_page(example: Path) -> None:
    runs = [block for page in READ.values() for block in page.blocks if block.language in RUN and not block.not_run]
    is_run = any(f"{folder}{example.stem}" in block.text for block in runs for folder in ("doc/examples/", "8000 "))
    assert is_run or any(f"from {example.stem} import" in other.read_text(encoding="utf-8") for other in EXAMPLES)


MODULES = sorted(
    path
    for path in (ROOT / "receipt_actors").rglob("*.py")
    if re.search(r"::\n\n    from receipt_actors", path.read_text(encoding="utf-8"))
)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
@pytest.mark.filterwarnings("default")
def test_the_programs_in_a_module_docstring_run(module: Path, tmp_path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    programs = [block for block in read_text(docstring, module).blocks if block.text.startswith("from receipt_actors")]
    assert programs
    with chdir(tmp_path):
        for program in programs:
            names: dict[str, Any] = {}
            exec(compile(program.text, str(module), "exec"), names)
            for name, value in list(names.items()):
                if name.startswith("test_"):
                    value()
