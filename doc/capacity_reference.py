"""A Sphinx extension for what ``plan`` computes with, and what it says.

``service-limits``, ``list-prices``, ``measured-costs``; ``scaling-plan`` and ``role-costs``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import ClassVar

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

from receipt_actors.domain import capacity, service_limits
from receipt_actors.domain.capacity import COSTS, CURL, Call, Load, plan_capacity, roles_taken
from receipt_actors.domain.roles import Role


class _Table(SphinxDirective):
    """A table of a module's data, built again when that changes."""

    source: ClassVar[ModuleType] = service_limits
    titles: ClassVar[Sequence[str]]
    widths: ClassVar[Sequence[int]]

    def rows(self) -> Iterable[Sequence[str]]:
        """Return the rows."""
        raise NotImplementedError

    def words(self) -> str:
        """Return what stands above the table."""
        return ""

    def run(self) -> list[nodes.Node]:
        """Build the table."""
        assert self.source.__file__ is not None
        self.env.note_dependency(self.source.__file__)
        columns = [nodes.colspec(colwidth=width) for width in self.widths]
        head = nodes.thead("", _row(self.titles))
        body = nodes.tbody("", *map(_row, self.rows()))
        table = nodes.table("", nodes.tgroup("", *columns, head, body, cols=len(columns)))
        return [*([nodes.paragraph(text=self.words())] if self.words() else []), table]


class ServiceLimits(_Table):
    """Every limit, where it comes from, and what to do about it."""

    titles = ("Service", "Limit", "It is", "When it is in the way", "Source")
    widths = (10, 25, 20, 30, 15)

    def rows(self) -> Iterable[Sequence[str]]:
        """Return a row for each limit."""
        for limit in service_limits.LIMITS:
            value = limit.unit if limit.value is None else f"{_number(limit.value)} {limit.unit}"
            yield limit.service, limit.what, value, limit.remedy, limit.source


class ListPrices(_Table):
    """Every price, and of when."""

    titles = ("Service", "What", "USD")
    widths = (20, 50, 30)

    def words(self) -> str:
        """Return whose prices, and of when."""
        return (
            f"List prices of us-east-1 in USD, {service_limits.PRICES_AS_OF}, without free tier, discounts and taxes."
        )

    def rows(self) -> Iterable[Sequence[str]]:
        """Return a row for each price."""
        for price in service_limits.PRICES:
            is_tiny = price.usd < 1e-4
            usd = f"{price.usd * 1e6:g} for a million {price.unit}s" if is_tiny else f"{price.usd:g} a {price.unit}"
            yield price.service, price.what, usd


class MeasuredCosts(_Table):
    """What a receipt was measured to cost, with each client."""

    source = capacity
    titles = ("Client", "CPU of a receipt", "with requests a receipt", "at Apple at once, at most", "memory")
    widths = (15, 15, 30, 15, 25)

    def words(self) -> str:
        """Return what was measured."""
        return f"Measured on {CURL.machine}."

    def rows(self) -> Iterable[Sequence[str]]:
        """Return a row for each client."""
        for cost in COSTS.values():
            requests = ", ".join(f"{call} {cost.requests[call]:g}" for call in Call)
            memory = f"{cost.process_bytes / 1e6:.0f} MB, and {cost.in_flight_bytes / 1024:.0f} KiB a message in flight"
            most = f"{cost.max_concurrency:,}"
            yield cost.client, f"{cost.cpu_seconds * 1000:.2f} ms", requests, most, memory


class ScalingPlan(_Table):
    """What ``plan`` says of some rates, alone and with roles."""

    source = capacity
    titles = ("Receipts a second", "tasks", "in flight", "max_in_flight, of each", "ledger_concurrency, of all", "USD")
    widths = (15, 20, 15, 15, 15, 20)

    def words(self) -> str:
        """Return what was planned."""
        return (
            f"Costs of a receipt: {CURL.machine}, with curl. USD a month at list prices of us-east-1, "
            f"{service_limits.PRICES_AS_OF}: alone, and load-balanced."
        )

    def rows(self) -> Iterable[Sequence[str]]:
        """Return a row for each rate."""
        for rate in (100.0, 1_000.0, 5_000.0, 20_000.0, 40_000.0):
            loads = [Load(rate, role=role) for role in (Role.ALONE, Role.LOAD_BALANCED)]
            alone, balanced = (plan_capacity(load, CURL) for load in loads)
            usd = [f"{sum(each.usd_per_month.values()):,.0f}" for each in (alone, balanced)]
            yield (
                f"{rate:,.0f}",
                f"{alone.tasks_needed:,} and {alone.load.spare_tasks} spare",
                f"{alone.in_flight:,.0f}",
                f"{alone.settings.max_in_flight:,}",
                f"{balanced.settings.ledger_concurrency:,}",
                " / ".join(usd),
            )


class RoleCosts(_Table):
    """What ``plan`` says of the table of roles."""

    source = service_limits
    titles = ("Nodes", "lease_seconds", "write units a second", "USD a month", "takes over within")
    widths = (15, 20, 25, 20, 20)

    def rows(self) -> Iterable[Sequence[str]]:
        """Return a row for each size of a group, and length of a lease."""
        for nodes_, lease_seconds in ((2, 10.0), (8, 10.0), (50, 10.0), (50, 60.0)):
            taken = roles_taken(Load(1.0, role=Role.LOAD_BALANCED, lease_seconds=lease_seconds), nodes_)
            assert taken is not None
            usd, units = taken.usd_per_month, taken.write_units_per_second
            yield f"{nodes_}", f"{lease_seconds:g}", f"{units:.3g}", f"{usd:,.0f}", f"{taken.takeover_seconds:g} s"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:.2f}"


def _row(texts: Iterable[str]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph(text=text)) for text in texts))


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the directives (Sphinx calls this)."""
    app.add_directive("service-limits", ServiceLimits)
    app.add_directive("list-prices", ListPrices)
    app.add_directive("measured-costs", MeasuredCosts)
    app.add_directive("scaling-plan", ScalingPlan)
    app.add_directive("role-costs", RoleCosts)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
