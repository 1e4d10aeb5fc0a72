"""The metrics: what an overview says, in Prometheus' words.

They are made from one overview at each scrape, so they are right for several processes, and nothing is kept here.
Counters without the label ``process`` are of all processes, those that have ended included; with it they begin anew
when that process, or that actor, does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from receipt_actors.telemetry.incidents import IncidentKind
from receipt_actors.telemetry.overview import ActorOverview, NodeState, Overview, RoleOverview, State

PREFIX = "receipt_actors_"
BUCKET_SECONDS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0),
)

Rows = Iterable[tuple[Sequence[str], Any]]  #: values of the labels, and a number, latencies, or what has them
METRICS: list[Metric] = []


@dataclass(frozen=True, slots=True)
class Metric:
    name: str  #: without the prefix; as Prometheus stores it, but for ``_bucket``, ``_sum`` and ``_count``
    labels: tuple[str, ...]
    text: str
    attribute: str | None  #: of what the rows have; None: they have the value itself
    rows: Callable[[Any], Rows] = field(repr=False)  #: read from the overview; of ``role_...`` from its role

    @property
    def full_name(self) -> str:
        return PREFIX + self.name

    @property
    def kind(self) -> str:
        """``counter``, ``info``, ``histogram`` or ``gauge``: the name's end says which."""
        endings = {"_total": "counter", "_info": "info", "_duration_seconds": "histogram"}
        return next((kind for ending, kind in endings.items() if self.name.endswith(ending)), "gauge")

    def family(self, overview: Overview) -> Family:
        source = overview.role if self.name.startswith("role_") else overview
        rows = [] if source is None else list(self.rows(source))
        if self.attribute is not None:
            read = attrgetter(self.attribute)
            rows = [(labels, read(value)) for labels, value in rows]
        match self.kind:
            case "info":
                info = InfoMetricFamily(self.full_name.removesuffix("_info"), self.text)
                for values, _ in rows:
                    info.add_metric([], dict(zip(self.labels, values, strict=True)))
                return info
            case "histogram":
                histogram = HistogramMetricFamily(self.full_name, self.text, labels=self.labels)
                bounds = [*map(str, BUCKET_SECONDS), "+Inf"]
                for values, latencies in rows:
                    counts = [*latencies.counts_up_to(BUCKET_SECONDS), latencies.count]
                    histogram.add_metric(values, list(zip(bounds, counts, strict=True)), latencies.sum_seconds)
                return histogram
        plain = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        family = plain(self.full_name, self.text, labels=self.labels)
        for values, value in rows:
            family.add_metric(values, value)
        return family


def _metric(
    name: str, labels: str, text: str, attribute: str | None = None
) -> Callable[[Callable[[Any], Rows]], Callable[[Any], Rows]]:
    """Make a metric of what the decorated function yields."""

    def make(rows: Callable[[Any], Rows]) -> Callable[[Any], Rows]:
        METRICS.append(Metric(name, tuple(labels.split()), text, attribute, rows))
        return rows

    return make


@_metric("build_info", "version", "The version of receipt_actors.")
def _version(overview: Overview) -> Rows:
    return [((overview.version,), 1)]


@_metric("state", "state", "1 for the state that the system is in, 0 for the others.")
def _states(overview: Overview) -> Rows:
    return [((state.value,), float(state is overview.state)) for state in State]


@_metric("messages_received_total", "", "Deliveries taken from source queues, redeliveries included.", "received")
@_metric(
    "message_duration_seconds", "", "From receive to delete, of messages that were answered or moved.", "latencies"
)
def _statistics(overview: Overview) -> Rows:
    return [((), overview.statistics)]


@_metric(
    "messages_finished_total",
    "fate reason",
    "Messages that left: answered, moved to the dead-letter queue, handed back or left; and why.",
)
def _fates(overview: Overview) -> Rows:
    for (fate, reason), count in overview.statistics.fates.items():
        yield (fate, "" if reason is None else reason.value), count


@_metric("results_posted_total", "verdict reason", "Answers that a post queue confirmed.")
def _results(overview: Overview) -> Rows:
    for (verdict, reason), count in overview.statistics.results.items():
        yield (verdict.value, reason.value), count


@_metric("step_duration_seconds", "step", "Of that, the time in each step.")
def _steps(overview: Overview) -> Rows:
    return [((step,), latencies) for step, latencies in overview.statistics.steps.items()]


@_metric("service_requests_total", "service", "Requests that a service answered.", "requests")
@_metric(
    "service_entries_total",
    "service",
    "Messages, claims or deletes that were in these requests: divided by them, how full batches are.",
    "entries",
)
def _calls(overview: Overview) -> Rows:
    return [((service,), calls) for service, calls in overview.statistics.calls.items()]


@_metric("service_retries_total", "process service", "Requests to a service that were sent again.", "retries")
@_metric(
    "service_requests_waiting",
    "process service",
    "Requests that wait to be sent, or for their pause to be over.",
    "waiting",
)
@_metric("service_requests_under_way", "process service", "Requests that were sent and not answered yet.", "under_way")
def _services(overview: Overview) -> Rows:
    for process in overview.processes:
        yield from (((process.name, service.name), service) for service in process.services)


@_metric(
    "service_available",
    "process service",
    "1 while a service is available, 0 while its breaker is open, or receives fail.",
)
def _availability(overview: Overview) -> Rows:
    receives = [f"receive from {queue}" for queue in overview.source_queues]  # they have no gateway with a breaker
    for process in overview.processes:
        if not process.services:
            continue
        available = {receive: receive not in process.unavailable for receive in receives}
        available |= {service.name: service.is_available for service in process.services}
        yield from (((process.name, service), float(is_available)) for service, is_available in available.items())


@_metric("messages_in_flight", "process", "Messages taken in and not finished yet.", "in_flight")
@_metric("credits_reserved", "process", "Messages that receives under way may bring.", "reserved")
@_metric("process_start_time_seconds", "process", "When a process was started, as UNIX time.", "started_at_seconds")
def _processes(overview: Overview) -> Rows:
    """Leave out those that have not said anything of themselves yet."""
    return (((process.name,), process) for process in overview.processes if process.started_at_seconds)


@_metric("process_cpu_seconds_total", "process", "Processor time that a process has taken.", "cpu_seconds")
@_metric("process_resident_memory_bytes", "process", "Memory that a process has.", "memory_bytes")
@_metric("process_threads", "process", "Threads of a process.", "threads")
@_metric("process_open_fds", "process", "Files and sockets that a process has open.", "open_files")
def _usages(overview: Overview) -> Rows:
    for labels, process in _processes(overview):
        yield labels, process.usage
    if overview.parent_usage is not None:
        yield ("parent",), overview.parent_usage


@_metric("queue_messages", "queue", "Approximate number of messages on a queue; left out while it is not known.")
def _depths(overview: Overview) -> Rows:
    return [((queue,), depth) for queue, depth in overview.queues.items() if depth is not None]


@_metric("actor_mailbox_messages", "process actor", "Messages in the mailbox of a lasting actor.", "mailbox_length")
@_metric(
    "actor_messages_total",
    "process actor",
    "Messages that a lasting actor has handled since it was started.",
    "messages",
)
@_metric(
    "actor_restarts_total", "process actor", "Restarts of a lasting actor since its process was started.", "restarts"
)
def _actors(overview: Overview) -> Rows:
    for process, root in overview.trees.items():
        yield from (((process, actor.name), actor) for actor in (_lasting(root) if root else ()))


def _lasting(actor: ActorOverview) -> Iterator[ActorOverview]:
    """Yield all actors but those that come and go with the messages."""
    yield actor
    if actor.strategy != "simple_one_for_one":
        for child in actor.children:
            yield from _lasting(child)


@_metric("incidents_total", "kind", "What an operator may want to know of, by kind.")
def _incidents(overview: Overview) -> Rows:
    """Count each kind from the start: ``increase()`` sees no first crash in a series that begins with it."""
    counts = {**dict.fromkeys(map(str, IncidentKind), 0), **overview.statistics.incidents}
    return [((kind,), count) for kind, count in counts.items()]


@_metric(
    "role_info", "role group node", "How this node shares the work with others. If it is alone there is none of these."
)
def _role(role: RoleOverview) -> Rows:
    return [((role.role, role.group, role.node), 1)]


@_metric("role_active", "", "1 while this node may take messages in: it is active, has a share, and holds its lease.")
def _active(role: RoleOverview) -> Rows:
    return [((), float(role.is_active))]


@_metric("role_state", "state", "1 for what this node does of its group's work, 0 for the others.")
def _role_states(role: RoleOverview) -> Rows:
    return [((each.value,), float(each is role.state)) for each in NodeState]


@_metric("role_nodes", "state", "Nodes of the group by state, as this one knows them.")
def _nodes(role: RoleOverview) -> Rows:
    return [((each.value,), sum(node.state is each for node in role.nodes)) for each in NodeState]


@_metric("role_share", "limit", "How much of a limit this node may use.")
def _shares(role: RoleOverview) -> Rows:
    """A node without a share has zero of each limit that the whole has."""
    share = role.own.share if role.own is not None and role.is_active else None
    return [(labels, (share or {}).get(labels[0]) or 0.0) for labels, _ in _wholes(role)]


@_metric("role_whole", "limit", "How much of a limit all nodes may use together.")
def _wholes(role: RoleOverview) -> Rows:
    return [((limit,), value) for limit, value in (role.whole or {}).items() if value is not None]


@_metric(
    "role_lease_held_seconds", "", "For how long this node may go on without another renewal; 0: its lease is over."
)
def _leases(role: RoleOverview) -> Rows:
    return [((), role.held_for_seconds or 0.0)]


@_metric(
    "role_token", "", "Token of this node; the next active node has a higher one. Left out if the node is not active."
)
def _tokens(role: RoleOverview) -> Rows:
    return [] if role.own is None or role.own.token is None else [((), role.own.token)]


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
    return encode(_OverviewCollector(overview)), content_type
