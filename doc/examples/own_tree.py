"""A tree of one's own: a feed that fails now and then, what it has brought, and a session for each player."""

import itertools

from receipt_actors.otp import (
    ONE_FOR_ONE,
    REST_FOR_ONE,
    SIMPLE_ONE_FOR_ONE,
    TEMPORARY,
    ActorSystem,
    Backoff,
    ChildSpec,
    Continue,
    From,
    GenServer,
    ManualClock,
    Start,
    Started,
    Supervisor,
    start_child,
    supervisor_spec,
)

ATTEMPTS = itertools.count(1)  # outside of the actor: a new one begins with nothing of the old


class Prices(GenServer):
    """Owns the newest prices. A crash of it forgets them, and the feed, which comes later, starts anew with it."""

    def init(self) -> None:
        self.prices: dict[str, float] = {}

    def handle_call(self, product: str, from_: From) -> float | None:
        return self.prices.get(product)

    def handle_cast(self, prices: dict[str, float]) -> None:
        self.prices = prices


class Feed(GenServer):
    """Brings prices once a minute; whatever goes wrong is its end, and its supervisor's business."""

    def init(self) -> Continue:
        return Continue("fetch")  # not here: an ``init`` that fails is a start that failed, of the whole tree

    def handle_continue(self, term: str) -> None:
        if next(ATTEMPTS) <= 2:
            raise ConnectionError("the feed is down")
        self.cast("prices", {"coins_100": 0.99})
        self.send_after(60.0, "fetch")

    def handle_info(self, message: str) -> Continue:
        return Continue(message)


class Session(GenServer):
    """One player; temporary, for nobody knows how to go on with a session that crashed."""

    def __init__(self, player: str) -> None:
        self.player = player

    def handle_call(self, request: str, from_: From) -> str:
        return f"{self.player}: {request}"


tree = [
    supervisor_spec(
        "market",
        REST_FOR_ONE,
        [
            ChildSpec("prices", Start(Prices, name="prices")),
            ChildSpec("feed", Start(Feed, name="feed"), backoff=Backoff(first_seconds=1.0, max_seconds=60.0)),
        ],
    ),
    supervisor_spec("sessions", SIMPLE_ONE_FOR_ONE, [ChildSpec("session", Start(Session), TEMPORARY)]),
]

clock = ManualClock()  # so that this program need not wait; leave it out, and time is real
with ActorSystem(clock=clock) as system:
    system.start(Supervisor, tree, strategy=ONE_FOR_ONE)
    prices, sessions = system.whereis("prices"), system.whereis("sessions")
    assert prices is not None and sessions is not None
    started = start_child(sessions, ["Anna"])
    assert isinstance(started, Started)
    print(started.ref.call("hello"))
    while (price := prices.call("coins_100")) is None:
        clock.advance(1.0)  # the feed is started anew after one second, then after two
    print(price, "at attempt", next(ATTEMPTS) - 1)
