"""What apply made or a person adopted is removed; what was there before is not, nor what another virtual host had."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from amqpflow.api import functions as api
from amqpflow.errors import RefusedError
from amqpflow.model.routes import CompiledTopology
from amqpflow.planning.reports.consequences import Danger, consequences
from amqpflow.planning.values.apply_report import ApplyReport
from amqpflow.planning.values.changes import CreateExchange, PutManifest, RemoveManifest, Unbind, label
from amqpflow.planning.values.manifest import parameter_name
from amqpflow.planning.values.plan import Plan
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.observe import open_broker
from amqpflow.services.provisioning import drain
from amqpflow.services.provisioning.planner import make_destruction
from tests.brokers.management import Management
from tests.integration.test_apply_killed import kill_at
from tests.topology_files import compiled

BORROWED = """
retry_policies: {standard: {delays: [5s]}}
exchanges:
  events: {external: true, type: topic}
queues:
  invoices:
    existing: true
    retry: standard
    bindings: [{exchange: events, routing_key: order.placed}]
"""
"""An application's exchange, queue and binding, with retries and parking around them."""

UNLISTED = BORROWED.replace("    bindings: [{exchange: events, routing_key: order.placed}]\n", "")
ENTRY = ("events", "invoices", "order.placed")
NAMED = "events -> invoices (order.placed)"

DLQ = """
retry_policies: {standard: {delays: [5s]}}
queues:
  orders: {existing: true, type: classic, retry: standard, parking: {queue: orders.dlq, type: classic}}
"""
OWN_PARKING = DLQ.replace(", parking: {queue: orders.dlq, type: classic}", "")


@pytest.fixture(autouse=True)
def short_lag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "STATISTICS_LAG", 0.2)
    monkeypatch.setattr(drain, "POLL", 0.1)


def topology(text: str, vhost: BrokerAddress) -> CompiledTopology:
    return compiled(f"{text}vhost: {vhost.vhost}\n")


def run(what: Awaitable[ApplyReport]) -> ApplyReport:
    async def once() -> ApplyReport:
        return await what

    return asyncio.run(once())


def application(vhost: BrokerAddress, *, bind: bool) -> None:
    management = Management(vhost)
    management.put("exchanges", vhost.vhost, "events", body={"type": "topic", "durable": True})
    management.put("queues", vhost.vhost, "invoices", body={"durable": True, "arguments": {"x-queue-type": "quorum"}})
    if bind:
        bind_by_hand(vhost, *ENTRY)


def bind_by_hand(vhost: BrokerAddress, source: str, queue: str, key: str) -> None:
    Management(vhost).call("POST", "bindings", vhost.vhost, "e", source, "q", queue, body={"routing_key": key})


def unbind_by_hand(vhost: BrokerAddress, source: str, queue: str, key: str) -> None:
    Management(vhost).delete("bindings", vhost.vhost, "e", source, "q", queue, key)


def bindings(vhost: BrokerAddress) -> set[tuple[str, str, str]]:
    found = Management(vhost).get("bindings", vhost.vhost)
    return {(each["source"], each["destination"], each["routing_key"]) for each in found if each["source"]}


def queues(vhost: BrokerAddress) -> set[str]:
    found = Management(vhost).get("queues", vhost.vhost, query="disable_stats=true")
    return {each["name"] for each in found if not each["exclusive"]}


def manifest(vhost: BrokerAddress) -> Any:
    found = Management(vhost).get("global-parameters", parameter_name(vhost.vhost, "shop"))
    return found and found["value"]


def remove(how: str, vhost: BrokerAddress, *allow: str) -> ApplyReport:
    allowed = ["delete", *allow]
    if how == "destroy":
        return run(api.destroy(topology(BORROWED, vhost), vhost, allow=allowed))
    return run(api.apply(topology(UNLISTED, vhost), vhost, prune=True, allow=allowed))


@pytest.mark.parametrize("how", ["destroy", "prune"])
def test_a_binding_that_was_there_before_is_never_unbound(vhost: BrokerAddress, how: str) -> None:
    application(vhost, bind=True)
    applied = run(api.apply(topology(BORROWED, vhost), vhost))
    assert [(each.origin, each.binding.routing_key) for each in applied.plan.listed] == [("foreign", "order.placed")]
    assert manifest(vhost)["found"] == [["events", "q", "invoices", "order.placed"]]
    assert asyncio.run(api.plan(topology(BORROWED, vhost), vhost)).changes == ()
    assert remove(how, vhost).complete
    assert ENTRY in bindings(vhost)


@pytest.mark.parametrize("how", ["destroy", "prune"])
def test_a_binding_that_apply_made_is_unbound(vhost: BrokerAddress, how: str) -> None:
    """Also one that was unbound by hand meanwhile, and made by apply again."""
    application(vhost, bind=False)
    run(api.apply(topology(BORROWED, vhost), vhost))
    unbind_by_hand(vhost, *ENTRY)
    run(api.apply(topology(BORROWED, vhost), vhost))
    (left,) = asyncio.run(api.drift(topology(UNLISTED, vhost), vhost)).drifts
    assert (left.what, left.object) == ("added", f"binding {NAMED}")
    assert "amqpflow disown" in left.hint
    (listed,) = asyncio.run(api.plan(topology(BORROWED, vhost), vhost)).listed
    assert listed.origin == "ours"
    assert remove(how, vhost).complete
    assert ENTRY not in bindings(vhost)
    assert "invoices" in queues(vhost)


@pytest.mark.parametrize("how", ["destroy", "prune"])
def test_a_manifest_of_an_older_version_proves_no_binding_between_two_foreign_objects(
    vhost: BrokerAddress, how: str
) -> None:
    """It recorded every binding of the file. To unbind takes the binding's name, to keep it `disown`."""
    application(vhost, bind=True)
    run(api.apply(topology(BORROWED, vhost), vhost))
    own = [["shop.retry", "q", "invoices", "invoices"]]
    older = {"format": 1, "topology": "shop", "vhost": vhost.vhost, "adopted": [], "retiring": {}}
    older["bindings"] = [["events", "q", "invoices", "order.placed"], *own]
    Management(vhost).put("global-parameters", parameter_name(vhost.vhost, "shop"), body={"value": older})
    with pytest.raises(RefusedError) as refused:
        remove(how, vhost)
    (problem,) = refused.value.problems
    assert f"`allow` 'delete:{NAMED}'" in problem
    assert "amqpflow disown FILE binding" in problem
    assert ENTRY in bindings(vhost)
    if how == "destroy":
        plan = asyncio.run(_destruction(vhost))
        (danger,) = [each for each in consequences(plan) if each.danger is Danger.DANGER and each.kind == "binding"]
        assert (danger.name, danger.symbol) == (NAMED, "-")
        assert remove(how, vhost, f"delete:{NAMED}").complete
        assert ENTRY not in bindings(vhost)
    else:
        assert run(api.disown(topology(UNLISTED, vhost), "binding", [NAMED], vhost)).complete
        assert remove(how, vhost).complete
        assert ENTRY in bindings(vhost)
        assert manifest(vhost)["bindings"] == own


async def _destruction(vhost: BrokerAddress) -> Plan:
    async with open_broker(vhost) as broker:
        return await make_destruction(topology(BORROWED, vhost), broker)


@pytest.mark.one_broker
def test_killed_before_a_bind_an_apply_does_not_claim_what_the_application_binds_then(vhost: BrokerAddress) -> None:
    """It was written down as to be made. Whether it was made is not known, so it is not unbound unasked."""
    application(vhost, bind=False)
    changes = asyncio.run(api.plan(topology(BORROWED, vhost), vhost)).changes
    step = next(number for number, change in enumerate(changes) if label(change) == f"binding {NAMED}")
    kill_at(vhost, step, "before", "borrowed")
    bind_by_hand(vhost, *ENTRY)
    assert run(api.apply(topology(BORROWED, vhost), vhost)).complete
    with pytest.raises(RefusedError, match="refused"):
        remove("destroy", vhost)
    assert ENTRY in bindings(vhost)


@pytest.mark.one_broker
def test_killed_after_each_step_an_apply_forgets_nothing_that_it_made(vhost: BrokerAddress) -> None:
    """Each run gets a step further; at the end, all but the one binding in doubt is removed without naming it."""
    application(vhost, bind=False)
    total = len(asyncio.run(api.plan(topology(BORROWED, vhost), vhost)).changes)
    for _ in range(total):
        if not asyncio.run(api.plan(topology(BORROWED, vhost), vhost)).changes:
            break
        kill_at(vhost, 0, "after", "borrowed")
    assert asyncio.run(api.plan(topology(BORROWED, vhost), vhost)).changes == ()
    assert manifest(vhost)["unproven"] == [["events", "q", "invoices", "order.placed"]]
    assert remove("destroy", vhost, f"delete:{NAMED}").complete
    assert bindings(vhost) == set()
    assert queues(vhost) == {"invoices"}


def with_dlq(vhost: BrokerAddress) -> None:
    for name in ("orders", "orders.dlq"):
        Management(vhost).put("queues", vhost.vhost, name, body={"durable": True})


def recreated(vhost: BrokerAddress) -> None:
    """The virtual host is deleted, and another one of its name made, with the application's queues."""
    management = Management(vhost)
    management.delete("vhosts", vhost.vhost)
    management.put("vhosts", vhost.vhost, body={})
    management.put("permissions", vhost.vhost, vhost.user, body={"configure": ".*", "write": ".*", "read": ".*"})
    with_dlq(vhost)


def test_what_a_manifest_says_of_an_earlier_virtual_host_is_not_believed(vhost: BrokerAddress) -> None:
    with_dlq(vhost)
    run(api.adopt(topology(DLQ, vhost), "queue", ["orders.dlq"], vhost))
    assert run(api.apply(topology(DLQ, vhost), vhost)).complete
    recreated(vhost)
    assert manifest(vhost)["adopted"] == [["queue", "orders.dlq"]]
    plan = asyncio.run(api.plan(topology(DLQ, vhost), vhost))
    assert [each.code for each in plan.refusals] == ["not-ours"]
    (outdated,) = [each for each in plan.warnings if each.code == "manifest-outdated"]
    assert "queue orders.dlq, 1 binding" in outdated.message
    # it is dropped before anything is made that carries the stamp: a run that dies in between revives nothing
    changes = run(api.apply(topology(OWN_PARKING, vhost), vhost)).done
    assert isinstance(changes[0], PutManifest)
    assert "releases queue orders.dlq" in changes[0].differences
    assert run(api.destroy(topology(OWN_PARKING, vhost), vhost, allow=["delete"])).complete
    assert queues(vhost) == {"orders", "orders.dlq"}


@pytest.mark.one_broker
def test_destroying_in_the_successor_of_a_virtual_host_removes_the_record_alone(vhost: BrokerAddress) -> None:
    with_dlq(vhost)
    run(api.adopt(topology(DLQ, vhost), "queue", ["orders.dlq"], vhost))
    run(api.apply(topology(DLQ, vhost), vhost))
    recreated(vhost)
    done = run(api.destroy(topology(DLQ, vhost), vhost, allow=["delete"])).done
    assert [type(each) for each in done] == [RemoveManifest]
    assert queues(vhost) == {"orders", "orders.dlq"}
    assert manifest(vhost) is None


def test_adopting_before_the_first_apply_leaves_a_mark_by_which_it_is_believed(vhost: BrokerAddress) -> None:
    with_dlq(vhost)
    done = run(api.adopt(topology(DLQ, vhost), "queue", ["orders.dlq"], vhost)).done
    assert [type(each) for each in done] == [PutManifest, CreateExchange]
    assert run(api.adopt(topology(DLQ, vhost), "queue", ["orders.dlq"], vhost)).done == ()
    assert run(api.apply(topology(DLQ, vhost), vhost)).complete
    assert run(api.destroy(topology(DLQ, vhost), vhost, allow=["delete"])).complete
    assert queues(vhost) == {"orders"}
    assert Management(vhost).get("exchanges", vhost.vhost, "shop.parking") is None


@pytest.mark.one_broker
def test_where_nothing_can_carry_the_stamp_nothing_is_adopted(vhost: BrokerAddress) -> None:
    with_dlq(vhost)
    for name in ("shop.retry", "shop.parking"):
        Management(vhost).put("exchanges", vhost.vhost, name, body={"type": "direct", "durable": True})
    with pytest.raises(RefusedError) as refused:
        run(api.adopt(topology(DLQ, vhost), "queue", ["orders.dlq"], vhost))
    assert "delete exchange shop.parking while nothing publishes to it" in refused.value.problems[0]
    assert manifest(vhost) is None


def test_an_adoption_is_given_up(vhost: BrokerAddress) -> None:
    """The team takes a parking queue of amqpflow's own instead of its dead-letter queue, which it keeps."""
    with_dlq(vhost)
    run(api.adopt(topology(DLQ, vhost), "queue", ["orders.dlq"], vhost))
    run(api.apply(topology(DLQ, vhost), vhost))
    own = topology(OWN_PARKING, vhost)
    run(api.apply(own, vhost))
    (left,) = asyncio.run(api.drift(own, vhost)).drifts
    assert (left.what, left.object) == ("added", "queue orders.dlq")
    assert "amqpflow disown" in left.hint
    refused = asyncio.run(_refused(api.disown(own, "queue", ["orders.parking", "nothing"], vhost)))
    assert "its stamp is an argument" in refused[0]
    assert "queue nothing: it does not exist" in refused[1]
    report = run(api.disown(own, "queue", ["orders.dlq"], vhost))
    assert report.done[0].differences[0] == "releases queue orders.dlq"  # type: ignore[union-attr]
    assert run(api.disown(own, "queue", ["orders.dlq"], vhost)).done == ()
    # what apply bound for it in shop.parking is ours, and goes
    (left,) = asyncio.run(api.drift(own, vhost)).drifts
    assert left.object == "binding shop.parking -> orders.dlq (orders.dlq)"
    removed = run(api.apply(own, vhost, prune=True, allow=["delete"])).done
    assert [label(each) for each in removed if isinstance(each, Unbind)] == [left.object]
    assert asyncio.run(api.drift(own, vhost)).drifts == ()
    run(api.destroy(own, vhost, allow=["delete"]))
    assert queues(vhost) == {"orders", "orders.dlq"}


async def _refused(what: Awaitable[ApplyReport]) -> tuple[str, ...]:
    with pytest.raises(RefusedError) as refused:
        await what
    return tuple(refused.value.problems)


def test_a_binding_is_adopted_and_given_up(vhost: BrokerAddress) -> None:
    application(vhost, bind=True)
    file = topology(BORROWED, vhost)
    run(api.apply(file, vhost))
    refused = asyncio.run(_refused(api.adopt(file, "binding", ["events -> invoices", NAMED], vhost)))
    assert refused == (f"binding events -> invoices: it does not exist; there is {NAMED}",)
    assert run(api.adopt(file, "binding", [NAMED], vhost)).complete
    assert run(api.adopt(file, "binding", [NAMED], vhost)).done == ()
    assert manifest(vhost)["bindings"][0] == ["events", "q", "invoices", "order.placed"]
    assert f"binding {NAMED}" in [label(each) for each in asyncio.run(_destruction(vhost)).changes]
    assert run(api.disown(file, "binding", [NAMED], vhost)).complete
    assert manifest(vhost)["found"] == [["events", "q", "invoices", "order.placed"]]
    assert remove("destroy", vhost).complete
    assert ENTRY in bindings(vhost)


@pytest.mark.one_broker
def test_what_two_topologies_list_is_not_unbound_while_the_other_one_does(vhost: BrokerAddress) -> None:
    """It is that of the one that made it, and is handed over by giving it up here and adopting it there."""
    application(vhost, bind=False)
    Management(vhost).put("exchanges", vhost.vhost, "audit", body={"type": "fanout", "durable": True})
    to_audit = BORROWED.replace("routing_key: order.placed}", "routing_key: order.placed}, {exchange: audit}")
    to_audit = to_audit.replace("exchanges:\n", "exchanges:\n  audit: {external: true, type: fanout}\n")
    shop = topology(to_audit, vhost)
    run(api.apply(shop, vhost))
    # existing queues have one owner, but the records of two may meet: one was renamed, or taken apart
    stamped = {"type": "direct", "durable": True, "arguments": {"x-amqpflow-topology": "books"}}
    row = ["events", "q", "invoices", "order.placed"]
    books = {"format": 2, "topology": "books", "vhost": vhost.vhost, "bindings": [], "unproven": [], "found": [row]}
    books |= {"adopted": [], "retiring": {}}
    parameter = parameter_name(vhost.vhost, "books")
    Management(vhost).put("global-parameters", parameter, body={"value": books})
    assert not asyncio.run(_destruction(vhost)).refusals  # nothing here is of the topology books
    Management(vhost).put("exchanges", vhost.vhost, "books.retry", body=stamped)
    try:
        (refused,) = asyncio.run(_refused(api.destroy(shop, vhost, allow=["delete"])))
        assert f"binding {NAMED}: the topology books lists it too" in refused
        run(api.disown(shop, "binding", [NAMED], vhost))
        assert run(api.destroy(shop, vhost, allow=["delete"])).complete
    finally:
        Management(vhost).delete("global-parameters", parameter)
    assert bindings(vhost) == {ENTRY}


@pytest.mark.one_broker
def test_an_adopted_policy_that_works_on_foreign_queues_by_now_is_not_removed(vhost: BrokerAddress) -> None:
    file = topology("queues: {orders: {retry: none}}\n", vhost)
    run(api.apply(file, vhost))
    management = Management(vhost)
    policy = {"pattern": "^orders$", "definition": {"max-length": 100000}, "apply-to": "queues", "priority": 1}
    management.put("policies", vhost.vhost, "ops", body=policy)
    run(api.adopt(file, "policy", ["ops"], vhost))
    management.put("queues", vhost.vhost, "theirs", body={"durable": True})
    management.put("policies", vhost.vhost, "ops", body={**policy, "pattern": "^(orders|theirs)$"})
    for removing in (
        api.apply(file, vhost, prune=True, allow=["delete"]),
        api.destroy(file, vhost, allow=["delete"]),
    ):
        (refused,) = asyncio.run(_refused(removing))
        assert "policy ops: it works on what is not the topology's, too: queue theirs" in refused
        assert "amqpflow disown" in refused
    run(api.disown(file, "policy", ["ops"], vhost))
    assert run(api.destroy(file, vhost, allow=["delete"])).complete
    assert [each["name"] for each in management.get("policies", vhost.vhost)] == ["ops"]


@pytest.mark.one_broker
def test_a_binding_that_was_there_before_goes_with_the_queue_that_is_ours(vhost: BrokerAddress) -> None:
    """Its queue is removed, and the file knew of it: it hinders nothing."""
    Management(vhost).put("exchanges", vhost.vhost, "events", body={"type": "topic", "durable": True})
    plain = "queues: {mail: {retry: none}}\nexchanges: {events: {external: true}}\n"
    run(api.apply(topology(plain, vhost), vhost))
    bind_by_hand(vhost, "events", "mail", "new")
    listed = plain.replace("{retry: none}", "{retry: none, bindings: [{exchange: events, routing_key: new}]}")
    assert run(api.apply(topology(listed, vhost), vhost)).plan.listed[0].origin == "unproven"
    with pytest.raises(RefusedError, match="refused"):
        run(api.apply(topology(plain, vhost), vhost, prune=True, allow=["delete"]))
    assert ("events", "mail", "new") in bindings(vhost)
    assert run(api.destroy(topology(plain, vhost), vhost, allow=["delete"])).complete
    assert queues(vhost) == set()
