"""The function that mails alerts, as the template has it: what stands in the mail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from receipt_actors.telemetry.alerts import Alert, AlertKind, Origin

from .conftest import TEMPLATE, alert_mail_code

SOURCE = TEMPLATE.parent / "alert_mail.py"
RUNBOOK = Path(__file__).parents[2] / "doc/runbook.rst"
ORIGIN = Origin("ip-10-0-0-7", "worker-2", "game-receipts", "1.2.3")
MAX_SNS_MESSAGE_BYTES = 256 * 1024
HUGE_COUNT = '{"kind": "crash", "count": ' + "9" * 4300 + "}"  # Python reads it, and does not write twice as many

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
fields = st.sampled_from(["kind", "count", "summary", "story", "host", "process", "source_queue", "first_at"])
#: Whatever may lie on a queue: near misses of an alert, other JSON, no JSON.
bodies = st.dictionaries(fields, json_values).map(json.dumps) | json_values.map(json.dumps) | st.text()


@pytest.fixture(scope="module")
def mail() -> Iterator[dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
        names: dict[str, Any] = {}
        exec(compile(alert_mail_code(), "index.py", "exec"), names)
        yield names
        names["sns"].close()


def alert(kind: AlertKind = AlertKind.CRASH, summary: str = "validator crashed", count: int = 1) -> Alert:
    return Alert(kind, count, 1_750_000_000.0, 1_750_000_042.0, summary, ("at a.py:1", "handed back"), ORIGIN)


def mailed(mail: dict[str, Any], *bodies: str) -> tuple[str, str]:
    alerts = sorted(map(mail["read"], bodies), key=mail["rank"])
    return mail["subject"](alerts), mail["message"](alerts)


def test_the_template_has_the_code_that_is_looked_after() -> None:
    """Which is linted as a file of its own; and CloudFormation takes it inline."""
    code = alert_mail_code()
    assert code.strip() == SOURCE.read_text(encoding="utf-8").strip()
    assert len(code) < 4096


def test_a_mail_says_what_where_and_since_when(mail: dict[str, Any]) -> None:
    subject, text = mailed(mail, alert(count=12).body)
    assert subject == "game-receipts: crash x 12"
    assert text.splitlines() == [
        "crash x 12: validator crashed",
        "  when:    2025-06-15T15:06:40.000Z to 2025-06-15T15:07:22.000Z",
        "  where:   ip-10-0-0-7, worker-2, queue game-receipts",
        "  version: 1.2.3",
        "  | at a.py:1",
        "  | handed back",
        '  runbook: "crash" in doc/runbook.rst',
    ]


def test_several_alerts_are_one_mail_the_most_urgent_first(mail: dict[str, Any]) -> None:
    bodies = [alert(AlertKind.RESTART, "intake"), *[alert(AlertKind.OUTAGE, "ledger is down")] * 20]
    subject, text = mailed(mail, *(each.body for each in bodies))
    assert subject == "game-receipts: outage x 20, restart x 1"
    assert text.index("ledger is down") < text.index("intake")
    # SNS refuses more than 256 KiB, and then no mail would come.
    line = "\N{GRINNING FACE}" * 300
    long = json.dumps({**alert().as_json(), "summary": line, "story": [line] * 40})
    _subject, text = mailed(mail, *[long] * 100)
    assert len(text.encode()) < MAX_SNS_MESSAGE_BYTES
    assert text.endswith("alerts more.")


@pytest.mark.parametrize("kind", AlertKind)
def test_every_kind_has_its_urgency_and_its_section_in_the_runbook(
    mail: dict[str, Any], kind: AlertKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kind in (*mail["URGENT"], AlertKind.RECOVERED)
    anchor = f"alert-{kind.replace('_', '-')}"
    assert f".. _{anchor}:\n\n``{kind}``\n" in RUNBOOK.read_text(encoding="utf-8")
    assert f'"{kind}" in doc/runbook.rst' in mailed(mail, alert(kind).body)[1]
    monkeypatch.setenv("RUNBOOK_URL", "https://wiki.example.com/runbook.html")
    assert f"https://wiki.example.com/runbook.html#{anchor}" in mailed(mail, alert(kind).body)[1]


@given(st.lists(bodies, min_size=1, max_size=20))
@example([HUGE_COUNT] * 2)
@example([HUGE_COUNT.replace(": 9", ": -9")] * 2)
@example(['{"kind": "\\u001b\\ud800", "source_queue": "\\n", "story": ["\\ud800"]}'])
def test_whatever_lies_on_the_queue_becomes_a_mail_that_sns_takes(mail: dict[str, Any], bodies: list[str]) -> None:
    subject, text = mailed(mail, *bodies, alert(AlertKind.STORM).body)
    assert subject.isascii()
    assert 0 < len(subject) < 100
    assert subject.isprintable()
    assert subject == subject.strip()
    assert "storm x 1: validator crashed" in text
    assert 0 < len(text.encode()) < MAX_SNS_MESSAGE_BYTES
    assert all(line.isprintable() for line in text.split("\n"))


@pytest.mark.parametrize(
    "body", ["[" * 100_000, '{"kind": "crash", "count": 1e999}', HUGE_COUNT, "null", "", '{"count": 1}']
)
def test_what_can_not_be_read_is_shown_as_it_is(mail: dict[str, Any], body: str) -> None:
    subject, text = mailed(mail, body)
    assert subject == "receipt_actors: unreadable x 1"
    assert text.startswith(f"unreadable x 1: {body[:400]}")
