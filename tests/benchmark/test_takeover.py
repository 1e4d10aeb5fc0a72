"""The measurement of takeovers works; its figures are looked at by people."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.benchmark import takeover

pytestmark = pytest.mark.slow


def test_a_takeover_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A row for each way, with times in the order in which things happen, as a table and as JSON."""
    report = tmp_path / "takeovers.json"
    arguments = ["--runs", "1", "--leases", "1", "--ways", "killed,drain", "--json", str(report)]
    assert takeover.main(arguments) == 0
    rows = capsys.readouterr().out.splitlines()[5:]
    assert [row.split()[0] for row in rows] == ["killed", "drain"]
    for each in json.loads(report.read_text()):
        assert 0 < each["seat"] <= each["receive"] <= each["answer"]
