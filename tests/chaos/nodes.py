"""Several nodes on one world, each a command of its own with links of its own, and what can befall them.

What nodes have agreed on is taken down where it is stored (a trigger in SQLite) or on its way there (the ``Network``),
never as a node tells it.
"""

from __future__ import annotations

import http.client
import os
import signal
import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from math import inf
from types import SimpleNamespace
from typing import Any, cast

from receipt_actors.sandbox.app_store import SimulatedAppStore
from tests.patience import PATIENCE_SECONDS
from tests.system.processes import Program, Programs, wait_until_stopped
from tests.system.worlds import SOURCE, AwsServer, AwsWorld, EmbeddedWorld, World

from .namespaces import Namespace
from .network import APPLE, Cut, Link, Network, Request
from .records import Version

ROLE_TABLE = "RoleTable"
TABLE = "TransactionIdTable"

#: What all nodes have in common; the limits are few, so that they are used up.
LEDGER_CONCURRENCY = 8
APP_STORE_CONCURRENCY = 16
APP_STORE_RATE = 60
CONSUMERS = 2
SETTINGS: Mapping[str, object] = {
    "visibility_timeout_seconds": 10,
    "max_receive_count": 1000,
    "max_in_flight": 60,
    "consumers": CONSUMERS,
    "ledger_concurrency": LEDGER_CONCURRENCY,
    "app_store_concurrency": APP_STORE_CONCURRENCY,
    "app_store_rate_per_second": APP_STORE_RATE,
    "drain_seconds": 7,
}


def is_claim(request: Request) -> bool:
    return request.target == TABLE and not request.is_check


def is_receive(request: Request) -> bool:
    return request.operation == "ReceiveMessage" and request.target == SOURCE


def is_sqs(request: Request) -> bool:
    return not is_dynamodb(request) and not is_apple(request)


def is_about_roles(request: Request) -> bool:
    return request.target == ROLE_TABLE


def is_dynamodb(request: Request) -> bool:
    return request.target in (ROLE_TABLE, TABLE)


def is_write(request: Request) -> bool:
    return is_dynamodb(request) and request.operation != "GetItem"


def is_apple(request: Request) -> bool:
    return request.operation == APPLE


class Node:
    """One life of a node: started again it is another one, with another name.

    It has a link to the App Store, and on AWS one to SQS and DynamoDB.
    """

    def __init__(self, name: str, program: Program, network: Network, apple: Link, aws: Link | None) -> None:
        self.name = name
        self.program = program
        self.links = [apple] if aws is None else [apple, aws]
        self._network = network
        self.ends_from_seconds = inf  #: monotonic; when it was told to end, or killed

    @property
    def is_running(self) -> bool:
        return not self.program.ends_within(0)

    def kill(self) -> None:
        self._ends()
        with suppress(ProcessLookupError):
            os.killpg(self.program.pid, signal.SIGKILL)
        self.program.wait_for_end()

    def kill_parent(self) -> None:
        """kill -9 of the process that was started, and of none that this has started itself."""
        self.program.kill()

    def pause_parent(self) -> None:
        """SIGSTOP to the process that was started; its workers go on."""
        os.kill(self.program.pid, signal.SIGSTOP)
        wait_until_stopped(self.program.pid)

    def cut(self, way: Cut, covers: Callable[[Request], bool] = lambda request: True) -> None:
        self._network.cut(self.links, way, covers)

    def mend(self) -> None:
        self._network.mend(self.links)

    def tell_to_end(self) -> None:
        self._ends()
        self.program.send_signal(signal.SIGTERM)

    def wait_for_orderly_end(self) -> None:
        """Wait for what it was told to do; before Python was up it had nothing to put in order."""
        code = self.program.wait_for_end(PATIENCE_SECONDS)
        assert code == 0 or (code == -signal.SIGTERM and not self.program.stderr), f"{self.name} ended with {code}"

    def _ends(self) -> None:
        self.ends_from_seconds = min(self.ends_from_seconds, time.monotonic())


class Site(ABC):
    def __init__(self, world: World, store: SimulatedAppStore, network: Network, **settings: object) -> None:
        self.world = world
        self.nodes: list[Node] = []  #: all that ever were
        self.reachable_again_at: list[float] = []  #: monotonic; when there had been an outage, for all of them
        self.network = network
        self._store = store
        self._settings = {**SETTINGS, **settings}
        self.role = str(settings["role"])
        self.lease_seconds = float(cast(float, settings["lease_seconds"]))
        self.environments: dict[str, Mapping[str, str]] = {}  #: what nodes of a name are started with, beside
        self.namespaces: dict[str, Namespace] = {}  #: where nodes of a name live, if they have one of their own
        self._processes: dict[str, int] = {}  # by name

    @property
    def whole(self) -> Mapping[str, float]:
        limits = ("ledger_concurrency", "app_store_concurrency", "app_store_rate_per_second")
        return {limit: float(cast(float, self._settings[limit])) for limit in limits}

    def start(self, name: str, processes: int = 1) -> Node:
        self._processes[name] = processes
        lives = 1 + sum(_name(node.name) == name for node in self.nodes)
        life = f"{name}.{lives}"
        apple = self._link(life, self._store.url)
        url = self._as_seen(life, apple)
        program, aws = self._start(life, **self._settings, processes=processes, app_store_url=url)
        node = Node(life, program, self.network, apple, aws)
        self.nodes.append(node)
        return node

    @abstractmethod
    def _start(self, life: str, **settings: object) -> tuple[Program, Link | None]:
        """Start a program with these settings."""

    def _as_seen(self, life: str, apple: Link) -> str:
        """Return the App Store's URL for this node: the program wants it on loopback, wherever that is."""
        return apple.url

    def _link(self, life: str, upstream_url: str) -> Link:
        namespace = self.namespaces.get(_name(life))
        address = "127.0.0.1" if namespace is None else namespace.address
        return self.network.link(life, upstream_url, address)

    @abstractmethod
    def versions(self) -> list[Version]:
        """List all versions of the record so far."""

    @abstractmethod
    def newest(self) -> Version | None:
        """Return the newest version."""

    def processes_of(self, node: str) -> int:
        return self._processes[_name(node)]

    def was_alive(self, node: str, at_seconds: float) -> bool:
        return any(each.name == node and at_seconds < each.ends_from_seconds for each in self.nodes)

    def cut_all(self, way: Cut, covers: Callable[[Request], bool]) -> None:
        """Cut all running nodes off, at one moment: none of them sees that another one is."""
        self.network.cut([link for node in self.running for link in node.links], way, covers)

    def mend_all(self) -> None:
        self.reachable_again_at.append(time.monotonic())
        self.network.mend([link for node in self.nodes for link in node.links])

    def is_blocked(self) -> bool:
        """Tell whether a process that does nothing keeps all others from doing anything."""
        return False

    def pause(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        """Stop a node, or a part of it, at a moment at which the others can go on without it."""
        pause()
        while self.is_blocked():
            resume()
            self.pass_time(0.05)
            pause()

    @property
    def running(self) -> list[Node]:
        return [node for node in self.nodes if node.is_running]

    @property
    def given_up(self) -> list[Node]:
        """Those that ended by themselves, each once."""
        found = [node for node in self.nodes if node.ends_from_seconds == inf and not node.is_running]
        for node in found:
            assert "Traceback" not in node.program.stderr
            node.ends_from_seconds = time.monotonic()
        return found

    @property
    def seated(self) -> list[Node]:
        newest = self.newest()
        by_name = {node.name: node for node in self.running}
        seats = {} if newest is None else newest.seats
        return [by_name[name] for name in sorted(seats, key=seats.__getitem__) if name in by_name]

    def wait_until(self, condition: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{seconds:g} s have passed, but not yet: {what}"
            time.sleep(0.02)

    def pass_time(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        self.wait_until(lambda: time.monotonic() >= until, "the time has passed")

    def requests(self, kind: Callable[[Request], bool]) -> list[Request]:
        return [request for request in list(self.network.requests) if kind(request)]


class EmbeddedSite(Site):
    """All nodes on one SQLite file."""

    world: EmbeddedWorld

    def __init__(self, world: EmbeddedWorld, store: SimulatedAppStore, network: Network, **settings: object) -> None:
        super().__init__(world, store, network, **settings)
        world.sql("CREATE TABLE role_history (version, content, at_seconds)")
        world.sql(
            "CREATE TRIGGER keep_versions AFTER INSERT ON role_groups BEGIN INSERT INTO role_history VALUES"
            " (new.version, new.content, (julianday('now') - 2440587.5) * 86400.0); END"
        )

    def _start(self, life: str, **settings: object) -> tuple[Program, Link | None]:
        self.world.environment["HOSTNAME"] = life
        return self.world.start(self._store, **settings), None

    def versions(self) -> list[Version]:
        return self._select("ORDER BY rowid")

    def newest(self) -> Version | None:
        return next(iter(self._select("ORDER BY rowid DESC LIMIT 1")), None)

    def is_blocked(self) -> bool:
        """Whoever is stopped in the middle of a transaction keeps SQLite's one lock for writing."""
        with closing(sqlite3.connect(self.world.database, timeout=1.0, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return True
            connection.execute("ROLLBACK")
            return False

    def _select(self, which: str) -> list[Version]:
        boot = time.time() - time.monotonic()
        rows = self.world.sql(f"SELECT version, content, at_seconds FROM role_history {which}")
        return [Version.read(number, content, at_seconds - boot) for number, content, at_seconds in rows]


class AwsSite(Site):
    """All nodes on one emulator of AWS, each by a link of its own."""

    world: AwsWorld

    def __init__(
        self, programs: Programs, emulator: Any, store: SimulatedAppStore, network: Network, **settings: object
    ) -> None:
        super().__init__(AwsWorld(programs, emulator), store, network, **settings)
        network.keeps = is_about_roles
        self._programs = programs
        self._worlds = [self.world]
        self.world.create_queues(max_receive_count=1000)
        self.world.create_table()
        self.world.create_table(ROLE_TABLE, "RoleGroup")

    def close(self) -> None:
        for world in self._worlds:
            world.close()

    def _start(self, life: str, **settings: object) -> tuple[Program, Link | None]:
        aws, name = self._link(life, self.world.server.url), _name(life)
        world = AwsWorld(self._programs, cast(AwsServer, self.world.server), aws.url)
        world.environment |= {**self.environments.get(name, {}), "HOSTNAME": life}
        if name in self.namespaces:
            world.within = self.namespaces[name].within
        self._worlds.append(world)
        no_store = SimpleNamespace(url="")  # the settings have its links
        return world.start(cast(SimulatedAppStore, no_store), **settings), aws

    def _as_seen(self, life: str, apple: Link) -> str:
        namespace = self.namespaces.get(_name(life))
        if namespace is None:
            return apple.url
        there = (namespace.address, apple.url.rpartition(":")[2])
        forwarder = self._programs.start(*there, module="tests.chaos.forwarding_program", within=namespace.within)
        forwarder.wait_until(lambda: forwarder.stdout.endswith("\n"), "it listens")
        return f"http://127.0.0.1:{forwarder.stdout.strip()}"

    def versions(self) -> list[Version]:
        versions = [_version(request) for request in self.requests(_is_new_version)]
        return sorted(versions, key=lambda version: version.number)

    def newest(self) -> Version | None:
        for request in reversed(list(self.network.requests)):
            if _is_new_version(request):
                return _version(request)
        return None


def _name(life: str) -> str:
    return life.rpartition(".")[0]


def _is_new_version(request: Request) -> bool:
    return is_about_roles(request) and request.operation == "PutItem" and request.status == http.client.OK


def _version(write: Request) -> Version:
    item = write.fields["Item"]
    at_seconds = cast(float, write.answered_at_seconds)
    return Version.read(int(item["Version"]["N"]), item["Content"]["S"], at_seconds, write.came_at_seconds)
