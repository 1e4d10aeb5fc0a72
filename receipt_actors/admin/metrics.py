"""The metrics: what an overview says, in Prometheus' words.

They are made from one overview at each scrape, so they are right for several processes, and nothing is kept here.
Counters without the label ``process`` are of all processes, those that have ended included; with it they begin anew
when that process, or that actor, does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector, CollectorRegistry

from receipt_actors.telemetry.incidents import IncidentKind
from receipt_actors.telemetry.overview import (
    ActorOverview,
    NodeOverview,
    NodeState,
    Overview,
    ProcessOverview,
    RoleOverview,
    ServiceOverview,
    State,
    Usage,
)
from receipt_actors.telemetry.statistics import Latencies

PREFIX = "receipt_actors_"
BUCKET_SECONDS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0),
)
PARENT = "parent"  #: label ``process`` of the parent of several

_MANY = "simple_one_for_one"  # the strategy of supervisors whose children are one for each message

Row = tuple[Sequence[str], float | Latencies]  #: values of the labels, and what was measured


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: how it is told, and how its values are read from an overview."""

    name: str  #: without the prefix; as Prometheus stores it, but for ``_bucket``, ``_sum`` and ``_count``
    kind: str  #: ``counter``, ``gauge``, ``histogram`` or ``info``
    text: str
    rows: Callable[[Overview], Iterable[Row]] = field(repr=False)
    labels: tuple[str, ...] = ()

    @property
    def full_name(self) -> str:
        """The name with its prefix."""
        return PREFIX + self.name

    def family(self, overview: Overview) -> Family:
        """Return its values in the words of ``prometheus_client``."""
        match self.kind:
            case "counter":
                return self._simple(CounterMetricFamily(self.full_name, self.text, labels=self.labels), overview)
            case "gauge":
                return self._simple(GaugeMetricFamily(self.full_name, self.text, labels=self.labels), overview)
            case "info":
                info = InfoMetricFamily(self.full_name.removesuffix("_info"), self.text)
                for values, _ in self.rows(overview):
                    info.add_metric([], dict(zip(self.labels, values, strict=True)))
                return info
        histogram = HistogramMetricFamily(self.full_name, self.text, labels=self.labels)
        for values, latencies in self.rows(overview):
            assert isinstance(latencies, Latencies)
            counts = [*latencies.counts_up_to(BUCKET_SECONDS), latencies.count]
            bounds = [*map(str, BUCKET_SECONDS), "+Inf"]
            histogram.add_metric(values, list(zip(bounds, counts, strict=True)), latencies.sum_seconds)
        return histogram

    def _simple(self, family: CounterMetricFamily | GaugeMetricFamily, overview: Overview) -> Family:
        for values, value in self.rows(overview):
            assert not isinstance(value, Latencies)
            family.add_metric(values, value)
        return family


def _of_process(name: str, kind: str, text: str, read: Callable[[ProcessOverview], float]) -> Metric:
    def rows(overview: Overview) -> Iterator[Row]:
        return (((process.name,), read(process)) for process in _known(overview))

    return Metric(name, kind, text, rows, ("process",))


def _of_service(name: str, kind: str, text: str, read: Callable[[ServiceOverview], float]) -> Metric:
    def rows(overview: Overview) -> Iterator[Row]:
        for process in overview.processes:
            yield from (((process.name, service.name), read(service)) for service in process.services)

    return Metric(name, kind, text, rows, ("process", "service"))


def _of_actor(name: str, kind: str, text: str, read: Callable[[ActorOverview], float]) -> Metric:
    def rows(overview: Overview) -> Iterator[Row]:
        for process, root in _roots(overview):
            yield from (((process, actor.name), read(actor)) for actor in _lasting(root))

    return Metric(name, kind, text, rows, ("process", "actor"))


def _of_usage(name: str, kind: str, text: str, read: Callable[[Usage], float]) -> Metric:
    def rows(overview: Overview) -> Iterator[Row]:
        for process in _known(overview):
            yield (process.name,), read(process.usage)
        if overview.parent_usage is not None:
            yield (PARENT,), read(overview.parent_usage)

    return Metric(name, kind, text, rows, ("process",))


def _of_role(name: str, kind: str, text: str, rows: Callable[[RoleOverview], Iterable[Row]], *labels: str) -> Metric:
    return Metric(name, kind, text, lambda o: () if o.role is None else rows(o.role), labels)


def _known(overview: Overview) -> Iterator[ProcessOverview]:
    """Leave out those that have not said anything of themselves yet."""
    return (process for process in overview.processes if process.started_at_seconds)


def _roots(overview: Overview) -> Iterator[tuple[str, ActorOverview]]:
    if overview.parent is not None:
        yield PARENT, overview.parent
    for process in overview.processes:
        if process.tree is not None:
            yield process.name, process.tree


def _lasting(actor: ActorOverview) -> Iterator[ActorOverview]:
    """Walk through all actors but those that come and go with the messages."""
    yield actor
    if actor.strategy != _MANY:
        for child in actor.children:
            yield from _lasting(child)


def _fates(overview: Overview) -> Iterator[Row]:
    for (fate, reason), count in overview.statistics.fates.items():
        yield (fate, "" if reason is None else reason.value), count


def _incidents(overview: Overview) -> Iterator[Row]:
    """Count each kind from the start: ``increase()`` sees no first crash in a series that begins with it."""
    for kind, count in {**dict.fromkeys(map(str, IncidentKind), 0), **overview.statistics.incidents}.items():
        yield (kind,), count


def _availability(overview: Overview) -> Iterator[Row]:
    """Receives have no gateway with a breaker, but may fail as well."""
    receives = [f"receive from {queue}" for queue in overview.source_queues]
    for process in overview.processes:
        if not process.services:
            continue
        available = {receive: receive not in process.unavailable for receive in receives}
        available |= {service.name: service.is_available for service in process.services}
        for service, is_available in available.items():
            yield (process.name, service), float(is_available)


def _nodes(role: RoleOverview) -> Iterator[Row]:
    for node_state in NodeState:
        yield (node_state.value,), sum(node.state is node_state for node in role.nodes)


def _share(role: RoleOverview) -> Iterator[Row]:
    """Of who has none it is nothing of each limit that the whole has."""
    node: NodeOverview | None = role.own
    share = {} if node is None or node.share is None or not role.is_active else node.share
    for limit, value in (role.whole or {}).items():
        if value is not None:
            yield (limit,), share.get(limit) or 0.0


def _results(overview: Overview) -> Iterator[Row]:
    for (verdict, reason), count in overview.statistics.results.items():
        yield (verdict.value, reason.value), count


METRICS: tuple[Metric, ...] = (
    Metric("build_info", "info", "The version of receipt_actors.", lambda o: [((o.version,), 1)], ("version",)),
    Metric(
        "state",
        "gauge",
        "1 for the state that the system is in, 0 for the others.",
        lambda o: [((state.value,), float(state is o.state)) for state in State],
        ("state",),
    ),
    Metric(
        "messages_received_total",
        "counter",
        "Deliveries taken from source queues, redeliveries included.",
        lambda o: [((), o.statistics.received)],
    ),
    Metric(
        "messages_finished_total",
        "counter",
        "Messages that left: answered, moved to the dead-letter queue, handed back or left; and why.",
        _fates,
        ("fate", "reason"),
    ),
    Metric("results_posted_total", "counter", "Answers that a post queue confirmed.", _results, ("verdict", "reason")),
    Metric(
        "message_duration_seconds",
        "histogram",
        "From receive to delete, of messages that were answered or moved.",
        lambda o: [((), o.statistics.latencies)],
    ),
    Metric(
        "step_duration_seconds",
        "histogram",
        "Of that, the time in each step.",
        lambda o: [((step,), latencies) for step, latencies in o.statistics.steps.items()],
        ("step",),
    ),
    Metric(
        "service_requests_total",
        "counter",
        "Requests that a service answered.",
        lambda o: [((service,), calls.requests) for service, calls in o.statistics.calls.items()],
        ("service",),
    ),
    Metric(
        "service_entries_total",
        "counter",
        "Messages, claims or deletes that were in these requests: divided by them, how full batches are.",
        lambda o: [((service,), calls.entries) for service, calls in o.statistics.calls.items()],
        ("service",),
    ),
    _of_service(
        "service_retries_total", "counter", "Requests to a service that were sent again.", lambda each: each.retries
    ),
    Metric(
        "service_available",
        "gauge",
        "1 while a service is available, 0 while its breaker is open, or receives fail.",
        _availability,
        ("process", "service"),
    ),
    _of_service(
        "service_requests_waiting",
        "gauge",
        "Requests that wait to be sent, or for their pause to be over.",
        lambda service: service.waiting,
    ),
    _of_service(
        "service_requests_under_way",
        "gauge",
        "Requests that were sent and not answered yet.",
        lambda service: service.under_way,
    ),
    _of_process(
        "messages_in_flight", "gauge", "Messages taken in and not finished yet.", lambda process: process.in_flight
    ),
    _of_process(
        "credits_reserved", "gauge", "Messages that receives under way may bring.", lambda process: process.reserved
    ),
    Metric(
        "queue_messages",
        "gauge",
        "Approximate number of messages on a queue; left out while it is not known.",
        lambda o: [((queue,), depth) for queue, depth in o.queues.items() if depth is not None],
        ("queue",),
    ),
    _of_actor(
        "actor_mailbox_messages",
        "gauge",
        "Messages in the mailbox of a lasting actor.",
        lambda actor: actor.mailbox_length,
    ),
    _of_actor(
        "actor_messages_total",
        "counter",
        "Messages that a lasting actor has handled since it was started.",
        lambda actor: actor.messages,
    ),
    _of_actor(
        "actor_restarts_total",
        "counter",
        "Restarts of a lasting actor since its process was started.",
        lambda actor: actor.restarts,
    ),
    Metric("incidents_total", "counter", "What an operator may want to know of, by kind.", _incidents, ("kind",)),
    _of_role(
        "role_info",
        "info",
        "How this node shares the work with others. If it is alone there is none of these.",
        lambda role: [((role.role, role.group, role.node), 1)],
        *("role", "group", "node"),
    ),
    _of_role(
        "role_active",
        "gauge",
        "1 while this node may take messages in: it is active, has a share, and holds its lease.",
        lambda role: [((), float(role.is_active))],
    ),
    _of_role(
        "role_state",
        "gauge",
        "1 for what this node does of its group's work, 0 for the others.",
        lambda role: [((node_state.value,), float(node_state is role.state)) for node_state in NodeState],
        "state",
    ),
    _of_role("role_nodes", "gauge", "Nodes of the group by state, as this one knows them.", _nodes, "state"),
    _of_role("role_share", "gauge", "How much of a limit this node may use.", _share, "limit"),
    _of_role(
        "role_whole",
        "gauge",
        "How much of a limit all nodes may use together.",
        lambda role: [((name,), value) for name, value in (role.whole or {}).items() if value is not None],
        "limit",
    ),
    _of_role(
        "role_lease_held_seconds",
        "gauge",
        "For how long this node may go on without another renewal; 0: its lease is over.",
        lambda role: [((), role.held_for_seconds or 0.0)],
    ),
    _of_role(
        "role_token",
        "gauge",
        "Token of this node; the next active node has a higher one. Left out if the node is not active.",
        lambda role: [((), node.token)] if (node := role.own) and node.token is not None else [],
    ),
    _of_usage(
        "process_cpu_seconds_total",
        "counter",
        "Processor time that a process has taken.",
        lambda usage: usage.cpu_seconds,
    ),
    _of_usage("process_resident_memory_bytes", "gauge", "Memory that a process has.", lambda usage: usage.memory_bytes),
    _of_usage("process_threads", "gauge", "Threads of a process.", lambda usage: usage.threads),
    _of_usage(
        "process_open_fds", "gauge", "Files and sockets that a process has open.", lambda usage: usage.open_files
    ),
    _of_process(
        "process_start_time_seconds",
        "gauge",
        "When a process was started, as UNIX time.",
        lambda process: process.started_at_seconds,
    ),
)


class _OverviewCollector(Collector):
    def __init__(self, overview: Overview) -> None:
        self._overview = overview

    def collect(self) -> Iterable[Family]:
        return [metric.family(self._overview) for metric in METRICS]


def exposition(overview: Overview, accept: str) -> tuple[bytes, str]:
    """Write the metrics in the format that a scraper accepts; return them and their content type."""
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # a version that is none
        encode, content_type = choose_encoder("")
    registry = CollectorRegistry()
    registry.register(_OverviewCollector(overview))
    return encode(registry), content_type
