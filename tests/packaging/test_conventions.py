"""Conventions that no tool of ours checks."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_layers_forbid_every_dependency_that_otp_and_domain_must_not_have() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    required = {
        re.split(r"[^\w-]", line)[0].replace("-", "_")
        for line in setup["options"]["install_requires"].split("\n")
        if line
    }
    required = required - {"app_store_server_library"} | {"appstoreserverlibrary"}  # the module of that package
    for layer, allowed in (("otp", {"pykka"}), ("domain", {"cachetools"})):
        forbidden = set(setup[f"importlinter:contract:{layer}"]["forbidden_modules"].split())
        assert required - allowed <= forbidden
