"""A pykka actor under a supervisor: it crashes, and there is a new one."""

from receipt_actors.otp import Actor, ActorSystem, ChildSpec, Start, Supervisor, which_children


class Divider(Actor):
    """Any pykka actor; only its base class has changed."""

    def on_start(self) -> None:
        self.handled = 0

    def on_receive(self, message: int) -> float:
        self.handled += 1
        return 100 / message


with ActorSystem() as system:
    supervisor = system.start(Supervisor, [ChildSpec("divider", Start(Divider))])
    [child] = which_children(supervisor)
    print(child.child.ask(4))  # 25.0
    try:
        child.child.ask(0)
    except ZeroDivisionError:
        print("it crashed:", child.child.is_alive())  # False
    [child] = which_children(supervisor)  # what is asked of a supervisor after a crash is answered after the restart
    print(child.child.ask(5), child.child.proxy().handled.get())  # 20.0 1: it forgot the first message
