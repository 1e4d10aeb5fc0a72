"""``watched``: what observes the system that ``start`` runs: admin port, metrics in the log, the ECS agent."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from receipt_actors.domain.addresses import Address
from receipt_actors.settings import Settings
from receipt_actors.telemetry.control import SystemControl

if TYPE_CHECKING:
    from receipt_actors.admin.server import AdminServer

logger = logging.getLogger(__name__)

STDOUT = 1
AGENT_VARIABLE = "ECS_AGENT_URI"  #: which ECS sets in every container


@contextmanager
def watched(settings: Settings) -> Iterator[Callable[[SystemControl], None]]:
    """Open the admin port and the other observers that are set; yields what gives them a system to look at.

    Each is imported only if it is set: a start without it must not wait for it.

    Raises:
        ConfigurationError: other machines could reach the port without a token.
        AddressRefused: the address can't be listened on.
    """
    watches: list[Callable[[SystemControl], None]] = []
    with ExitStack() as opened:
        if settings.admin is not None:
            watches.append(opened.enter_context(admin_server(settings, settings.admin)).serve)
        if settings.metrics_log != "none":
            from receipt_actors.telemetry.embedded_metrics import MetricsLog

            dimensions = dict(pair.split("=", 1) for pair in settings.emf_dimensions or ())
            watches.append(opened.enter_context(MetricsLog(STDOUT, dimensions=dimensions)).watch)
        if agent_url := os.environ.get(AGENT_VARIABLE):
            from receipt_actors.telemetry.scale_in_protection import ScaleInProtection

            watches.append(opened.enter_context(ScaleInProtection(agent_url)).watch)

        def watch(system: SystemControl) -> None:
            for each in watches:
                each(system)

        yield watch


def admin_server(settings: Settings, address: str) -> AdminServer:
    """Return the admin port, open; raises as ``watched`` does."""
    from receipt_actors.admin.server import AdminServer

    token = None if settings.admin_token is None else settings.admin_token.get_secret_value()
    server = AdminServer(Address.parse(address), token)
    logger.info("the admin port is %s", server.url)
    return server
