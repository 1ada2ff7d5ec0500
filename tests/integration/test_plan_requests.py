"""Planning asks for lists: the number of requests does not grow with the topology."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from amqpflow.api import functions as api
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.connection import Connection
from amqpflow.rabbitmq.management_http import ManagementHttp
from tests.topology_files import compiled

pytestmark = pytest.mark.one_broker


def shop(name: str, count: int) -> str:
    queues = "".join(f"  {name}.{number}: {{retry: s, limits: {{max_length: 9}}}}\n" for number in range(count))
    return f"version: 1\nname: {name}\nretry_policies:\n  s: {{delays: [5s, 30s]}}\nqueues:\n{queues}"


def test_as_many_requests_for_sixty_queues_as_for_two(vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: Counter[str] = Counter()
    call, open_channel = ManagementHttp.call, Connection.admin_channel

    async def counting(self: ManagementHttp, *args: Any, **kwargs: Any) -> Any:
        asked["requests"] += 1
        return await call(self, *args, **kwargs)

    async def counting_channels(self: Connection) -> Any:
        asked["channels"] += 1
        return await open_channel(self)

    monkeypatch.setattr(ManagementHttp, "call", counting)
    monkeypatch.setattr(Connection, "admin_channel", counting_channels)

    async def planned(name: str, count: int) -> tuple[Counter[str], Counter[str]]:
        file = compiled(shop(name, count))
        asked.clear()
        made = await api.plan(file, vhost)
        first = asked.copy()
        await api.apply(made, vhost)
        asked.clear()
        assert (await api.plan(file, vhost)).nothing_to_do
        return first, asked.copy()

    few = asyncio.run(planned("few", 2))
    many = asyncio.run(planned("many", 60))
    assert many == few
    assert few[1]["requests"] <= 12
