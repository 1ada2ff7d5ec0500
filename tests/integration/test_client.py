"""Calls of one client: they share a connection, and open another one where it was lost."""

from __future__ import annotations

import asyncio

import pytest

import amqpflow
from amqpflow.planning.values.apply_report import ApplyReport
from amqpflow.planning.values.approvals import Approval, Approvals
from amqpflow.planning.values.plan import Plan
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.admin import Admin
from tests.topologies import topology

pytestmark = pytest.mark.one_broker


def test_calls_one_after_the_other_share_a_connection(vhost: BrokerAddress) -> None:
    shop = topology({"orders": [5000]}, vhost=vhost.vhost)

    async def calls() -> None:
        async with amqpflow.connect(vhost) as client:
            assert not (await client.plan(shop)).nothing_to_do
            ((broker, _),) = client._connections._idle[vhost.vhost]
            assert (await client.apply(shop)).complete
            assert (await client.drift(shop)).drifts == ()
            assert (await client.explain(shop, "orders")).exists
            assert [each.queue for each in (await client.status(shop)).queues] == ["orders"]
            assert (await client.parked.list(shop)).messages == ()
            ((same, _),) = client._connections._idle[vhost.vhost]
            assert same.connection is broker.connection
            assert not same.connection.is_closed
        assert same.connection.is_closed

    asyncio.run(calls())


def test_a_lost_connection_is_opened_again(vhost: BrokerAddress) -> None:
    shop = topology({"orders": [5000]}, vhost=vhost.vhost)

    async def calls() -> None:
        async with amqpflow.connect(vhost) as client:
            await client.plan(shop)
            ((broker, _),) = client._connections._idle[vhost.vhost]
            await broker.connection.close()
            assert (await client.apply(shop)).complete
            ((other, _),) = client._connections._idle[vhost.vhost]
            assert other.connection is not broker.connection

    asyncio.run(calls())


def test_two_applies_of_one_client_wait_for_each_other(vhost: BrokerAddress) -> None:
    shop = topology({"orders": [5000]}, vhost=vhost.vhost)

    async def calls() -> None:
        async with amqpflow.connect(vhost) as client:
            both = (client.apply(shop, lock_timeout=30) for _ in range(2))
            first, second = await asyncio.gather(*both)
            assert sorted((bool(first.done), bool(second.done))) == [False, True]

    asyncio.run(calls())


def test_the_plan_is_shown_under_the_lock_and_may_be_allowed_more(vhost: BrokerAddress) -> None:
    one, none = topology({"orders": [5000]}, vhost=vhost.vhost), topology({"orders": []}, vhost=vhost.vhost)
    seen: list[Plan] = []
    reports: list[ApplyReport] = []

    def on_plan(plan: Plan, approvals: Approvals) -> Approvals:
        seen.append(plan)
        assert approvals == frozenset()
        return frozenset({Approval("delete")})

    async def calls() -> None:
        async with amqpflow.connect(vhost) as client:
            await client.apply(one)
            with pytest.raises(amqpflow.RefusedError, match="nothing was done"):
                await client.apply(none, prune=True, on_report=reports.append)
            assert reports == []
            report = await client.apply(none, prune=True, on_plan=on_plan, on_report=reports.append)
            assert report.complete
            assert (reports, [each.changes for each in seen]) == ([report], [report.plan.changes])
            assert (await client.plan(none, prune=True)).nothing_to_do

    asyncio.run(calls())


def test_the_status_is_watched_until_stop(vhost: BrokerAddress) -> None:
    shop = topology({"orders": [5000]}, vhost=vhost.vhost)

    async def calls() -> None:
        stop = asyncio.Event()
        async with amqpflow.connect(vhost) as client:
            await client.apply(shop)
            found = []
            async for status in client.watch(shop, interval=0.1, stop=stop):
                found.append(status)
                if len(found) == 3:
                    stop.set()
            assert len(found) == 3

    asyncio.run(calls())


def test_what_was_applied_is_reported_before_its_channels_are_closed(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that is silent by then holds the close up."""
    events: list[str] = []
    closing = Admin.__aexit__

    async def noted(admin: Admin, *error: object) -> None:
        events.append("closing")
        await closing(admin, *error)

    async def calls() -> None:
        async with amqpflow.connect(vhost) as client:
            await client.apply(
                topology({"orders": []}, vhost=vhost.vhost), on_report=lambda _: events.append("reported")
            )

    monkeypatch.setattr(Admin, "__aexit__", noted)
    asyncio.run(calls())
    assert events == ["reported", "closing"]
