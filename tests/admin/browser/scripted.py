"""A system whose overviews are scripted: what the page is shown in tests and pictures, without a system that runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from receipt_actors.domain.messages import Verdict
from receipt_actors.domain.reasons import Reason
from receipt_actors.telemetry.overview import (
    ActorOverview,
    Incident,
    NodeOverview,
    NodeState,
    Overview,
    ProcessOverview,
    RoleOverview,
    ServiceOverview,
    State,
    Usage,
    state_of,
)
from receipt_actors.telemetry.statistics import Latencies, ServiceCalls, StatisticsSnapshot
from tests.stand_in_system import StandInSystem, supervisor, worker

EPOCH_SECONDS = 1_790_000_000.0
A_SECOND = 120  #: messages, of each process
STEPS = {"verifying": 0.11, "claiming": 0.012, "replying": 0.009, "deleting": 0.006}


def tree(done: int, mailbox: int = 0, restarts: int = 0) -> ActorOverview:
    """Make a tree like the real one, after so many messages."""
    validators = [worker(f"validator {number}", number % 4) for number in range(done % 50, done % 50 + 8)]
    custody = (
        worker("intake", done * 2),
        worker("visibility_batcher", done // 40),
        worker("visibility_keeper", done * 2),
    )
    gateways = worker("app_store_gateway", done * 3), worker("ledger_gateway", done * 2, mailbox, restarts)
    results = supervisor("result_batchers", "simple_one_for_one", worker("result_batcher ResultsSQS", done))
    consumers = (worker(f"consumer-{number}", done // 40) for number in range(1, 5))
    pipeline = supervisor(
        "pipeline",
        "rest_for_one",
        supervisor("custody", "one_for_one", *custody),
        supervisor("gateways", "one_for_one", *gateways),
        supervisor("batchers", "one_for_one", worker("delete_batcher", done), results),
        supervisor("movers", "simple_one_for_one"),
        supervisor("validators", "simple_one_for_one", *validators, unlisted=37),
        supervisor("consumers", "one_for_one", *consumers),
    )
    telemetry = supervisor("telemetry", "one_for_one", worker("statistics", done * 4), worker("incidents", 3))
    return supervisor("root", "one_for_one", telemetry, pipeline)


def latencies(seconds: float, count: int) -> Latencies:
    made = Latencies()
    for number in range(max(count, 1)):
        made.record(seconds * math.exp(((number * 7919) % 1000 / 1000 - 0.4) * 1.3))
    return made


def node(name: str, state: NodeState, ledger: int = 0, token: int | None = None, heard: float = 0.4) -> NodeOverview:
    share = {"max_in_flight": 2000, "ledger_concurrency": ledger, "app_store_concurrency": 200} if ledger else None
    return NodeOverview(name, state, token, share, 1, heard)


def role(state: NodeState, *nodes: NodeOverview, name: str = "load-balanced") -> RoleOverview:
    held = None if state is NodeState.CUT_OFF else 7.3
    whole = {"max_in_flight": 4000, "ledger_concurrency": 50, "app_store_concurrency": 400}
    return RoleOverview(name, "ReceiptsSQS", nodes[0].name, state, 10.0, held, whole, nodes)


class ScriptedSystem(StandInSystem):
    """Every look moves ``second`` on; change the fields as you like."""

    def __init__(self, second: float = 100.0) -> None:
        super().__init__(self._look)
        self.second = second
        self.processes = 1
        self.state = State.CONSUMING
        self.starting: tuple[str, ...] = ()  #: names of processes of which nothing is known yet
        self.unavailable: tuple[str, ...] = ()
        self.mailbox = 0  #: of the ledger gateway
        self.restarts = 0  #: likewise
        self.incidents: tuple[Incident, ...] = ()
        self.queues: Mapping[str, int | None] | None = None
        self.extra_actors: Sequence[ActorOverview] = ()
        self.version = "0.1.0"
        self.role: RoleOverview | None = None  #: None: it is alone

    def pause(self) -> None:
        self.state = State.PAUSED

    def resume(self) -> None:
        self.state = State.CONSUMING

    def _look(self, _number: int) -> Overview:
        self.second += 1.0
        names = ["main"] if self.processes == 1 else [f"worker-{number}" for number in range(1, self.processes + 1)]
        processes = tuple(self._process(name, 4200 + index) for index, name in enumerate(names))
        statistics = StatisticsSnapshot()
        for process in processes:
            statistics = statistics.merged(process.statistics)
        several = self.processes > 1
        workers = supervisor("workers", "one_for_one", *(worker(name, int(self.second)) for name in names))
        return Overview(
            at_seconds=EPOCH_SECONDS + self.second,
            version=self.version,
            state=state_of(processes),
            source_queues=("ReceiptsSQS",),
            queues=self.queues
            or {"ReceiptsSQS": int(900 + 700 * math.sin(self.second / 90)), "ResultsSQS": 12, "ReceiptsSQSDLQ": 3},
            processes=processes,
            statistics=statistics,
            incidents=self.incidents,
            parent=supervisor("root", "one_for_one", worker("collector", 40), workers) if several else None,
            role=self.role,
            parent_usage=Usage(1.4 + self.second / 200, 61 << 20, 9, 31) if several else None,
        )

    def _process(self, name: str, pid: int) -> ProcessOverview:
        done = int(A_SECOND * self.second)
        root = tree(done, self.mailbox, self.restarts)
        services = ("app_store", "ledger", "receive from ReceiptsSQS", "send to ResultsSQS", "delete from ReceiptsSQS")
        return ProcessOverview(
            name=name,
            pid=pid,
            started_at_seconds=0.0 if name in self.starting else EPOCH_SECONDS - 11_000,
            state=State.STARTING if name in self.starting else State.WAITING if self.unavailable else self.state,
            in_flight=int(45 + 12 * math.sin(self.second / 17)),
            reserved=20,
            unavailable=self.unavailable,
            usage=Usage(0.34 * self.second + 4, (84 << 20) + int(self.second) * 1024, 14, 48),
            services=tuple(
                ServiceOverview(service, False, 2, 3, 4, EPOCH_SECONDS + 80)
                if service in self.unavailable
                else ServiceOverview(service, True, 2, 3, 4)
                for service in services
            ),
            tree=replace(root, children=(*root.children, *self.extra_actors)),
            statistics=StatisticsSnapshot(
                received=done + 45,
                results={
                    (Verdict.OK, Reason.CLAIMED): done * 8 // 10,
                    (Verdict.INVALID, Reason.CLAIMED_BY_ANOTHER_USER): done // 10,
                },
                fates={("answered", None): done, ("handed_back", Reason.GAVE_UP_FOR_NOW): done // 400},
                latencies=latencies(0.14, done // 20),
                steps={step: latencies(seconds, done // 20) for step, seconds in STEPS.items()},
                calls={service: ServiceCalls(done // 10, done) for service in services},
            ),
        )


def incidents() -> tuple[Incident, ...]:
    at = EPOCH_SECONDS + 100
    outage = ("12 requests of 9 messages failed in a row", "the gate is closed; 48 messages in flight are kept")
    crash = ("in state verifying, handling ReceiptVerified", "KeyError: 'in_app'", "handed back for 30 s; delivery 2")
    unknown = ('{"status": 21199}',)
    return (
        Incident(at - 8, "recovered", "the ledger answers again after 42 s", ("closed at 04:11:09",)),
        Incident(at - 50, "outage", "the ledger is unavailable: EndpointConnectionError", outage, process="worker-2"),
        Incident(at - 190, "crash", "validator crashed: KeyError('in_app')", crash, "9f6d3c1e-5a0b", 17, "worker-1"),
        Incident(at - 700, "unknown_answer", "Apple answered status 21199 with HTTP 200", unknown, "77f0", 412),
    )
