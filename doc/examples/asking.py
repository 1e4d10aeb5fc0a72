"""One pooled actor asks another, and neither waits."""

from typing import Any

from receipt_actors.otp import NO_REPLY, ActorSystem, ChildSpec, From, GenServer, Start, Supervisor


class Counter(GenServer):
    """Counts letters."""

    def handle_call(self, request: str, from_: From) -> int:
        return sum(letter.islower() for letter in request)


class Describer(GenServer):
    """Describes a name: asks the counter first, and answers its own caller afterwards."""

    def handle_call(self, request: str, from_: From) -> Any:
        self.send_request("counter", request, label=(request, from_))
        return NO_REPLY

    def handle_reply(self, label: tuple[str, From], value: int) -> None:
        name, from_ = label
        from_.reply(f"{name}: {value} of {len(name)} letters are small")


with ActorSystem() as system:
    counter = ChildSpec("counter", Start(Counter, name="counter"))
    describer = ChildSpec("describer", Start(Describer, name="describer"))
    system.start(Supervisor, [counter, describer])
    ref = system.whereis("describer")
    assert ref is not None
    print(ref.call("Anna"))
