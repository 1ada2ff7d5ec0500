"""Apply against real brokers: what is there afterwards, with the management API and over AMQP alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from amqpflow.api import functions as api
from amqpflow.errors import ManagementUnavailableError, PartlyDoneError, PermissionDeniedError, RefusedError
from amqpflow.model.names import applying_lock
from amqpflow.model.resources import STAMP, Binding, Exchange
from amqpflow.model.routes import CompiledTopology
from amqpflow.planning.values.apply_report import ApplyReport
from amqpflow.planning.values.changes import label
from amqpflow.planning.values.plan import Plan
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.admin import Admin
from amqpflow.rabbitmq.observe import open_broker
from amqpflow.rabbitmq.probe import Probe
from amqpflow.services.provisioning.applier import ApplyRun
from amqpflow.services.provisioning.planner import make_plan
from tests.brokers.management import Management, as_user
from tests.brokers.selection import BrokerUnderTest
from tests.plans import limits, with_objects
from tests.topologies import topology
from tests.waiting import until


def shop(vhost: BrokerAddress, **options: Any) -> CompiledTopology:
    """Two work queues, an exchange with an alternate exchange, all kinds of bindings."""
    made = topology({"orders": [5000, 30000], "mail.out": []}, vhost=vhost.vhost, **options)
    stamp = {STAMP: made.name}
    exchanges = {
        "events": Exchange(name="events", type="topic", arguments={"alternate-exchange": "lost", **stamp}),
        "lost": Exchange(name="lost", type="fanout", arguments=stamp),
        "by header": Exchange(name="by header", type="headers", arguments=stamp),
    }
    bindings = (
        Binding(source="events", destination="orders", routing_key="order.*"),
        Binding(source="events", destination="by header", destination_type="exchange", routing_key="a b/c"),
        Binding(
            source="by header", destination="mail.out", arguments={"x-match": "all", "kind": "mail", "n": 1, "ok": True}
        ),
        Binding(source="lost", destination="mail.out"),
        Binding(source="amq.topic", destination="orders", routing_key="#"),
    )
    return with_objects(
        made, exchanges={**made.desired.exchanges, **exchanges}, bindings=(*made.desired.bindings, *bindings)
    )


def run(compiled: CompiledTopology, address: BrokerAddress, *, management: bool = True) -> ApplyReport:
    """Plan and apply once, with the choice of doing without the management API."""

    async def once() -> ApplyReport:
        async with open_broker(address, use_management=management) as broker:
            return await ApplyRun(await make_plan(compiled, broker)).run(Admin(broker, applying_lock(compiled.name)))

    return asyncio.run(once())


def plan_of(compiled: CompiledTopology, address: BrokerAddress, *, management: bool = True) -> Plan:
    async def once() -> Plan:
        async with open_broker(address, use_management=management) as broker:
            return await make_plan(compiled, broker)

    return asyncio.run(once())


def definitions(address: BrokerAddress) -> dict[str, Any]:
    """What the virtual host holds, comparable, as the management API tells it."""
    management = Management(address)
    queues = management.get("queues", address.vhost, query="disable_stats=true")
    exchanges = management.get("exchanges", address.vhost)
    return {
        "queues": {q["name"]: (q["durable"], q["auto_delete"], q["arguments"]) for q in queues},
        "exchanges": {
            e["name"]: (e["type"], e["durable"], e["internal"], e["arguments"])
            for e in exchanges
            if not e["name"].startswith("amq.") and e["name"]
        },
        "bindings": sorted(
            (b["source"], b["destination_type"], b["destination"], b["routing_key"], sorted(b["arguments"].items()))
            for b in management.get("bindings", address.vhost)
            if b["source"]
        ),
        "policies": {
            p["name"]: (p["pattern"], p["definition"], p["priority"]) for p in management.get("policies", address.vhost)
        },
    }


@contextmanager
def user(address: BrokerAddress, *, tags: str = "", **permissions: str) -> Iterator[BrokerAddress]:
    """A user of its own with permissions in this virtual host, and the address to connect as it."""
    management = Management(address)
    name = f"{address.vhost}-user"
    granted = {"configure": ".*", "write": ".*", "read": ".*", **permissions}
    management.put("users", name, body={"password": "s3cret", "tags": tags})
    management.put("permissions", address.vhost, name, body=granted)
    try:
        yield as_user(address, name, "s3cret")
    finally:
        management.delete("users", name)


@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
def test_an_empty_virtual_host_gets_what_the_topology_says(vhost: BrokerAddress, queue_type: str) -> None:
    compiled = shop(vhost, queue_type=queue_type)
    report = run(compiled, vhost)
    assert report.complete
    assert report.failed is None
    there = definitions(vhost)
    assert there["queues"] == {
        each.name: (True, False, dict(each.arguments)) for each in compiled.desired.queues.values()
    }
    assert there["exchanges"].keys() == compiled.desired.exchanges.keys()
    assert len(there["bindings"]) == len(compiled.desired.bindings)


@pytest.mark.parametrize("management", [True, False])
def test_applying_twice_changes_nothing(vhost: BrokerAddress, management: bool) -> None:
    compiled = shop(vhost)
    run(compiled, vhost, management=management)
    before = definitions(vhost)
    again = run(compiled, vhost, management=management)
    assert again.plan.nothing_to_do
    assert again.plan.findings == ()
    assert definitions(vhost) == before
    if management:
        assert again.plan.changes == ()
        assert len(again.plan.unchanged) == sum(
            len(part) for part in (compiled.desired.exchanges, compiled.desired.queues, compiled.desired.bindings)
        )


def test_amqp_alone_does_the_same_as_with_management(broker: BrokerUnderTest, vhost: BrokerAddress) -> None:
    other = vhost.vhost + "-amqp"
    broker.management.put("vhosts", other)
    try:
        broker.management.put("permissions", other, vhost.user, body={"configure": ".*", "write": ".*", "read": ".*"})
        run(shop(vhost), vhost)
        run(shop(vhost), vhost.with_vhost(other), management=False)
        assert definitions(vhost) == definitions(vhost.with_vhost(other))
        # and each sees the other's work as done
        assert plan_of(shop(vhost), vhost, management=False).nothing_to_do
        assert [each.kind for each in plan_of(shop(vhost), vhost.with_vhost(other)).changes] == ["manifest"]
    finally:
        broker.management.delete("vhosts", other)


def test_policies_are_written_updated_and_removed(broker: BrokerUnderTest, vhost: BrokerAddress) -> None:
    first, second = limits("orders", max_length=1000), limits("orders", max_length=2000, max_length_bytes=1 << 30)
    run(with_objects(shop(vhost), policies={first.name: first}), vhost)
    assert definitions(vhost)["policies"] == {first.name: ("^(orders)$", {"max-length": 1000}, 100)}
    report = run(with_objects(shop(vhost), policies={second.name: second}), vhost)
    assert [(each.action, each.kind) for each in report.done] == [("update", "policy")]
    assert definitions(vhost)["policies"] == {
        first.name: ("^(orders)$", {"max-length": 2000, "max-length-bytes": 1 << 30}, 100)
    }
    report = run(shop(vhost), vhost)
    assert [(each.action, each.kind) for each in report.done] == [("delete", "policy")]
    assert definitions(vhost)["policies"] == {}


def test_what_the_release_cannot_do_by_policy_is_left_out_and_said(
    broker: BrokerUnderTest, vhost: BrokerAddress
) -> None:
    policy = replace(limits("orders", max_length=10, consumer_timeout=60000), apply_to="quorum_queues")
    compiled = with_objects(shop(vhost), policies={policy.name: policy})
    report = run(compiled, vhost)
    assert report.complete
    old = broker.version < (3, 12)
    written = definitions(vhost)["policies"][policy.name][1]
    assert written == ({"max-length": 10} if old else {"max-length": 10, "consumer-timeout": 60000})
    assert any("consumer_timeout is left out" in note for note in report.plan.notes) is old
    assert run(compiled, vhost).plan.changes == ()


@pytest.mark.parametrize("management", [True, False])
def test_each_differing_argument_is_refused_and_nothing_is_done(vhost: BrokerAddress, management: bool) -> None:
    run(shop(vhost), vhost)
    wanted = shop(vhost)
    queues = dict(wanted.desired.queues)
    for name, changes in {
        "orders.retry.5s": {"x-message-ttl": 6000},
        "orders": {"x-delivery-limit": 9, "x-max-length": 5, "x-overflow": None},
        "mail.out.parking": {"x-queue-type": "classic", "x-delivery-limit": None},
    }.items():
        merged = {k: v for k, v in {**queues[name].arguments, **changes}.items() if v is not None}
        queues[name] = replace(queues[name], arguments=merged)
    exchanges = dict(wanted.desired.exchanges)
    exchanges["events"] = replace(exchanges["events"], type="direct", arguments={STAMP: "shop"})
    exchanges["new"] = Exchange(name="new", type="topic", arguments={STAMP: "shop"})
    before = definitions(vhost)
    with pytest.raises(RefusedError) as refused:
        run(with_objects(wanted, queues=queues, exchanges=exchanges), vhost, management=management)
    said = [each.partition("; it cannot")[0] for each in refused.value.problems]
    expected = [
        "exchange events: type is topic on the broker, the file says direct",
        "exchange events: alternate-exchange is lost on the broker, the file does not set it",
        "queue orders: x-delivery-limit is 50 on the broker, the file says 9",
        "queue orders: x-max-length is not set on the broker, the file says 5",
        "queue orders: x-overflow is reject-publish on the broker, the file does not set it",
        "queue mail.out.parking: x-queue-type is quorum on the broker, the file says classic",
    ]
    if not management:  # with it a retry queue can be replaced
        expected.append("queue orders.retry.5s: x-message-ttl is 5000 on the broker, the file says 6000")
    assert set(expected) <= set(said)
    assert definitions(vhost) == before


@pytest.mark.parametrize("durable", [True, False])
def test_looking_over_amqp_tells_every_difference_of_a_foreign_queue(vhost: BrokerAddress, durable: bool) -> None:
    """A number and its text look the same in RabbitMQ's answer; the probe tells them apart."""
    Management(vhost).put(
        "queues", vhost.vhost, "orders", body={"durable": durable, "arguments": {"x-max-length": 7, "x-expires": 90000}}
    )
    compiled = topology({"orders": []}, vhost=vhost.vhost, queue_type="classic")
    said = [each.message for each in plan_of(compiled, vhost, management=False).refusals]
    assert [each.partition("; ")[0] for each in said] == [
        *([] if durable else ["durable is false on the broker, the file says true"]),
        'x-dead-letter-exchange is not set on the broker, the file says ""',
        "x-dead-letter-routing-key is not set on the broker, the file says orders.parking",
        "x-expires is 90000 on the broker, the file does not set it",
        "x-max-length is 7 on the broker, the file does not set it",
    ]


def test_looking_over_amqp_creates_nothing(vhost: BrokerAddress) -> None:
    before = definitions(vhost)
    assert len(plan_of(shop(vhost), vhost, management=False).changes) > 10
    assert definitions(vhost) == before


def test_what_vanishes_while_it_is_looked_at_is_not_created(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between asking for existence and comparing, somebody may delete a queue: comparing must not create it."""

    async def there_a_moment_ago(*_: object) -> bool:
        return True

    monkeypatch.setattr(Probe, "queue_exists", there_a_moment_ago)
    monkeypatch.setattr(Probe, "exchange_exists", there_a_moment_ago)
    before = definitions(vhost)
    for queue_type in ("quorum", "classic"):
        assert plan_of(shop(vhost, queue_type=queue_type), vhost, management=False).unchanged == ()
    assert definitions(vhost) == before


@pytest.mark.parametrize("management", [True, False])
def test_an_unknown_exchange_type_is_refused(vhost: BrokerAddress, management: bool) -> None:
    """Fact 7.7: on 3.10 asking for it closes the whole connection."""
    delayed = Exchange(name="delayed", type="x-delayed-message", arguments={"x-delayed-type": "direct"})
    compiled = shop(vhost)
    compiled = with_objects(compiled, exchanges={"delayed": delayed, **compiled.desired.exchanges})
    plan = plan_of(compiled, vhost, management=management)
    assert [each.code for each in plan.refusals] == ["exchange-type"]
    assert definitions(vhost)["exchanges"] == {}


@pytest.mark.parametrize("management", [True, False])
def test_what_is_referred_to_must_exist(vhost: BrokerAddress, management: bool) -> None:
    compiled = replace(shop(vhost), required_exchanges=("theirs",), required_queues=("their.queue",))
    plan = plan_of(compiled, vhost, management=management)
    assert [each.object for each in plan.refusals] == ["exchange theirs", "queue their.queue"]
    Management(vhost).put("exchanges", vhost.vhost, "theirs", body={"type": "topic", "durable": True})
    Management(vhost).put("queues", vhost.vhost, "their.queue")
    assert plan_of(compiled, vhost, management=management).refusals == ()


def test_foreign_objects_are_told_from_ours(vhost: BrokerAddress) -> None:
    management = Management(vhost)
    management.put("exchanges", vhost.vhost, "lost", body={"type": "fanout", "durable": True})
    management.put(
        "exchanges",
        vhost.vhost,
        "by header",
        body={"type": "headers", "durable": True, "arguments": {STAMP: "billing"}},
    )
    mail = shop(vhost).desired.queues["mail.out.parking"]
    management.put(
        "queues", vhost.vhost, mail.name, body={"durable": True, "arguments": {**mail.arguments, STAMP: "billing"}}
    )
    management.put(
        "queues", vhost.vhost, "orders.parking", body={"durable": True, "arguments": {"x-queue-type": "quorum"}}
    )
    plan = plan_of(shop(vhost), vhost)
    assert {(each.exchange, each.owner) for each in plan.used} == {("lost", None), ("by header", "billing")}
    assert {(each.code, each.object) for each in plan.refusals} == {
        ("other-owner", "queue mail.out.parking"),
        ("not-ours", "queue orders.parking"),
    }


def test_foreign_policies_and_bindings_stop_apply(vhost: BrokerAddress) -> None:
    management = Management(vhost)
    management.put("policies", vhost.vhost, "ttl", body={"pattern": "parking$", "definition": {"message-ttl": 1000}})
    management.put(
        "operator-policies",
        vhost.vhost,
        "unused",
        body={"pattern": "^orders$", "definition": {"expires": 60000}, "apply-to": "queues"},
    )
    management.put(
        "policies",
        vhost.vhost,
        "catch",
        body={"pattern": "^shop", "apply-to": "exchanges", "definition": {"alternate-exchange": "amq.fanout"}},
    )
    management.put(
        "exchanges", vhost.vhost, "shop.retry", body={"type": "direct", "durable": True, "arguments": {STAMP: "shop"}}
    )
    management.put("queues", vhost.vhost, "spy")
    management.call(
        "POST", "bindings", vhost.vhost, "e", "shop.retry", "q", "spy", body={"routing_key": "orders.retry.5s"}
    )
    ours = limits("orders", priority=1)
    management.put("policies", vhost.vhost, "ha", body={"pattern": "^orders$", "definition": {"max-length": 3}})
    compiled = with_objects(shop(vhost), policies={ours.name: ours})
    before = definitions(vhost)
    with pytest.raises(RefusedError) as refused:
        run(compiled, vhost)
    said = refused.value.problems
    for words in (
        ("queues orders.parking, mail.out.parking: policy ttl sets message-ttl 1000",),
        ("queue orders: operator policy unused sets expires 60000",),
        ("exchange shop.retry: policy catch gives it the alternate exchange amq.fanout",),
        ("exchange shop.parking: policy catch",),
        ("exchange shop.retry: queue spy is bound to it with the key 'orders.retry.5s'",),
        ("policy amqpflow.shop.quorum-0123abcd: it would displace policy ha", "lost there: max-length"),
    ):
        assert any(all(word in each for word in words) for each in said), words
    assert len(said) == 6
    assert definitions(vhost) == before


def test_without_management_a_policy_is_refused_with_the_way_out(vhost: BrokerAddress) -> None:
    policy = limits("orders")
    with pytest.raises(RefusedError) as refused:
        run(with_objects(shop(vhost), policies={policy.name: policy}), vhost, management=False)
    assert "give `management_url`" in refused.value.problems[0]
    assert definitions(vhost)["queues"] == {}


def test_a_failure_in_the_middle_tells_what_was_done_and_what_remains(vhost: BrokerAddress) -> None:
    with user(vhost, tags="management", configure="^(?!orders\\.retry)") as address:
        with pytest.raises(PartlyDoneError) as stopped:
            asyncio.run(api.apply(shop(vhost), address))
        assert stopped.value.exit_code == 3
        report = stopped.value.report
        assert isinstance(report, ApplyReport)
        assert report.failed is not None
        assert report.failed.change.name.startswith("orders.retry.")
        assert "ACCESS_REFUSED" in report.failed.reason
        assert "s3cret" not in str(stopped.value)
        every = [*report.done, report.failed.change, *report.remaining]
        assert sorted(map(label, every)) == sorted(map(label, report.plan.changes))
        done = {each.name for each in report.done if each.kind == "queue"}
        asyncio.run(until(lambda: definitions(vhost)["queues"].keys() == done))  # the lock goes with its connection
    assert run(shop(vhost), vhost).complete
    assert plan_of(shop(vhost), vhost).nothing_to_do


def test_a_failure_at_the_first_step_did_nothing(vhost: BrokerAddress) -> None:
    with user(vhost, tags="management", configure="^$") as address, pytest.raises(PermissionDeniedError) as denied:
        asyncio.run(api.apply(shop(vhost), address))
    assert denied.value.exit_code == 1
    assert definitions(vhost)["exchanges"] == {}


def test_the_documented_permissions_are_enough(vhost: BrokerAddress) -> None:
    """docs/reference/plan.md; fact 7.5 for what dead-lettering needs."""
    ours = r"shop\.(retry|parking)|events|lost|by header|orders(\..*)?|mail\.out(\..*)?"
    queues = r"orders(\..*)?|mail\.out(\..*)?"
    granted = {
        "configure": f"^({ours}|amqpflow\\.lock\\.shop)$",
        "write": f"^(amq\\.default|{queues}|by header|lost)$",
        "read": r"^(orders(\.retry\..*)?|mail\.out|shop\..*|events|by header|lost|amq\.topic)$",
    }
    with user(vhost, tags="management", **granted) as address:
        assert asyncio.run(api.apply(shop(vhost), address)).complete


def test_a_user_without_a_tag_falls_back_to_amqp_only_where_the_url_was_derived(vhost: BrokerAddress) -> None:
    with user(vhost) as address:
        with pytest.raises(PermissionDeniedError, match="the tag management"):
            asyncio.run(api.plan(shop(vhost), address))
        plan = asyncio.run(api.plan(shop(vhost), replace(address, management_url=None)))
        assert not plan.complete


def test_a_user_who_may_not_write_policies_is_told_before_anything_is_done(vhost: BrokerAddress) -> None:
    policy = limits("orders")
    with user(vhost, tags="management") as address, pytest.raises(RefusedError) as refused:
        asyncio.run(api.apply(with_objects(shop(vhost), policies={policy.name: policy}), address))
    assert "lacks the policymaker tag" in refused.value.problems[0]
    assert definitions(vhost)["queues"] == {}


@pytest.mark.one_broker
def test_a_given_management_url_must_work(vhost: BrokerAddress) -> None:
    with pytest.raises(ManagementUnavailableError, match=r"http://127\.0\.0\.1:1 cannot be reached"):
        asyncio.run(api.plan(shop(vhost), replace(vhost, management_url="http://127.0.0.1:1")))


def test_a_plan_is_applied_and_a_stale_one_is_refused(vhost: BrokerAddress) -> None:
    async def plan_then_apply_twice() -> Plan:
        plan = await api.plan(shop(vhost), vhost)
        report = await api.apply(plan)
        assert report.done == plan.changes
        return plan

    plan = asyncio.run(plan_then_apply_twice())
    before = definitions(vhost)
    with pytest.raises(RefusedError, match="stale"):
        asyncio.run(api.apply(plan))
    assert definitions(vhost) == before


def test_the_virtual_host_of_the_file_wins(vhost: BrokerAddress) -> None:
    asyncio.run(api.apply(shop(vhost), vhost.with_vhost("/")))
    assert "orders" in definitions(vhost)["queues"]


def test_a_connection_that_is_lost_in_the_middle_is_reported(vhost: BrokerAddress) -> None:
    """What was under way may be done or not; applying again settles it."""

    async def once() -> ApplyReport:
        streams: list[asyncio.StreamWriter] = []

        async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there_reader, there_writer = await asyncio.open_connection(vhost.host, vhost.port)
            streams.extend((writer, there_writer))
            await asyncio.gather(pump(reader, there_writer), pump(there_reader, writer))

        async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(65536):
                writer.write(data)
            writer.close()

        def on_step(number: int, change: object, done: bool) -> None:
            if number == 7 and not done:
                for stream in streams:
                    stream.close()

        proxy = await asyncio.start_server(forward, "127.0.0.1", 0)
        async with proxy:
            port = proxy.sockets[0].getsockname()[1]
            through = replace(
                vhost, url=vhost.url.replace(f":{vhost.port}/", f":{port}/"), management_url=management_of(vhost)
            )
            with pytest.raises(PartlyDoneError) as stopped:
                await api.apply(shop(vhost), through, on_step=on_step)
        assert isinstance(stopped.value.report, ApplyReport)
        return stopped.value.report

    report = asyncio.run(once())
    assert report.failed is not None
    assert "connection to the broker was lost" in report.failed.reason
    assert (len(report.done), len(report.remaining)) == (7, len(report.plan.changes) - 8)
    assert run(shop(vhost), vhost).complete


def management_of(address: BrokerAddress) -> str:
    return address.management_candidates()[-1]


def test_two_applies_at_once_both_succeed_when_the_second_waits(vhost: BrokerAddress) -> None:
    async def both() -> None:
        await asyncio.gather(
            api.apply(shop(vhost), vhost, lock_timeout=30), api.apply(shop(vhost), vhost, lock_timeout=30)
        )

    asyncio.run(both())
    assert plan_of(shop(vhost), vhost).changes == ()
