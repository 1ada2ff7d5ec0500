"""What a replay was asked for is in its journal, and resuming asks for nothing else."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from amqpflow.errors import RefusedError
from amqpflow.parking.journal import JournalState, read_journal
from amqpflow.parking.journal_lines import (
    acked_line,
    acking_line,
    confirmed_line,
    head_line,
    intent_line,
    left_line,
    only_line,
)
from amqpflow.parking.replay import Destination
from amqpflow.parking.selection import Matcher, Selection
from amqpflow.services.replaying.kept_request import kept_request, resumed_request
from amqpflow.services.replaying.request import ReplayRequest, with_matcher
from tests.topologies import topology
from tests.unit.parking.test_journal import HEAD, KEYS

COMPILED = topology({"a": [1000], "b": [1000]}, vhost="/")
EVERYTHING = ReplayRequest(
    limit=7,
    seed=3,
    select=Selection(reasons=("exhausted",), older_than="1h", headers=("tenant=t1",)),
    to=Destination(exchange="x", routing_key="k", label="x:k"),
    origin="a",
    keep_attempts=True,
    drop_headers=frozenset({"b", "a"}),
    rate=50.0,
    ramp=(1, 10),
    ramp_wait=5.0,
    max_depth=9,
    stop_if_reparked=0.2,
    in_doubt="hold",
)


def journal_of(queue: Any, choice: ReplayRequest, *lines: bytes) -> JournalState:
    """The journal of a replay that was asked for this, as it is read again."""
    request = kept_request(queue, with_matcher(choice, COMPILED))
    head = replace(HEAD, queues=request.queues, selection=request.selection, options=request.options)
    only = [only_line(request.only)] if request.only is not None else []
    return read_journal([head_line(head), *only, *lines])


def resumed(state: JournalState, queue: Any = None, choice: ReplayRequest | None = None) -> Any:
    return resumed_request(state, queue, choice, COMPILED)


def test_all_of_a_request_is_taken_up_again() -> None:
    queues, choice = resumed(journal_of("a", EVERYTHING))
    assert queues == ("a",)
    select, choice = choice.select, replace(choice, select=EVERYTHING.select)
    assert choice == EVERYTHING
    assert isinstance(select, Matcher)
    assert select.selection == EVERYTHING.select


def test_ages_are_counted_to_the_time_of_the_first_run() -> None:
    choice = with_matcher(EVERYTHING, COMPILED)
    assert isinstance(choice.select, Matcher)
    long_ago = Matcher(choice.select.selection, now=choice.select.now - 86_400_000, routes=COMPILED.routes)
    _, again = resumed(journal_of(None, replace(choice, select=long_ago)))
    assert again.select.now == long_ago.now


def test_nothing_asked_for_is_everything() -> None:
    assert resumed(journal_of(None, ReplayRequest())) == (None, ReplayRequest())
    assert resumed(journal_of(("a", "b"), ReplayRequest())) == (("a", "b"), ReplayRequest())


def test_the_same_may_be_asked_for_again_and_in_doubt_may_differ() -> None:
    state = journal_of(["a", "b"], EVERYTHING)
    queues, choice = resumed(state, ["b", "a"], EVERYTHING)
    assert (queues, choice.in_doubt) == (("a", "b"), "hold")
    assert resumed(state, None, ReplayRequest(in_doubt="send"))[1].in_doubt == "send"
    # and what was taken up is the same again
    again = resumed(state, queues, choice)
    assert (again[0], replace(again[1], select=None)) == (queues, replace(choice, select=None))


@pytest.mark.parametrize(
    ("queue", "choice", "says"),
    [
        ("b", {}, "queue: b now, a then"),
        (None, {"rate": 5.0}, "rate: 5.0 now, 50.0 then"),
        (None, {"limit": 8}, "limit: 8 now, 7 then"),
        (None, {"ramp": (2,)}, "ramp: 2 now, 1, 10 then"),
        (None, {"to": Destination(exchange="", routing_key="q", label="q")}, "to: q now, x:k then"),
        (None, {"select": Selection(reasons=("parked",))}, "select: reasons=parked now, reasons=exhausted "),
        ("b", {"rate": 5.0}, "queue: b now, a then; rate: 5.0 now"),
    ],
)
def test_another_request_is_refused_with_all_that_differs(queue: str | None, choice: dict[str, Any], says: str) -> None:
    with pytest.raises(RefusedError, match="has another request") as caught:
        resumed(journal_of("a", EVERYTHING), queue, ReplayRequest(**choice))
    assert says in str(caught.value)


def test_values_of_headers_are_not_kept_and_have_to_be_given_again() -> None:
    choice = ReplayRequest(set_headers={"token": "hunter2", "n": 5})
    request = kept_request(None, choice)
    assert "hunter2" not in json.dumps([request.options, request.selection])
    assert request.options["set_headers"] == ["n", "token"]
    state = journal_of(None, choice)
    assert resumed(state, None, choice)[1].set_headers == choice.set_headers
    for given in ({}, {"token": "hunter2"}, {"token": "hunter2", "n": 5, "more": 1}):
        with pytest.raises(RefusedError, match="sets these headers: n, token"):
            resumed(state, None, ReplayRequest(set_headers=given))
    with pytest.raises(RefusedError, match="to other values than those given now"):
        resumed(state, None, ReplayRequest(set_headers={"token": "hunter2", "n": "5"}))
    with pytest.raises(RefusedError, match="sets these headers: none"):
        resumed(journal_of(None, ReplayRequest()), None, choice)


def test_a_function_cannot_be_kept_and_has_to_be_given_again() -> None:
    def function(_: object) -> bool:
        return True

    state = journal_of(None, ReplayRequest(select=function))
    assert resumed(state, None, ReplayRequest(select=function))[1].select is function
    for given in (None, ReplayRequest(), ReplayRequest(select=Selection(reasons=("parked",)))):
        with pytest.raises(RefusedError, match="selected its messages by a function"):
            resumed(state, None, given)


def test_what_was_sent_counts_in_a_limit() -> None:
    lines = [intent_line(1, KEYS), confirmed_line([1, 2, 3]), left_line([4])]
    state = journal_of(None, ReplayRequest(limit=10), *lines)
    assert resumed(state)[1].limit == 7
    assert resumed(state, None, ReplayRequest(limit=10))[1].limit == 7
    assert resumed(state, None, ReplayRequest(limit=7))[1].limit == 7
    assert resumed(journal_of(None, ReplayRequest(limit=2), *lines))[1].limit == 0


def test_the_messages_that_were_named_are_taken_less_those_that_are_gone() -> None:
    one, two, three = (bytes.fromhex(KEYS[n][1][:32]) for n in range(3))
    choice = ReplayRequest(only=Counter({one: 2, two: 1}), sample=3, seed=4)
    state = journal_of(None, choice)
    assert resumed(state)[1].only == {one: 2, two: 1}
    gone = [intent_line(1, KEYS[:1]), confirmed_line([1]), acking_line([1]), acked_line(1, 1)]
    assert resumed(journal_of(None, choice, *gone))[1].only == {one: 1, two: 1}
    assert resumed(state, None, ReplayRequest(only={two: 5, three: 1}))[1].only == {two: 1}


@pytest.mark.parametrize("options", [{"to": {"nonsense": 1}}, {"rate": -1.0}, {"ramp": 5}])
def test_a_request_that_cannot_be_read_is_refused(options: dict[str, Any]) -> None:
    state = read_journal([head_line(replace(HEAD, selection={}, options=options))])
    with pytest.raises(RefusedError, match="cannot be read from its journal"):
        resumed(state)
