"""Waiting for the first of several things leaves no task behind."""

from __future__ import annotations

import asyncio

import pytest

from amqpflow.services.process.waiting import first_of, set_within, unless_set


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


def test_work_is_cancelled_when_the_event_is_set_before_its_end() -> None:
    async def scenario() -> None:
        stopping, ended = asyncio.Event(), list[str]()

        async def work(seconds: float) -> str:
            try:
                await asyncio.sleep(seconds)
            finally:
                ended.append("work")
            return "done"

        async def fails() -> str:
            raise ValueError

        assert await unless_set(stopping, work(0)) == "done"
        with pytest.raises(ValueError):
            await unless_set(stopping, fails())
        asyncio.get_running_loop().call_later(0.01, stopping.set)
        assert await unless_set(stopping, work(60)) is None
        assert ended == ["work", "work"]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scenario())
