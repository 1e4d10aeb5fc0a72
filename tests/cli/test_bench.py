"""``receipt-actors bench``: the real program, measured from outside; every answer checked. No figure is judged here."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from .conftest import PATIENCE_SECONDS, Ended, Processes

Cli = Callable[..., Ended]
QUICK = ("bench", "--no-latency", "--no-tls", "--receipt-bytes", "200")


def read(path: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return content


def test_a_run_is_measured(cli: Cli) -> None:
    """Over TLS, with every figure in the table and in JSON, and a picture."""
    ended = cli("bench", "--no-latency", "--messages", "300", "--json", "bench.json", "--plot", "bench.png")
    assert (ended.code, ended.err) == (0, "")
    content = read("bench.json")
    (series,) = content["series"]
    (run,) = series["runs"]
    assert (run["messages"], run["wrong"], run["redelivered"]) == (300, 0, 0)
    assert run["requests"]["verifyReceipt"] == 300
    claims = run["entries"].get("PutItem", 0) + run["entries"].get("BatchExecuteStatement", 0)
    assert claims >= 300
    assert run["entries"]["DeleteMessageBatch"] == run["entries"]["SendMessageBatch"] == 300
    assert set(run["steps_ms"]) == {"verifying", "claiming", "replying", "deleting"}
    assert 0 <= run["others_share"] <= 1
    for name in ("per_second", "cpu_ms", "start_seconds", "rss_start_bytes", "in_flight_peak"):
        assert run[name] > 0, name
    assert content["services"]["tls"] is True
    assert content["machine"]["cores"] >= 1
    for section in ("receipts a second", "CPU ms a receipt", "ms from receive to delete", "ms of each step", "memory"):
        assert section in ended.out
    assert Path("bench.png").read_bytes().startswith(b"\x89PNG")


def test_a_sweep_has_a_series_for_each_limit(cli: Cli) -> None:
    """The limit is kept by the program; flags of start reach it; the page stands alone."""
    flags = ("--messages", "120", "--in-flight-sweep", "10,40", "--json", "bench.json", "--plot", "bench.html")
    ended = cli(*QUICK, *flags, "--", "--consumers", "2")
    assert (ended.code, ended.err) == (0, "")
    content = read("bench.json")
    assert [series["max_in_flight"] for series in content["series"]] == [10, 40]
    for series in content["series"]:
        assert 0 < series["runs"][0]["in_flight_peak"] <= series["max_in_flight"]
    assert content["memory_slope_bytes"] is not None
    page = Path("bench.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert "<svg" in page
    assert "receipts a second" in page


def test_messages_come_at_the_rate_that_is_asked_for(cli: Cli) -> None:
    """Sixty a second for a second: that is sixty messages in no less than a second, and not all at once."""
    ended = cli(*QUICK, "--seconds", "1", "--rate", "60", "--json", "bench.json")
    assert (ended.code, ended.err) == (0, "")
    (series,) = read("bench.json")["series"]
    (run,) = series["runs"]
    assert run["messages"] == 60
    assert run["seconds"] > 0.9
    assert run["requests"]["ReceiveMessage"] > 6


def test_wrong_answers_are_told_and_fail_the_benchmark(cli: Cli) -> None:
    """A program that is quick and wrong: here because it serves another app."""
    ended = cli(*QUICK, "--messages", "20", "--", "--bundle-ids", "com.example.other")
    assert ended.code == 1
    assert "receipts a second" in ended.out
    assert "20 answers or claims were wrong" in ended.err or "40 answers or claims were wrong" in ended.err
    assert "expected {'user_id'" in ended.err


def test_a_program_that_does_not_start_is_told_in_its_own_words(cli: Cli) -> None:
    """Not waited for: settings that it refuses, say."""
    ended = cli(*QUICK, "--messages", "1", "--", "--consumers", "none")
    assert (ended.code, ended.out) == (1, "")
    assert "ended with code 2 before it asked for messages" in ended.err
    assert "--consumers: found 'none'" in ended.err


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (("--messages", "0"), "--messages"),
        (("--messages", "many"), "--messages"),
        (("--messages", "1", "--seconds", "1"), "--messages and --seconds"),
        (("--max-in-flight", "1", "--in-flight-sweep", "1"), "--max-in-flight and --in-flight-sweep"),
        (("--rate", "1", "--half-load"), "--rate and --half-load"),
        (("--rate", "0"), "--rate"),
        (("--runs", "0"), "--runs"),
        (("--in-flight-sweep", "10,many"), "above 0"),
        (("--in-flight-sweep", "10,,20"), "above 0"),
        (("--in-flight-sweep", "0"), "above 0"),
        (("--apple-latency", "-1"), "--apple-latency"),
        (("--client", "wget"), "--client"),
        (("--plot", "bench.gif"), ".png, .svg, .html"),
        (("--plot", "bench"), ".png, .svg, .html"),
        (("--plot", "missing/bench.png"), "can't be written"),
        (("--json", "missing/bench.json"), "can't be written"),
        (("--json", "."), "can't be written"),
        (("--messages", "1000000", "--receipt-bytes", "500000"), "fewer --messages"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_is_told_before_anything_is_measured(cli: Cli, flags: tuple[str, ...], wanted: str) -> None:
    """With what was wrong, and code 2."""
    ended = cli("bench", "--no-tls", *flags)
    assert (ended.code, ended.out) == (2, "")
    assert wanted in ended.err


@pytest.mark.parametrize(
    ("module", "flags"), [("psutil", ()), ("cryptography", ()), ("matplotlib", ("--plot", "bench.svg"))]
)
def test_a_missing_package_is_told_with_the_extra(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, module: str, flags: tuple[str, ...]
) -> None:
    """In one line that can be copied."""
    monkeypatch.setitem(sys.modules, module, None)
    ended = cli("bench", *flags)
    assert (ended.code, ended.out) == (2, "")
    (line,) = ended.err.splitlines()
    assert module in line
    assert 'pip install "receipt-actors[bench]"' in line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_benchmark_leaves_no_process_behind(processes: Processes, number: signal.Signals) -> None:
    """Neither services nor the program, which is in a session of its own."""
    bench = processes.start("bench", "--messages", "10", "--no-tls", "--rate", "0.1")
    watched = psutil.Process(bench.pid)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not any("start" in child.cmdline() for child in watched.children(recursive=True)):
        assert bench.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)  # another process cannot set an event of ours
    children = watched.children(recursive=True)
    assert len(children) >= 3
    bench.send_signal(number)
    out, _ = bench.communicate(timeout=PATIENCE_SECONDS)
    assert (bench.returncode, out) == (130, "")
    assert not any(child.is_running() for child in children)
