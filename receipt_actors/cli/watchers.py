"""``watched``: what observes the system that ``start`` runs: admin port, systemd, metrics in the log, the ECS agent."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from receipt_actors.domain.addresses import Address
from receipt_actors.settings import Settings
from receipt_actors.telemetry.control import SystemControl
from receipt_actors.telemetry.systemd import SystemdNotifier

if TYPE_CHECKING:
    from receipt_actors.admin.server import AdminServer
    from receipt_actors.telemetry.embedded_metrics import MetricsLog
    from receipt_actors.telemetry.scale_in_protection import ScaleInProtection

logger = logging.getLogger(__name__)

STDOUT = 1
AGENT_VARIABLE = "ECS_AGENT_URI"  #: which ECS sets in every container


@dataclass(frozen=True, slots=True)
class Watchers:
    """The observers of the system."""

    systemd: SystemdNotifier
    admin: AdminServer | None
    metrics: MetricsLog | None
    protection: ScaleInProtection | None

    def watch(self, system: SystemControl) -> None:
        """Look at this system from now on."""
        self.systemd.watch(system)
        if self.admin is not None:
            self.admin.serve(system)
        if self.metrics is not None:
            self.metrics.watch(system)
        if self.protection is not None:
            self.protection.watch(system)


@contextmanager
def watched(settings: Settings) -> Iterator[Watchers]:
    """Open the admin port, where there is to be one; ``Watchers.watch`` gives it a system. Within ``with`` it is open.

    Raises:
        ConfigurationError: other machines could reach it without a token.
        AddressRefused: the address can't be listened on.
    """
    with ExitStack() as open_ones:
        admin = None if settings.admin is None else open_ones.enter_context(admin_server(settings, settings.admin))
        metrics = None if settings.metrics_log == "none" else open_ones.enter_context(_metrics_log(settings))
        systemd = open_ones.enter_context(SystemdNotifier())
        protection = _scale_in_protection()
        if protection is not None:
            open_ones.enter_context(protection)
        yield Watchers(systemd, admin, metrics, protection)


def _scale_in_protection() -> ScaleInProtection | None:
    agent_url = os.environ.get(AGENT_VARIABLE)
    if not agent_url:
        return None
    from receipt_actors.telemetry.scale_in_protection import ScaleInProtection  # an HTTP client, for ECS alone

    return ScaleInProtection(agent_url)


def _metrics_log(settings: Settings) -> MetricsLog:
    from receipt_actors.telemetry.embedded_metrics import MetricsLog

    return MetricsLog(STDOUT, dimensions=dict(pair.split("=", 1) for pair in settings.emf_dimensions or ()))


def admin_server(settings: Settings, address: str) -> AdminServer:
    """Return the admin port, open; see ``watched``."""
    from receipt_actors.admin.server import AdminServer  # a start without it must not wait for it

    token = None if settings.admin_token is None else settings.admin_token.get_secret_value()
    server = AdminServer(Address.parse(address), token)
    logger.info("the admin port is %s", server.url)
    return server
