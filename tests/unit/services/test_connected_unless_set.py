"""Connecting until a consumer is asked to stop."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from amqpflow.services.consuming.connections import connected_unless_set


def test_connecting_is_cancelled_when_the_event_is_set_before_its_end() -> None:
    async def scenario() -> None:
        stopping, ended = asyncio.Event(), list[str]()

        async def connect(seconds: float) -> Any:
            try:
                await asyncio.sleep(seconds)
            finally:
                ended.append("connect")
            return "connected"

        async def fails() -> Any:
            raise ValueError

        assert await connected_unless_set(stopping, connect(0)) == "connected"
        with pytest.raises(ValueError):
            await connected_unless_set(stopping, fails())
        asyncio.get_running_loop().call_later(0.01, stopping.set)
        assert await connected_unless_set(stopping, connect(60)) is None
        assert ended == ["connect", "connect"]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scenario())
