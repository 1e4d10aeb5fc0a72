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
    GenServer,
    ManualClock,
    Start,
    Supervisor,
    start_child,
    supervisor_spec,
)

ATTEMPTS = itertools.count(1)  # outside of the actor: a new one begins with nothing of the old


class Prices(GenServer):
    """Owns the newest prices. A crash of it forgets them, and the feed, which comes later, starts anew with it."""

    def init(self) -> None:
        self.prices = {}

    def handle_call(self, product, from_):
        return self.prices.get(product)

    def handle_cast(self, prices) -> None:
        self.prices = prices


class Feed(GenServer):
    """Brings prices once a minute; whatever goes wrong is its end, and its supervisor's business."""

    def init(self) -> Continue:
        return Continue("fetch")  # not here: an ``init`` that fails is a start that failed, of the whole tree

    def handle_continue(self, term) -> None:
        if next(ATTEMPTS) <= 2:
            raise ConnectionError("the feed is down")
        self.system.whereis("prices").cast({"coins_100": 0.99})
        self.send_after(60.0, "fetch")

    def handle_info(self, message) -> Continue:
        return Continue(message)


class Session(GenServer):
    """One player; temporary, for nobody knows how to go on with a session that crashed."""

    def __init__(self, player: str) -> None:
        self.player = player

    def handle_call(self, request, from_):
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
    session = start_child(system.whereis("sessions"), ["Anna"]).ref
    print(session.call("hello"))
    while (price := system.whereis("prices").call("coins_100")) is None:
        clock.advance(1.0)  # the feed is started anew after one second, then after two
    print(price, "at attempt", next(ATTEMPTS) - 1)
