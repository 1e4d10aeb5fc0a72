"""A pykka actor under a supervisor: it crashes, and there is a new one."""

from receipt_actors.otp import Actor, ActorSystem, ChildSpec, Ref, Start, Supervisor, which_children


class Divider(Actor):
    """Any pykka actor; only its base class has changed."""

    def on_start(self) -> None:
        self.handled = 0

    def on_receive(self, message: int) -> float:
        self.handled += 1
        return 100 / message


def child_of(supervisor: Ref) -> Ref:
    """What is asked of a supervisor after a crash is answered after the restart."""
    [child] = which_children(supervisor)
    assert isinstance(child.child, Ref)
    return child.child


with ActorSystem() as system:
    supervisor = system.start(Supervisor, [ChildSpec("divider", Start(Divider))])
    divider = child_of(supervisor)
    print(divider.ask(4))  # 25.0
    try:
        divider.ask(0)
    except ZeroDivisionError:
        print("it crashed:", divider.is_alive())  # False
    divider = child_of(supervisor)
    print(divider.ask(5), divider.proxy().handled.get())  # 20.0 1: it forgot the first message
