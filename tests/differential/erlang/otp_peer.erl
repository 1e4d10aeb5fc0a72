%% The Erlang side: reads a scenario a line (JSON) from standard input, plays it, writes its trace as a line.
%%
%% Everything that a scenario sees goes through one collector process, in synchronous calls: what happens after
%% something else is logged after it. The collector also monitors each process of the scenario and keeps why it ended.
-module(otp_peer).
-export([main/0]).
-export([log/2, register_self/3, attempt/2, processes/1, alive/1, member/2, reference/2]).
-export([reason/1, exit_reason/1, from_stranger/2]).

-define(TIMEOUT, 10000).

main() ->
    logger:set_primary_config(level, none),
    Port = open_port({fd, 0, 1}, [binary, eof, {line, 1 bsl 20}]),
    loop(Port, []).

loop(Port, Begun) ->
    receive
        {Port, {data, {noeol, Part}}} ->
            loop(Port, [Begun, Part]);
        {Port, {data, {eol, Part}}} ->
            Scenario = json:decode(iolist_to_binary([Begun, Part])),
            port_command(Port, [json:encode(play(Scenario)), $\n]),
            loop(Port, []);
        {Port, eof} ->
            halt(0)
    end.

play(#{<<"family">> := Family} = Scenario) ->
    Module = case Family of
                 <<"supervisor">> -> supervisor_player;
                 <<"process">> -> process_player;
                 <<"statem">> -> statem_player
             end,
    {Collector, CollectorMonitor} = spawn_monitor(fun() -> collect(#{}, [], []) end),
    {Player, Monitor} = spawn_monitor(fun() -> exit({trace, Module:play(Collector, Scenario)}) end),
    Trace = receive
                {'DOWN', Monitor, process, Player, {trace, Result}} -> Result;
                {'DOWN', Monitor, process, Player, Reason} -> failure(Reason)
            after ?TIMEOUT ->
                Where = process_info(Player, current_stacktrace),
                exit(Player, kill),
                failure({timeout, Where})
            end,
    [exit(Pid, kill) || {Pid, _, _, _} <- alive(Collector)],
    wait_for_none(Collector),
    exit(Collector, kill),
    receive {'DOWN', CollectorMonitor, process, Collector, _} -> ok end,
    receive {'DOWN', Monitor, process, Player, _} -> ok after 0 -> ok end,
    Trace.

failure(Reason) ->
    #{failure => unicode:characters_to_binary(io_lib:format("~0tp", [Reason]))}.

wait_for_none(Collector) ->
    case alive(Collector) of
        [] -> ok;
        _ -> erlang:yield(), wait_for_none(Collector)
    end.

%% --- the collector -----------------------------------------------------------------------------------------------

collect(Attempts, Processes, Log) ->
    receive
        {From, Tag, {log, Event}} ->
            From ! {Tag, ok},
            collect(Attempts, Processes, [Event | Log]);
        {From, Tag, {attempt, Label}} ->
            N = maps:get(Label, Attempts, 0) + 1,
            From ! {Tag, N},
            collect(Attempts#{Label => N}, Processes, Log);
        {From, Tag, {register, Label, N, Kind}} ->
            monitor(process, From),
            From ! {Tag, ok},
            collect(Attempts, [{From, Label, N, Kind, alive} | Processes], Log);
        {'DOWN', _, process, Pid, Reason} ->
            {Pid, Label, N, Kind, alive} = lists:keyfind(Pid, 1, Processes),
            Ended = {Pid, Label, N, Kind, reason(Reason)},
            collect(Attempts, lists:keyreplace(Pid, 1, Processes, Ended), Log);
        {From, Tag, processes} ->
            From ! {Tag, {lists:reverse(Processes), length(Log)}},
            collect(Attempts, Processes, Log);
        {From, Tag, take_log} ->
            From ! {Tag, lists:reverse(Log)},
            collect(Attempts, Processes, [])
    end.

call(Collector, Request) ->
    Tag = make_ref(),
    Collector ! {self(), Tag, Request},
    receive {Tag, Answer} -> Answer end.

log(Collector, take) -> call(Collector, take_log);
log(Collector, Event) -> call(Collector, {log, Event}).

attempt(Collector, Label) -> call(Collector, {attempt, Label}).

register_self(Collector, {Label, N}, Kind) -> call(Collector, {register, Label, N, Kind}).

%% All processes ever, oldest first, and how much has been logged.
processes(Collector) -> call(Collector, processes).

alive(Collector) ->
    {Processes, _} = processes(Collector),
    [{Pid, Label, N, Kind} || {Pid, Label, N, Kind, alive} <- Processes].

%% The process of this number, modulo how many there have been.
member(Collector, Index) ->
    {Processes, _} = processes(Collector),
    element(1, lists:nth(Index rem length(Processes) + 1, Processes)).

%% --- what both sides call it -------------------------------------------------------------------------------------

reference(_, undefined) -> null;
reference(_, restarting) -> restarting;
reference(Collector, Pid) ->
    {Processes, _} = processes(Collector),
    case lists:keyfind(Pid, 1, Processes) of
        {_, Label, N, _, _} -> [Label, N];
        false -> unknown
    end.

reason(normal) -> <<"normal">>;
reason(shutdown) -> <<"shutdown">>;
reason({shutdown, done}) -> <<"shutdown: done">>;
reason({shutdown, {failed_to_start_child, Id, Why}}) ->
    <<"shutdown: failed to start ", Id/binary, ": ", (reason(Why))/binary>>;
reason(killed) -> <<"killed">>;
reason(noproc) -> <<"noproc">>;
reason({'EXIT', Reason}) -> reason(Reason);
reason({boom, What}) -> <<"crash: ", What/binary>>;
reason({{boom, What}, Stack}) when is_list(Stack) -> <<"crash: ", What/binary>>;
reason({already_started, _}) -> <<"already started">>;
reason({supervisor_data, _}) -> <<"bad spec">>;
reason({start_spec, _}) -> <<"bad spec">>;
reason({bad_start_spec, _}) -> <<"bad spec">>;
reason({Bad, _}) when Bad =:= invalid_mfa; Bad =:= invalid_restart_type; Bad =:= invalid_child_type;
                      Bad =:= invalid_shutdown; Bad =:= invalid_significant; Bad =:= bad_combination;
                      Bad =:= duplicate_child_name; Bad =:= invalid_child_spec -> <<"bad spec">>;
reason(_) -> <<"crash: other">>.

exit_reason(<<"normal">>) -> normal;
exit_reason(<<"shutdown">>) -> shutdown;
exit_reason(<<"shutdown_done">>) -> {shutdown, done};
exit_reason(<<"crash">>) -> {boom, <<"given">>};
exit_reason(<<"kill">>) -> kill.

%% Send an exit signal from a process that is nobody's parent.
from_stranger(Pid, Reason) ->
    {_, Monitor} = spawn_monitor(fun() -> exit(Pid, Reason) end),
    receive {'DOWN', Monitor, _, _, _} -> ok end.
