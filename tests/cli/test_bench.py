"""``receipt-actors bench``: the real program, measured from outside; every answer checked. No figure is judged here."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from receipt_actors.cli.bench import print_report
from receipt_actors.sandbox.bench import BenchFailed, Load, Series, ServiceOptions, Services, run
from tests.patience import PATIENCE_SECONDS

from .conftest import Ended, Processes

Cli = Callable[..., Ended]
QUICK = ("bench", "--no-latency", "--no-tls", "--receipt-bytes", "200")


def read(path: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return content


def test_a_run_is_measured(cli: Cli) -> None:
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
    assert (series["processes"], series["flags"]) == (1, [])
    assert series["client"] in ("curl", "requests")
    from matplotlib import image  # takes half a second to import

    picture = image.imread("bench.png")
    assert (picture[:, [0, -1], :3] == 1).all()  # nothing is cut off at either side


@pytest.mark.slow
def test_the_ways_to_vouch_for_a_receipt_are_measured_beside_each_other(cli: Cli) -> None:
    ways = ["verify-receipt", "storekit2", "server-api"]
    ended = cli("bench", "--no-latency", "--messages", "60", "--receipts", ",".join(ways), "--json", "bench.json")
    assert (ended.code, ended.err) == (0, "")
    series = read("bench.json")["series"]
    assert [each["way"] for each in series] == ways
    assert [each["label"] for each in series] == [f"{way}, all at once" for way in ways]
    assert [bool(each["client"]) for each in series] == [True, False, True]
    asked = [
        {name: count for name, count in each["runs"][0]["requests"].items() if name[0] == "v" or name[0] == "G"}
        for each in series
    ]
    questions = [(each.get("verifyReceipt"), each.get("GetTransactionInfo")) for each in asked]
    assert questions == [(60, None), (0, None), (None, 60)]
    for way in ways:
        assert f"\n{way}: " in ended.out
    unknown = cli("bench", "--receipts", "storekit1")
    assert unknown.code == 2
    assert "'storekit1' is not one of 'verify-receipt', 'storekit2', 'server-api'" in unknown.err


@pytest.mark.slow
def test_messages_come_at_the_rate_that_is_asked_for(cli: Cli) -> None:
    ended = cli(*QUICK, "--messages", "60", "--rate", "60", "--json", "bench.json")
    assert (ended.code, ended.err) == (0, "")
    (series,) = read("bench.json")["series"]
    (run,) = series["runs"]
    assert run["messages"] == 60
    assert run["seconds"] > 0.9
    assert run["requests"]["ReceiveMessage"] > 6


@pytest.mark.slow
def test_wrong_answers_are_told_and_fail_the_benchmark(cli: Cli) -> None:
    ended = cli(*QUICK, "--messages", "20", "--", "--bundle-ids", "com.example.other")
    assert ended.code == 1
    assert "receipts a second" in ended.out
    assert "20 answers or claims were wrong" in ended.err or "40 answers or claims were wrong" in ended.err
    assert "expected {'user_id'" in ended.err


def test_a_program_that_does_not_start_is_told_in_its_own_words() -> None:
    with Services(ServiceOptions(tls=False)) as services, pytest.raises(BenchFailed) as failed:
        run([sys.executable, "-c", "raise SystemExit('not today')"], services)
    assert "ended with code 1 before it asked for messages; its last words:\nnot today" in str(failed.value)


@pytest.mark.parametrize(
    ("flags", "start_flags", "wanted"),
    [
        ((), ("--consumers", "none"), "--consumers: found 'none'"),
        (("--processes", "0"), (), "--processes: found '0'"),
        (("--processes", "4", "--max-in-flight", "2"), (), "--max-in-flight: found '2'"),
        ((), ("--config", "missing.toml"), "--config: found 'missing.toml'"),
        ((), ("--backend", "embedded"), "--backend: found it after --"),
        ((), ("--app-receipts", "server-api"), "--app-receipts: "),
        ((), ("--exit-when-idle", "1"), "--exit-when-idle"),
        ((), ("--config", "idle.toml"), "exit_when_idle_seconds: found it set"),
        (("--processes", "1"), ("--processes", "2"), "--processes: found it after --, and before"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_settings_that_cannot_work_are_told_before_anything_is_started(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], start_flags: tuple[str, ...], wanted: str
) -> None:
    monkeypatch.setattr(Services, "__enter__", None)
    Path("idle.toml").write_text("exit_when_idle_seconds = 1\n")
    ended = cli(*QUICK, "--messages", "1", *flags, "--", *start_flags)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("receipt-actors: ")
    assert wanted in ended.err


@pytest.mark.slow
def test_messages_that_were_delivered_again_spoil_the_figures(capsys: pytest.CaptureFixture[str]) -> None:
    options, load = ServiceOptions(tls=False), Load(30)
    with Services(options) as services:
        services.prepare(load)
        measurement = run([sys.executable, "-m", "receipt_actors", "start", "--backend", "aws"], services)
    print_report([Series("fine", [measurement])], options, load)
    assert "delivered again" not in capsys.readouterr().out
    print_report([Series("spoilt", [replace(measurement, redelivered=3, repeated=2)])], options, load)
    told = " ".join(capsys.readouterr().out.split())
    assert "3 messages were delivered again" in told
    assert "2 answers were repeated" in told


#: Runs the program, which is killed when its first answers are on the post queue, and then runs it again.
KILLED_ONCE = """
import os, subprocess, sys
start = ["start", "--backend", "aws", "--visibility-timeout-seconds", "10"]
crashing = [sys.executable, "-m", "tests.chaos.chaotic_program", *start]
subprocess.run(crashing, env={**os.environ, "CRASH_AT": "send 1 after"})
os.execv(sys.executable, [sys.executable, "-m", "receipt_actors", *start])
"""


@pytest.mark.slow
def test_answers_that_are_repeated_after_a_kill_are_no_fault() -> None:
    with Services(ServiceOptions(tls=False)) as services:
        services.prepare(Load(30))
        measurement = run([sys.executable, "-c", KILLED_ONCE], services)
    assert (measurement.wrong, measurement.wrong_shown) == (0, [])
    assert 1 <= measurement.repeated <= measurement.redelivered


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (("--messages", "0"), "--messages"),
        (("--plot", "bench.gif"), ".png, .svg"),
        (("--plot", "missing/bench.png"), "can't be written"),
        (("--json", "missing/bench.json"), "can't be written"),
        (("--json", "."), "can't be written"),
        (("--apple-latency", "0.1", "--apple-jitter", "5"), "at most --apple-latency"),
        (("--messages", "1000000", "--receipt-bytes", "500000"), "fewer --messages"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, tuple) else "",
)
def test_what_cannot_be_is_told_before_anything_is_measured(cli: Cli, flags: tuple[str, ...], wanted: str) -> None:
    ended = cli("bench", "--no-tls", *flags)
    assert (ended.code, ended.out) == (2, "")
    assert wanted in ended.err


@pytest.mark.parametrize(("module", "flags"), [("psutil", ()), ("matplotlib", ("--plot", "bench.svg"))])
def test_a_missing_package_is_told_with_the_extra(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, module: str, flags: tuple[str, ...]
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    ended = cli("bench", *flags)
    assert (ended.code, ended.out) == (2, "")
    (line,) = ended.err.splitlines()
    assert module in line
    assert 'pip install "receipt-actors[bench]"' in line


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_benchmark_leaves_no_process_behind(processes: Processes, number: signal.Signals) -> None:
    bench = processes.start("bench", "--messages", "10", "--no-tls", "--rate", "0.1")
    watched = psutil.Process(bench.pid)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not any("start" in child.cmdline() for child in watched.children(recursive=True)):
        assert bench.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)  # another process cannot set an event of ours
    children = watched.children(recursive=True)
    (program,) = (child.cmdline() for child in children if "start" in child.cmdline())
    assert program[program.index("--visibility-timeout-seconds") + 1] == "30"  # less than anybody's patience
    assert len(children) >= 3
    bench.send_signal(number)
    out, _ = bench.communicate(timeout=PATIENCE_SECONDS)
    assert (bench.returncode, out) == (130, "")
    _, alive = psutil.wait_procs(children, timeout=PATIENCE_SECONDS)
    assert [child for child in alive if child.status() != psutil.STATUS_ZOMBIE] == []
