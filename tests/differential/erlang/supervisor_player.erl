%% Plays a scenario of supervision: is the callback module of its supervisors and workers, and does its steps.
-module(supervisor_player).
-behaviour(gen_server).
-export([play/2]).
-export([start/2, start/3]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-import(otp_peer, [log/2, register_self/3, attempt/2, processes/1, reference/2, reason/1, exit_reason/1,
                   from_stranger/2]).

%% --- starting ----------------------------------------------------------------------------------------------------

start(Collector, Child) -> start(Collector, Child, null).

start(Collector, #{<<"label">> := Label, <<"start">> := Start}, Argument) ->
    N = attempt(Collector, Label),
    log(Collector, [start, Label, N, Argument]),
    How = how(N, maps:get(<<"starts">>, Start)),
    case {How, Start} of
        {<<"refused">>, _} -> {error, {boom, <<"refused">>}};
        {<<"start_crash">>, _} -> error({boom, <<"start">>});
        {<<"junk">>, _} -> junk;
        {_, #{<<"kind">> := <<"Worker">>, <<"name">> := null}} ->
            gen_server:start_link(?MODULE, {worker, Collector, {Label, N}, How, Start}, []);
        {_, #{<<"kind">> := <<"Worker">>, <<"name">> := Name}} ->
            Local = {local, binary_to_atom(Name)},
            gen_server:start_link(Local, ?MODULE, {worker, Collector, {Label, N}, How, Start}, []);
        {_, #{<<"kind">> := <<"Tree">>}} ->
            supervisor:start_link(?MODULE, {tree, Collector, {Label, N}, How, Start})
    end.

how(N, Starts) when N =< length(Starts) -> lists:nth(N, Starts);
how(_, _) -> <<"ok">>.

init({tree, Collector, Self, How, Tree}) ->
    register_self(Collector, Self, tree),
    case How of
        <<"ignore">> -> ignore;
        <<"ok">> -> {ok, {flags(Tree), [spec(Collector, Child) || Child <- maps:get(<<"children">>, Tree)]}}
    end;
init({worker, Collector, Self, How, #{<<"trap_exit">> := Trap} = Worker}) ->
    process_flag(trap_exit, Trap),
    register_self(Collector, Self, worker),
    case How of
        <<"ok">> -> {ok, {Collector, Self, Worker}};
        <<"ignore">> -> ignore;
        <<"stop_", Reason/binary>> -> {stop, exit_reason(Reason)};
        <<"crash">> -> error({boom, <<"init">>})
    end.

flags(#{<<"strategy">> := Strategy, <<"intensity">> := Intensity, <<"auto_shutdown">> := AutoShutdown,
        <<"period">> := Period}) ->
    #{strategy => binary_to_atom(Strategy), intensity => Intensity, period => Period,
      auto_shutdown => binary_to_atom(AutoShutdown)}.

spec(Collector, #{<<"id">> := Id} = Child) ->
    Given = [{Key, word(maps:get(atom_to_binary(Key), Child))} || Key <- [restart, shutdown, significant, type]],
    maps:from_list([{id, Id}, {start, {?MODULE, start, [Collector, Child]}} |
                    [Pair || {_, Value} = Pair <- Given, Value =/= null]]).

word(Value) when is_binary(Value) -> binary_to_atom(Value);
word(Value) -> Value.

%% --- the worker --------------------------------------------------------------------------------------------------

handle_call(sync, _From, State) -> {reply, ok, State};
handle_call({stop, Reason}, _From, State) -> {stop, Reason, State};
handle_call({stop_reply, Reason}, _From, State) -> {stop, Reason, stopping, State};
handle_call(crash, _From, _State) -> error({boom, <<"call">>}).

handle_cast({stop, Reason}, State) -> {stop, Reason, State};
handle_cast(crash, _State) -> error({boom, <<"cast">>}).

handle_info({'EXIT', _, Reason}, {Collector, {Label, N}, _} = State) ->
    log(Collector, [exit_message, Label, N, reason(Reason)]),
    {noreply, State}.

terminate(_, {_, _, #{<<"terminate">> := <<"endless">>}}) ->
    receive never -> ok end;
terminate(Reason, {Collector, {Label, N}, #{<<"terminate">> := How}}) ->
    log(Collector, [terminate, Label, N, reason(Reason)]),
    case How of
        <<"ok">> -> ok;
        <<"crash">> -> error({boom, <<"terminate">>})
    end.

%% --- the steps ---------------------------------------------------------------------------------------------------

play(Collector, #{<<"tree">> := Tree, <<"steps">> := Steps} = Scenario) ->
    process_flag(trap_exit, true),
    put(workers, workers(Scenario)),
    Begin = case start(Collector, #{<<"label">> => <<"top">>, <<"start">> => Tree}) of
                {ok, Pid} -> put(top, Pid), ok;
                ignore -> ignore;
                {error, Reason} -> [error, reason(Reason)]
            end,
    put(stuck, []),
    First = settled(Collector, Begin),
    End = #{<<"kind">> => <<"EndTree">>, <<"tree">> => <<"top">>, <<"how">> => <<"parent">>,
            <<"reason">> => <<"shutdown">>},
    [First | [settled(Collector, step(Collector, Step)) || Step <- Steps ++ [End]]].

step(Collector, #{<<"kind">> := <<"End">>} = Step) ->
    case the_living(Collector, Step) of
        none -> no_process;
        {Pid, Child} -> _ = end_child(Pid, Child, Step), ok
    end;
step(Collector, #{<<"kind">> := <<"Call">>, <<"how">> := How, <<"reason">> := Reason} = Step) ->
    case the_living(Collector, Step) of
        none -> no_process;
        {Pid, #{<<"terminate">> := Terminate}} ->
            case lists:member(Pid, get(stuck)) orelse Terminate =:= <<"endless">> of
                true -> stuck;
                false ->
                    Request = case How of
                                  <<"crash">> -> crash;
                                  _ -> {binary_to_atom(How), exit_reason(Reason)}
                              end,
                    answer(Collector, call, Pid, Request)
            end
    end;
step(_, #{<<"kind">> := <<"Check">>, <<"specs">> := Specs, <<"auto_shutdown">> := AutoShutdown}) ->
    Checked = [spec(self(), Spec) || Spec <- Specs],
    Answer = case AutoShutdown of
                 null -> supervisor:check_childspecs(Checked);
                 _ -> supervisor:check_childspecs(Checked, binary_to_atom(AutoShutdown))
             end,
    case Answer of
        ok -> ok;
        {error, _} -> bad_specs
    end;
step(Collector, #{<<"kind">> := <<"EndTree">>, <<"tree">> := Label, <<"how">> := How, <<"reason">> := Given}) ->
    Reason = exit_reason(Given),
    case latest(Collector, Label) of
        none -> no_process;
        Pid ->
            case How of
                <<"parent">> -> exit(Pid, Reason), ok;
                <<"stranger">> -> from_stranger(Pid, Reason);
                <<"kill">> -> from_stranger(Pid, kill);
                <<"stop">> -> try gen_server:stop(Pid, Reason, infinity) catch exit:_ -> ok end;
                <<"call">> -> answer(Collector, call, Pid, nonsense);
                <<"cast">> -> gen_server:cast(Pid, nonsense);
                <<"info">> -> Pid ! nonsense, ok
            end
    end;
step(Collector, #{<<"kind">> := <<"Burst">>, <<"tree">> := Label, <<"steps">> := Steps}) ->
    case latest(Collector, Label) of
        none -> no_process;
        Pid ->
            sys:suspend(Pid, infinity),
            Begun = [burst(Collector, Pid, Step) || Step <- Steps],
            try sys:resume(Pid, infinity) catch exit:_ -> ended_meanwhile end,
            [case Sent of
                 {Function, Request} -> receive_answer(Collector, Function, Request);
                 Answer -> Answer
             end || Sent <- Begun]
    end;
step(Collector, #{<<"tree">> := Label} = Step) ->
    case latest(Collector, Label) of
        none -> no_process;
        Pid ->
            case request(Collector, Step) of
                none -> no_process;
                {Function, Request} -> answer(Collector, Function, Pid, Request)
            end
    end.

burst(Collector, Tree, #{<<"kind">> := <<"End">>} = Step) ->
    case the_living(Collector, Step) of
        none -> no_process;
        {Pid, Child} ->
            case end_child(Pid, Child, Step) of
                ends -> wait_for_exit_of(Collector, Pid, Tree);
                lives -> ok
            end,
            ok
    end;
burst(Collector, Tree, #{<<"kind">> := <<"EndTree">>, <<"tree">> := Label, <<"how">> := How} = Step) ->
    case {latest(Collector, Label), How} of
        {none, _} -> no_process;
        {Tree, <<"call">>} -> {call, gen_server:send_request(Tree, nonsense)};
        {Tree, <<"parent">>} ->
            step(Collector, Step),
            wait_for_end_of(Collector, Tree),  % suspended or not, it obeys
            ok;
        {Tree, _} -> step(Collector, Step);
        {Pid, _} ->
            step(Collector, Step),
            wait_for_exit_of(Collector, Pid, Tree),
            ok
    end;
burst(Collector, Tree, Step) ->
    case request(Collector, Step) of
        none -> no_process;
        {Function, Request} -> {Function, gen_server:send_request(Tree, Request)}
    end.

wait_for_end_of(Collector, Pid) ->
    case lists:keymember(Pid, 1, otp_peer:alive(Collector)) of
        true -> erlang:yield(), wait_for_end_of(Collector, Pid);
        false -> ok
    end.

wait_for_exit_of(Collector, Pid, Tree) ->
    wait_for_end_of(Collector, Pid),
    wait_for_exit_message(Pid, Tree).

wait_for_exit_message(Pid, Tree) ->
    {messages, Messages} = process_info(Tree, messages),
    case lists:any(fun({'EXIT', Ended, _}) -> Ended =:= Pid; (_) -> false end, Messages) of
        true -> ok;
        false -> erlang:yield(), wait_for_exit_message(Pid, Tree)
    end.

end_child(Pid, #{<<"trap_exit">> := Trap, <<"terminate">> := Terminate}, #{<<"how">> := How, <<"reason">> := Given}) ->
    Reason = exit_reason(Given),
    Stuck = lists:member(Pid, get(stuck)),
    case How of
        <<"kill">> ->
            from_stranger(Pid, kill),
            ends;
        <<"signal">> ->
            from_stranger(Pid, Reason),
            case Trap orelse Reason =:= normal of
                true when Stuck -> lives;
                true -> ok = gen_server:call(Pid, sync, infinity), lives;
                false -> ends
            end;
        _ ->
            gen_server:cast(Pid, case How of <<"stop">> -> {stop, Reason}; <<"crash">> -> crash end),
            case Terminate of
                <<"endless">> -> put(stuck, [Pid | get(stuck)]), lives;
                _ -> ends
            end
    end.

request(Collector, #{<<"kind">> := Kind} = Step) ->
    case {Kind, Step} of
        {<<"StartChild">>, #{<<"spec">> := Spec}} -> {start, {start_child, spec(Collector, Spec)}};
        {<<"StartDynamic">>, #{<<"argument">> := Argument}} -> {start, {start_child, [Argument]}};
        {<<"Ask">>, #{<<"function">> := Function}} -> {Function, binary_to_atom(Function)};
        {<<"ById">>, #{<<"function">> := Function, <<"id">> := Id}} -> by(Function, Id);
        {<<"ByPid">>, #{<<"function">> := Function, <<"label">> := Label, <<"index">> := Index}} ->
            {Processes, _} = processes(Collector),
            case [Pid || {Pid, Other, _, _, _} <- Processes, Other =:= Label] of
                [] -> none;
                Pids -> by(Function, lists:nth(Index rem length(Pids) + 1, Pids))
            end
    end.

by(<<"terminate">>, Id) -> {done, {terminate_child, Id}};
by(<<"restart">>, Id) -> {start, {restart_child, Id}};
by(<<"delete">>, Id) -> {done, {delete_child, Id}};
by(<<"get">>, Id) -> {get, {get_childspec, Id}}.

answer(Collector, Function, Pid, Request) ->
    receive_answer(Collector, Function, gen_server:send_request(Pid, Request)).

receive_answer(Collector, Function, Request) ->
    case {gen_server:receive_response(Request, infinity), Function} of
        {{error, {Reason, _}}, _} -> [exit, reason(Reason)];
        {{reply, Reply}, call} -> Reply;
        {{reply, Reply}, start} -> started(Collector, Reply);
        {{reply, ok}, done} -> ok;
        {{reply, {error, Error}}, done} -> Error;
        {{reply, {error, Error}}, get} -> Error;
        {{reply, {ok, Spec}}, get} ->
            [maps:get(Key, Spec) || Key <- [id, restart, significant, shutdown, type]];
        {{reply, Counts}, <<"count_children">>} ->
            [proplists:get_value(Key, Counts) || Key <- [specs, active, supervisors, workers]];
        {{reply, Children}, <<"which_children">>} -> which(Collector, Children)
    end.

started(Collector, {ok, Pid}) -> [ok, reference(Collector, Pid)];
started(Collector, {error, {already_started, Pid}}) -> [already_started, reference(Collector, Pid)];
started(_, {error, Error}) when is_atom(Error), Error =/= normal, Error =/= shutdown, Error =/= junk -> Error;
started(_, {error, {Error, Child}}) when element(1, Child) =:= child -> [error, reason(Error)];
started(_, {error, Error}) -> [error, reason(Error)].

%% In start order; children of a simple_one_for_one supervisor have none, so they stand in the order of their number.
which(Collector, Children) ->
    Lines = [[case Id of undefined -> null; _ -> Id end, reference(Collector, Child), Type]
             || {Id, Child, Type, _} <- Children],
    case Lines of
        [[null | _] | _] -> lists:sort(Lines);
        _ -> lists:reverse(Lines)
    end.

%% --- who is there ------------------------------------------------------------------------------------------------

the_living(Collector, #{<<"label">> := Label, <<"index">> := Index}) ->
    case [Pid || {Pid, Other, _, worker} <- otp_peer:alive(Collector), Other =:= Label] of
        [] -> none;
        Pids -> {lists:nth(Index rem length(Pids) + 1, Pids), maps:get(Label, get(workers))}
    end.

%% What the scenario says of each worker, by label.
workers(#{<<"label">> := Label, <<"start">> := #{<<"kind">> := <<"Worker">>} = Worker}) -> #{Label => Worker};
workers(Map) when is_map(Map) -> workers(maps:values(Map));
workers(List) when is_list(List) -> lists:foldl(fun maps:merge/2, #{}, [workers(Item) || Item <- List]);
workers(_) -> #{}.

latest(Collector, Label) ->
    case [Pid || {Pid, Other, _, tree} <- otp_peer:alive(Collector), Other =:= Label] of
        [] -> none;
        Pids -> lists:last(Pids)
    end.

%% --- waiting until nothing happens any more ----------------------------------------------------------------------

%% The answer to a step, what was seen until all was quiet again, who ended meanwhile and how, and what lives now.
settled(Collector, Answer) ->
    Children = settle(Collector),
    {Processes, _} = processes(Collector),
    Ended = [[Label, N, Reason] || {_, Label, N, _, Reason} <- Processes, Reason =/= alive],
    #{answer => Answer, events => log(Collector, take), ended => Ended, children => Children}.

%% Quiet: everything alive has been reached from the top and has answered, nobody waits for a restart, and nothing has
%% been logged meanwhile.
settle(Collector) ->
    {Before, Logged} = processes(Collector),
    Alive = [Pid || {Pid, _, _, _, alive} <- Before],
    Top = get(top),
    Walked = case lists:member(Top, Alive) of
                 true -> walk(Collector, Top, <<"top">>);
                 false -> {[], []}
             end,
    case Walked of
        {Reached, Children} ->
            case lists:sort(Reached) =:= lists:sort(Alive) andalso processes(Collector) =:= {Before, Logged} of
                true -> Children;
                false -> erlang:yield(), settle(Collector)
            end;
        unquiet -> erlang:yield(), settle(Collector)
    end.

walk(Collector, Tree, Label) ->
    try supervisor:which_children(Tree) of
        Children ->
            Line = [Label, which(Collector, Children)],
            walk_children(Collector, Children, {[Tree], [Line]})
    catch
        exit:_ -> unquiet
    end.

walk_children(_, [], Result) -> Result;
walk_children(_, [{_, restarting, _, _} | _], _) -> unquiet;
walk_children(Collector, [{_, undefined, _, _} | Rest], Result) -> walk_children(Collector, Rest, Result);
walk_children(Collector, [{_, Pid, _, _} | Rest], {Reached, Lines}) ->
    case walk_child(Collector, Pid) of
        {Below, LinesBelow} -> walk_children(Collector, Rest, {Below ++ Reached, Lines ++ LinesBelow});
        unquiet -> unquiet
    end.

walk_child(Collector, Pid) ->
    {Processes, _} = processes(Collector),
    case lists:keyfind(Pid, 1, Processes) of
        {_, Label, _, tree, alive} -> walk(Collector, Pid, Label);
        {_, _, _, worker, alive} ->
            try
                lists:member(Pid, get(stuck)) orelse gen_server:call(Pid, sync, infinity),
                {[Pid], []}
            catch
                exit:_ -> unquiet
            end;
        _ -> unquiet
    end.
