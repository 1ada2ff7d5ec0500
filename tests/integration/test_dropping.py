"""A change of policy that makes RabbitMQ drop messages is refused, counted, and looked at again just before."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from amqpflow.api import functions as api
from amqpflow.errors import AmqpflowError, PartlyDoneError, RefusedError
from amqpflow.model.routes import CompiledTopology
from amqpflow.planning.values.changes import Change, PutPolicy, RemovePolicy
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.observe import open_broker
from amqpflow.services.provisioning import drain
from amqpflow.services.provisioning.plan_files import load_plan, save_plan
from tests.brokers.management import Management
from tests.topology_files import compiled
from tests.waiting import until

WORK = "q: {retry: std}"
LEGACY = "legacy: {existing: true, retry: none}"


def shop(vhost: BrokerAddress, *queues: str) -> CompiledTopology:
    return compiled(
        f"version: 1\nname: shop\nvhost: {vhost.vhost}\nretry_policies: {{std: {{delays: [1s]}}}}\n"
        f"queues: {{{', '.join(queues)}}}\n"
    )


def limited(vhost: BrokerAddress, count: int, dead_letters: str = "keep") -> CompiledTopology:
    limits = f"limits: {{max_length: {count}, overflow: drop-head}}, dead_letters: {dead_letters}"
    return shop(vhost, WORK, f"old: {{existing: true, type: classic, retry: none, {limits}}}")


@asynccontextmanager
async def channel_to(vhost: BrokerAddress) -> AsyncIterator[Any]:
    async with open_broker(vhost) as broker:
        yield await broker.connection.admin_channel()


async def depth(channel: Any, queue: str) -> int:
    return int((await channel.queue_declare(queue, passive=True)).message_count)


async def put(vhost: BrokerAddress, queue: str, count: int, size: int = 1) -> None:
    async with channel_to(vhost) as channel:
        before = await depth(channel, queue)
        for _ in range(count):
            await channel.basic_publish(b"x" * size, routing_key=queue)

        async def there() -> bool:
            return await depth(channel, queue) == before + count

        await until(there)


async def reject(vhost: BrokerAddress, queue: str, count: int, *, requeue: bool = False) -> None:
    async with channel_to(vhost) as channel:
        for _ in range(count):
            got = await channel.basic_get(queue)
            await channel.basic_reject(got.delivery.delivery_tag, requeue=requeue)
        await asyncio.sleep(0)
        await depth(channel, queue)  # the broker has dealt with the rejections before it answers


async def counts(vhost: BrokerAddress, queue: str, **wanted: int) -> None:
    """Wait until statistics say so."""
    management = Management(vhost)

    async def shown() -> bool:
        found = await asyncio.to_thread(management.get, "queues", vhost.vhost, queue)
        return all(found.get(key) == value for key, value in wanted.items())

    await until(shown, every=0.5, timeout=30)


async def declare(vhost: BrokerAddress, name: str, **arguments: Any) -> None:
    async with channel_to(vhost) as channel:
        await channel.queue_declare(name, durable=True, arguments=arguments)


async def depth_of(vhost: BrokerAddress, queue: str) -> int:
    async with channel_to(vhost) as channel:
        return await depth(channel, queue)


def told(error: AmqpflowError) -> str:
    return " ".join([str(error), *getattr(error, "problems", ()), error.hint, str(error.__cause__)])


def in_a_thread(what: Callable[[], Any]) -> None:
    """To the end, while the event loop of the apply stands still."""
    failed: list[BaseException] = []

    def work() -> None:
        try:
            asyncio.run(what())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failed, failed


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_unacked_messages_count_for_a_limit_that_drops(vhost: BrokerAddress, kind: str) -> None:
    """They come back when their consumer goes, and RabbitMQ drops what is beyond the limit then."""
    keep = "retry: none, dead_letters: keep"
    tight = shop(
        vhost, f"old: {{existing: true, type: {kind}, {keep}, limits: {{max_length: 3, overflow: drop-head}}}}"
    )

    async def scene() -> None:
        await declare(vhost, "old", **{"x-queue-type": kind})
        await put(vhost, "old", 10)
        async with channel_to(vhost) as holder:
            for _ in range(10):
                await holder.basic_get("old")
            for _ in range(2):  # before statistics know of them, and after
                with pytest.raises((RefusedError, PartlyDoneError)) as refused:
                    await api.apply(tight, vhost)
                assert "`allow` drop:old" in told(refused.value)
                await counts(vhost, "old", messages_unacknowledged=10)

        async def back() -> bool:
            return await depth_of(vhost, "old") == 10

        await until(back)

    asyncio.run(scene())


@pytest.mark.parametrize("parks", [True, False])
def test_a_limit_that_drops_messages_needs_the_queues_name(vhost: BrokerAddress, parks: bool, tmp_path: Path) -> None:
    async def scene() -> None:
        await declare(vhost, "old")
        await put(vhost, "old", 20)
        tight = limited(vhost, 5, "park" if parks else "keep")
        plan = await api.plan(tight, vhost)
        goes = "dead-lettered to queue old.parking at once (at most once)" if parks else "deleted at once"
        expected = f"the 15 oldest messages are {goes}"
        assert [each.object for each in plan.refusals] == ["queue old"]
        assert expected in plan.refusals[0].message
        for other in ([], ["drop:other"], ["delete:old"]):
            with pytest.raises(RefusedError) as refused:
                await api.apply(tight, vhost, allow=other)
            assert "`allow` drop:old" in told(refused.value)
        assert await depth_of(vhost, "old") == 20

        plan = await api.plan(tight, vhost, allow=["drop:old"])
        assert not plan.refusals
        assert expected in " ".join(str(each) for each in plan.warnings)
        save_plan(plan, tmp_path / "plan.json")
        saved = load_plan(tmp_path / "plan.json")
        assert saved is not None
        with pytest.raises(RefusedError):
            await api.apply(saved, vhost)
        assert await depth_of(vhost, "old") == 20
        assert (await api.apply(saved, vhost, allow=["drop:old"])).complete

        async def dropped() -> bool:
            return await depth_of(vhost, "old") == 5 and (not parks or await depth_of(vhost, "old.parking") == 15)

        await until(dropped)
        assert not (await api.plan(tight, vhost)).changes

    asyncio.run(scene())


def test_a_limit_in_bytes_is_counted_in_bytes(vhost: BrokerAddress) -> None:
    def sized(size: str) -> CompiledTopology:
        limits = f"{{max_length_bytes: {size}, overflow: drop-head}}"
        return shop(vhost, f"old: {{existing: true, type: classic, retry: none, limits: {limits}}}")

    async def scene() -> None:
        await declare(vhost, "old")
        await put(vhost, "old", 10, size=1024)
        await counts(vhost, "old", message_bytes_ready=10240)
        with pytest.raises(RefusedError) as refused:
            await api.apply(sized("4KiB"), vhost)
        assert "max-length-bytes becomes 4096" in told(refused.value)
        assert "the 6 oldest messages" in told(refused.value)
        assert (await api.apply(sized("10KiB"), vhost)).complete
        assert await depth_of(vhost, "old") == 10

    asyncio.run(scene())


def test_what_came_since_the_plan_is_not_dropped_by_its_limit(vhost: BrokerAddress) -> None:
    async def scene() -> None:
        await declare(vhost, "old")
        await put(vhost, "old", 3)

        def on_step(_: int, change: Change, done: bool) -> None:
            if isinstance(change, PutPolicy) and not done:
                in_a_thread(lambda: put(vhost, "old", 17))

        with pytest.raises(PartlyDoneError) as stopped:
            await api.apply(limited(vhost, 5), vhost, on_step=on_step)
        assert "the 15 oldest messages" in told(stopped.value)
        assert await depth_of(vhost, "old") == 20

    asyncio.run(scene())


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_a_limit_that_comes_up_when_our_policy_goes_is_counted(vhost: BrokerAddress, queue_type: str) -> None:
    """A foreign policy below ours has no effect until then."""
    old = f"old: {{existing: true, type: {queue_type}, retry: none}}"

    async def scene() -> None:
        await declare(vhost, "old", **{"x-queue-type": queue_type})
        await api.apply(shop(vhost, WORK, old), vhost)
        foreign = {"pattern": "^old$", "definition": {"max-length": 5}, "priority": 0, "apply-to": "queues"}
        Management(vhost).put("policies", vhost.vhost, "ops", body=foreign)
        await put(vhost, "old", 20)
        for command in (
            lambda: api.apply(shop(vhost, WORK), vhost),
            lambda: api.destroy(shop(vhost, WORK, old), vhost, allow=["delete"]),
        ):
            with pytest.raises(RefusedError) as refused:
                await command()
            assert "max-length becomes 5 (nothing was dropped before): the 15 oldest messages" in told(refused.value)
        assert await depth_of(vhost, "old") == 20
        assert (await api.apply(shop(vhost, WORK), vhost, allow=["drop:old"])).complete
        await until(lambda: asyncio.create_task(holds(vhost, "old", 5)))

    asyncio.run(scene())


async def holds(vhost: BrokerAddress, queue: str, count: int) -> bool:
    return await depth_of(vhost, queue) == count


async def retaining(vhost: BrokerAddress) -> None:
    """An existing queue has its at-least-once dead-lettering by our policy, and retains 3 messages."""
    await declare(vhost, "legacy", **{"x-queue-type": "quorum"})
    await api.apply(shop(vhost, LEGACY, WORK), vhost)
    await put(vhost, "legacy", 3)
    async with channel_to(vhost) as channel:
        await channel.queue_delete("legacy.parking")
    await reject(vhost, "legacy", 3)


def test_what_rabbitmq_retains_is_deleted_by_no_command(vhost: BrokerAddress) -> None:
    """Fact 4.11: removing or replacing the policy would delete it without a trace."""

    async def scene() -> None:
        await retaining(vhost)
        await counts(vhost, "legacy", messages_dlx=3)
        without = shop(vhost, WORK)
        for command in (
            lambda: api.apply(without, vhost),
            lambda: api.apply(without, vhost, prune=True, allow=["delete", "drop:legacy"]),
            lambda: api.destroy(shop(vhost, LEGACY, WORK), vhost, allow=["delete", "drop:legacy"]),
        ):
            with pytest.raises(RefusedError) as refused:
                await command()
            assert "3 messages that it retains (messages_dlx)" in told(refused.value)
        plan = await api.plan(without, vhost)
        assert [each.code for each in plan.refusals] == ["retained-lost"]
        await counts(vhost, "legacy", messages_dlx=3, messages=3)
        assert (await api.apply(shop(vhost, LEGACY, WORK), vhost)).complete  # what repairs the target is not hindered

    asyncio.run(scene())


@pytest.mark.parametrize("how", ["apply", "destroy"])
def test_what_is_retained_since_the_plan_stops_the_step_that_would_delete_it(vhost: BrokerAddress, how: str) -> None:
    """Statistics show it up to 10 s later: that long is waited for."""

    async def scene() -> None:
        await declare(vhost, "legacy", **{"x-queue-type": "quorum"})
        await api.apply(shop(vhost, LEGACY, WORK), vhost)
        await put(vhost, "legacy", 3)
        await counts(vhost, "legacy", messages_ready=3)
        async with channel_to(vhost) as channel:
            await channel.queue_delete("legacy.parking")

        def on_step(_: int, change: Change, done: bool) -> None:
            if isinstance(change, RemovePolicy) and not done:
                in_a_thread(lambda: reject(vhost, "legacy", 3))

        if how == "apply":
            running = api.apply(shop(vhost, WORK), vhost, on_step=on_step)
        else:
            running = api.destroy(shop(vhost, LEGACY, WORK), vhost, allow=["delete"], on_step=on_step)
        with pytest.raises(AmqpflowError) as stopped:
            await running
        assert "3 messages that it retains (messages_dlx)" in told(stopped.value)
        await counts(vhost, "legacy", messages_dlx=3)

    asyncio.run(scene())


def test_once_nothing_is_retained_the_policy_goes(vhost: BrokerAddress) -> None:
    async def scene() -> None:
        await declare(vhost, "legacy", **{"x-queue-type": "quorum"})
        await api.apply(shop(vhost, LEGACY, WORK), vhost)
        await put(vhost, "legacy", 3)
        await reject(vhost, "legacy", 1)
        report = await api.apply(shop(vhost, WORK), vhost)
        assert any(isinstance(each, RemovePolicy) for each in report.done)
        assert await depth_of(vhost, "legacy") == 2
        assert await depth_of(vhost, "legacy.parking") == 1

    asyncio.run(scene())


@pytest.mark.releases(">=4.3")
def test_a_limit_below_what_rabbitmq_delays_is_refused(vhost: BrokerAddress) -> None:
    """Fact 8.14: the queue would stand still for good."""

    async def scene() -> None:
        delay = {"x-delayed-retry-type": "failed", "x-delayed-retry-min": 60_000, "x-delayed-retry-max": 60_000}
        await declare(vhost, "old", **{"x-queue-type": "quorum", **delay})
        await api.apply(shop(vhost, WORK, "old: {existing: true, retry: none}"), vhost)
        await put(vhost, "old", 6)
        await reject(vhost, "old", 4, requeue=True)
        await counts(vhost, "old", messages_delayed=4)
        for limit, allow, reason in (
            (3, ["drop:old"], "RabbitMQ delays 4 of its messages"),
            (5, [], "the oldest message is"),
        ):
            foreign = {"pattern": "^old$", "definition": {"max-length": limit}, "priority": 0, "apply-to": "queues"}
            Management(vhost).put("policies", vhost.vhost, "ops", body=foreign)
            with pytest.raises(RefusedError) as refused:
                await api.apply(shop(vhost, WORK), vhost, allow=allow)
            assert reason in told(refused.value)
        assert await depth_of(vhost, "old") == 2

    asyncio.run(scene())


@pytest.mark.releases(">=4.3")
def test_messages_that_rabbitmq_delays_keep_their_queue(vhost: BrokerAddress) -> None:
    def file(*queues: str) -> CompiledTopology:
        policies = "{std: {delays: [1s]}, nat: {engine: native, delay: {min: 60s, max: 60s}, retries: 5}}"
        return compiled(
            f"version: 1\nname: shop\nvhost: {vhost.vhost}\nretry_policies: {policies}\n"
            f"queues: {{{', '.join(queues)}}}\n"
        )

    async def scene() -> None:
        native = file(WORK, "slow: {retry: nat}")
        await api.apply(native, vhost)
        await put(vhost, "slow", 4)
        await reject(vhost, "slow", 4, requeue=True)
        await counts(vhost, "slow", messages_delayed=4)
        for command in (
            lambda: api.apply(file(WORK), vhost, prune=True, allow=["delete"]),
            lambda: api.destroy(native, vhost, allow=["delete"]),
        ):
            with pytest.raises(RefusedError) as refused:
                await command()
            assert "queue slow: 4 messages would be lost with it" in told(refused.value)
        found = await emptiness_of(vhost, "slow")
        assert found == "4 messages, 4 of them delayed for a retry"

    asyncio.run(scene())


async def emptiness_of(vhost: BrokerAddress, queue: str) -> str:
    async def check() -> None:
        return

    async with open_broker(vhost) as broker:
        return str((await drain.DrainMonitor(broker, check).remaining([queue]))[queue])
