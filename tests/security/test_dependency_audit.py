"""The audit of our dependencies must not be green because nobody was there to ask."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import pytest

from .dependency_audit import ToolOutput, audit, runtime_requirements

REQUIREMENTS = ["boto3==1.40.0", "requests==2.31.0"]
UNREACHABLE = ToolOutput(1, "", "Traceback (most recent call last):\n  ...\nConnectionError: no route to host\n")


class Tool:
    def __init__(self, **outputs: ToolOutput) -> None:
        self._outputs = outputs
        self.asked: list[tuple[str, list[str]]] = []

    def __call__(self, requirements: Sequence[str], service: str) -> ToolOutput:
        self.asked.append((service, list(requirements)))
        return self._outputs[service]


def told(*dependencies: Mapping[str, object]) -> ToolOutput:
    is_vulnerable = any(dependency.get("vulns") for dependency in dependencies)
    return ToolOutput(int(is_vulnerable), json.dumps({"dependencies": dependencies, "fixes": []}), "")


def clean(name: str, version: str) -> dict[str, object]:
    return {"name": name, "version": version, "vulns": []}


def test_a_finding_fails_and_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    found = {"id": "CVE-2024-1", "fix_versions": ["2.32.0"], "aliases": [], "description": "..."}
    tool = Tool(pypi=told(clean("boto3", "1.40.0"), {"name": "Requests", "version": "2.31.0", "vulns": [found]}))
    assert audit(REQUIREMENTS, tool) == 1
    output = capsys.readouterr().out
    assert "vulnerable: requests 2.31.0: CVE-2024-1, fixed in 2.32.0" in output
    assert "2 of 2 dependencies audited, 1 findings" in output


def test_an_all_clear_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    tool = Tool(pypi=told(clean("boto3", "1.40.0"), clean("requests", "2.31.0")))
    assert audit(REQUIREMENTS, tool) == 0
    assert capsys.readouterr().out == "2 of 2 dependencies audited, 0 findings\n"
    assert len(tool.asked) == 1


def test_without_a_network_it_passes_and_says_that_it_knows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert audit(REQUIREMENTS, Tool(pypi=UNREACHABLE, osv=UNREACHABLE)) == 0
    output = capsys.readouterr().out
    assert "could not be audited: boto3==1.40.0, requests==2.31.0: ConnectionError: no route to host" in output
    assert "0 of 2 dependencies audited" in output


def test_what_a_service_skips_is_asked_of_the_other_one(capsys: pytest.CaptureFixture[str]) -> None:
    """pip-audit says "no known vulnerabilities" where it skipped everything: that is not taken for an answer."""
    skipped = {"name": "requests", "skip_reason": "not found"}
    found = {"id": "CVE-2024-1", "fix_versions": []}
    tool = Tool(
        pypi=told(clean("boto3", "1.40.0"), skipped),
        osv=told({"name": "requests", "version": "2.31.0", "vulns": [found]}),
    )
    assert audit(REQUIREMENTS, tool) == 1
    assert tool.asked[1] == ("osv", ["requests==2.31.0"])
    assert audit(REQUIREMENTS, Tool(pypi=told(clean("boto3", "1.40.0"), skipped), osv=UNREACHABLE)) == 0
    assert "could not be audited: requests==2.31.0: ConnectionError" in capsys.readouterr().out


@pytest.mark.parametrize(
    "output", [ToolOutput(2, "", "error: unrecognized arguments"), ToolOutput(1, "", "No module named pip_audit")]
)
def test_a_tool_that_cannot_run_is_no_missing_network(output: ToolOutput) -> None:
    """A new version with other flags, or none at all, must not look like a machine without a network."""
    assert audit(REQUIREMENTS, Tool(pypi=output)) == 2


def test_what_is_audited_is_what_a_user_installs() -> None:
    names = {requirement.partition("==")[0] for requirement in runtime_requirements()}
    assert {"boto3", "botocore", "pykka", "requests", "urllib3", "certifi", "pydantic-core"} <= names
    assert not names & {"pytest", "moto", "sphinx", "matplotlib", "receipt-actors"}
