"""`ReadOptions`, and the arguments that it replaces."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import amqpflow
from amqpflow.api.options import merged

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
    with pytest.warns(DeprecationWarning, match="unverified, stop") as warned:
        getattr(amqpflow, function)(*arguments, unverified=True, stop=None).close()
    assert warned[0].filename == __file__


def test_another_argument_is_refused() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'prefetched'"):
        amqpflow.parked(None, prefetched=1)  # type: ignore[call-arg]


@pytest.mark.parametrize("options", [{"from_queues": ("dead",)}, {"origin": "orders"}])
def test_queues_are_not_chosen_by_the_options_of_a_replay_or_restore(options: dict[str, Any]) -> None:
    how = amqpflow.ReadOptions(**options)
    for call in (amqpflow.replay("topology.yaml", options=how), amqpflow.restore_parked("file", options=how)):
        with pytest.raises(amqpflow.UsageError, match="only read"):
            asyncio.run(call)
