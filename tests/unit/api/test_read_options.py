"""`ReadOptions`, and the arguments that it replaces."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

import amqpflow
from amqpflow.api.options import merged
from amqpflow.services.loading.topology import no_topology
from amqpflow.services.process.waiting import set_within
from amqpflow.services.reading.target import ReadTarget

OLD: dict[str, Any] = {
    "from_queues": ("dead",),
    "origin": "orders",
    "unverified": True,
    "prefetch": 10,
    "stop": asyncio.Event(),
    "on_progress": print,
    "on_wait": print,
}
CALLS = {
    "parked": (None,),
    "parked_message": (None, "id"),
    "parked_stats": (None,),
    "export_parked": (None, "file"),
    "choose_parked": (None,),
    "discard_parked": (None, "file"),
    "restore_parked": ("file",),
    "plan_replay": (None,),
    "replay": (None,),
}


@pytest.mark.parametrize("name", OLD)
def test_an_old_argument_is_the_field_of_its_name(name: str) -> None:
    with pytest.warns(DeprecationWarning, match=rf"{name}: give options=amqpflow.ReadOptions"):
        assert getattr(merged(None, {name: OLD[name]}), name) == OLD[name]


@pytest.mark.parametrize(("function", "arguments"), CALLS.items())
def test_the_caller_is_warned(function: str, arguments: tuple[Any, ...]) -> None:
    async def call() -> None:
        await getattr(amqpflow, function)(*arguments, url="amqp://127.0.0.1:1", from_queues=["dead"], stop=None)

    with (
        pytest.warns(DeprecationWarning, match="from_queues, stop") as warned,
        pytest.raises(amqpflow.AmqpflowError),
    ):
        asyncio.run(call())
    assert warned[0].filename == __file__


def test_another_argument_is_refused() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'prefetched'"):
        asyncio.run(amqpflow.parked(None, prefetched=1))  # type: ignore[call-arg]


def test_options_without_an_event_may_be_used_in_one_event_loop_after_the_other() -> None:
    options = amqpflow.ReadOptions()

    async def waits() -> bool:
        target = ReadTarget(broker=cast("Any", None), compiled=no_topology(), queues=(), options=options)
        began = asyncio.get_running_loop().time()
        assert not await set_within(target.stop, 0.05)
        return asyncio.get_running_loop().time() - began >= 0.04

    assert asyncio.run(waits())
    assert asyncio.run(waits())


def test_a_restore_is_refused_that_shall_not_look() -> None:
    with pytest.raises(amqpflow.UsageError, match="unverified is not for a restore"):
        asyncio.run(amqpflow.restore_parked("file", options=amqpflow.ReadOptions(unverified=True)))


@pytest.mark.parametrize("options", [{"from_queues": ("dead",)}, {"origin": "orders"}])
def test_queues_are_not_chosen_by_the_options_of_a_replay_or_restore(options: dict[str, Any]) -> None:
    how = amqpflow.ReadOptions(**options)
    for call in (amqpflow.replay("topology.yaml", options=how), amqpflow.restore_parked("file", options=how)):
        with pytest.raises(amqpflow.UsageError, match="only read"):
            asyncio.run(call)
