%% Plays a scenario of a state machine: is its callback module, and sends it things.
-module(statem_player).
-behaviour(gen_statem).
-export([play/2]).
-export([init/1, callback_mode/0, handle_event/4, a/3, b/3, c/3, terminate/3]).

-import(otp_peer, [log/2, register_self/3, processes/1, reason/1, exit_reason/1]).

-record(data, {collector, results, entered, calls = []}).

init({Collector, #{<<"first">> := First, <<"results">> := Results, <<"entered">> := Entered} = Scenario}) ->
    register_self(Collector, {<<"m">>, 1}, machine),
    put(mode, case Scenario of
                  #{<<"has_state_functions">> := true} -> state_functions;
                  _ -> handle_event_function
              end),
    put(enter, maps:get(<<"state_enter">>, Scenario)),
    Data = #data{collector = Collector, results = Results, entered = Entered},
    case First of
        #{<<"how">> := <<"next">>, <<"state">> := State, <<"actions">> := Actions} ->
            {Made, _} = actions(Actions, []),
            {ok, binary_to_atom(State), Data, Made};
        #{<<"how">> := <<"stop">>, <<"reason">> := Reason} -> {stop, exit_reason(Reason)};
        #{<<"how">> := <<"crash">>} -> error({boom, <<"init">>});
        #{<<"how">> := <<"junk">>} -> junk
    end.

callback_mode() ->
    case get(enter) of
        true -> [get(mode), state_enter];
        false -> get(mode)
    end.

a(Type, Content, Data) -> event(Type, Content, a, Data).
b(Type, Content, Data) -> event(Type, Content, b, Data).
c(Type, Content, Data) -> event(Type, Content, c, Data).

handle_event(Type, Content, State, Data) -> event(Type, Content, State, Data).

event(enter, Old, State, #data{entered = Entered} = Data) ->
    log(Data#data.collector, [State, enter, Old]),
    case Entered of
        [Result | Rest] -> result(Result, Data#data{entered = Rest});
        [] -> keep_state_and_data
    end;
event(Type, Content, State, #data{calls = Calls, results = Results} = Data0) ->
    {Name, Data} = case Type of
                       {call, From} -> {call, Data0#data{calls = [Call || Call <- Calls, Call =/= From] ++ [From]}};
                       {timeout, Timer} -> {Timer, Data0};
                       _ -> {Type, Data0}
                   end,
    log(Data#data.collector, [State, Name, Content]),
    case Results of
        [Result | Rest] -> result(Result, Data#data{results = Rest});
        [] -> {keep_state, Data}
    end.

terminate(Reason, State, #data{collector = Collector}) ->
    log(Collector, [State, terminate, reason(Reason)]).

result(#{<<"how">> := How, <<"state">> := State, <<"actions">> := Actions, <<"reason">> := Reason}, Data0) ->
    {Made, Left} = actions(Actions, Data0#data.calls),
    Data = Data0#data{calls = Left},
    case How of
        <<"next">> -> {next_state, binary_to_atom(State), Data, Made};
        <<"keep">> -> {keep_state, Data, Made};
        <<"repeat">> -> {repeat_state, Data, Made};
        <<"stop">> -> {stop, exit_reason(Reason), Data};
        <<"stop_reply">> ->
            {stop_and_reply, exit_reason(Reason), [{reply, From, stopping} || From <- Data0#data.calls], Data};
        <<"crash">> -> error({boom, <<"event">>});
        <<"junk">> -> junk
    end.

actions(Actions, Calls) ->
    {Made, Left} = lists:mapfoldl(fun(#{<<"kind">> := Kind} = Action, Open) -> action(Kind, Action, Open) end,
                                  Calls, Actions),
    {lists:append(Made), Left}.

action(<<"Reply">>, _, []) -> {[], []};
action(<<"Reply">>, #{<<"value">> := Value, <<"oldest">> := Oldest}, Calls) ->
    From = case Oldest of true -> hd(Calls); false -> lists:last(Calls) end,
    {[{reply, From, Value}], lists:delete(From, Calls)};
action(<<"Postpone">>, #{<<"flag">> := Flag}, Calls) -> {[{postpone, Flag}], Calls};
action(<<"NextEvent">>, #{<<"type">> := Type, <<"content">> := Content}, Calls) ->
    {[{next_event, event_type(Type), Content}], Calls};
action(<<"Timeout">>, #{<<"timer">> := Type, <<"time">> := Time, <<"content">> := Content}, Calls) ->
    Kind = event_type(Type),
    {[case Time of
          <<"zero">> -> {Kind, 0, Content};
          <<"long">> -> {Kind, 3600000, Content};
          <<"infinity">> -> {Kind, infinity, Content};
          <<"cancel">> -> {Kind, cancel};
          <<"update">> -> {Kind, update, Content}
      end], Calls}.

event_type(<<"timer", _/binary>> = Timer) -> {timeout, binary_to_atom(Timer)};
event_type(Type) -> binary_to_atom(Type).

%% --- the steps ---------------------------------------------------------------------------------------------------

play(Collector, #{<<"steps">> := Steps} = Scenario) ->
    put(requests, []),
    case gen_statem:start(?MODULE, {Collector, Scenario}, []) of
        {ok, Machine} -> [settled(Collector, Machine) | [begin step(Machine, Step), settled(Collector, Machine) end
                                                         || Step <- Steps]];
        {error, Reason} -> [#{start => reason(Reason)}]
    end.

step(Machine, #{<<"kind">> := <<"Burst">>, <<"sends">> := Sends}) ->
    try sys:suspend(Machine, infinity) of
        ok ->
            [send(Machine, Send) || Send <- Sends],
            sys:resume(Machine, infinity)
    catch
        exit:_ -> ok
    end;
step(Machine, #{<<"kind">> := <<"Replace">>, <<"state">> := State}) ->
    try sys:replace_state(Machine, fun({_, Data}) -> {binary_to_atom(State), Data} end, infinity)
    catch exit:_ -> ok
    end;
step(Machine, Send) -> send(Machine, Send).

send(Machine, #{<<"how">> := How, <<"content">> := Content}) ->
    case How of
        <<"call">> -> put(requests, get(requests) ++ [{Content, gen_statem:send_request(Machine, Content)}]);
        <<"cast">> -> gen_statem:cast(Machine, Content);
        <<"info">> -> Machine ! Content
    end.

settled(Collector, Machine) ->
    State = try sys:get_state(Machine, infinity) of
                {Name, _} -> Name
            catch
                exit:_ -> null
            end,
    wait_for_end(Collector, State),
    {[{_, _, _, _, End}], _} = processes(Collector),
    Answers = [{Content, Request, gen_statem:wait_response(Request, case State of null -> infinity; _ -> 0 end)}
               || {Content, Request} <- get(requests)],
    put(requests, [{Content, Request} || {Content, Request, timeout} <- Answers]),
    #{state => State, events => log(Collector, take), ended => End,
      answers => [[Content, case Answer of
                                {reply, Reply} -> Reply;
                                {error, {Reason, _}} -> ['exit', reason(Reason)]
                            end] || {Content, _, Answer} <- Answers, Answer =/= timeout]}.

wait_for_end(Collector, null) ->
    case otp_peer:alive(Collector) of
        [] -> ok;
        _ -> erlang:yield(), wait_for_end(Collector, null)
    end;
wait_for_end(_, _) -> ok.
