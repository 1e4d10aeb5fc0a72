"""``receipt-actors demo`` is a newcomer's first minute: it must work, anywhere, and say what it did."""

from __future__ import annotations

from .processes import Programs


def test_the_demo_shows_every_message_as_it_should_be(programs: Programs) -> None:
    """Code 0, a table with a row for each kind of message, and nothing on stderr; with any seed and size."""
    demos = {
        300: programs.start("demo"),
        60: programs.start("demo", "--seed", "7", "--messages", "60"),  # beside the other: neither is in its way
    }
    for count, demo in demos.items():
        assert demo.wait_for_end(30) == 0
        for kind in ("genuine", "replayed", "forged", "refunded", "garbage"):
            assert any(f" {kind} " in line for line in demo.stdout.splitlines())
        assert f"All {count} messages came out as they should." in demo.stdout
        assert demo.stderr == ""
