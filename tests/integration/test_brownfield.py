"""Queues that somebody else declared: an application's, another topology's, and brokers without policymakers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from amqpflow import Consumer, Message, Park, Topology, adopt, apply, explain, parked, plan
from amqpflow import replay as replay_parked
from amqpflow.errors import NotAppliedError, RefusedError
from amqpflow.model.message import Publish
from amqpflow.model.properties import Properties
from amqpflow.parking.selection import Selection
from amqpflow.planning.values.changes import label
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.connection import connect
from tests.brokers.management import Management, as_user
from tests.topology_files import compiled
from tests.waiting import until

APPLICATION: dict[str, dict[str, Any]] = {
    "plain": {"x-queue-type": "quorum"},
    "old": {"x-queue-type": "classic"},
    "own.dlx": {"x-queue-type": "classic", "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"},
    "short": {"x-queue-type": "classic", "x-message-ttl": 300_000},
    "full": {"x-queue-type": "quorum", "x-max-length": 1000, "x-overflow": "drop-head"},
    "dead": {"x-queue-type": "classic"},
}
FILE = """
name: legacy
version: 1
retry_policies: {fast: {delays: [100ms]}}
defaults: {retry: fast, queue: {type: classic}}
queues:
  plain: {existing: true, type: quorum}
  old: {existing: true}
  own.dlx: {existing: true}
  short: {existing: true, dead_letters: park}
  full: {existing: true, type: quorum, dead_letters: park}
"""
QUEUES = ("plain", "old", "own.dlx", "short", "full")


def topology(text: str, address: BrokerAddress) -> Topology:
    return Topology(compiled=compiled(text + f"vhost: {address.vhost}\n"))


async def declare(address: BrokerAddress, queues: dict[str, dict[str, Any]]) -> None:
    """As the application does it."""
    connection = await connect(address, name="application")
    channel = await connection.admin_channel()
    for name, arguments in queues.items():
        await channel.queue_declare(name, durable=True, arguments=arguments)
    await connection.close()


async def publish(address: BrokerAddress, queues: tuple[str, ...]) -> None:
    connection = await connect(address, name="application")
    channel = await connection.open_channel()
    for queue in queues:
        properties = Properties(message_id=f"for-{queue}", delivery_mode=2)
        await channel.publish(Publish.of(exchange="", routing_key=queue, properties=properties, body=b"{}"))
    await connection.close()


async def fail_retry_park_replay(file: Topology, address: BrokerAddress, queues: tuple[str, ...]) -> None:
    """Each message fails at both attempts, is parked, replayed, and done."""
    await publish(address, queues)
    attempts: Counter[tuple[str, int]] = Counter()
    working = asyncio.Event()
    done: list[str] = []

    async def handle(message: Message) -> None:
        if not working.is_set():
            attempts[message.queue, message.attempt] += 1
            raise RuntimeError("not yet")
        done.append(str(message.message_id))

    consumer = Consumer(file, address.url, management_url=address.management_url)
    for queue in queues:
        consumer.add_handler(queue, handle)
    async with consumer:

        async def all_parked() -> bool:
            listed = [await parked(file, address, selection=Selection(queues=(queue,))) for queue in queues]
            return sum(len(each.messages) for each in listed) == len(queues)

        await until(lambda: consumer.totals["parked"] == len(queues), timeout=30)
        await until(all_parked)
        assert attempts == {(queue, attempt): 1 for queue in queues for attempt in (1, 2)}
        working.set()
        for queue in queues:
            assert (await replay_parked(file, address, queue=queue)).replayed == 1
        await until(lambda: len(done) == len(queues))
    assert sorted(done) == sorted(f"for-{queue}" for queue in queues)


def test_an_applications_queues_get_retries_and_parking(vhost: BrokerAddress) -> None:
    """Five queues as applications have them: nothing of theirs is changed, and all of it works around them."""
    file, management = topology(FILE, vhost), Management(vhost)

    async def scenario() -> None:
        await declare(vhost, APPLICATION)
        before = {each["name"]: each["arguments"] for each in management.get("queues", vhost.vhost)}
        planned = await plan(file, vhost)
        assert not planned.refusals
        assert (await apply(file, vhost)).complete
        assert (await plan(file, vhost)).nothing_to_do
        after = {each["name"]: each["arguments"] for each in management.get("queues", vhost.vhost)}
        assert {name: after[name] for name in before} == before
        assert {(each.queue, each.name): each.holds for each in planned.guarantees if not each.holds} == {
            ("own.dlx", "parked by RabbitMQ"): False,
            ("short", "nothing expires"): False,
            **{
                (queue, name): False
                for queue in ("old", "own.dlx", "short")
                for name in ("at least once", "crash loops end")
            },
        }
        await fail_retry_park_replay(file, vhost, QUEUES)

    asyncio.run(scenario())


def test_what_rabbitmq_gives_up_on_goes_where_the_plan_says(vhost: BrokerAddress) -> None:
    """A reject by the application: by our policy into parking, or by its own argument to where it leads."""
    file, management = topology(FILE, vhost), Management(vhost)

    async def scenario() -> None:
        await declare(vhost, APPLICATION)
        await apply(file, vhost)

        def ours_works() -> bool:
            listed = management.get("queues", vhost.vhost, query="disable_stats=true")
            return all(
                (each.get("policy") or "").startswith("amqpflow.legacy")
                for each in listed
                if each["name"] in QUEUES and each["name"] != "own.dlx"
            )

        await until(ours_works)
        await publish(vhost, QUEUES)
        connection = await connect(vhost, name="application")
        channel = await connection.admin_channel()
        for queue in QUEUES:
            got = await channel.basic_get(queue)
            await channel.basic_reject(got.delivery.delivery_tag, requeue=False)
        listed = {}
        for queue in QUEUES:
            target = "dead" if queue == "own.dlx" else f"{queue}.parking"

            async def arrived(target: str = target) -> Any:
                got = await channel.basic_get(target, no_ack=True)
                return got if got.delivery.name == "Basic.GetOk" else None

            listed[queue] = (await until(arrived)).header.properties.message_id
        assert listed == {queue: f"for-{queue}" for queue in QUEUES}
        await connection.close()

    asyncio.run(scenario())


async def rejected(address: BrokerAddress, queue: str, into: str) -> Any:
    """Publish a message, reject it as a foreign consumer does, and return its id as it arrives in another queue."""
    await publish(address, (queue,))
    connection = await connect(address, name="application")
    channel = await connection.admin_channel()
    got = await channel.basic_get(queue)
    await channel.basic_reject(got.delivery.delivery_tag, requeue=False)

    async def arrived() -> Any:
        found = await channel.basic_get(into, no_ack=True)
        return found if found.delivery.name == "Basic.GetOk" else None

    message = await until(arrived)
    await connection.close()
    return message.header.properties.message_id


def test_dead_lettering_by_the_applications_policy_is_respected_as_that_by_an_argument_is(vhost: BrokerAddress) -> None:
    """Also where the file asks for a limit: our policy then carries what the application's says."""
    management = Management(vhost)
    dead = {"dead-letter-exchange": "", "dead-letter-routing-key": "dead"}
    text = "name: legacy\nversion: 1\nqueues:\n  old: {existing: true, type: classic, retry: none%s}\n"
    carried = 'policy: {dead-letter-exchange: "", dead-letter-routing-key: dead}'
    carrying = f", dead_letters: keep, limits: {{max_length: 3}}, {carried}"

    async def scenario() -> None:
        await declare(vhost, APPLICATION)
        body = {"pattern": "^old$", "definition": dead, "apply-to": "queues", "priority": 0}
        management.put("policies", vhost.vhost, "app", body=body)
        assert not (await plan(topology(text % "", vhost), vhost)).warnings
        assert (await apply(topology(text % "", vhost), vhost)).complete
        assert [each["name"] for each in management.get("policies", vhost.vhost)] == ["app"]
        await until(lambda: policy_of_old() == "app")
        assert await rejected(vhost, "old", "dead") == "for-old"
        with pytest.raises(RefusedError) as refused:
            await apply(topology(text % ", limits: {max_length: 3}", vhost), vhost)
        (problem,) = refused.value.problems
        assert "lost there: dead-letter-exchange, dead-letter-routing-key" in problem
        assert 'write `dead_letters: keep, policy: {dead-letter-exchange: ""' in problem
        assert (await apply(topology(text % carrying, vhost), vhost)).complete

        await until(lambda: policy_of_old().startswith("amqpflow.legacy"))
        assert await rejected(vhost, "old", "dead") == "for-old"

    def policy_of_old() -> str:
        return management.get("queues", vhost.vhost, "old").get("policy") or ""

    asyncio.run(scenario())


def test_the_applications_own_dead_letter_queue_works_as_parking_and_is_said_to(vhost: BrokerAddress) -> None:
    """The commonest shape: a queue dead-letters by an exchange to a queue of its own, which the topology adopts."""
    management = Management(vhost)
    text = (
        "name: legacy\nversion: 1\nretry_policies: {fast: {delays: [100ms]}}\nqueues:\n"
        "  work: {existing: true, type: classic, retry: fast, parking: {queue: work.dlq, type: classic}}\n"
    )

    async def scenario() -> None:
        dead = {"x-dead-letter-exchange": "dlx", "x-dead-letter-routing-key": "work.dlq"}
        await declare(vhost, {"work": {"x-queue-type": "classic", **dead}, "work.dlq": {"x-queue-type": "classic"}})
        management.put("exchanges", vhost.vhost, "dlx", body={"type": "direct", "durable": True})
        bound = {"routing_key": "work.dlq"}
        management.call("POST", "bindings", vhost.vhost, "e", "dlx", "q", "work.dlq", body=bound)
        file = topology(text, vhost)
        (refusal,) = (await plan(file, vhost)).refusals
        assert "adopt shop.yaml queue work.dlq`" in refusal.hint
        await adopt(file, "queue", ["work.dlq"], vhost)
        planned = await plan(file, vhost)
        said = {each.name: each for each in planned.guarantees}
        assert said["parked by RabbitMQ"].holds
        assert (
            "goes to work.dlq through exchange dlx (argument x-dead-letter-exchange)" in said["parked by RabbitMQ"].why
        )
        assert (await apply(planned)).complete
        await publish(vhost, ("work",))
        connection = await connect(vhost, name="application")
        channel = await connection.admin_channel()
        got = await channel.basic_get("work")
        await channel.basic_reject(got.delivery.delivery_tag, requeue=False)

        async def arrived() -> bool:
            return len((await parked(file, vhost)).messages) == 1

        await until(arrived)
        assert (await replay_parked(file, vhost)).replayed == 1
        await connection.close()

    asyncio.run(scenario())


def test_a_queue_that_is_meant_to_forget_fills_no_parking_queue_unasked(vhost: BrokerAddress) -> None:
    text = "name: legacy\nversion: 1\nqueues:\n  ticks: {existing: true, type: classic, retry: none%s}\n"

    async def parked_now() -> int:
        connection = await connect(vhost, name="application")
        channel = await connection.open_channel()
        depth = (await channel.queue_counts("ticks.parking")).ready
        await connection.close()
        return depth

    async def scenario() -> None:
        await declare(vhost, {"ticks": {"x-queue-type": "classic", "x-max-length": 10}})
        kept = await plan(topology(text % "", vhost), vhost)
        assert [each.code for each in kept.warnings] == ["dead-letters-kept"]
        assert (await apply(kept)).complete
        await publish(vhost, ("ticks",) * 40)
        parking = await plan(topology(text % ", dead_letters: park", vhost), vhost)
        assert [each.code for each in parking.warnings] == ["parking-floods"]
        assert (await apply(parking)).complete
        await until(lambda: policy_on("ticks").startswith("amqpflow.legacy"))
        await publish(vhost, ("ticks",) * 20)

        async def all_there() -> bool:
            return await parked_now() >= 20

        await until(all_there)
        assert await parked_now() == 20, "none of the first 40"
        assert (await apply(topology(text % ", dead_letters: keep", vhost), vhost)).complete
        await until(lambda: not policy_on("ticks"))

    def policy_on(queue: str) -> str:
        (found,) = [each for each in Management(vhost).get("queues", vhost.vhost) if each["name"] == queue]
        return found.get("policy") or ""

    asyncio.run(scenario())


def test_what_a_foreign_policy_allows_is_not_tightened(vhost: BrokerAddress) -> None:
    """An application that polls gives a message back 60 times; its policy allows 1,000, ours would 50."""
    management = Management(vhost)
    text = "name: legacy\nversion: 1\nqueues:\n  plain: {existing: true, retry: none%s}\n"

    async def scenario() -> None:
        await declare(vhost, APPLICATION)
        body = {"pattern": "^plain$", "definition": {"delivery-limit": 1000}, "apply-to": "queues", "priority": 0}
        management.put("policies", vhost.vhost, "app", body=body)
        with pytest.raises(RefusedError) as refused:
            await apply(topology(text % "", vhost), vhost)
        assert "lost there: delivery-limit" in str(refused.value.problems)
        carried = topology(text % ", delivery_limit: 1000", vhost)
        assert (await apply(carried, vhost)).complete
        await publish(vhost, ("plain",))
        connection = await connect(vhost, name="application")
        channel = await connection.admin_channel()
        for _ in range(60):

            async def back() -> Any:
                got = await channel.basic_get("plain")
                return got if got.delivery.name == "Basic.GetOk" else None

            got = await until(back)
            await channel.basic_reject(got.delivery.delivery_tag, requeue=True)
        await connection.close()
        assert (await explain(carried, "plain", vhost)).effective.value("delivery-limit") == 1000
        assert (await parked(carried, vhost)).messages == ()

    asyncio.run(scenario())


@pytest.mark.parametrize("change", ["dead letters kept", "queue left the file"])
def test_a_message_that_cannot_be_copied_outlives_a_change_of_dead_lettering(vhost: BrokerAddress, change: str) -> None:
    """What parked it at the consumer's start is a policy, and an apply may take that away while the consumer runs."""
    text = "name: legacy\nversion: 1\nqueues:\n"
    plain, other = "  plain: {existing: true, retry: none}\n", "  old: {existing: true, type: classic, retry: none}\n"
    file = topology(text + plain + other, vhost)
    kept = plain.replace("retry: none", "retry: none, dead_letters: keep")
    changed = topology(text + (kept if change == "dead letters kept" else "") + other, vhost)
    seen = asyncio.Event()

    async def handle(message: Message) -> None:
        seen.set()
        raise Park

    async def scenario() -> None:
        await declare(vhost, APPLICATION)
        assert (await apply(file, vhost)).complete
        consumer = Consumer(file, vhost.url, management_url=vhost.management_url)
        consumer.add_handler("plain", handle)
        async with consumer:
            assert (await apply(changed, vhost, prune=True, allow=["delete"])).complete
            await until(lambda: not Management(vhost).get("queues", vhost.vhost, "plain").get("policy"))
            connection = await connect(vhost, name="application")
            channel = await connection.open_channel()
            large = Properties(message_id="large", delivery_mode=2, headers={"h": "x" * (connection.frame_max - 100)})
            await channel.publish(Publish.of(exchange="", routing_key="plain", properties=large, body=b"{}"))
            await seen.wait()
            problem = await until(lambda: consumer.problems.get("plain"))
            assert "cannot be copied" in problem
        admin = await connection.admin_channel()

        async def back() -> Any:
            got = await admin.basic_get("plain")
            return got if got.delivery.name == "Basic.GetOk" else None

        got = await until(back)
        assert got.header.properties.message_id == "large"
        await connection.close()

    asyncio.run(scenario())


def test_a_consumer_relies_on_no_dead_lettering_that_comes_by_policy(vhost: BrokerAddress) -> None:
    """An existing queue's is a policy's; another topology's queue may be one of those, and its arguments tell."""
    owner = topology(
        "name: billing\nversion: 1\nqueues: {paid: {retry: none}, plain: {existing: true, retry: none}}\n", vhost
    )
    reader = topology(
        "name: reader\nversion: 1\nqueues:\n"
        "  paid: {external: true, owner: billing, retry: none}\n"
        "  plain: {external: true, owner: billing, retry: none}\n",
        vhost,
    )

    async def known(file: Topology, *, api: bool) -> set[str]:
        consumer = Consumer(file, vhost.url, management_url=vhost.management_url if api else None)

        async def handle(message: Message) -> None: ...

        for queue in ("paid", "plain"):
            consumer.add_handler(queue, handle)
        async with consumer:
            return {name for name, routes in consumer.compiled.routes.items() if routes.at_least_once}

    async def scenario() -> None:
        await declare(vhost, APPLICATION)
        assert (await apply(owner, vhost)).complete
        assert await known(owner, api=True) == await known(owner, api=False) == {"paid"}
        assert await known(reader, api=True) == {"paid"}
        assert await known(reader, api=False) == set()

    asyncio.run(scenario())


@pytest.mark.one_broker
@pytest.mark.releases(">=4")  # 3.10 refuses the policy key consumer-timeout
def test_a_handler_that_outlasts_the_consumer_timeout_is_warned_of(
    vhost: BrokerAddress, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever set it: here a policy of somebody else."""
    file = topology("name: shop\nversion: 1\nqueues: {orders: {retry: none}, quick: {retry: none}}\n", vhost)

    async def handle(message: Message) -> None: ...

    async def scenario() -> None:
        await apply(file, vhost)
        body = {"pattern": "", "definition": {"consumer-timeout": 20_000}, "apply-to": "queues"}
        Management(vhost).put("policies", vhost.vhost, "ops", body=body)
        consumer = Consumer(file, vhost.url, management_url=vhost.management_url)
        consumer.add_handler("orders", handle, timeout=60)
        consumer.add_handler("quick", handle, timeout=5)
        async with consumer:
            assert consumer.compiled.routes["orders"].consumer_timeout_ms == 20_000

    with caplog.at_level("WARNING", logger="amqpflow.consumer"):
        asyncio.run(scenario())
    (said,) = [each for each in caplog.messages if "consumer timeout" in each]
    assert said.startswith("orders: its handler may take 60 s, and RabbitMQ takes a delivery back after 20 s")


@pytest.mark.one_broker
def test_a_queue_that_is_not_there_or_of_another_type_is_refused(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        await declare(vhost, {**APPLICATION, "plain": {"x-queue-type": "classic"}, "old": {"x-queue-type": "stream"}})
        Management(vhost).delete("queues", vhost.vhost, "short")
        with pytest.raises(RefusedError) as refused:
            await apply(topology(FILE, vhost), vhost)
        assert [each.partition(";")[0] for each in refused.value.problems] == [
            "queue short: it does not exist",
            "queue plain: it is a classic queue, and quorum for the file",
            "queue old: it is a stream queue, and classic for the file",
        ]

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_an_existing_queue_has_one_topology(vhost: BrokerAddress) -> None:
    """The second is refused naming the first, also when the queue bears no stamp."""
    first = "name: first\nversion: 1\nqueues: {old: {existing: true, type: classic, retry: none}}\n"
    second = first.replace("name: first", "name: second")
    stamped = "name: third\nversion: 1\nqueues: {third: {retry: none}}\n"
    on_stamped = "name: fourth\nversion: 1\nqueues: {third: {retry: none, existing: true}}\n"

    async def scenario() -> None:
        await declare(vhost, APPLICATION)
        await apply(topology(first, vhost), vhost)
        await apply(topology(stamped, vhost), vhost)
        with pytest.raises(RefusedError) as refused:
            await apply(topology(second, vhost), vhost)
        assert any(
            each.startswith("queue old: the topology first has retry and parking queues for it already")
            for each in refused.value.problems
        )
        with pytest.raises(RefusedError, match="nothing was done") as refused:
            await apply(topology(on_stamped, vhost), vhost)
        assert refused.value.problems[0].startswith("queue third: it is owned by the topology third")

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_an_existing_queue_that_left_the_file_keeps_all_that_is_its_own(vhost: BrokerAddress) -> None:
    """Pruned are our policy, its parking queue and the bindings; never the queue or its messages."""
    management = Management(vhost)
    less = "name: legacy\nversion: 1\ndefaults: {retry: none}\nqueues:\n  plain: {existing: true}\n"
    more = less + "  old: {existing: true, type: classic}\n"

    async def scenario() -> None:
        await declare(vhost, APPLICATION)
        await apply(topology(more, vhost), vhost)
        await publish(vhost, ("old",))
        assert not (await plan(topology(less, vhost), vhost)).refusals
        planned = await plan(topology(less, vhost), vhost, prune=True)
        assert not planned.refusals
        order = [f"{each.action} {label(each)}" for each in planned.changes]
        (policy,) = [each for each in order if each.startswith("delete policy amqpflow.legacy.classic-")]
        assert order.index(policy) < order.index("delete queue old.parking")
        await apply(planned, allow=("delete",))

        def left() -> list[tuple[str, bool]]:
            listed = management.get("queues", vhost.vhost, query="disable_stats=true")
            old = [each for each in listed if each["name"].startswith("old")]
            return [(each["name"], (each.get("policy") or "").startswith("amqpflow.legacy")) for each in old]

        await until(lambda: left() == [("old", False)])  # RabbitMQ applies a change of policies a little later
        bound = management.get("queues", vhost.vhost, "old", "bindings")
        assert [each["source"] for each in bound] == [""]
        connection = await connect(vhost, name="application")
        channel = await connection.admin_channel()
        assert (await channel.basic_get("old", no_ack=True)).header.properties.message_id == "for-old"
        await connection.close()

    asyncio.run(scenario())


OWNER = """
name: billing
version: 1
retry_policies: {fast: {delays: [100ms]}}
defaults: {retry: fast}
queues: {commands: {}}
"""


@pytest.mark.parametrize("owner", ["", ", owner: billing"], ids=["unknown-owner", "owner"])
def test_a_queue_of_another_topology_is_consumed_with_its_retries_and_parking(vhost: BrokerAddress, owner: str) -> None:
    mine = OWNER.replace("name: billing", "name: reports").replace(
        "commands: {}", f"commands: {{external: true{owner}}}"
    )
    file, theirs = topology(mine, vhost), topology(OWNER, vhost)

    async def scenario() -> None:
        await apply(theirs, vhost)
        assert (await apply(file, vhost)).done == ()
        await fail_retry_park_replay(file, vhost, ("commands",))

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_what_the_owner_has_not_declared_is_named(vhost: BrokerAddress) -> None:
    """The owner's file says other delays than ours."""
    mine = OWNER.replace("name: billing", "name: reports").replace(
        "commands: {}", "commands: {external: true, owner: billing}"
    )
    file = topology(mine.replace("100ms", "200ms"), vhost)

    async def handle(message: Message) -> None: ...

    async def scenario() -> None:
        await apply(topology(OWNER, vhost), vhost)
        with pytest.raises(RefusedError) as refused:
            await apply(file, vhost)
        assert [each.partition(";")[0] for each in refused.value.problems] == [
            "queue commands.retry.200ms: it does not exist"
        ]
        consumer = Consumer(file, vhost.url)
        consumer.add_handler("commands", handle)
        with pytest.raises(NotAppliedError, match=r"queue commands\.retry\.200ms is missing"):
            await consumer.start()

    asyncio.run(scenario())


@contextmanager
def without_policymaker(vhost: BrokerAddress, tags: str) -> Iterator[BrokerAddress]:
    management, name = Management(vhost), f"user-of-{vhost.vhost}"
    management.put("users", name, body={"password": "secret", "tags": tags})
    management.put("permissions", vhost.vhost, name, body={"configure": ".*", "write": ".*", "read": ".*"})
    try:
        address = as_user(vhost, name, "secret")
        yield address if tags else replace(address, management_url=None)  # found by itself, and not used
    finally:
        management.delete("users", name)


@pytest.mark.parametrize("tags", ["management", ""], ids=["management", "no-tag"])
def test_settings_by_arguments_need_no_policymaker(vhost: BrokerAddress, tags: str) -> None:
    """As on brokers that others run: limits are arguments, an existing queue has its retries and parking."""
    text = """
name: hosted
version: 1
settings: arguments
retry_policies: {fast: {delays: [100ms]}}
defaults: {retry: fast}
queues:
  mine: {limits: {max_length: 1000}, consumer_timeout: 10m}
  old: {existing: true, type: classic}
"""
    file = topology(text, vhost)

    async def scenario(user: BrokerAddress) -> None:
        await declare(vhost, APPLICATION)
        assert (await apply(file, user)).complete
        assert (await plan(file, user)).nothing_to_do
        arguments = next(
            each["arguments"] for each in Management(vhost).get("queues", vhost.vhost) if each["name"] == "mine"
        )
        assert (arguments["x-max-length"], arguments["x-consumer-timeout"]) == (1000, 600_000)
        assert Management(vhost).get("policies", vhost.vhost) == []
        await fail_retry_park_replay(file, user, ("mine", "old"))

    with without_policymaker(vhost, tags) as user:
        asyncio.run(scenario(user))


@pytest.mark.parametrize("priority", [0, 20], ids=["below", "above"])
def test_a_foreign_policy_is_carried_by_ours(vhost: BrokerAddress, priority: int) -> None:
    """Refused, or of no effect, as the file stands; once it says what the plan offers, both sides' keys work."""
    text = "name: shop\nversion: 1\ndefaults: {retry: none}\nqueues:\n  orders: {limits: {max_length: 1000}%s}\n"
    management = Management(vhost)
    body = {"pattern": "^orders$", "definition": {"max-length": 9, "queue-leader-locator": "balanced"}}
    management.put("policies", vhost.vhost, "ops", body={**body, "priority": priority, "apply-to": "queues"})
    offered = "limits: {max_length: 9}, policy: {queue-leader-locator: balanced}"

    async def scenario() -> None:
        (finding,) = (await plan(topology(text % "", vhost), vhost)).findings
        assert finding.code == ("policy-hidden" if priority else "policy-displaces")
        assert offered in finding.hint
        assert ("policy_priority: 21" in finding.hint) == bool(priority)
        carried = topology(f"policy_priority: 21\n{text % ''}".replace("limits: {max_length: 1000}", offered), vhost)
        assert (await apply(carried, vhost)).complete
        again = await plan(carried, vhost)
        assert (again.nothing_to_do, again.findings) == (True, ())

        def works() -> bool:
            (listed,) = [
                each
                for each in management.get("queues", vhost.vhost, query="disable_stats=true")
                if each["name"] == "orders"
            ]
            ours = management.get("policies", vhost.vhost, listed["policy"])["definition"]
            return bool(ours == {"max-length": 9, "queue-leader-locator": "balanced"}) and listed["policy"] != "ops"

        await until(works)
        found = await explain(carried, "orders", vhost)
        assert found.unmet == ()
        assert found.effective.value("queue-leader-locator") == "balanced"

    asyncio.run(scenario())
