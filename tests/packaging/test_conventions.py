"""Conventions that no tool of ours checks."""

from __future__ import annotations

import ast
import configparser
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_test_states_its_behaviour() -> None:
    """A test's docstring says what a user would miss; a failing run can be read without the code."""
    silent = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and not ast.get_docstring(node)
    ]
    assert silent == []


def test_the_layers_forbid_every_dependency_that_otp_and_domain_must_not_have() -> None:
    """A dependency added to setup.cfg cannot slip into the layers that promise to do without."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    required = {
        re.split(r"[^\w-]", line)[0].replace("-", "_")
        for line in setup["options"]["install_requires"].split("\n")
        if line
    }
    for layer, allowed in (("otp", {"pykka"}), ("domain", {"cachetools"})):
        forbidden = set(setup[f"importlinter:contract:{layer}"]["forbidden_modules"].split())
        assert required - allowed <= forbidden
