"""Sphinx's configuration. ``tox -e docs`` builds the manual and takes a warning for an error."""

from __future__ import annotations

import configparser
import sys
from pathlib import Path

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
    "metrics_reference",
    "settings_reference",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "tracing_reference",
]
exclude_patterns = ["_build"]
nitpicky = False
autodoc_member_order = "bysource"
autodoc_typehints = "description"
html_theme = "furo"
html_title = f"receipt_actors {release}"
