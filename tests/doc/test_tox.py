"""CI runs what tox's list says: each environment of it is described, and each one that a page names."""

from __future__ import annotations

import configparser
import re

from .blocks import ROOT


def test_every_environment_that_ci_runs_has_a_section() -> None:
    """tox runs a name that has none with no commands at all, and calls that a success."""
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini", encoding="utf-8")
    factors = set(re.findall(r"^py3\{([\d,]+)\}|^py(3\d+)", tox["testenv"]["commands"], re.MULTILINE))
    pythons = {f"py3{minor}" for several, _ in factors for minor in several.split(",") if minor}
    pythons |= {f"py{one}" for _, one in factors if one}
    listed = re.sub(
        r"py3\{([\d,]+)\}",
        lambda several: ", ".join(f"py3{minor}" for minor in several[1].split(",")),
        tox["tox"]["env_list"],
    )
    sections = {section.removeprefix("testenv:") for section in tox.sections()}
    assert {name.strip() for name in listed.split(",")} - sections - pythons == set()
