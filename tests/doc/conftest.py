"""Without what builds the manual (the extra ``docs``) its pages can't be read, and these tests are left out."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("docutils") else ["test_*.py"]
