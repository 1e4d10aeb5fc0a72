"""Erlang/OTP on pykka: processes, ``gen_server``, supervisors. Knows nothing of receipts and can be used alone.

::

    from receipt_actors.otp import ActorSystem, GenServer, ChildSpec, Start, Strategy, Supervisor

    class Counter(GenServer):
        def init(self):
            self.count = 0

        def handle_call(self, request, from_):
            self.count += 1
            return self.count

    with ActorSystem() as system:
        system.start(Supervisor, [ChildSpec("counter", Start(Counter, name="counter"))])
        print(system.whereis("counter").call("next"))

Everything hangs on an ``ActorSystem``. An actor is a real ``pykka.Actor``, a ``Ref`` a real ``pykka.ActorRef``. Its
``runtime`` says which thread runs it (``Runtime``), its ``ChildSpec`` how it is supervised.

=========================  ============================================================================================
module                     what stands there, from what one uses to what it rests on
=========================  ============================================================================================
``gen_statem``             ``GenStateMachine``: state machines
``sys``                    looking into a running actor, holding it, watching it
``_supervisor``            both supervisors, ``supervisor_spec``, and what one asks a supervisor
``_child_spec``            ``ChildSpec``, ``Start``, strategies, restart intensity, ``Backoff``
``_gen_server``            ``Actor`` and ``GenServer``: callbacks, and what an actor can do
``_system``                ``ActorSystem``: names, all processes, start and stop
``_tree``, ``_heartbeat``  a picture of the tree; noticing that nothing goes on
``_process``               the process: life, turns, callbacks, links and monitors; ``_receive`` what it waits in
``_ref``, ``_calls``       sending; ways in which an answer, or its absence, reaches who asked
``_scheduler``             the threads that run processes, the fence, pollers
``_blocking``, ``_clock``  threads for calls that block; time and timers
``_messages``              what callbacks return and runtime and actors exchange; ``_reasons`` for an exit
``_reports``               what operators are told
=========================  ============================================================================================
"""

from typing import TYPE_CHECKING

from receipt_actors.otp._blocking import BlockingPool
from receipt_actors.otp._calls import From
from receipt_actors.otp._child_spec import (
    BRUTAL_KILL,
    INFINITY,
    AutoShutdown,
    Backoff,
    ChildSpec,
    ChildType,
    Restart,
    RestartWindow,
    Start,
    Strategy,
    check_child_specs,
)
from receipt_actors.otp._clock import Clock, ManualClock, SystemClock, Timer
from receipt_actors.otp._gen_server import Actor, GenServer
from receipt_actors.otp._heartbeat import Heartbeat, NoProgress
from receipt_actors.otp._messages import (
    IGNORE,
    NO_REPLY,
    TIMEOUT,
    AlreadyStarted,
    Continue,
    Down,
    Exit,
    IdleTimeout,
    Name,
    NotStarted,
    Receive,
    Receiving,
    Reply,
    Started,
    StartFinished,
    Starting,
    StartResult,
    Stop,
)
from receipt_actors.otp._reasons import (
    KILLED,
    NO_PROCESS,
    NORMAL,
    SHUTDOWN,
    Crash,
    ExitReason,
    Killed,
    NoProcess,
    Normal,
    Shutdown,
    is_orderly,
)
from receipt_actors.otp._ref import Ref
from receipt_actors.otp._reports import (
    ChildDescription,
    CrashReport,
    FailedToStartChild,
    ProgressReport,
    Report,
    ReportContext,
    SupervisorReport,
)
from receipt_actors.otp._scheduler import Poller, Runtime, Scheduler
from receipt_actors.otp._supervisor import (
    ChildCounts,
    ChildError,
    ChildInfo,
    CountChildren,
    DeleteChild,
    GetChildSpec,
    RestartChild,
    SimpleOneForOneSupervisor,
    StartChild,
    Supervisor,
    TerminateChild,
    WhichChildren,
    count_children,
    delete_child,
    get_child_spec,
    restart_child,
    start_child,
    supervisor_spec,
    terminate_child,
    which_children,
)
from receipt_actors.otp._system import ActorSystem, StartError
from receipt_actors.otp._tree import ActorNode, find_actor, look_at, name_of

if TYPE_CHECKING:
    from receipt_actors.otp.gen_statem import GenStateMachine

PERMANENT, TRANSIENT, TEMPORARY = Restart
ONE_FOR_ONE, ONE_FOR_ALL, REST_FOR_ONE, SIMPLE_ONE_FOR_ONE = Strategy
WORKER, SUPERVISOR = ChildType
NEVER, ANY_SIGNIFICANT, ALL_SIGNIFICANT = AutoShutdown

__all__ = [
    "ALL_SIGNIFICANT",
    "ANY_SIGNIFICANT",
    "BRUTAL_KILL",
    "IGNORE",
    "INFINITY",
    "KILLED",
    "NEVER",
    "NORMAL",
    "NO_PROCESS",
    "NO_REPLY",
    "ONE_FOR_ALL",
    "ONE_FOR_ONE",
    "PERMANENT",
    "REST_FOR_ONE",
    "SHUTDOWN",
    "SIMPLE_ONE_FOR_ONE",
    "SUPERVISOR",
    "TEMPORARY",
    "TIMEOUT",
    "TRANSIENT",
    "WORKER",
    "Actor",
    "ActorNode",
    "ActorSystem",
    "AlreadyStarted",
    "AutoShutdown",
    "Backoff",
    "BlockingPool",
    "ChildCounts",
    "ChildDescription",
    "ChildError",
    "ChildInfo",
    "ChildSpec",
    "ChildType",
    "Clock",
    "Continue",
    "CountChildren",
    "Crash",
    "CrashReport",
    "DeleteChild",
    "Down",
    "Exit",
    "ExitReason",
    "FailedToStartChild",
    "From",
    "GenServer",
    "GenStateMachine",
    "GetChildSpec",
    "Heartbeat",
    "IdleTimeout",
    "Killed",
    "ManualClock",
    "Name",
    "NoProcess",
    "NoProgress",
    "Normal",
    "NotStarted",
    "Poller",
    "ProgressReport",
    "Receive",
    "Receiving",
    "Ref",
    "Reply",
    "Report",
    "ReportContext",
    "Restart",
    "RestartChild",
    "RestartWindow",
    "Runtime",
    "Scheduler",
    "Shutdown",
    "SimpleOneForOneSupervisor",
    "Start",
    "StartChild",
    "StartError",
    "StartFinished",
    "StartResult",
    "Started",
    "Starting",
    "Stop",
    "Strategy",
    "Supervisor",
    "SupervisorReport",
    "SystemClock",
    "TerminateChild",
    "Timer",
    "WhichChildren",
    "check_child_specs",
    "count_children",
    "delete_child",
    "find_actor",
    "get_child_spec",
    "is_orderly",
    "look_at",
    "name_of",
    "restart_child",
    "start_child",
    "supervisor_spec",
    "terminate_child",
    "which_children",
]


def __getattr__(name: str) -> object:
    """Import what few programs use when it is first asked for: it is a fifth of all there is to load here."""
    if name != "GenStateMachine":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from receipt_actors.otp.gen_statem import GenStateMachine

    return GenStateMachine
