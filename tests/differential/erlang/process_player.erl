%% Plays a scenario of processes with links, monitors, exit signals, calls and names.
-module(process_player).
-behaviour(gen_server).
-export([play/2]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, handle_continue/2, terminate/2]).

-import(otp_peer, [log/2, register_self/3, attempt/2, processes/1, reason/1, exit_reason/1]).

-record(state, {collector, me, monitors = [], taken = 0, later = [], requests = gen_server:reqids_new()}).

%% --- the processes -----------------------------------------------------------------------------------------------

start(Collector, Kind, Init, Trap, Name) ->
    N = attempt(Collector, <<"p">>),
    Arguments = {Collector, N, Kind, Init, Trap},
    case {Kind, Name} of
        {first, null} -> gen_server:start(?MODULE, Arguments, []);
        {first, _} -> gen_server:start({local, binary_to_atom(Name)}, ?MODULE, Arguments, []);
        {child, null} -> gen_server:start_link(?MODULE, Arguments, []);
        {child, _} -> gen_server:start_link({local, binary_to_atom(Name)}, ?MODULE, Arguments, [])
    end.

init({Collector, N, Kind, Init, Trap}) ->
    process_flag(trap_exit, Trap),
    register_self(Collector, {<<"p">>, N}, Kind),
    State = #state{collector = Collector, me = N},
    case Init of
        <<"ok">> -> {ok, State};
        <<"continue">> -> {ok, State, {continue, <<"init">>}};
        <<"ignore">> -> ignore;
        <<"stop_", Reason/binary>> -> {stop, exit_reason(Reason)};
        <<"crash">> -> error({boom, <<"init">>})
    end.

see(#state{collector = Collector, me = Me}, Event) -> log(Collector, [Me | Event]).

handle_call(sync, _From, State) -> {reply, ok, State};
handle_call({act, Ops, Then, Reason}, _From, State0) ->
    State = act(Ops, State0),
    case Then of
        <<"go_on">> -> {reply, acted, State};
        <<"stop">> -> {stop, Reason, State};
        <<"stop_reply">> -> {stop, Reason, stopping, State};
        <<"crash">> -> error({boom, <<"call">>})
    end;
handle_call({request, From, How}, Client, State) ->
    see(State, [request, From, How]),
    case How of
        <<"reply">> -> {reply, reply, State};
        <<"later">> -> {noreply, State#state{later = State#state.later ++ [Client]}};
        <<"stop_reply">> -> {stop, {shutdown, done}, stopping, State};
        <<"stop">> -> {stop, {shutdown, done}, State};
        <<"crash">> -> error({boom, <<"request">>})
    end.

handle_cast({act, Ops, Then, Reason}, State) -> acted(Ops, Then, Reason, State);
handle_cast({told, From}, State) ->
    see(State, [cast, From]),
    {noreply, State}.

handle_info({act, Ops, Then, Reason}, State) -> acted(Ops, Then, Reason, State);
handle_info({told, From}, State) ->
    see(State, [send, From]),
    {noreply, State};
handle_info({mark, N}, State) ->
    see(State, [mark, N]),
    {noreply, State};
handle_info({'EXIT', Pid, Reason}, State) ->
    see(State, ['exit', number(State, Pid), reason(Reason)]),
    {noreply, State};
handle_info(Message, #state{requests = Requests} = State) ->
    case gen_server:check_response(Message, Requests, true) of
        {{reply, Reply}, Label, Left} ->
            see(State, [reply, Label, Reply]),
            {noreply, State#state{requests = Left}};
        {{error, {Reason, _}}, Label, Left} ->
            see(State, [failure, Label, reason(Reason)]),
            {noreply, State#state{requests = Left}};
        _ ->
            {'DOWN', Monitor, process, Pid, Reason} = Message,
            {_, Number, _} = lists:keyfind(Monitor, 1, State#state.monitors),
            see(State, [down, Number, number(State, Pid), reason(Reason)]),
            {noreply, State}
    end.

handle_continue(What, State) ->
    see(State, [continue, What]),
    {noreply, State}.

terminate(Reason, State) ->
    see(State, [terminate, reason(Reason)]).

acted(Ops, Then, Reason, State0) ->
    State = act(Ops, State0),
    case Then of
        <<"go_on">> -> {noreply, State};
        <<"continue">> -> {noreply, State, {continue, <<"act">>}};
        <<"stop">> -> {stop, Reason, State};
        <<"crash">> -> error({boom, <<"cast">>})
    end.

%% --- what they do ------------------------------------------------------------------------------------------------

%% It is logged, so that whoever waits for quiet looks once more at those whom it has sent something.
act(Ops, State0) ->
    State = lists:foldl(fun(Op, Before) -> op(maps:get(<<"kind">>, Op), Op, Before) end, State0, Ops),
    see(State, [acted]),
    State.

op(<<"Relate">>, #{<<"index">> := Index, <<"how">> := How}, State) ->
    relate(How, pid(State, Index), State);
op(<<"Demonitor">>, #{<<"number">> := Number, <<"flush">> := Flush}, State) ->
    case State#state.monitors of
        [] -> State;
        Monitors ->
            {Monitor, _, _} = lists:nth(Number rem length(Monitors) + 1, Monitors),
            undo(Monitor, Flush),
            State
    end;
op(<<"TrapExit">>, #{<<"flag">> := Flag}, State) ->
    see(State, [trap_exit, process_flag(trap_exit, Flag)]),
    State;
op(<<"Tell">>, #{<<"index">> := Index, <<"how">> := How, <<"name">> := Name}, State) ->
    Told = {told, State#state.me},
    case How of
        <<"send">> -> pid(State, Index) ! Told;
        <<"cast">> -> gen_server:cast(pid(State, Index), Told);
        <<"cast_name">> -> gen_server:cast(binary_to_atom(Name), Told)
    end,
    State;
op(<<"Request">>, #{<<"index">> := Index, <<"how">> := How, <<"name">> := Name}, State) ->
    To = case Name of null -> pid(State, Index); _ -> binary_to_atom(Name) end,
    case To =:= self() orelse (is_atom(To) andalso whereis(To) =:= self()) of
        true -> State;  % OTP would never see the answer: it comes through the alias of a monitor of oneself
        false ->
            Label = State#state.taken + 1,
            Requests = gen_server:send_request(To, {request, State#state.me, How}, Label, State#state.requests),
            wait_until_told(To),
            State#state{taken = Label, requests = Requests}
    end;
op(<<"Answer">>, _, State) ->
    [gen_server:reply(Client, late) || Client <- State#state.later],
    State#state{later = []};
op(<<"WhereIs">>, #{<<"name">> := Name}, State) ->
    see(State, [whereis, case whereis(binary_to_atom(Name)) of
                             undefined -> null;
                             Pid -> number(State, Pid)
                         end]),
    State;
op(<<"Spawn">>, #{<<"init">> := Init, <<"trap_exit">> := Trap, <<"name">> := Name}, State) ->
    see(State, [spawned, started(State, start(State#state.collector, child, Init, Trap, Name))]),
    State;
op(<<"Signal">>, #{<<"index">> := Index} = Signal, State) ->
    case pid(State, Index) of
        Pid when Pid =:= self() -> State;
        Pid -> signal(Pid, Signal, State)
    end;
op(<<"ExitSelf">>, #{<<"reason">> := Reason}, State) ->
    {trap_exit, Trap} = process_info(self(), trap_exit),
    case Reason =:= <<"kill">> orelse is_child(State, self()) orelse not Trap of
        true -> exit(self(), exit_reason(Reason));
        false -> own_parent
    end,
    State.

signal(Pid, #{<<"reason">> := <<"kill">>, <<"afterwards">> := Afterwards}, State) ->
    exit(Pid, kill),
    wait_until_dead(Pid),
    case Afterwards of
        null -> State;
        <<"demonitor">> -> undo_last(Pid, false, State);
        <<"flush">> -> undo_last(Pid, true, State);
        _ -> relate(Afterwards, Pid, State)
    end;
signal(Pid, #{<<"reason">> := Reason}, State) ->
    exit(Pid, exit_reason(Reason)),
    State.

relate(<<"link">>, Pid, State) ->
    case Pid =/= self() andalso (is_child(State, Pid) orelse is_child(State, self())) of
        true -> ok;
        false ->
            link(Pid),
            wait_until_told(Pid)
    end,
    State;
relate(<<"unlink">>, Pid, State) ->
    unlink(Pid),
    State;
relate(<<"monitor">>, Pid, #state{monitors = Monitors, taken = Taken} = State) ->
    Monitor = monitor(process, Pid),
    wait_until_told(Pid),
    State#state{monitors = Monitors ++ [{Monitor, Taken + 1, Pid}], taken = Taken + 1}.

undo(Monitor, true) -> demonitor(Monitor, [flush]);
undo(Monitor, false) -> demonitor(Monitor).

undo_last(Pid, Flush, State) ->
    case [Monitor || {Monitor, _, Other} <- State#state.monitors, Other =:= Pid] of
        [] -> ok;
        Monitors -> undo(lists:last(Monitors), Flush)
    end,
    State.

%% Where the other has ended, or is about to: wait until its end has come to all that this process has to do with it.
wait_until_told(Pid) when Pid =:= self() -> ok;
wait_until_told(Name) when is_atom(Name) ->
    {monitors, Monitors} = process_info(self(), monitors),
    case whereis(Name) =:= undefined andalso lists:member({process, {Name, node()}}, Monitors) of
        true -> erlang:yield(), wait_until_told(Name);
        false -> ok
    end;
wait_until_told(Pid) ->
    [{links, Links}, {monitors, Monitors}] = process_info(self(), [links, monitors]),
    case is_process_alive(Pid) of
        false ->
            case lists:member(Pid, Links) orelse lists:member({process, Pid}, Monitors) of
                true -> erlang:yield(), wait_until_told(Pid);
                false -> ok
            end;
        true -> ok
    end.

wait_until_dead(Pid) ->
    case is_process_alive(Pid) of
        true -> erlang:yield(), wait_until_dead(Pid);
        false -> wait_until_told(Pid)
    end.

pid(#state{collector = Collector}, Index) -> otp_peer:member(Collector, Index).

number(#state{collector = Collector}, Pid) ->
    case otp_peer:reference(Collector, Pid) of
        [_, N] -> N;
        unknown -> stranger
    end.

is_child(#state{collector = Collector}, Pid) ->
    {Processes, _} = processes(Collector),
    {_, _, _, Kind, _} = lists:keyfind(Pid, 1, Processes),
    Kind =:= child.

started(_, ignore) -> ignore;
started(State, {ok, Pid}) -> [ok, number(State, Pid)];
started(State, {error, {already_started, Pid}}) -> [already_started, number(State, Pid)];
started(_, {error, Reason}) -> [error, reason(Reason)].

%% --- the steps ---------------------------------------------------------------------------------------------------

play(Collector, #{<<"processes">> := First, <<"steps">> := Steps}) ->
    [{ok, _} = start(Collector, first, <<"ok">>, Trap, Name)
     || #{<<"trap_exit">> := Trap, <<"name">> := Name} <- First],
    [settled(Collector, step(Collector, Step)) || Step <- Steps].

step(Collector, #{<<"kind">> := <<"Held">>, <<"index">> := Index, <<"steps">> := Steps}) ->
    Held = otp_peer:member(Collector, Index),
    case is_process_alive(Held) of
        false -> no_process;
        true ->
            sys:suspend(Held, infinity),
            {Begun, _} = lists:mapfoldl(fun(Step, N) ->
                                                Sent = held_step(Collector, Index, Held, Step),
                                                settle(Collector, Held),
                                                Held ! {mark, N},
                                                {Sent, N + 1}
                                        end, 1, Steps),
            try sys:resume(Held, infinity) catch exit:_ -> ended_meanwhile end,
            [case Sent of {request, Request} -> answer(Request); _ -> Sent end || Sent <- Begun]
    end;
step(Collector, #{<<"kind">> := <<"Stranger">>, <<"index">> := Index, <<"reason">> := Reason}) ->
    Pid = otp_peer:member(Collector, Index),
    otp_peer:from_stranger(Pid, exit_reason(Reason)),
    ok;
step(Collector, Step) ->
    case send(Collector, Step) of
        {request, Request} -> answer(Request);
        Sent -> Sent
    end.

held_step(Collector, HeldIndex, Held, #{<<"kind">> := <<"Act">>, <<"index">> := Index} = Step) ->
    case otp_peer:member(Collector, Index) of
        Held when Index =:= HeldIndex -> send(Collector, Step);
        Held -> held;
        _ -> step(Collector, Step)
    end;
held_step(Collector, _, _, Step) -> step(Collector, Step).

send(Collector, #{<<"index">> := Index, <<"ops">> := Ops, <<"how">> := How, <<"then">> := Then,
                  <<"reason">> := Reason}) ->
    Pid = otp_peer:member(Collector, Index),
    Act = {act, Ops, Then, exit_reason(Reason)},
    case How of
        <<"call">> -> {request, gen_server:send_request(Pid, Act)};
        <<"cast">> -> gen_server:cast(Pid, Act);
        <<"send">> -> Pid ! Act, ok
    end.

answer(Request) ->
    case gen_server:receive_response(Request, infinity) of
        {reply, Reply} -> Reply;
        {error, {Reason, _}} -> ['exit', reason(Reason)]
    end.

settled(Collector, Answer) ->
    settle(Collector, none),
    {Processes, _} = processes(Collector),
    Ended = [[N, Reason] || {_, _, N, _, Reason} <- Processes, Reason =/= alive],
    #{answer => Answer, events => log(Collector, take), ended => Ended}.

%% Quiet: nobody has to do with somebody who has ended, all (but one that is held) have answered, and nothing has been
%% logged meanwhile. Twice: a request is answered without a word in the log, and its answer may wait in the mailbox of one
%% who was looked at before.
settle(Collector, Held) -> settle(Collector, Held, 2).

settle(_, _, 0) -> ok;
settle(Collector, Held, Rounds) ->
    {Processes, _} = Before = processes(Collector),
    Alive = [Pid || {Pid, _, _, _, alive} <- Processes],
    Dead = [Pid || {Pid, _, _, _, Reason} <- Processes, Reason =/= alive],
    IsQuiet = lists:all(fun(Pid) -> is_untied(Pid, Dead) andalso (Pid =:= Held orelse is_synced(Pid)) end, Alive),
    case IsQuiet andalso processes(Collector) =:= Before of
        true -> settle(Collector, Held, Rounds - 1);
        false -> erlang:yield(), settle(Collector, Held)
    end.

is_untied(Pid, Dead) ->
    case process_info(Pid, [links, monitors]) of
        undefined -> false;
        [{links, Links}, {monitors, Monitors}] ->
            not lists:any(fun(Ended) -> lists:member(Ended, Links) orelse lists:member({process, Ended}, Monitors) end,
                          Dead)
    end.

is_synced(Pid) ->
    try gen_server:call(Pid, sync, infinity) of
        ok -> true
    catch
        exit:_ -> false
    end.
