"""Each role with the permissions that `amqpflow permissions` prints and no others: they suffice, and none is spare."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from amqpflow import (
    Consumer,
    Message,
    NotAppliedError,
    OutgoingMessage,
    PartlyDoneError,
    PermissionDeniedError,
    Publisher,
    RefusedError,
    Topology,
    apply,
    parked,
    plan,
    replay,
)
from amqpflow.planning.reports.permissions import Grant, grants
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.management import open_management
from amqpflow.rabbitmq.observe import open_broker
from amqpflow.services.provisioning import drain
from amqpflow.services.status import StatusReader
from tests.brokers.management import Management, as_user
from tests.waiting import until

SHOP = """
version: 1
name: shop
retry_policies:
  standard: {delays: [100ms]}
defaults: {retry: standard}
exchanges:
  events: {type: topic, alternate_exchange: unrouted}
  unrouted: {type: fanout}
queues:
  orders:
    bindings: [{exchange: events, routing_key: "order.*"}]
    limits: {max_length: 1000}
"""
WITHOUT_POLICIES = SHOP.replace("    limits: {max_length: 1000}\n", "")


@contextmanager
def granted(address: BrokerAddress, grant: Grant) -> Iterator[BrokerAddress]:
    """A user with these permissions in the virtual host, and no others anywhere."""
    management, name = Management(address), f"{address.vhost}-{grant.role}"
    management.put("users", name, body={"password": "s3cret", "tags": ",".join(grant.tags)})
    try:
        patterns = {kind: pattern.text for kind, pattern in grant.patterns.items()}
        management.put("permissions", address.vhost, name, body=patterns)
        yield replace(as_user(address, name, "s3cret"), management_url=management.base)
    finally:
        management.delete("users", name)


def loaded(tmp_path: Path, text: str = SHOP) -> tuple[Topology, dict[str, Grant]]:
    file = tmp_path / "shop.yaml"
    file.write_text(text)
    topology = Topology.load(file)
    return topology, {grant.role: grant for grant in grants(topology.compiled)}


def test_each_role_does_its_work(vhost: BrokerAddress, tmp_path: Path) -> None:
    topology, roles = loaded(tmp_path)
    attempts: list[tuple[str, int]] = []

    async def handle(message: Message) -> None:
        attempts.append((str(message.message_id), message.attempt))
        if message.message_id == "parked" and len(attempts) < 4:
            raise TimeoutError

    async def scenario() -> None:
        with granted(vhost, roles["apply"]) as address:
            assert (await apply(topology, address)).complete
            assert not (await plan(topology, address)).changes
        with granted(vhost, roles["publish"]) as address:
            async with Publisher(address.url) as publisher:
                for name in ("handled", "parked"):
                    await publisher.publish(b"{}", exchange="events", routing_key="order.placed", message_id=name)
        with granted(vhost, roles["consume"]) as address:
            consumer = Consumer(topology, address.url)
            consumer.add_handler("orders", handle)
            async with consumer:
                await until(lambda: len(attempts) == 3)
                with granted(vhost, roles["replay"]) as reader:
                    await until(lambda: _parked(topology, reader))
                    assert (await replay(topology, reader, queue="orders")).replayed == 1
                await until(lambda: len(attempts) == 4)
        with granted(vhost, roles["observe"]) as address:
            assert not (await plan(topology, address)).changes
            async with open_broker(address) as broker:
                reader = StatusReader(broker, topology.compiled)
                assert "missing" not in {alert.code for alert in (await reader.read()).alerts}
                await reader.aclose()

    asyncio.run(scenario())
    assert sorted(attempts) == [("handled", 1), ("parked", 1), ("parked", 1), ("parked", 2)]


async def _parked(topology: Topology, address: BrokerAddress) -> bool:
    return bool((await parked(topology, address)).messages)


def test_a_service_that_is_given_the_management_api_needs_its_tag(vhost: BrokerAddress, tmp_path: Path) -> None:
    topology, roles = loaded(tmp_path)

    async def start(address: BrokerAddress) -> None:
        consumer = Consumer(topology, address.url, management_url=Management(vhost).base)
        consumer.add_handler("orders", lambda _: None)
        async with consumer:
            pass

    async def scenario() -> None:
        await apply(topology, vhost)
        with granted(vhost, roles["consume"]) as address, pytest.raises(PermissionDeniedError, match="tag management"):
            await start(address)
        with granted(vhost, replace(roles["consume"], tags=("management",))) as address:
            await start(address)

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_the_applying_user_has_no_permission_to_spare(vhost: BrokerAddress, tmp_path: Path) -> None:
    """Each name is taken out of each pattern that matches it; an apply to an empty virtual host must then fail."""
    topology, roles = loaded(tmp_path, WITHOUT_POLICIES)
    grant = roles["apply"]
    desired = topology.compiled.desired
    names = [*desired.exchanges, *desired.queues, "amq.default"]
    asked = [
        (kind, name) for kind, pattern in grant.patterns.items() for name in names if re.search(pattern.text, name)
    ]
    spare: list[tuple[str, str]] = []

    async def scenario() -> None:
        management = Management(vhost)
        for kind, name in [*asked, ("configure", "of no object")]:
            pattern = getattr(grant, kind)
            less = replace(pattern, text=f"^(?!{re.escape(name)}$){pattern.text[1:]}")
            with granted(vhost, replace(grant, **{kind: less})) as address:
                try:
                    await apply(topology, address)
                except (PartlyDoneError, PermissionDeniedError):
                    pass
                else:
                    spare.append((kind, name))
            for queue in desired.queues:
                management.delete("queues", vhost.vhost, queue)
            for exchange in desired.exchanges:
                management.delete("exchanges", vhost.vhost, exchange)

    asyncio.run(scenario())
    assert len(asked) > 15
    assert spare == [("configure", "of no object")]


@pytest.mark.one_broker
def test_the_applying_user_may_replace_a_retry_queue(
    vhost: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "STATISTICS_LAG", 0.2)
    monkeypatch.setattr(drain, "STATISTICS_APPEAR", 60.0)
    topology, roles = loaded(tmp_path, WITHOUT_POLICIES)
    other, _ = loaded(tmp_path, WITHOUT_POLICIES.replace("    bindings", "    tiers: {type: classic}\n    bindings"))

    async def scenario() -> None:
        with granted(vhost, roles["apply"]) as address:
            assert (await apply(other, address)).complete
            assert (await apply(topology, address, allow=["replace"], wait=True)).complete
            assert not (await plan(topology, address)).changes

    asyncio.run(scenario())


@pytest.mark.releases(">=4.3")
def test_a_service_with_native_retry_sees_by_its_permissions_whether_the_broker_delays(
    vhost: BrokerAddress, tmp_path: Path
) -> None:
    native = SHOP.replace("{delays: [100ms]}", "{engine: native, delay: {min: 1s, max: 2s}, retries: 3}")
    topology, roles = loaded(tmp_path, native)

    async def start(address: BrokerAddress) -> None:
        consumer = Consumer(topology, address.url)
        consumer.add_handler("orders", lambda _: None)
        async with consumer:
            pass

    async def scenario() -> None:
        with granted(vhost, roles["apply"]) as address:
            await apply(topology, address)
        with granted(vhost, roles["consume"]) as address:
            await start(address)
            Management(vhost).delete("exchanges", vhost.vhost, "shop.native")
            with pytest.raises(NotAppliedError, match=r"shop\.native"):
                await start(address)

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_tags_are_needed(vhost: BrokerAddress, tmp_path: Path) -> None:
    topology, roles = loaded(tmp_path)

    async def scenario() -> None:
        with (
            granted(vhost, replace(roles["apply"], tags=("management",))) as address,
            pytest.raises(RefusedError) as refused,
        ):
            await apply(topology, address)
        assert any("policymaker" in problem for problem in refused.value.problems)
        with granted(vhost, replace(roles["observe"], tags=())) as address, pytest.raises(PermissionDeniedError):
            async with await open_management(address):
                pass

    asyncio.run(scenario())


def test_publishers_and_services_can_do_nothing_else(vhost: BrokerAddress, tmp_path: Path) -> None:
    topology, roles = loaded(tmp_path)

    async def refused(role: str, exchange: str, key: str) -> None:
        with granted(vhost, roles[role]) as address:
            async with Publisher(address.url) as publisher:
                (result,) = await publisher.publish_many(
                    [OutgoingMessage(body=b"", exchange=exchange, routing_key=key)]
                )
        assert isinstance(result, Exception), (role, exchange)

    async def scenario() -> None:
        await apply(topology, vhost)
        for role, exchange, key in (
            ("publish", "", "orders"),
            ("publish", "shop.retry", "orders"),
            ("consume", "", "orders"),
            ("consume", "events", "order.placed"),
            ("replay", "shop.parking", "orders.parking"),
            ("observe", "events", "order.placed"),
        ):
            await refused(role, exchange, key)

    asyncio.run(scenario())
