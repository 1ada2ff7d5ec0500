"""Every prefix of a plan is safe: nothing is bound to, or dead-letters into, what does not exist."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpflow.model.resources import STAMP, Binding, BrokerState, Exchange
from amqpflow.model.routes import CompiledTopology
from amqpflow.planning.compare.diff import diff
from amqpflow.planning.compare.order import independent_runs, ordered
from amqpflow.planning.values.changes import Bind, Change, CreateExchange, CreateQueue, PutPolicy
from tests.plans import PREDECLARED, after, limits, observation, with_objects
from tests.topologies import topology

QUEUES = st.dictionaries(
    st.sampled_from(["orders", "billing", "audit", "mail.out"]),
    st.lists(st.sampled_from([500, 1000, 5000, 30000]), unique=True, max_size=4).map(sorted),
    min_size=1,
)


@st.composite
def topologies(draw: st.DrawFn) -> CompiledTopology:
    made = topology(
        draw(QUEUES),
        vhost="/",
        queue_type=draw(st.sampled_from(["quorum", "classic"])),
        parking=draw(st.none() | st.just("shared.parking")),
    )
    names = draw(st.lists(st.sampled_from(["e1", "e2", "e3", "e4"]), unique=True))
    exchanges = {}
    for name in names:
        # circles of alternate exchanges are legal, and are drawn too
        target = draw(st.none() | st.sampled_from([*names, "amq.fanout"]))
        arguments = {STAMP: made.name} | ({"alternate-exchange": target} if target else {})
        exchanges[name] = Exchange(name=name, type="topic", arguments=arguments)
    bindings = []
    for name in names:
        for queue in draw(st.lists(st.sampled_from(sorted(made.routes)), unique=True)):
            bindings.append(Binding(source=name, destination=queue, routing_key="#"))
        if len(names) > 1 and draw(st.booleans()):
            bindings.append(Binding(source=name, destination=names[0], destination_type="exchange", routing_key="a"))
    policies = {
        each: limits(each, name=f"amqpflow.shop.quorum-0123abcd.{n}")
        for n, each in enumerate(draw(st.just(made.routes)))
    }
    return with_objects(
        made,
        exchanges={**made.desired.exchanges, **exchanges},
        bindings=(*made.desired.bindings, *bindings),
        policies=policies,
    )


def assert_safe(state: BrokerState, circles: bool) -> None:
    exchanges, queues = PREDECLARED.keys() | state.exchanges.keys(), state.queues.keys()
    for binding in state.bindings:
        assert binding.source in exchanges
        assert binding.destination in (queues if binding.destination_type == "queue" else exchanges)
    for queue in state.queues.values():
        if "x-dead-letter-exchange" in queue.arguments:
            assert queue.arguments["x-dead-letter-exchange"] == ""
            assert queue.arguments["x-dead-letter-routing-key"] in queues
    for exchange in state.exchanges.values():
        assert circles or exchange.alternate_exchange is None or exchange.alternate_exchange in exchanges


def has_circle(exchanges: dict[str, Exchange]) -> bool:
    for start in exchanges:
        current, steps = exchanges[start].alternate_exchange, 0
        while current in exchanges and steps < len(exchanges):
            if current == start:
                return True
            current, steps = exchanges[current].alternate_exchange, steps + 1
    return False


@given(topologies(), st.randoms(use_true_random=False))
def test_every_prefix_of_a_plan_is_safe(compiled: CompiledTopology, shuffle: random.Random) -> None:
    changes = list(diff(compiled, observation()).changes)
    shuffle.shuffle(changes)
    result = ordered(changes, compiled)
    assert sorted(map(id, result)) == sorted(map(id, changes))
    circles = has_circle(dict(compiled.desired.exchanges))
    for length in range(len(result) + 1):
        assert_safe(after(BrokerState(), result[:length]), circles)


@given(topologies(), st.data())
def test_what_is_done_at_once_is_safe_whichever_of_it_is_done(compiled: CompiledTopology, data: st.DataObject) -> None:
    changes = diff(compiled, observation()).changes
    runs = list(independent_runs(changes, compiled))
    assert [number for run in runs for number in run] == list(range(len(changes)))
    circles = has_circle(dict(compiled.desired.exchanges))
    for run in runs:
        some = data.draw(st.lists(st.sampled_from(run), unique=True))
        done = [*changes[: run.start], *(changes[number] for number in some)]
        assert_safe(after(BrokerState(), done), circles)


def test_queues_of_one_kind_are_made_at_once_and_messages_are_let_in_last() -> None:
    made = topology({"orders": [1000, 5000], "mail": [1000]}, vhost="/")
    binding = Binding(source="amq.topic", destination="orders", routing_key="#")
    compiled = with_objects(made, bindings=(*made.desired.bindings, binding))
    changes = diff(compiled, observation()).changes
    runs = [{each.name for each in changes[run.start : run.stop]} for run in independent_runs(changes, compiled)]
    assert runs[2:] == [
        {"orders.parking", "mail.parking"},
        {"shop.parking -> orders.parking (orders.parking)", "shop.parking -> mail.parking (mail.parking)"},
        {"orders", "mail"},
        {"orders.retry.1s", "orders.retry.5s", "mail.retry.1s"},
        {f"shop.retry -> {name} ({name})" for name in ("orders", "mail", *(runs[5]))},
        {"amq.topic -> orders (#)"},
    ]


@given(topologies())
def test_a_plan_reaches_the_desired_state_from_every_prefix(compiled: CompiledTopology) -> None:
    changes = diff(compiled, observation()).changes
    for length in range(0, len(changes) + 1, 3):
        there = observation(after(BrokerState(), changes[:length]))
        rest = diff(compiled, there)
        assert not rest.refusals
        assert len(rest.changes) == len(changes) - length
        again = diff(compiled, observation(after(there.state, rest.changes)))
        assert again.nothing_to_do
        assert not again.changes


@given(topologies())
def test_messages_are_let_in_last(compiled: CompiledTopology) -> None:
    """A queue gets its user bindings when parking, tiers and limits are in place."""
    own = {compiled.retry_exchange, compiled.parking_exchange}
    changes = diff(compiled, observation()).changes
    entries = [n for n, each in enumerate(changes) if isinstance(each, Bind) and each.binding.source not in own]
    others = [n for n in range(len(changes)) if n not in entries]
    assert not entries or not others or min(entries) > max(others)


@pytest.mark.parametrize("seed", range(5))
def test_ranks(seed: int) -> None:
    """Exchanges, parking queues, parking bindings, work queues, tiers, retry bindings, policies, user bindings."""
    made = topology({"orders": [1000, 5000], "mail": [1000]}, vhost="/")
    entry = Exchange(name="events", type="topic", arguments={STAMP: "shop"})
    compiled = with_objects(
        made,
        exchanges={**made.desired.exchanges, "events": entry},
        bindings=(*made.desired.bindings, Binding(source="events", destination="orders", routing_key="#")),
        policies={"amqpflow.shop.quorum-0123abcd": limits("orders")},
    )
    changes = list(diff(compiled, observation()).changes)
    random.Random(seed).shuffle(changes)
    ranks = [_rank(each) for each in ordered(changes, compiled)]
    assert ranks == sorted(ranks)


def _rank(change: Change) -> int:
    match change:
        case CreateExchange():
            return 0
        case CreateQueue(queue=queue) if queue.name.endswith(".parking"):
            return 1
        case Bind(binding=binding) if binding.source == "shop.parking":
            return 2
        case CreateQueue(queue=queue) if ".retry." not in queue.name:
            return 3
        case CreateQueue():
            return 4
        case Bind(binding=binding) if binding.source == "shop.retry":
            return 5
        case PutPolicy():
            return 6
        case _:
            return 7


def test_a_long_chain_of_alternate_exchanges_does_not_recurse() -> None:
    made = topology({"orders": []}, vhost="/")
    chain = {
        f"e{n}": Exchange(name=f"e{n}", type="topic", arguments={"alternate-exchange": f"e{n + 1}"} if n < 3000 else {})
        for n in range(3001)
    }
    result = ordered([CreateExchange(exchange=each) for each in chain.values()], made)
    assert [each.name for each in result] == [f"e{n}" for n in range(3000, -1, -1)]
