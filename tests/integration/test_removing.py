"""apply --prune, destroy, adopt and swaps against real brokers, with messages and consumers in the way."""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import replace
from threading import Thread
from typing import Any

import pytest

from amqpflow.api import functions as api
from amqpflow.errors import NotAppliedError, PartlyDoneError, RefusedError, UsageError
from amqpflow.model.outcome import Retry
from amqpflow.model.properties import Properties
from amqpflow.model.resources import STAMP, Binding, Exchange
from amqpflow.model.routes import CompiledTopology
from amqpflow.planning.values.apply_report import ApplyReport
from amqpflow.planning.values.changes import Change, CreateExchange, DeleteQueue, Drain, PutManifest
from amqpflow.planning.values.manifest import parameter_name
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.admin import Admin
from amqpflow.rabbitmq.connection import connect
from amqpflow.rabbitmq.observe import open_broker
from amqpflow.services.provisioning import drain
from amqpflow.services.provisioning.apply_lock import apply_lock
from amqpflow.services.provisioning.verification import require_as_compiled
from tests.brokers.management import Management
from tests.parked import publish
from tests.plans import with_objects
from tests.shop import shop as open_shop
from tests.topologies import topology
from tests.topology_files import compiled
from tests.waiting import until

ENTRY = Binding(source="amq.topic", destination="orders", routing_key="order.#")


@pytest.fixture
def short_lag(monkeypatch: pytest.MonkeyPatch) -> None:
    """Statistics of an idle queue are the same however old: what they are waited for is tested by itself."""
    monkeypatch.setattr(drain, "STATISTICS_LAG", 0.2)
    monkeypatch.setattr(drain, "STATISTICS_APPEAR", 60.0)
    monkeypatch.setattr(drain, "POLL", 0.1)


def made(vhost: BrokerAddress, *delays: int, entry: bool = True, **options: Any) -> CompiledTopology:
    compiled = topology({"orders": delays}, vhost=vhost.vhost, **options)
    return with_objects(compiled, bindings=(*compiled.desired.bindings, ENTRY)) if entry else compiled


def run(what: Any) -> ApplyReport:
    return asyncio.run(what)  # type: ignore[no-any-return]


def queues(vhost: BrokerAddress) -> set[str]:
    found = Management(vhost).get("queues", vhost.vhost, query="disable_stats=true")
    return {each["name"] for each in found if not each["exclusive"]}


def bindings(vhost: BrokerAddress) -> set[tuple[str, str, str]]:
    found = Management(vhost).get("bindings", vhost.vhost)
    return {(each["source"], each["destination"], each["routing_key"]) for each in found if each["source"]}


def nothing_to_do(compiled: CompiledTopology, vhost: BrokerAddress) -> bool:
    return asyncio.run(api.plan(compiled, vhost, prune=True)).changes == ()


async def put(vhost: BrokerAddress, queue: str, count: int) -> None:
    """Confirmed: a quorum queue counts what it was sent a moment later."""
    async with await connect(vhost, name="amqpflow test") as connection:
        await publish(connection, queue, *(Properties(message_id=str(number)) for number in range(count)))


def test_what_left_the_file_is_removed_and_nothing_else(vhost: BrokerAddress, short_lag: None) -> None:
    management = Management(vhost)
    for name in ("theirs", "orders.retry.77s"):
        management.put("queues", vhost.vhost, name, body={"durable": True, "arguments": {}})
        management.call("POST", "bindings", vhost.vhost, "e", "amq.topic", "q", name, body={"routing_key": "order.#"})
    management.put("exchanges", vhost.vhost, "events2", body={"type": "topic", "durable": True})
    old = topology({"orders": [1000, 5000], "mail": [1000]}, vhost=vhost.vhost)
    events = Exchange(name="events", type="topic", arguments={STAMP: "shop"})
    entry = Binding(source="events", destination="orders", routing_key="order.#")
    old = with_objects(
        old, exchanges={**old.desired.exchanges, "events": events}, bindings=(*old.desired.bindings, ENTRY, entry)
    )
    run(api.apply(old, vhost))
    assert nothing_to_do(old, vhost)
    new = made(vhost, 1000, 7000, entry=False)
    with pytest.raises(RefusedError) as refused:
        run(api.apply(new, vhost, prune=True))
    assert "`allow` delete" in refused.value.problems[0]
    report = run(api.apply(new, vhost, prune=True, allow=["delete"]))
    assert report.complete
    assert queues(vhost) == {*new.desired.queues, "theirs", "orders.retry.77s"}
    assert {each for each in bindings(vhost) if each[0] in ("amq.topic", "events")} == {
        ("amq.topic", "theirs", "order.#"),
        ("amq.topic", "orders.retry.77s", "order.#"),
    }
    names = {each["name"] for each in management.get("exchanges", vhost.vhost)}
    assert "events2" in names
    assert "events" not in names
    assert nothing_to_do(new, vhost)


def test_destroy_removes_it_all_and_the_manifest(vhost: BrokerAddress, short_lag: None) -> None:
    compiled = made(vhost, 1000, 5000)
    Management(vhost).put("queues", vhost.vhost, "theirs", body={"durable": True})
    run(api.apply(compiled, vhost))
    parameter = parameter_name(vhost.vhost, "shop")
    assert Management(vhost).get("global-parameters", parameter)["value"]["bindings"] == [
        ["amq.topic", "q", "orders", "order.#"]
    ]
    assert run(api.destroy(compiled, vhost, allow=["delete"])).complete
    assert queues(vhost) == {"theirs"}
    assert bindings(vhost) == set()
    assert Management(vhost).get("global-parameters", parameter) is None
    assert run(api.destroy(compiled, vhost)).plan.changes == ()


@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
def test_a_message_that_comes_after_the_plan_stops_the_deletion(
    vhost: BrokerAddress, queue_type: str, short_lag: None
) -> None:
    """Statistics do not show it yet: the look just before does."""
    compiled = made(vhost, 1000, queue_type=queue_type)
    run(api.apply(compiled, vhost))

    def on_step(_: int, change: Change, done: bool) -> None:
        if isinstance(change, DeleteQueue) and change.name == "orders.retry.1s" and done:
            # the destroy waits for it, and goes on when it is there
            publisher = Thread(target=lambda: asyncio.run(put(vhost, "orders", 1)))
            publisher.start()
            publisher.join()

    with pytest.raises(PartlyDoneError) as stopped:
        run(api.destroy(compiled, vhost, allow=["delete"], on_step=on_step))
    assert "queue orders has 1 message" in str(stopped.value)
    assert {"orders", "orders.parking"} <= queues(vhost)
    assert run(api.destroy(compiled, vhost, allow=["delete", "delete:orders"])).complete
    assert queues(vhost) == set()


@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
def test_a_message_that_comes_after_the_count_stops_the_deletion(vhost: BrokerAddress, queue_type: str) -> None:
    """The last look is that of whoever deletes, on the connection that deletes."""
    compiled = made(vhost, 1000, queue_type=queue_type)
    run(api.apply(compiled, vhost))

    async def scene() -> None:
        async with open_broker(vhost) as broker, apply_lock(broker, "shop") as lock:
            await put(vhost, "orders", 1)
            await until(lambda: asyncio.create_task(holds_one(vhost)))
            with pytest.raises(RefusedError, match="queue orders has 1 messages"):
                await Admin(broker, lock.name).execute(DeleteQueue(queue=compiled.desired.queues["orders"]))

    asyncio.run(scene())
    assert "orders" in queues(vhost)


@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
def test_nothing_is_deleted_where_the_lock_is_not_held(vhost: BrokerAddress, queue_type: str) -> None:
    """The address of a deletion's own connection may lead elsewhere by now; another virtual host stands in for it."""
    management, other = Management(vhost), vhost.with_vhost(f"{vhost.vhost}-other")
    wanted = DeleteQueue(queue=made(vhost, 1000, queue_type=queue_type).desired.queues["orders"])
    management.put("vhosts", other.vhost, body={})
    try:
        for each in (vhost, other):
            run(api.apply(made(each, 1000, queue_type=queue_type), each))

        async def scene() -> None:
            async with (
                open_broker(vhost) as broker,
                open_broker(other) as elsewhere,
                apply_lock(broker, "shop") as lock,
            ):
                with pytest.raises(RefusedError, match="leads to another broker than before"):
                    await Admin(elsewhere, lock.name).execute(wanted)
                await Admin(broker, lock.name).execute(wanted)

        asyncio.run(scene())
        assert ("orders" in queues(other), "orders" in queues(vhost)) == (True, False)
    finally:
        management.delete("vhosts", other.vhost)


async def holds_one(vhost: BrokerAddress) -> bool:
    async with open_broker(vhost) as broker:
        channel = await broker.connection.open_channel()
        return (await channel.queue_counts("orders")).ready == 1


@pytest.mark.one_broker
def test_what_is_unacked_is_seen_once_statistics_have_caught_up(vhost: BrokerAddress) -> None:
    """A passive declare counts neither it nor a basic.get on a classic queue."""
    compiled = made(vhost, 1000, queue_type="classic")
    run(api.apply(compiled, vhost))

    async def check() -> None:
        return

    async def hold() -> dict[str, drain.Remaining]:
        async with open_broker(vhost) as broker:
            channel = await broker.connection.admin_channel()
            await channel.basic_publish(b"x", routing_key="orders")

            async def taken() -> bool:
                answer = await channel.basic_get("orders", no_ack=False)
                return answer.delivery.name == "Basic.GetOk"

            await until(taken)
            look = drain.DrainMonitor(broker, check)
            assert await look.look("orders") == (0, 0)
            return await look.remaining(["orders", "orders.parking", "gone"])

    assert asyncio.run(hold()) == {"orders": drain.Remaining(messages=1)}


def test_a_retry_queue_with_messages_is_left_for_the_next_time(vhost: BrokerAddress, short_lag: None) -> None:
    run(api.apply(made(vhost, 5000), vhost))
    asyncio.run(put(vhost, "orders.retry.5s", 5))
    new = made(vhost, 500)
    report = run(api.apply(new, vhost, prune=True, allow=["delete"]))
    assert not report.complete
    assert report.only_postponed
    drains = [(each.change.name, each.messages) for each in report.postponed if isinstance(each.change, Drain)]
    assert drains == [("orders.retry.5s", 5)]
    now = int(time.time() * 1000)
    due = report.due_ms(now)
    assert due is not None
    assert 0 < due - now <= 5000
    value = Management(vhost).get("global-parameters", parameter_name(vhost.vhost, "shop"))["value"]
    assert value["retiring"].keys() == {"orders.retry.5s"}
    assert ("shop.retry", "orders.retry.5s", "orders.retry.5s") not in bindings(vhost)
    report = run(api.apply(new, vhost, prune=True, allow=["delete"], wait=True))
    assert report.complete
    assert queues(vhost) == set(new.desired.queues)
    assert nothing_to_do(new, vhost)

    async def depth() -> int:
        async with open_shop(vhost, {"orders": [500]}) as opened:
            return await opened.depth("orders")

    assert asyncio.run(depth()) == 5


def test_what_a_postponed_destroy_leaves_keeps_its_policies(vhost: BrokerAddress, short_lag: None) -> None:
    """A platform gives every queue a TTL: ours keep it off the work queue and the tier until these are gone."""
    text = "name: shop\nversion: 1\nretry_policies: {fast: {delays: [5s]}}\n"
    text += f"queues: {{orders: {{retry: fast, limits: {{max_length: 100}}}}}}\nvhost: {vhost.vhost}\n"
    file, management = compiled(text), Management(vhost)
    body = {"pattern": ".*", "definition": {"message-ttl": 600_000}, "apply-to": "queues", "priority": 0}
    management.put("policies", vhost.vhost, "platform", body=body)

    def policies() -> set[str]:
        return {each["name"] for each in management.get("policies", vhost.vhost)}

    run(api.apply(file, vhost))
    ours = policies() - {"platform"}
    assert len(ours) == 2, "the limit of the work queue, and a shield of the tier and the parking queue"
    asyncio.run(put(vhost, "orders.retry.5s", 7))
    postponed = run(api.destroy(file, vhost, allow=["delete"]))
    assert postponed.only_postponed
    assert queues(vhost) >= {"orders", "orders.retry.5s"}
    assert policies() == ours | {"platform"}
    assert run(api.destroy(file, vhost, allow=["delete", "delete:orders"], wait=True)).complete
    assert policies() == {"platform"}
    assert queues(vhost) == set()


def test_a_tier_of_another_type_is_swapped_and_keeps_its_name(vhost: BrokerAddress, short_lag: None) -> None:
    old = made(vhost, 4000)
    tier = old.desired.queues["orders.retry.4s"]
    classic = {"x-queue-type": "classic", "x-message-ttl": 4000, "x-dead-letter-exchange": ""}
    classic |= {"x-dead-letter-routing-key": "orders", STAMP: "shop"}
    run(api.apply(with_objects(old, queues={**old.desired.queues, tier.name: replace(tier, arguments=classic)}), vhost))
    with pytest.raises(RefusedError) as refused:
        run(api.apply(old, vhost))
    assert "x-queue-type is classic on the broker, the file says quorum" in refused.value.problems[0]
    assert "`allow` replace" in refused.value.problems[0]
    with pytest.raises(NotAppliedError, match="does not start"):
        asyncio.run(require_as_compiled(vhost, old, ["orders"]))
    asyncio.run(put(vhost, tier.name, 7))
    postponed = run(api.apply(old, vhost, allow=["replace"]))
    assert postponed.only_postponed
    assert ("shop.retry", f"{tier.name}.swap", tier.name) in bindings(vhost)  # it stands in until the next apply
    asyncio.run(require_as_compiled(vhost, old, ["orders"]))  # a consumer starts meanwhile
    report = run(api.apply(old, vhost, allow=["replace"], wait=True))
    assert report.complete
    assert queues(vhost) == set(old.desired.queues)
    found = Management(vhost).get("queues", vhost.vhost, tier.name)
    assert found["arguments"] == dict(tier.arguments)
    assert nothing_to_do(old, vhost)


@pytest.mark.one_broker
def test_tiers_change_while_messages_wait_and_consumers_with_the_old_file_run(vhost: BrokerAddress) -> None:
    """1,000 messages wait in two tiers when both are changed and the old ones pruned, under a consumer with the old
    file.

    Its publishes to the first tier are returned from then on, and take the next longer one that is bound. No message is
    lost, none is early by more than the shorter delay, and the old tiers are gone.
    """
    count, old, new = 1000, [3000, 6000], [2000, 6000]
    first: dict[str, float] = {}
    second: dict[str, float] = {}

    async def handle(message: Any) -> Any:
        seen = first if message.attempt == 1 else second
        seen.setdefault(message.message_id, time.monotonic())
        return Retry() if message.attempt == 1 else None

    async def scene() -> ApplyReport:
        async with open_shop(vhost, {"orders": old}) as opened:
            consumer = opened.consumer(orders=handle, concurrency=50)
            async with consumer:
                ids = [f"m{number}" for number in range(count)]
                await opened.publish(*ids[: count // 2])
                await until(lambda: len(first) == count // 2)
                changed = topology({"orders": new}, vhost=vhost.vhost)
                pruning = asyncio.create_task(api.apply(changed, vhost, prune=True, allow=["delete"], wait=True))
                await until(lambda: ("shop.retry", "orders.retry.3s", "orders.retry.3s") not in bindings(vhost))
                await opened.publish(*ids[count // 2 :])
                await until(lambda: len(second) == count, timeout=60)
                return await pruning

    report = asyncio.run(scene())
    assert report.complete
    waited = {each: second[each] - first[each] for each in second}
    assert len(waited) == count
    assert min(waited.values()) >= 2.9
    assert queues(vhost) == set(topology({"orders": new}, vhost=vhost.vhost).desired.queues)


@pytest.mark.one_broker
def test_a_manifest_of_a_newer_version_stops_an_apply_and_no_consumer(vhost: BrokerAddress) -> None:
    compiled = made(vhost, 1000)
    run(api.apply(compiled, vhost))
    newer = {"format": 3, "topology": "shop", "vhost": vhost.vhost, "bindings": "another thing by then"}
    Management(vhost).put("global-parameters", parameter_name(vhost.vhost, "shop"), body={"value": newer})
    with pytest.raises(RefusedError) as refused:
        run(api.apply(compiled, vhost))
    (problem,) = refused.value.problems
    assert "its format is 3, and this version of amqpflow reads 2; a newer amqpflow wrote it: use that one" in problem
    asyncio.run(require_as_compiled(vhost, compiled, ["orders"]))


@pytest.mark.one_broker
def test_what_cannot_be_adopted_is_said_at_once(vhost: BrokerAddress) -> None:
    with pytest.raises(UsageError, match="unknown kind 'user'; use queue, exchange, policy, binding"):
        run(api.adopt(made(vhost, 1000), "user", ["orders"], vhost))


def test_adopted_is_ours_from_then_on(vhost: BrokerAddress, short_lag: None) -> None:
    compiled = made(vhost, 1000)
    management = Management(vhost)
    for name in ("orders.parking", "orders"):
        arguments = {key: value for key, value in compiled.desired.queues[name].arguments.items() if key != STAMP}
        management.put("queues", vhost.vhost, name, body={"durable": True, "arguments": arguments})
    with pytest.raises(RefusedError, match="nothing was done"):
        run(api.apply(compiled, vhost))
    other = topology({"orders": [1000]}, vhost=vhost.vhost, delivery_limit=9)
    with pytest.raises(RefusedError) as refused:
        run(api.adopt(other, "queue", ["orders", "nothing"], vhost))
    assert len(refused.value.problems) == 2
    assert "x-delivery-limit is 50 on the broker, the file says 9" in refused.value.problems[0]
    report = run(api.adopt(compiled, "queue", ["orders", "orders.parking"], vhost))
    assert [type(each) for each in report.done] == [PutManifest, CreateExchange]
    run(api.apply(compiled, vhost))
    assert nothing_to_do(compiled, vhost)
    assert run(api.destroy(compiled, vhost, allow=["delete"])).complete
    assert queues(vhost) == set()


def test_a_second_owner_is_told_the_first(vhost: BrokerAddress) -> None:
    run(api.apply(made(vhost, 1000), vhost))
    second = topology({"orders": [1000]}, vhost=vhost.vhost)
    second = replace(second, name="books")
    for plan in (api.apply(second, vhost), api.adopt(second, "queue", ["orders"], vhost)):
        with pytest.raises(RefusedError) as refused:
            run(plan)
        assert any("owned by the topology shop" in each for each in refused.value.problems)


@pytest.mark.one_broker
def test_a_damaged_manifest_is_said_and_rebuilt_when_deleted(vhost: BrokerAddress) -> None:
    compiled = made(vhost, 1000)
    run(api.apply(compiled, vhost))
    management, parameter = Management(vhost), parameter_name(vhost.vhost, "shop")
    written = management.get("global-parameters", parameter)["value"]
    for value, said in (
        ("text", "not an object"),
        ({"format": 9}, "format is 9"),
        ({**written, "bindings": [1]}, "damaged"),
    ):
        management.put("global-parameters", parameter, body={"value": value})
        with pytest.raises(RefusedError) as refused:
            run(api.apply(compiled, vhost))
        assert said in refused.value.problems[0]
    management.delete("global-parameters", parameter)
    run(api.apply(compiled, vhost))
    again = management.get("global-parameters", parameter)["value"]
    assert again == {**written, "bindings": [], "unproven": written["bindings"]}


@pytest.mark.one_broker
def test_hundreds_of_foreign_objects_stay_as_they_are(vhost: BrokerAddress, short_lag: None) -> None:
    """Queues, exchanges, bindings and policies with names like ours, and with the stamps of other topologies."""
    management = Management(vhost)
    names = [
        "orders.retry.9s",
        "orders.x",
        "shop.retry.x",
        "xorders",
        "orders.parking.x",
        "Orders",
        "shop",
        "shop2.retry",
    ]
    stamps = [{}, {STAMP: "shop2"}, {STAMP: "sho"}, {STAMP: "shop.eu"}, {STAMP: "SHOP"}]
    things = [(f"{name}{number}" if number else name, stamp) for name in names for number, stamp in enumerate(stamps)]
    foreign = {
        "queues": [
            {"name": name, "durable": True, "auto_delete": False, "arguments": stamp}
            | {"vhost": vhost.vhost, "type": "classic"}
            for name, stamp in things
        ],
        "exchanges": [
            {"name": f"{name}-e", "type": "topic", "durable": True, "auto_delete": False, "internal": False}
            | {"vhost": vhost.vhost, "arguments": stamp}
            for name, stamp in things
        ],
        "bindings": [
            {"source": f"{name}-e", "destination": name, "destination_type": "queue", "routing_key": key}
            | {"vhost": vhost.vhost, "arguments": {}}
            for name, _ in things
            for key in ("a", name)
        ],
        "policies": [
            {"name": f"amqpflow.{name}.quorum-0123abcd", "pattern": "^no such$", "definition": {"max-length": 1}}
            | {"vhost": vhost.vhost, "apply-to": "queues", "priority": 1}
            for name in ("shop2", "shop.eu", "sho", "SHOP", "orders")
        ],
    }
    management.call("POST", "definitions", vhost.vhost, body=foreign)

    def seen() -> dict[str, Any]:
        """All there is but what is ours, without statistics."""
        found = {
            kind: management.get(kind, vhost.vhost, query="disable_stats=true")
            for kind in ("queues", "exchanges", "bindings", "policies")
        }
        keys = ("name", "type", "durable", "arguments", "source", "destination", "routing_key", "definition", "pattern")
        return {
            kind: [
                {key: each.get(key) for key in keys}
                for each in entries
                if (each.get("arguments") or {}).get(STAMP) != "shop"
                and not each.get("exclusive")
                and str(each.get("destination", "")) not in ("orders", "mail", *OURS)
            ]
            for kind, entries in found.items()
        }

    before = seen()
    assert sum(map(len, before.values())) > 200
    first = topology({"orders": [1000, 5000], "mail": [1000]}, vhost=vhost.vhost)
    run(api.apply(first, vhost))
    run(api.apply(made(vhost, 2000, entry=False), vhost, prune=True, allow=["delete"]))
    assert seen() == before
    run(api.destroy(made(vhost, 2000), vhost, allow=["delete"]))
    assert seen() == before
    assert queues(vhost) == {name for name, _ in things}


OURS = ("orders.parking", "mail.parking", "orders.retry.1s", "orders.retry.2s", "orders.retry.5s", "mail.retry.1s")


def test_a_queue_that_has_no_counts_yet_is_not_taken_for_empty(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RabbitMQ has no statistics of a queue in its first seconds; its only message is unacked."""
    monkeypatch.setattr(drain, "STATISTICS_LAG", 0.0)
    monkeypatch.setattr(drain, "STATISTICS_APPEAR", 0.0)

    async def check() -> None:
        return

    async def scene() -> None:
        async with open_broker(vhost) as broker:
            channel = await broker.connection.admin_channel()

            async def collected(queue: str) -> bool:
                assert broker.management is not None
                depths = await broker.management.depths(vhost.vhost, [queue])
                return queue in depths and depths[queue].messages is not None

            async def remaining(queue: str) -> drain.Remaining:
                await channel.queue_declare(queue, durable=True)
                await channel.basic_publish(b"1", routing_key=queue)

                async def taken() -> bool:
                    return (await channel.basic_get(queue)).body == b"1"

                await until(taken)
                return (await drain.DrainMonitor(broker, check).remaining([queue]))[queue]

            for number in itertools.count():
                found = await remaining(f"new{number}")
                if not await collected(f"new{number}"):
                    break  # else its first statistics came in between, and it says nothing
            assert found.messages is None
            assert "unknown number of messages" in str(found)

    asyncio.run(scene())
