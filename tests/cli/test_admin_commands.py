"""What the commands that look at a running system print: the real admin port in front of a stand-in."""

from __future__ import annotations

import codecs
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import replace

import pytest

from receipt_actors.admin.server import AdminServer
from receipt_actors.domain.addresses import Address
from receipt_actors.telemetry.control import TraceRequest
from receipt_actors.telemetry.overview import (
    Incident,
    NodeOverview,
    NodeState,
    Overview,
    RoleOverview,
    ServiceOverview,
    State,
)
from tests.patience import PATIENCE_SECONDS
from tests.stand_in_system import HOSTILE, StandInSystem, overview_of, process_of, supervisor, worker

from .conftest import ROOT, Ended, Processes

Cli = Callable[..., Ended]
Listen = Callable[[StandInSystem], str]
TOKEN = "a-token-of-sixteen"


@pytest.fixture
def system() -> StandInSystem:
    system = StandInSystem()
    system.states = {"intake": {"in_flight": 21}}
    system.end_reason = "limit"
    return system


@pytest.fixture
def listen() -> Iterator[Listen]:
    """Start the admin port of a system, which is looked at from now on; its address."""
    with ExitStack() as servers:

        def start(system: StandInSystem) -> str:
            server = servers.enter_context(AdminServer(Address("127.0.0.1", 0)))
            server.serve(system)
            return str(server.address)

        yield start


@pytest.fixture
def admin(system: StandInSystem, listen: Listen) -> str:
    return listen(system)


def role_of(state: NodeState) -> RoleOverview:
    """Describe a group of three, of which ``node-a`` is asked."""
    share = {"ledger_concurrency": 30, "app_store_rate_per_second": 7.5, "max_in_flight": 2000}
    whole = {"ledger_concurrency": 50, "app_store_rate_per_second": 12.5, "max_in_flight": 4000}
    is_active = state is NodeState.ACTIVE
    nodes = (
        NodeOverview("node-a", state, 4 if is_active else None, share if is_active else None, 1, 0.0),
        NodeOverview("node-b", NodeState.ACTIVE, 7, {**share, "ledger_concurrency": 20}, 1, 0.4),
        NodeOverview("node-c", NodeState.STANDBY, None, None, 2, 7.2),
    )
    return RoleOverview("load-balanced", "Q", "node-a", state, 10.0, 8.25 if is_active else None, whole, nodes)


class TestStatus:
    def test_a_system_that_consumes(self, cli: Cli, admin: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RECEIPT_ACTORS_ADMIN", admin)
        ended = cli("status")
        assert (ended.code, ended.err) == (0, "")
        first, *others = ended.out.splitlines()
        assert first == "consuming: healthy, ready"
        text = "\n".join(others)
        for words in (
            "takes from ReceiptsSQS; on queues: ReceiptsSQS 1,234, ReceiptsSQSDLQ ?",
            "1 process, up for ",
            "21 in flight",
            "handed back 3, moved 2",
            "intake crashed while handling Tick: KeyError (3 times)",
        ):
            assert words in text
        assert cli("status", "--quiet") == Ended(0, "", "")
        (data,) = cli("status", "--json").lines
        assert (data["healthy"], data["ready"], data["why"]) == (True, True, [])
        assert Overview.from_json(data["overview"]).source_queues == ("ReceiptsSQS",)
        assert cli("status", "-q", "--admin", "127.0.0.1:1") == Ended(3, "", "")  # the flag beats the environment

    def test_a_dead_letter_does_not_hide_a_crash(self, cli: Cli, system: StandInSystem, listen: Listen) -> None:
        moved = Incident(1_000_000.0, "moved", "a message was moved to the dead-letter queue, bad_receipt", count=7)
        handed_back = Incident(999_999.5, "handed_back", "a message is handed back, gave_up_for_now")
        killed = Incident(999_999.0, "restart", "worker-2 ended: killed by SIGKILL")
        incidents = (moved, handed_back, killed, replace(killed, summary="long ago"))
        system.overview_at = lambda look: overview_of(look, incidents=incidents)
        first, second = cli("status", "--admin", listen(system)).out.splitlines()[-2:]
        assert first.startswith("last incident of a message at ") and first.endswith(f"{moved.summary} (7 times)")
        assert second.startswith("last incident at ") and second.endswith(killed.summary)

    @pytest.mark.parametrize(
        ("state", "verdict", "code"),
        [
            (State.WAITING, "healthy, ready", 0),
            (State.STANDBY, "healthy, ready", 0),
            (State.PAUSED, "healthy, not ready", 1),
            (State.ENDED, "NOT HEALTHY, not ready", 1),
        ],
    )
    def test_the_code_says_whether_it_is_healthy_and_ready(
        self, cli: Cli, system: StandInSystem, listen: Listen, state: State, verdict: str, code: int
    ) -> None:
        system.overview_at = lambda look: overview_of(look, state=state)
        admin = listen(system)
        ended = cli("status", "--admin", admin)
        assert ended.code == code
        assert ended.out.splitlines()[0].startswith(f"{state}: {verdict}")
        assert cli("status", "-q", "--admin", admin) == Ended(code, "", "")
        assert cli("status", "--alive", "--admin", admin).code == (1 if state is State.ENDED else 0)

    def test_who_shares_the_work_has_a_line_each(self, cli: Cli, system: StandInSystem, listen: Listen) -> None:
        system.overview_at = lambda look: overview_of(look, role=role_of(NodeState.ACTIVE))
        lines = cli("status", "--admin", listen(system)).out.splitlines()
        begin = lines.index("load-balanced in group Q: active, token 4, its lease held for 8.2 s")
        assert lines[begin + 1 : begin + 4] == [
            "  node-a: this node; 30 of 50 requests to the ledger, 7.5 of 12.5 requests to Apple a second",
            "  node-b: active, token 7; 20 of 50 requests to the ledger, 7.5 of 12.5 requests to Apple a second",
            "  node-c: standby; not heard of for 7 s",
        ]
        system.overview_at = lambda look: overview_of(look, role=role_of(NodeState.CUT_OFF))
        assert "load-balanced in group Q: cut off, its lease is over" in cli("status", "--admin", listen(system)).out

    @pytest.mark.parametrize(("old", "said"), [(1, "2 processes, up for 10 min"), (0, "2 processes, 42 in flight")])
    def test_how_long_it_is_up_is_said_by_processes_that_have_started(
        self, cli: Cli, system: StandInSystem, listen: Listen, old: int, said: str
    ) -> None:
        new = process_of(600, "worker-2", State.STARTING, started_at_seconds=0.0, tree=None)
        processes = (process_of(600, "worker-1") if old else new, new)
        system.overview_at = lambda _: replace(overview_of(600, state=State.STARTING), processes=processes)
        assert said in cli("status", "--admin", listen(system)).out

    def test_quiet_needs_no_token_and_everything_else_does(
        self, cli: Cli, system: StandInSystem, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with AdminServer(Address("127.0.0.1", 0), TOKEN) as server:
            server.serve(system)
            address = str(server.address)
            assert cli("status", "--quiet", "--admin", address) == Ended(0, "", "")
            assert cli("status", "--admin", address).code == 2
            assert cli("pause", "--admin", address).code == 2
            monkeypatch.setenv("RECEIPT_ACTORS_ADMIN_TOKEN", TOKEN)
            assert cli("status", "--admin", address).code == 0
            monkeypatch.delenv("RECEIPT_ACTORS_ADMIN_TOKEN")
            with open("token", "w") as file:
                file.write(f"{TOKEN}\n")
            assert cli("status", "--admin", address, "--token-file", "token").code == 0
            assert system.told == []

    @pytest.mark.parametrize(
        "flags",
        [("--tree", "--live"), ("--actor", "intake", "--tree"), ("--live", "-q"), ("--interval=2",)],
    )
    def test_views_exclude_each_other(self, cli: Cli, flags: tuple[str, ...]) -> None:
        assert cli("status", *flags, "--admin", "127.0.0.1:1").code == 2


class TestTree:
    def test_a_line_for_each_actor_below_its_supervisor(self, cli: Cli, system: StandInSystem, listen: Listen) -> None:
        system.overview_at = lambda _look: overview_of(2)
        admin = listen(system)
        lines = cli("status", "--tree", "--admin", admin).out.splitlines()
        assert [re.split(r"\s{2,}", line.rstrip()) for line in lines[:2]] == [
            ["ACTOR", "STATE", "MAILBOX", "MESSAGES", "RESTARTS"],
            ["root (one_for_one)", "running", "0", "0", "0"],
        ]
        assert len({len(line) for line in lines[:-1]}) == 1
        assert [re.sub(r"(?<=\S) +", " ", line) for line in lines[2:]] == [
            "  pipeline (rest_for_one) running 0 0 0",
            "    intake running 0 1,800 0",
            "    result_batcher ResultsSQS running 2 100 1",
            "    validators (simple_one_for_one) running 0 0 0",
            "      and 7 more",
        ]

    def test_several_processes_have_a_tree_each(self, cli: Cli, system: StandInSystem, listen: Listen) -> None:

        both = process_of(2, "worker-1"), process_of(2, "worker-2", tree=None)
        system.overview_at = lambda look: replace(overview_of(look, processes=2), processes=both)
        admin = listen(system)
        lines = cli("status", "--tree", "--admin", admin).out.splitlines()
        names = [line.split()[0] for line in lines if not line.startswith((" ", "ACTOR", "root"))]
        assert names == ["parent", "worker-1", "worker-2"]
        assert lines[-1].split() == ["worker-2", "no", "tree"]
        (data,) = cli("status", "--tree", "--json", "--admin", admin).lines
        assert list(data) == ["parent", "worker-1", "worker-2"]
        assert data["worker-1"]["children"][0]["name"] == "pipeline"
        assert data["worker-2"] is None

    def test_a_terminal_that_knows_ascii_only(
        self, processes: Processes, system: StandInSystem, listen: Listen
    ) -> None:
        tree = supervisor("root", "one_for_one", worker("Größe"))
        system.overview_at = lambda look: replace(overview_of(look), processes=(process_of(look, tree=tree),))
        environment = {"PYTHONIOENCODING": "ascii"}
        process = processes.start("status", "--tree", "--admin", listen(system), environment=environment)
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
        assert (process.returncode, err) == (0, "")
        assert out.splitlines()[-1].startswith("  Gr\\xf6\\xdfe ")


def test_an_actors_state_is_json_and_a_wrong_name_is_told_with_advice(
    cli: Cli, system: StandInSystem, admin: str
) -> None:
    system.states["odd/name ?#% é"] = {"n": [1]}
    assert json.loads(cli("status", "--actor", "intake", "--admin", admin).out) == {"in_flight": 21}
    assert json.loads(cli("status", "--actor", "odd/name ?#% é", "--admin", admin).out) == {"n": [1]}
    for name, advice in (
        ("intakes", "did you mean 'intake'?"),
        ("ResultsSQS", "did you mean 'result_batcher ResultsSQS'?"),
        ("zzz", "receipt-actors status --tree shows all there are"),
    ):
        said = f"receipt-actors: no actor is called {name!r}; {advice}\n"
        assert cli("status", "--actor", name, "--admin", admin) == Ended(1, "", said)


def test_pause_and_resume(cli: Cli, system: StandInSystem, admin: str) -> None:
    assert cli("pause", "--admin", admin).out.startswith("paused: ")
    assert cli("resume", "--admin", admin).out == "resumed\n"
    assert system.told == ["pause", "resume"]


@pytest.mark.parametrize("command", [("status",), ("trace",)])
def test_output_without_a_reader(
    processes: Processes, system: StandInSystem, admin: str, command: tuple[str, ...]
) -> None:
    system.events = [EVENT]
    assert processes.run_without_reader(*command, "--admin", admin) == Ended(1, "", "")


EVENT = {"at_seconds": 1e6 + 0.25, "process": "main", "event": "claim", "user_id": 42, "detail": "two words", "x": None}


class TestTrace:
    def test_each_event_is_a_line_and_the_end_goes_to_stderr(self, cli: Cli, system: StandInSystem, admin: str) -> None:
        system.events = [EVENT, {"event": "moved"}]
        filters = ("--event", "claim", "--event=moved", "--user", "42", "--slower-than", "2")
        ended = cli("trace", *filters, "--limit", "3", "--seconds", "7", "--admin", admin)
        assert ended.code == 0
        first, second = ended.out.splitlines()
        assert re.fullmatch(r'\d\d:\d\d:\d\d\.250 main claim user_id=42 detail="two words" x=null', first)
        assert second == "moved"
        assert ended.err == "receipt-actors: 2 events: the limit is reached\n"
        (trace,) = system.traces
        filters = {"event": ["claim", "moved"], "user_id": ["42"], "slower_than": ["2.0"]}
        assert trace.request == TraceRequest(filters, 3, 7.0)

        assert cli("trace", "--json", "--admin", admin).lines == system.events

    def test_filters_and_bounds_that_cannot_be_are_wrong_usage(self, cli: Cli, admin: str) -> None:
        said = "receipt-actors: no event is called nonsense\n"
        assert cli("trace", "--event", "nonsense", "--admin", admin) == Ended(2, "", said)
        ended = cli("trace", "--seconds", "1e9", "--admin", admin)
        assert (ended.code, ended.out) == (2, "")
        assert "seconds: expected more than 0, and 3,600 at most" in ended.err

    def test_ctrl_c_ends_the_trace(self, processes: Processes, system: StandInSystem, admin: str) -> None:
        system.events, system.end_reason = [EVENT], None
        process = processes.start("trace", "--seconds", "60", "--admin", admin)
        assert process.stdout is not None
        assert "user_id=42" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE_SECONDS)
        assert (process.returncode, err) == (130, "receipt-actors: 1 event: interrupted\n")
        (trace,) = system.traces
        assert trace.stopped.wait(PATIENCE_SECONDS)


class TestLiveOnPaper:
    def test_without_a_terminal_it_prints_a_picture_of_all_that_matters(self, cli: Cli, admin: str) -> None:
        ended = cli("status", "--live", "--interval", "1.1", "--admin", admin)
        assert (ended.code, ended.err) == (0, "")
        assert all(line.isprintable() for line in ended.out.splitlines())
        lines = [" ".join(line.split()) for line in ended.out.splitlines()]
        assert lines[0].startswith("consuming ")
        assert lines[1] == "takes from ReceiptsSQS; on queues: ReceiptsSQS 1,234, ReceiptsSQSDLQ ?"
        assert any(re.match(r"received 110 [\d,]+ receive to delete 2\d\d ms", line) for line in lines)
        assert any(re.match(r"answered 100 [\d,]+ verifying 2\d\d ms", line) for line in lines)
        assert "app_store available 4 9 5" in lines
        assert "main consuming 4000 21 50% 123.0 MB" in lines
        busiest = lines[lines.index("busiest actor process messages/s mailbox restarts") + 1 :]
        assert busiest[:2] == ["intake main 900 0 0", "result_batcher ResultsSQS main 50 2 1"]
        assert any(line.endswith("intake crashed while handling Tick: KeyError (3 times)") for line in lines)

    def test_an_outage_is_seen(self, cli: Cli, system: StandInSystem, listen: Listen) -> None:
        service = ServiceOverview("ledger", False, 70, 0, 5, 999_940.0)
        first = process_of(60, "worker-1", unavailable=("ledger",), services=(service,))
        second = process_of(60, "worker-2", services=(replace(service, is_available=True, waiting=0),))
        system.overview_at = lambda _: replace(overview_of(60, state=State.WAITING), processes=(first, second))
        command = ("status", "--live", "--interval", "0.2", "--admin", listen(system))
        out = " ".join(cli(*command).out.split())
        assert "unavailable: ledger" in out
        assert "ledger unavailable for 2 min in 1 of 2 processes 70 0 10" in out


class Terminal:
    """A pseudo-terminal in front of a command."""

    def __init__(self, *arguments: str, columns: int = 120, lines: int = 40) -> None:
        ours, theirs = pty.openpty()
        self._ours = ours
        self.shown = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "receipt_actors", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={
                **{"PATH": os.defpath, "PYTHONPATH": str(ROOT), "TERM": "xterm"},
                **{"COLUMNS": str(columns), "LINES": str(lines)},
            },
        )
        os.close(theirs)

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while text not in self.shown:
            readable, _, _ = select.select([self._ours], [], [], deadline - time.monotonic())
            assert readable, f"{text!r} was never shown:\n{self.shown}"
            self.shown += self._decoder.decode(os.read(self._ours, 65536))

    def press(self, key: str) -> None:
        os.write(self._ours, key.encode())

    def wait_for_end(self) -> int:
        with suppress(OSError):  # Linux's way to say that the other side is closed
            while data := os.read(self._ours, 65536):
                self.shown += self._decoder.decode(data)
        return self.process.wait(PATIENCE_SECONDS)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._ours)


class TestLive:
    def test_keys_pause_and_resume_and_quit(self, system: StandInSystem, listen: Listen) -> None:
        state = State.CONSUMING
        system.overview_at = lambda look: overview_of(look, state=state)
        admin = listen(system)
        with closing(Terminal("status", "--live", "--interval", "0.2", "--admin", admin)) as terminal:
            terminal.wait_for("q: quit")
            terminal.press("p")
            deadline = time.monotonic() + PATIENCE_SECONDS
            while system.told != ["pause"]:
                assert time.monotonic() < deadline
            state = State.PAUSED
            terminal.wait_for("paused")
            terminal.press("p")
            while system.told != ["pause", "resume"]:
                assert time.monotonic() < deadline
            terminal.press("q")
            assert terminal.wait_for_end() == 0
            assert "\x1b[?1049l" in terminal.shown

    def test_a_narrow_terminal_shows_every_number(self, system: StandInSystem, listen: Listen) -> None:
        system.overview_at = lambda look: overview_of(1234, processes=2, role=role_of(NodeState.ACTIVE))
        arguments = ("status", "--live", "--interval", "0.2", "--admin", listen(system))
        with closing(Terminal(*arguments, columns=48, lines=60)) as terminal:
            terminal.wait_for("busie")
            terminal.wait_for("result_")
            terminal.process.terminate()
            assert terminal.wait_for_end() == 128 + signal.SIGTERM
            assert "\x1b[?25h\x1b[?1049l" in terminal.shown
        lines = [" ".join(re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", line).split()) for line in terminal.shown.splitlines()]
        assert "received - 135,740" in lines
        assert any(re.fullmatch(r"receive to \S+ - - -", line) for line in lines)
        assert any(re.fullmatch(r"work\S+ \S+ 4000 21 - 123\.0 MB", line) for line in lines)
        assert all(len(line) <= 48 for line in lines)

    def test_it_outlives_the_server(self, system: StandInSystem) -> None:
        """What was seen last stays, with what is wrong above it, on a terminal that has no room for all."""
        with AdminServer(Address("127.0.0.1", 0)) as server, ExitStack() as stack:
            server.serve(system)
            terminal = stack.enter_context(
                closing(Terminal("status", "--live", "--interval", "0.2", "--admin", str(server.address), lines=12))
            )
            terminal.wait_for("q: quit")
            server.stop()
            terminal.wait_for("nobody answers")
            terminal.press("q")
            assert terminal.wait_for_end() == 0


@pytest.mark.parametrize(
    "command",
    [
        ("status",),
        ("status", "--tree"),
        ("status", "--live", "--interval", "0.2"),
        ("status", "--actor", "x"),
        ("trace",),
    ],
)
def test_a_terminal_is_never_obeyed_into(
    cli: Cli, system: StandInSystem, listen: Listen, command: tuple[str, ...]
) -> None:
    tree = replace(supervisor(HOSTILE, HOSTILE, worker(f"x{HOSTILE}")), status=HOSTILE)
    services = (ServiceOverview(HOSTILE, True, 0, 0, 0),)
    process = process_of(1, HOSTILE, tree=tree, unavailable=(HOSTILE,), services=services)
    nodes = (NodeOverview(HOSTILE, NodeState.ACTIVE, 1, None, 1, 9.0),)
    system.overview_at = lambda look: replace(
        overview_of(look, version=HOSTILE, source_queues=(HOSTILE,), queues={HOSTILE: 1}),
        processes=(process, replace(process, pid=1)),
        incidents=(Incident(1.0, HOSTILE, HOSTILE, process=HOSTILE),),
        role=replace(role_of(NodeState.ACTIVE), role=HOSTILE, group=HOSTILE, nodes=nodes),
    )
    system.events = [{"event": HOSTILE, HOSTILE: HOSTILE}]
    system.end_reason = HOSTILE
    admin = listen(system)
    ended = cli(*command, "--admin", admin)
    text = ended.out + ended.err
    assert "evil" in text
    assert all(line.isprintable() for line in text.splitlines())
