"""Which services are unavailable, and what is not taken in because of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Outages:
    """Those that go on now. Every step returns the next one."""

    closing: Mapping[str, str | None] = field(default_factory=lambda: MappingProxyType({}))
    """By service: the only source queue that nothing is taken from meanwhile; None: nothing is taken from any."""
    kept: frozenset[str] = frozenset()
    """Services that some messages wait for, which are kept; all others may come."""

    def begun(self, service: str, source_queue: str | None = None, *, stops_receiving: bool) -> Outages:
        """Note an outage; or that of one which goes on already something else is true now."""
        others = self.ended(service)
        if stops_receiving:
            return Outages(MappingProxyType({**others.closing, service: source_queue}), others.kept)
        return Outages(others.closing, others.kept | {service})

    def ended(self, service: str) -> Outages:
        """Note that a service is there (again)."""
        closing = {name: source_queue for name, source_queue in self.closing.items() if name != service}
        return Outages(MappingProxyType(closing), self.kept - {service})

    @property
    def services(self) -> frozenset[str]:
        """All that are unavailable."""
        return self.kept.union(self.closing)

    @property
    def closes_all(self) -> bool:
        """Whether nothing is taken from any source queue."""
        return None in self.closing.values()

    def closes(self, source_queue: str) -> bool:
        """Tell whether nothing is taken from this one, whatever is true of the others."""
        return source_queue in self.closing.values()
