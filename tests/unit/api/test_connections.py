"""Which connection a call of a client gets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

import amqpflow
from amqpflow.errors import BrokerError
from amqpflow.rabbitmq import observe
from amqpflow.rabbitmq.address import BrokerAddress, resolve_address
from tests.topologies import topology

SHOP = topology({"orders": [5000]}, vhost="shop")


@dataclass
class OpenedConnection:
    is_closed: bool = False
    another_login: bool = False

    async def has_another_login(self) -> bool:
        return self.another_login


@dataclass
class Opened:
    """Stands for a broker that was connected to."""

    vhost: str
    name: str
    connection: Any = field(default_factory=lambda: OpenedConnection())
    management: None = None
    closed: bool = False


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Opened]:
    """Every broker that was opened, in order."""
    found: list[Opened] = []

    @asynccontextmanager
    async def open_broker(address: BrokerAddress, *, name: str) -> AsyncIterator[Opened]:
        found.append(Opened(vhost=address.vhost, name=name))
        this = found[-1]
        try:
            yield this
        finally:
            this.closed = True

    monkeypatch.setattr(observe, "open_broker", open_broker)
    return found


def test_calls_in_one_virtual_host_share_a_connection(opened: list[Opened]) -> None:
    async def calls() -> None:
        async with amqpflow.connect("amqp://localhost") as client:
            for purpose in ("plan", "apply"):
                async with client._connections.broker(SHOP, purpose) as (broker, compiled):
                    assert (broker, compiled) == (opened[0], SHOP)
            async with client._connections.broker(None, "restore") as (broker, _):
                assert (broker.vhost, broker.name) == ("/", "amqpflow restore")
            assert [each.closed for each in opened] == [False, False]

    asyncio.run(calls())
    assert [(each.vhost, each.name, each.closed) for each in opened] == [
        ("shop", f"amqpflow plan {SHOP.name}", True),
        ("/", "amqpflow restore", True),
    ]


def test_calls_at_the_same_time_have_a_connection_each(opened: list[Opened]) -> None:
    async def calls() -> None:
        async with amqpflow.connect("amqp://localhost") as client:
            calls = client._connections
            async with calls.broker(SHOP, "plan") as (one, _), calls.broker(SHOP, "apply") as (other, _):
                assert one is not other
            assert not any(each.closed for each in opened)

    asyncio.run(calls())
    assert [each.closed for each in opened] == [True, True]


def test_a_call_that_fails_closes_its_connection(opened: list[Opened]) -> None:
    async def calls() -> None:
        async with amqpflow.connect("amqp://localhost") as client:
            with pytest.raises(BrokerError):
                async with client._connections.broker(SHOP, "plan"):
                    raise BrokerError("no")
            assert opened[0].closed
            async with client._connections.broker(SHOP, "plan") as (broker, _):
                assert broker is opened[1]

    asyncio.run(calls())


def test_a_lost_connection_is_opened_again(opened: list[Opened]) -> None:
    async def calls() -> None:
        async with amqpflow.connect("amqp://localhost") as client:
            async with client._connections.broker(SHOP, "plan"):
                pass
            opened[0].connection.is_closed = True
            async with client._connections.broker(SHOP, "plan") as (broker, _):
                assert (broker, opened[0].closed) == (opened[1], True)

    asyncio.run(calls())


def test_a_connection_whose_login_is_not_the_urls_any_more_is_not_used_again(opened: list[Opened]) -> None:
    async def calls() -> None:
        async with amqpflow.connect("amqp://localhost") as client:
            async with client._connections.broker(SHOP, "plan"):
                pass
            opened[0].connection.another_login = True
            async with client._connections.broker(SHOP, "plan") as (broker, _):
                assert (broker, opened[0].closed) == (opened[1], True)

    asyncio.run(calls())


def test_with_a_url_that_a_function_returns_each_topology_keeps_its_virtual_host(opened: list[Opened]) -> None:
    address = resolve_address(lambda: "amqp://localhost/else", None)

    async def calls() -> None:
        async with amqpflow.connect(address) as client:
            for which, number in ((SHOP, 0), (topology({"orders": [5000]}, vhost="other"), 1), (SHOP, 0), (None, 2)):
                async with client._connections.broker(which, "plan") as (broker, _):
                    assert broker is opened[number]

    asyncio.run(calls())


def test_an_unknown_argument_of_a_call_that_changes_something_is_refused_before_it_connects(
    opened: list[Opened],
) -> None:
    client: Any = amqpflow.connect("amqp://localhost")
    unknown = {"dry_run": True}
    for call in (
        client.apply(SHOP, **unknown),
        client.destroy(SHOP, **unknown),
        client.adopt(SHOP, "queue", ["orders"], **unknown),
        client.disown(SHOP, "queue", ["orders"], **unknown),
    ):
        with pytest.raises(TypeError, match="unexpected keyword argument 'dry_run'"):
            asyncio.run(call)
    assert not opened


def test_outside_of_async_with_every_call_closes_its_own(opened: list[Opened]) -> None:
    async def calls() -> None:
        client = amqpflow.connect("amqp://localhost")
        for number in (0, 1):
            async with client._connections.broker(SHOP, "plan") as (broker, _):
                assert broker is opened[number]
            assert opened[number].closed

    asyncio.run(calls())


def test_a_call_that_outlives_its_client_closes_its_connection(opened: list[Opened]) -> None:
    async def calls() -> None:
        async with amqpflow.connect("amqp://localhost") as client:
            call = client._connections.broker(SHOP, "plan")
            await call.__aenter__()
        assert not opened[0].closed
        await call.__aexit__(None, None, None)
        assert opened[0].closed

    asyncio.run(calls())
