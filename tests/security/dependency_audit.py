"""``python tests/security/dependency_audit.py``: has anything that we need at run time a known vulnerability?

pip-audit knows, from one of two services. It calls a dependency that a service would not tell about "skipped", and says
that it found nothing; and it ends in a traceback where there is no network. Here both are said for what they are:
"could not be audited". That is no failure (a build without that network is no worse for it), and no all-clear either.
A finding is a failure, exit code 1.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

DISTRIBUTION = "receipt-actors"
SERVICES = ("pypi", "osv")  #: as pip-audit's --vulnerability-service knows them
USAGE_ERROR = 2
SERVICE_SECONDS = 15
AUDIT_SECONDS = 300


@dataclass(frozen=True, slots=True)
class ToolOutput:
    exit_code: int
    stdout: str
    stderr: str


#: Audits pinned requirements (``name==version``) with a service.
Tool = Callable[[Sequence[str], str], ToolOutput]


def runtime_requirements(distribution: str = DISTRIBUTION) -> list[str]:
    found: dict[str, str] = {}
    waiting = [distribution]
    while waiting:
        for line in metadata.requires(waiting.pop()) or ():
            requirement = Requirement(line)
            name = canonicalize_name(requirement.name)
            if name not in found and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
                found[name] = metadata.version(name)
                waiting.append(name)
    return [f"{name}=={version}" for name, version in sorted(found.items())]


def run_pip_audit(requirements: Sequence[str], service: str) -> ToolOutput:
    """Run pip-audit on the requirements as they stand: nothing is resolved, downloaded or installed."""
    with tempfile.TemporaryDirectory() as folder:
        pinned = Path(folder) / "requirements.txt"
        pinned.write_text("\n".join(requirements), encoding="utf-8")
        arguments = ["--requirement", str(pinned), "--no-deps", "--disable-pip", "--format", "json"]
        options = ["--vulnerability-service", service, "--timeout", str(SERVICE_SECONDS), "--progress-spinner", "off"]
        try:
            done = subprocess.run(
                [sys.executable, "-m", "pip_audit", *arguments, *options],
                capture_output=True,
                text=True,
                check=False,
                timeout=AUDIT_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return ToolOutput(1, "", f"no answer within {AUDIT_SECONDS} s")
    return ToolOutput(done.returncode, done.stdout, done.stderr)


def audit(requirements: Sequence[str], tool: Tool = run_pip_audit) -> int:
    """Ask one service, and the other about what the first did not know; print what came out, return the exit code."""
    unknown: dict[str, str] = dict.fromkeys(requirements, "nobody was asked")
    findings: list[str] = []
    for service in SERVICES:
        if unknown:
            output = tool(list(unknown), service)
            if output.exit_code >= USAGE_ERROR or "No module named" in output.stderr:
                _say(output.stderr)
                return USAGE_ERROR
            told = _dependencies(output)
            findings += _findings(told)
            unknown = {each: why for each in unknown if (why := _why_unknown(each, told, output)) is not None}
    for why in sorted(set(unknown.values())):
        _say(f"could not be audited: {', '.join(each for each in unknown if unknown[each] == why)}: {why}")
    for finding in findings:
        _say(f"vulnerable: {finding}")
    _say(f"{len(requirements) - len(unknown)} of {len(requirements)} dependencies audited, {len(findings)} findings")
    return 1 if findings else 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _dependencies(output: ToolOutput) -> Mapping[str, Mapping[str, object]]:
    try:
        return {canonicalize_name(each["name"]): each for each in json.loads(output.stdout)["dependencies"]}
    except (ValueError, KeyError, TypeError):
        return {}


def _why_unknown(requirement: str, told: Mapping[str, Mapping[str, object]], output: ToolOutput) -> str | None:
    """Say why we know nothing about a requirement; None where its vulnerabilities were listed, be there any or not."""
    dependency = told.get(requirement.partition("==")[0])
    if dependency is None:
        return (output.stderr.strip().splitlines() or ["the tool said nothing"])[-1][:300]
    return None if "vulns" in dependency else str(dependency.get("skip_reason"))


def _findings(told: Mapping[str, Mapping[str, object]]) -> list[str]:
    findings = []
    for name, dependency in told.items():
        vulnerabilities = dependency.get("vulns", [])
        assert isinstance(vulnerabilities, list)
        for each in vulnerabilities:
            fixed = ", ".join(each.get("fix_versions", [])) or "no version yet"
            findings.append(f"{name} {dependency['version']}: {each['id']}, fixed in {fixed}")
    return findings


if __name__ == "__main__":
    sys.exit(audit(runtime_requirements()))
