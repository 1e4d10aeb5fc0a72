"""The conformance tables: nothing in them is unfounded, and no entry of OTP's manual pages is left out."""

from __future__ import annotations

import ast
import json
import subprocess
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.differential.erlang_peer import why_missing
from tests.patience import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]
TABLES = ROOT / "doc" / "conformance"
PAGES = sorted(path.stem for path in TABLES.glob("*.toml"))

#: Prints, as JSON, what a module's manual page has an entry for: ["call/2", ...].
ENTRIES_OF = """
    {{ok, {{docs_v1, _, _, _, _, _, Entries}}}} = code:get_doc({module}),
    Named = [{{Name, Arity}} || {{{{_, Name, Arity}}, _, _, Doc, _}} <- Entries, Doc =/= hidden],
    Names = [io_lib:format("\\"~ts/~b\\"", [Name, Arity]) || {{Name, Arity}} <- Named],
    io:format("[~ts]", [lists:join(",", Names)]), halt().
"""


def sections(page: str) -> list[dict[str, Any]]:
    table = tomllib.loads((TABLES / f"{page}.toml").read_text(encoding="utf-8"))
    assert table.keys() == {"title", "manual", "about", "section"}
    result: list[dict[str, Any]] = table["section"]
    return result


def clauses(page: str) -> Iterator[dict[str, Any]]:
    for section in sections(page):
        yield from section["clauses"]


def names_of_tests(path: Path) -> set[str]:
    """Return the tests of a file as pytest names them; of a Hypothesis state machine its TestCase."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        match node:
            case ast.FunctionDef(name=name) if name.startswith("test_"):
                names.add(name)
            case ast.ClassDef(name=name, body=body) if name.startswith("Test"):
                methods = [each.name for each in body if isinstance(each, ast.FunctionDef)]
                names.update(f"{name}::{method}" for method in methods if method.startswith("test_"))
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Attribute(attr="TestCase")):
                names.add(name)
    return names


def test_there_is_a_table_for_each_page() -> None:
    shown = (ROOT / "doc" / "conformance.rst").read_text(encoding="utf-8")
    assert PAGES == ["gen_server", "gen_statem", "processes", "supervisor", "sys"]
    assert [page for page in PAGES if f".. conformance:: {page}\n" not in shown] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_clause_has_a_test_or_a_reason(page: str) -> None:
    counts = Counter(clause["id"] for clause in clauses(page))  # an id is an anchor of the manual's page
    assert [id_ for id_, count in counts.items() if count > 1] == []
    for clause in clauses(page):
        kind = clause.keys() & {"differs", "absent"}
        assert clause.keys() <= {"id", "says", "tests", "differs", "absent"}, clause["id"]
        assert len(kind) <= 1, clause["id"]
        assert clause["says"].strip(), clause["id"]
        assert all(clause[word].strip() for word in kind), clause["id"]
        assert clause.get("tests") or kind, f"{clause['id']} has neither a test nor a reason"
        assert not (clause.get("tests") and "absent" in kind), f"{clause['id']} is tested, so it is there"


@pytest.mark.parametrize("page", PAGES)
def test_every_test_that_is_named_exists(page: str) -> None:
    known: dict[str, set[str]] = {}
    for clause in clauses(page):
        for test in clause.get("tests", ()):
            file, _, name = test.partition("::")
            if file not in known:
                path = ROOT / "tests" / file
                known[file] = names_of_tests(path) if path.exists() else set()
            assert name in known[file], f"{clause['id']}: {test}"


@pytest.mark.parametrize("module", ["supervisor", "gen_server", "gen_statem", "sys"])
def test_every_entry_of_the_manual_page_has_a_section(module: str) -> None:
    missing = why_missing()
    if missing is not None:
        pytest.skip(missing)
    command = ["erl", "-noshell", "-eval", ENTRIES_OF.format(module=module)]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=PATIENCE_SECONDS).stdout
    covered = {entry for section in sections(module) for entry in section.get("entries", ())}
    assert set(json.loads(output)) - covered == set()
