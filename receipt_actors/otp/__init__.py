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

An ``ActorSystem`` holds everything. An actor is a real ``pykka.Actor``, a ``Ref`` a real ``pykka.ActorRef``. Its
``runtime`` says which thread runs it (``Runtime``), its ``ChildSpec`` how it is supervised.

Each module imports only those after it: ``gen_statem``, ``tree``, ``_supervisor``, ``_child_spec``, ``_system``,
``sys``, ``_gen_server``, ``_process``, ``_ref``, ``_scheduler``, ``_clock``, ``_reports``, ``_messages``.
"""

from receipt_actors.otp._child_spec import BRUTAL_KILL as BRUTAL_KILL
from receipt_actors.otp._child_spec import INFINITY as INFINITY
from receipt_actors.otp._child_spec import AutoShutdown as AutoShutdown
from receipt_actors.otp._child_spec import Backoff as Backoff
from receipt_actors.otp._child_spec import ChildSpec as ChildSpec
from receipt_actors.otp._child_spec import ChildType as ChildType
from receipt_actors.otp._child_spec import Restart as Restart
from receipt_actors.otp._child_spec import RestartWindow as RestartWindow
from receipt_actors.otp._child_spec import Start as Start
from receipt_actors.otp._child_spec import Strategy as Strategy
from receipt_actors.otp._child_spec import check_child_specs as check_child_specs
from receipt_actors.otp._clock import Clock as Clock
from receipt_actors.otp._clock import ManualClock as ManualClock
from receipt_actors.otp._clock import SystemClock as SystemClock
from receipt_actors.otp._clock import Timer as Timer
from receipt_actors.otp._gen_server import Actor as Actor
from receipt_actors.otp._gen_server import GenServer as GenServer
from receipt_actors.otp._messages import IGNORE as IGNORE
from receipt_actors.otp._messages import KILLED as KILLED
from receipt_actors.otp._messages import NO_PROCESS as NO_PROCESS
from receipt_actors.otp._messages import NO_REPLY as NO_REPLY
from receipt_actors.otp._messages import NORMAL as NORMAL
from receipt_actors.otp._messages import SHUTDOWN as SHUTDOWN
from receipt_actors.otp._messages import TIMEOUT as TIMEOUT
from receipt_actors.otp._messages import AlreadyStarted as AlreadyStarted
from receipt_actors.otp._messages import Continue as Continue
from receipt_actors.otp._messages import Crash as Crash
from receipt_actors.otp._messages import Down as Down
from receipt_actors.otp._messages import Exit as Exit
from receipt_actors.otp._messages import ExitReason as ExitReason
from receipt_actors.otp._messages import IdleTimeout as IdleTimeout
from receipt_actors.otp._messages import Killed as Killed
from receipt_actors.otp._messages import Name as Name
from receipt_actors.otp._messages import NoProcess as NoProcess
from receipt_actors.otp._messages import Normal as Normal
from receipt_actors.otp._messages import NotStarted as NotStarted
from receipt_actors.otp._messages import Receive as Receive
from receipt_actors.otp._messages import Receiving as Receiving
from receipt_actors.otp._messages import Reply as Reply
from receipt_actors.otp._messages import Shutdown as Shutdown
from receipt_actors.otp._messages import Started as Started
from receipt_actors.otp._messages import StartFinished as StartFinished
from receipt_actors.otp._messages import Starting as Starting
from receipt_actors.otp._messages import StartResult as StartResult
from receipt_actors.otp._messages import Stop as Stop
from receipt_actors.otp._messages import is_orderly as is_orderly
from receipt_actors.otp._ref import From as From
from receipt_actors.otp._ref import Ref as Ref
from receipt_actors.otp._reports import ChildDescription as ChildDescription
from receipt_actors.otp._reports import CrashReport as CrashReport
from receipt_actors.otp._reports import FailedToStartChild as FailedToStartChild
from receipt_actors.otp._reports import ProgressReport as ProgressReport
from receipt_actors.otp._reports import Report as Report
from receipt_actors.otp._reports import SupervisorReport as SupervisorReport
from receipt_actors.otp._scheduler import BlockingPool as BlockingPool
from receipt_actors.otp._scheduler import Poller as Poller
from receipt_actors.otp._scheduler import Runtime as Runtime
from receipt_actors.otp._scheduler import Scheduler as Scheduler
from receipt_actors.otp._supervisor import ChildCounts as ChildCounts
from receipt_actors.otp._supervisor import ChildError as ChildError
from receipt_actors.otp._supervisor import ChildInfo as ChildInfo
from receipt_actors.otp._supervisor import CountChildren as CountChildren
from receipt_actors.otp._supervisor import DeleteChild as DeleteChild
from receipt_actors.otp._supervisor import GetChildSpec as GetChildSpec
from receipt_actors.otp._supervisor import RestartChild as RestartChild
from receipt_actors.otp._supervisor import SimpleOneForOneSupervisor as SimpleOneForOneSupervisor
from receipt_actors.otp._supervisor import StartChild as StartChild
from receipt_actors.otp._supervisor import Supervisor as Supervisor
from receipt_actors.otp._supervisor import TerminateChild as TerminateChild
from receipt_actors.otp._supervisor import WhichChildren as WhichChildren
from receipt_actors.otp._supervisor import count_children as count_children
from receipt_actors.otp._supervisor import delete_child as delete_child
from receipt_actors.otp._supervisor import get_child_spec as get_child_spec
from receipt_actors.otp._supervisor import restart_child as restart_child
from receipt_actors.otp._supervisor import start_child as start_child
from receipt_actors.otp._supervisor import supervisor_spec as supervisor_spec
from receipt_actors.otp._supervisor import terminate_child as terminate_child
from receipt_actors.otp._supervisor import which_children as which_children
from receipt_actors.otp._system import ActorSystem as ActorSystem
from receipt_actors.otp._system import Heartbeat as Heartbeat
from receipt_actors.otp._system import NoProgress as NoProgress
from receipt_actors.otp._system import StartError as StartError

PERMANENT, TRANSIENT, TEMPORARY = Restart
ONE_FOR_ONE, ONE_FOR_ALL, REST_FOR_ONE, SIMPLE_ONE_FOR_ONE = Strategy
WORKER, SUPERVISOR = ChildType
NEVER, ANY_SIGNIFICANT, ALL_SIGNIFICANT = AutoShutdown
