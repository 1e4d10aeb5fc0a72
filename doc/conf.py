"""Sphinx's configuration. ``tests/doc/test_build.py`` builds the manual and takes a warning for an error."""

from __future__ import annotations

import configparser
import sys
from pathlib import Path
from typing import Any

here = Path(__file__).parent
sys.path.insert(0, str(here))  # for the extensions beside this file

_metadata = configparser.ConfigParser()
_metadata.read(here.parent / "setup.cfg", encoding="utf-8")

project = "receipt_actors"
release = _metadata["metadata"]["version"]
version = release
copyright = "the authors of receipt_actors"
extensions = [
    "capacity_reference",
    "commands_reference",
    "conformance_reference",
    "extras_reference",
    "layers_reference",
    "metrics_reference",
    "settings_reference",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "supervision_tree",
    "tracing_reference",
]
exclude_patterns = ["_build"]
# A reference to what is not in this manual is a warning, so an error: but for other people's, and our private names.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(collections|pathlib|random|typing|pykka|click|logging|threading|enum|datetime)\..*"),
    (r"py:.*", r"receipt_actors\.(.*\.)?_\w+\..*"),
    (r"py:.*", r"[A-Za-z]+"),  # aliases of types, as annotations write them
    # What is told in words.
    (r"py:.*", r"receipt_actors\.domain\.(receipts|ports\.Taken)\b.*"),
    (r"py:.*", r"receipt_actors\.otp\.gen_statem\..*"),
    (r"py:.*", r"receipt_actors\.stores\.apple\.(verify_receipt|server_api|ports)\b.*"),
    # How pydantic writes an annotated type.
    (r"py:.*", r"(pydantic\..*|\w+=.*|.*\[\w+|receipt_actors\.telemetry\.statistics\.(_|Annotated|Latencies).*)"),
]
autodoc_member_order = "bysource"
autodoc_typehints = "description"
html_theme = "furo"
html_title = f"receipt_actors {release}"


def setup(app: Any) -> None:
    """Keep what stands after ``#:`` as it is (Sphinx calls this).

    napoleon takes "text: more text" there for a type and a description, and swaps them.
    """
    kept: dict[str, list[str]] = {}

    def keep(_app: Any, what: str, name: str, _obj: Any, _options: Any, lines: list[str]) -> None:
        if what in ("attribute", "data", "property"):
            kept[name] = list(lines)

    def restore(_app: Any, _what: str, name: str, _obj: Any, _options: Any, lines: list[str]) -> None:
        if name in kept:
            lines[:] = kept.pop(name)

    app.connect("autodoc-process-docstring", keep, priority=1)
    app.connect("autodoc-process-docstring", restore, priority=999)
