"""A saved plan is read back as it was, or not at all; and what moved on the broker is named."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, get_args

import pytest

from amqpflow.model.resources import STAMP, BrokerState, Policy, Queue
from amqpflow.planning.compare.diff import diff
from amqpflow.planning.saved.json_codec import UnreadablePlanError, decode, encode
from amqpflow.planning.saved.saved_plan import is_saved_plan, plan_from_text, plan_to_text
from amqpflow.planning.saved.staleness import changes_since
from amqpflow.planning.values.changes import Change
from amqpflow.planning.values.plan import Plan
from tests.plans import after, observation
from tests.topology_files import compiled

SHOP = """\
version: 1
name: shop
retry_policies:
  s:
    delays: [5s, 30s]
    on: [{errors: [ValueError], park: bad}, {errors: [KeyError], delays: [1m]}]
exchanges:
  events: {type: headers, arguments: {x-one: 1, x-text: "1", x-float: 1.0, x-list: [1, {a: true}]}}
queues:
  orders:
    retry: s
    bindings: [{exchange: events, arguments: {x-match: all, n: 1, ok: true}}]
    limits: {max_length: 10}
"""


def there() -> BrokerState:
    return after(BrokerState(), diff(compiled(SHOP), observation()).changes)


def test_what_was_saved_is_what_is_read() -> None:
    foreign = Queue(name="theirs.secret")
    state = replace(there(), queues={**there().queues, foreign.name: foreign})
    old = replace(next(iter(state.policies.values())), definition={"max-length": 9})
    theirs = Policy(name="theirs", pattern="^orders", definition={"expires": 1}, priority=10.5)
    policies = ({old.name: old}, {**state.policies, theirs.name: theirs})
    for observed in (observation(), observation(state), *(observation(replace(state, policies=p)) for p in policies)):
        plan = diff(compiled(SHOP), observed)
        text = plan_to_text(plan, version="1")
        assert is_saved_plan(text[:30])
        read = plan_from_text(text, version="1")
        assert read == plan
        assert plan_to_text(read, version="1") == text
        assert changes_since(read, plan) == ()
        assert "theirs.secret" not in text


def test_every_kind_of_change_can_be_saved() -> None:
    """Each field of each kind has a type that is known how to save: a new kind cannot be forgotten."""

    def sample(hint: Any) -> Any:
        for data in ("x", 1, True, [], {}, None):
            try:
                return decode(hint, data)
            except UnreadablePlanError:
                continue
        from amqpflow.planning.saved.json_codec import _hints

        return hint(**{name: sample(kind) for name, kind in _hints(hint).items()})

    for kind in get_args(Change):
        made = sample(kind)
        encoded = json.loads(json.dumps(encode(Change, made)))
        assert decode(Change, encoded) == made
        assert type(decode(Change, encoded)) is kind


def test_a_cut_or_edited_or_foreign_file_is_told_from_a_good_one() -> None:
    text = plan_to_text(diff(compiled(SHOP), observation()), version="1")
    for broken, said in {
        text[: len(text) // 2]: "it is incomplete",
        text.replace("orders", "ordrs", 1): "the checksum does not match",
        text.replace('"amqpflow_plan": 2', '"amqpflow_plan": 3'): "it has format 3",
        text.replace('"amqpflow": "1"', '"amqpflow": "0.9"'): "amqpflow 0.9 made it, this is 1",
        '{"amqpflow_plan": 2}': "amqpflow None made it",
        "{}": "it is not a saved plan",
        "[" * 100_000: "it is incomplete",
    }.items():
        with pytest.raises(UnreadablePlanError, match=said):
            plan_from_text(broken, version="1")
    for topology in ("version: 1\n", '{"version": 1}', "", "# {\n"):
        assert not is_saved_plan(topology)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, "plan has missing or unknown fields: changes"),
        ([], "plan is list, and should be an object"),
    ],
)
def test_a_plan_of_another_shape_names_the_place(data: Any, said: str) -> None:
    with pytest.raises(UnreadablePlanError, match=said):
        decode(Plan, data, "plan")


def test_what_moved_names_the_object_and_the_attribute() -> None:
    state = there()
    plan = diff(compiled(SHOP), observation(state))
    queue = state.queues["orders.retry.5s"]
    policy = next(iter(state.policies.values()))
    without = {name: each for name, each in state.queues.items() if name != "orders.retry.30s"}
    ttl = replace(queue, arguments={**queue.arguments, "x-message-ttl": 7, "x-new": "1"})
    moves = {
        "queue orders.retry.5s: x-message-ttl 5000 -> 7": {"queues": {**state.queues, queue.name: ttl}},
        "queue orders.retry.5s: x-new (not set) -> '1'": {"queues": {**state.queues, queue.name: ttl}},
        "queue orders.retry.30s was there, it is gone": {"queues": without},
        f"policy {policy.name}: max-length 10 -> 9": {
            "policies": {policy.name: replace(policy, definition={"max-length": 9})}
        },
        "policy theirs was not there, it is now": {
            "policies": {
                **state.policies,
                "theirs": Policy(name="theirs", pattern="^orders", definition={"expires": 1}),
            }
        },
        "operator policy ops was not there, it is now": {
            "operator_policies": {"ops": Policy(name="ops", pattern="", definition={"expires": 1})}
        },
        "queue old was not there, it is now": {
            "queues": {**state.queues, "old": Queue(name="old", arguments={STAMP: "shop"})}
        },
        "binding events -> orders [n=1, ok=True, x-match=all] was there, it is gone": {"bindings": ()},
    }
    for said, parts in moves.items():
        now = diff(compiled(SHOP), observation(replace(state, **parts)))  # type: ignore[arg-type]
        assert said in changes_since(plan, now), changes_since(plan, now)


def test_where_nothing_moved_the_first_step_that_differs_is_named() -> None:
    plan = diff(compiled(SHOP), observation())
    shorter = replace(plan, changes=plan.changes[1:])
    assert changes_since(plan, shorter)[0].startswith("step 1 was create exchange ")
    assert (
        changes_since(plan, diff(compiled(SHOP), observation(version=(4, 0, 5))))[0]
        == "it was RabbitMQ 4.3.6, it is RabbitMQ 4.0.5"
    )
