"""Waiting for the first of several things leaves no task behind."""

from __future__ import annotations

import asyncio

from amqpflow.services.process.waiting import first_of, set_within


def test_the_first_ends_the_wait_and_the_others_are_cancelled() -> None:
    async def scenario() -> None:
        never, soon = asyncio.Event(), asyncio.Event()
        asyncio.get_running_loop().call_soon(soon.set)
        await first_of(never.wait(), soon.wait())
        await first_of(never.wait(), within=0.01)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert not await set_within(never, 0.01)
        assert await set_within(soon, 0.01)

    asyncio.run(scenario())
