"""CI runs what tox's list says: each environment of it has commands."""

from __future__ import annotations

import configparser

from .blocks import ROOT


def test_every_environment_that_ci_runs_has_a_section() -> None:
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini", encoding="utf-8")
    listed = {name.strip() for name in tox["tox"]["env_list"].split(",")}
    assert listed <= {section.removeprefix("testenv:") for section in tox.sections()}
