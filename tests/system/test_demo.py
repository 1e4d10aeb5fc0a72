"""``receipt-actors demo`` is a newcomer's first minute: it must work, anywhere, and say what it did."""

from __future__ import annotations

import re
from urllib.request import urlopen

import pytest

from tests.patience import PATIENCE_SECONDS

from .processes import Programs


@pytest.mark.short
def test_the_demo_shows_every_message_as_it_should_be(programs: Programs) -> None:
    demos = {
        300: programs.start("demo"),
        60: programs.start("demo", "--seed", "7", "--messages", "60"),  # beside the other: neither is in its way
    }
    for count, demo in demos.items():
        assert demo.wait_for_end() == 0
        for kind in ("genuine", "replayed", "forged", "refunded", "garbage", "signed transaction"):
            assert any(f" {kind} " in line for line in demo.stdout.splitlines())
        assert f"All {count} messages came out as they should." in demo.stdout
        assert "Then Apple refunded 3 purchases" in demo.stdout
        assert demo.stderr == ""


@pytest.mark.parametrize(
    ("flags", "shown", "absent"),
    [
        (("--receipts", "signed"), " not signed by Apple ", " genuine "),
        (("--receipts", "app"), " genuine ", " signed transaction "),
        (("--receipts", "app", "--app-receipts", "server-api"), " transaction_not_found ", "not_authentic"),
        (("--app-receipts", "server-api"), " receipt and signed ", "not_authentic"),
    ],
    ids=" ".join,
)
def test_every_way_to_vouch_for_a_receipt(programs: Programs, flags: tuple[str, ...], shown: str, absent: str) -> None:
    demo = programs.start("demo", "--messages", "100", "--apple-latency", "0", *flags)
    assert demo.wait_for_end() == 0
    assert shown in demo.stdout
    assert absent not in demo.stdout
    assert "All 100 messages came out as they should." in demo.stdout
    assert demo.stderr == ""


def test_its_page_can_be_looked_at_until_it_is_interrupted(programs: Programs) -> None:
    demo = programs.start("demo", "--messages", "30", "--admin", "127.0.0.1:0")
    demo.wait_until(lambda: "All is done" in demo.stdout, "it has finished")
    found = re.search(r"http://127\.0\.0\.1:[0-9]+/", demo.stdout)
    assert found is not None
    with urlopen(found[0], timeout=PATIENCE_SECONDS) as page:
        assert b"<html" in page.read()
    demo.interrupt_group()
    assert demo.wait_for_end() == 0
    assert "All 30 messages came out as they should." in demo.stdout
    assert demo.stderr == ""
