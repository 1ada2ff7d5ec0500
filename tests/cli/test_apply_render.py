"""What apply prints: a plan that a newcomer understands, and an account of how far it got."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest

from amqpflow.cli.render import colors
from amqpflow.cli.render.plan import applied_summary, plan_summary, plan_text
from amqpflow.cli.render.plan_json import applied_object, plan_object
from amqpflow.cli.render.report import stopped_text
from amqpflow.model.resources import STAMP, Binding, BrokerState, Exchange, Policy
from amqpflow.model.routes import CompiledTopology
from amqpflow.planning.compare.diff import diff
from amqpflow.planning.values.apply_report import ApplyReport, Failure
from tests.plans import after, limits, observation, with_objects
from tests.topologies import topology

POLICY = limits("orders", max_length=100, message_ttl=90000)


def shop() -> CompiledTopology:
    made = topology({"orders": [5000, [27000, 30000]], "audit": []}, vhost="/")
    events = Exchange(name="events", type="topic", arguments={STAMP: made.name, "alternate-exchange": "lost"})
    lost = Exchange(name="lost", type="fanout", internal=True, arguments={STAMP: made.name})
    return with_objects(
        made,
        exchanges={**made.desired.exchanges, "events": events, "lost": lost},
        bindings=(*made.desired.bindings, Binding(source="events", destination="orders", routing_key="order.*")),
        policies={POLICY.name: POLICY},
    )


def test_a_plan_is_grouped_by_work_queue() -> None:
    assert (
        plan_text(diff(shop(), observation()), color=False)
        == """\
Topology shop on RabbitMQ 4.3.6, virtual host /
The numbers are the steps of apply, in that order.

  Exchanges
   1 + exchange shop.retry                   direct, consumers and replay publish retries through it
   2 + exchange shop.parking                 direct, consumers park through it
   3 + exchange lost                         fanout, internal
   4 + exchange events                       topic, alternate exchange lost

  orders: retried after 5s 30s, then parked in orders.parking
   9 + queue orders                          quorum, delivery limit 50, dead letters to orders.parking
  11 + queue orders.retry.5s                 quorum, ttl 5s, then back to orders
  12 + queue orders.retry.27s                quorum, ttl 27s, then back to orders
  13 + queue orders.retry.30s                quorum, ttl 30s, then back to orders
   5 + queue orders.parking                  quorum, holds messages that failed for good
  20 + binding events -> orders (order.*)
   7 + 5 bindings                            in shop.retry and shop.parking, each queue by its own name (steps 7, 14-17)

  audit: parked in audit.parking at the first failure
  10 + queue audit                           quorum, delivery limit 50, dead letters to audit.parking
   6 + queue audit.parking                   quorum, holds messages that failed for good
   8 + 2 bindings                            in shop.retry and shop.parking, each queue by its own name (steps 8, 18)

  Policies
  19 + policy amqpflow.shop.quorum-0123abcd  max-length 100, message-ttl 1m30s; on orders
"""
    )


def test_summaries_count_what_is_done_and_what_is_not() -> None:
    plan = diff(shop(), observation())
    assert plan_summary(plan) == "Plan: 20 to create (4 exchanges, 7 queues, 8 bindings, 1 policy); 0 unchanged."
    assert applied_summary(plan, plan.changes) == (
        "Applied: 4 exchanges, 7 queues, 8 bindings, 1 policy created; 0 unchanged."
    )
    done = diff(shop(), observation(after(BrokerState(), plan.changes)))
    assert applied_summary(done, ()) == "Nothing to do: 20 objects are as the file says."


def test_a_changed_policy_shows_old_and_new_values() -> None:
    there = after(BrokerState(), diff(shop(), observation()).changes)
    old = replace(POLICY, definition={"max-length": 7, "message-ttl": 90000})
    stale = limits("audit", name="amqpflow.shop.quorum-ffffffff")
    plan = diff(shop(), observation(replace(there, policies={old.name: old, stale.name: stale})))
    text = plan_text(plan, color=False)
    assert "1 ~ policy amqpflow.shop.quorum-0123abcd  on orders\n        max-length: 7 -> 100\n" in text
    assert "- policy amqpflow.shop.quorum-ffffffff  max-length 10; the file no longer asks for it" in text
    assert applied_summary(plan, plan.changes) == "Applied: 1 policy changed; 1 policy removed; 19 unchanged."


def test_what_is_used_as_it_is_and_what_is_bound_again() -> None:
    there = after(BrokerState(), diff(shop(), observation()).changes)
    theirs = replace(there.exchanges["events"], arguments={"alternate-exchange": "lost", STAMP: "billing"})
    there = replace(there, exchanges={**there.exchanges, "events": theirs})
    rows = plan_text(diff(shop(), observation(there)), color=False).splitlines()
    assert "= exchange events used as it is, created by the topology billing" in [" ".join(row.split()) for row in rows]
    bare = with_objects(shop(), policies={})
    plan = diff(bare, replace(observation(replace(there, bindings=())), complete=False))
    text = plan_text(plan, color=False)
    assert "? binding events -> orders (order.*)" in text
    assert "? 5 bindings" in text
    assert "Note: Without the management API" in text
    assert applied_summary(plan, plan.changes) == (
        "Nothing to do: 11 objects are as the file says. 8 bindings, which cannot be read over AMQP, are bound again."
    )


def test_warnings_and_notes_follow_the_changes() -> None:
    policy = Policy(name="ops", pattern="retry", definition={"max-length": 3})
    plan = diff(replace(shop(), notes=("mind this",)), observation(BrokerState(policies={"ops": policy})))
    *_, warning, note, last = plan_text(plan, color=False, width=500).split("\n")
    assert warning.startswith("Warning: queues orders.retry.5s, orders.retry.27s, orders.retry.30s: policy ops sets")
    assert note == "Note: mind this"
    assert last == ""


def test_names_from_the_broker_cannot_act_on_the_terminal() -> None:
    theirs = Policy(name="\x1b[31mops\u202e", pattern="^orders", definition={"max-length": 3}, priority=999)
    plan = diff(shop(), observation(BrokerState(policies={theirs.name: theirs})))
    text = plan_text(plan, color=False)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\\x1b[31mops" in text


@pytest.mark.parametrize(
    ("choice", "environment", "terminal", "expected"),
    [
        ("auto", {}, True, True),
        ("auto", {}, False, False),
        ("auto", {"NO_COLOR": "1"}, True, False),
        ("auto", {"NO_COLOR": ""}, True, True),
        ("auto", {"TERM": "dumb"}, True, False),
        ("always", {"NO_COLOR": "1"}, False, True),
        ("never", {}, True, False),
    ],
)
def test_colours_only_where_they_are_wanted(
    monkeypatch: pytest.MonkeyPatch, choice: str, environment: dict[str, str], terminal: bool, expected: bool
) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal)
    assert colors.wanted(choice, stream) is expected


def test_colour_is_never_the_only_sign() -> None:
    plan = diff(shop(), observation())
    assert "\x1b[32m+\x1b[0m exchange" in plan_text(plan, color=True)
    import click

    assert click.unstyle(plan_text(plan, color=True)) == plan_text(plan, color=False)


def test_an_account_of_a_failure() -> None:
    plan = diff(shop(), observation())
    failed = Failure(change=plan.changes[2], reason="ACCESS_REFUSED - \x1b no", hint="ask")
    report = ApplyReport(plan=plan, done=plan.changes[:2], failed=failed, remaining=plan.changes[3:])
    lines = stopped_text(report, color=False).splitlines()
    assert lines[:6] == [
        "Done:",
        "  + exchange shop.retry",
        "  + exchange shop.parking",
        "Failed:",
        "  ! exchange lost: ACCESS_REFUSED - \\x1b no",
        "Not begun:",
    ]
    assert len(lines) == 6 + 17


def test_an_account_of_an_interruption() -> None:
    plan = diff(shop(), observation())
    report = ApplyReport(plan=plan, done=(), interrupted=plan.changes[:1], remaining=plan.changes[1:])
    assert stopped_text(report, color=False).splitlines()[:3] == [
        "Under way when it was stopped, may be done or not:",
        "  ? exchange shop.retry",
        "Not begun:",
    ]


def test_json_has_the_changes_in_their_order_and_what_became_of_them() -> None:
    plan = diff(shop(), observation())
    failed = Failure(change=plan.changes[1], reason="no")
    report = ApplyReport(plan=plan, done=plan.changes[:1], failed=failed, remaining=plan.changes[2:])
    found = json.loads(json.dumps(applied_object(report)))
    assert found["version"] == 1
    assert [each["name"] for each in found["changes"]] == [change.name for change in plan.changes]
    assert found["changes"][0]["after"] == {
        "name": "shop.retry",
        "type": "direct",
        "durable": True,
        "auto_delete": False,
        "internal": False,
        "arguments": {STAMP: "shop"},
    }
    assert found["result"]["failed"]["name"] == "shop.parking"
    assert found["result"]["complete"] is False
    assert len(found["result"]["remaining"]) == len(plan.changes) - 2


def test_json_of_a_plan_has_refusals_with_their_codes() -> None:
    events = Exchange(name="events", type="direct")
    found = json.loads(json.dumps(plan_object(diff(shop(), observation(BrokerState(exchanges={"events": events}))))))
    assert found["refusals"][0] == {
        "code": "differs",
        "object": "exchange events",
        "message": "type is direct on the broker, the file says topic; it cannot be changed in place",
        "hint": "if others declare it, write {external: true} for events in the file",
    }
    assert "result" not in found
