"""Any single edit of a topology, planned and applied on a virtual host with messages in every queue.

Hypothesis adds, removes and changes each key of the language, one at a time. After each edit the plan is empty, or it
was refused and nothing was done; every message is still there, once.

A few edits run here, the same each time. Many more, others each time, about one a second on each broker:

    AMQPFLOW_TEST_EDITS=300 pytest tests/integration/test_plan_edits.py
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, assume, given, note, settings
from hypothesis import strategies as st

from amqpflow.api import functions as api
from amqpflow.errors import PartlyDoneError, RefusedError
from amqpflow.model.message import Publish
from amqpflow.model.properties import Properties
from amqpflow.model.routes import CompiledTopology
from amqpflow.planning.values.changes import label
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.connection import Connection, connect
from tests.brokers.management import Management
from tests.brokers.selection import BrokerUnderTest
from tests.topology_files import check

EXAMPLES = int(os.environ.get("AMQPFLOW_TEST_EDITS", "0"))
ABSENT = object()

Path = tuple[str, ...]

hours = st.integers(1, 50).map("{}h".format)
delays = st.lists(hours, min_size=1, max_size=3, unique=True)
scalars = st.one_of(st.integers(-5, 5000000000), st.sampled_from(["", "1", "word"]), st.booleans(), st.just(2.5))
arguments = st.dictionaries(st.sampled_from(["x-a", "x-b"]), scalars, min_size=1)
keys = st.sampled_from(["", "order.placed", "order.*", "#", "a b/c"])
bindings = st.lists(
    st.one_of(
        st.fixed_dictionaries({"exchange": st.just("events"), "routing_key": keys}),
        st.fixed_dictionaries(
            {
                "exchange": st.just("heads"),
                "arguments": st.fixed_dictionaries({"x-match": st.just("all"), "n": scalars}),
            }
        ),
    ),
    min_size=1,
    max_size=3,
    unique_by=repr,
)
limits = st.fixed_dictionaries(
    {},
    optional={
        "max_length": st.integers(100, 1000),
        "max_length_bytes": st.sampled_from(["1MiB", "1GiB"]),
        "overflow": st.sampled_from(["reject-publish", "drop-head"]),
    },
)
queues = st.fixed_dictionaries({"retry": st.sampled_from(["none", "a", "b"])}, optional={"bindings": bindings})

#: each key of the language, with values for it; `one` and `a` stand for all queues and policies
LANGUAGE: Mapping[Path, st.SearchStrategy[Any]] = {
    ("settings",): st.sampled_from(["policies", "arguments"]),
    ("naming", "retry"): st.sampled_from(["{queue}.retry.{delay}", "retry.{queue}.{delay}"]),
    ("naming", "parking"): st.sampled_from(["{queue}.parking", "parked.{queue}"]),
    ("naming", "retry_exchange"): st.sampled_from(["{topology}.retry", "{topology}.again"]),
    ("naming", "parking_exchange"): st.sampled_from(["{topology}.parking", "{topology}.parked"]),
    ("defaults", "queue"): st.fixed_dictionaries({"type": st.sampled_from(["quorum", "classic"])}),
    ("defaults", "retry"): st.sampled_from(["a", "b", "none"]),
    ("retry_policies", "c"): st.fixed_dictionaries({"delays": delays}),
    ("retry_policies", "a", "delays"): delays,
    ("retry_policies", "a", "jitter"): st.sampled_from(["10%", "25%"]),
    ("retry_policies", "a", "give_up_after"): hours,
    ("retry_policies", "a", "on"): st.sampled_from(
        [
            [{"errors": ["ValueError"], "park": "invalid"}],
            [{"errors": ["ValueError"], "delays": ["7h", "9h"]}, {"errors": ["KeyError"], "park": "x"}],
        ]
    ),
    ("retry_policies", "b", "backoff", "retries"): st.integers(1, 4),
    ("retry_policies", "b", "backoff", "multiplier"): st.sampled_from([2, 3, 1.5]),
    ("exchanges", "more"): st.fixed_dictionaries({"type": st.sampled_from(["direct", "fanout"])}),
    ("exchanges", "events", "type"): st.sampled_from(["topic", "direct", "fanout"]),
    ("exchanges", "events", "durable"): st.booleans(),
    ("exchanges", "events", "alternate_exchange"): st.sampled_from(["amq.fanout", "heads"]),
    ("exchanges", "events", "arguments"): arguments,
    ("queues", "more"): queues,
    ("queues", "two"): queues,
    ("queues", "one", "type"): st.sampled_from(["quorum", "classic"]),
    ("queues", "one", "retry"): st.sampled_from(["a", "b", "none"]),
    ("queues", "one", "bindings"): bindings,
    ("queues", "one", "limits"): limits,
    ("queues", "one", "max_priority"): st.integers(1, 10),
    ("queues", "one", "delivery_limit"): st.integers(30, 60),
    ("queues", "one", "consumer_timeout"): st.sampled_from(["1h", "90m"]),
    ("queues", "one", "single_active_consumer"): st.booleans(),
    ("queues", "one", "parking"): st.sampled_from([{"queue": "kept"}, {"queue": "two.parking"}, {"type": "classic"}]),
    ("queues", "one", "tiers"): st.sampled_from([{"type": "classic"}, {"type": "quorum"}]),
    ("queues", "one", "arguments"): arguments,
}
REQUIRED = {
    ("retry_policies", "a", "delays"),
    ("retry_policies", "b", "backoff", "retries"),
    ("exchanges", "events", "type"),
}


@dataclass(frozen=True)
class Edit:
    """A file before and after."""

    path: Path
    before: Mapping[str, Any]
    after: Mapping[str, Any]


@st.composite
def edits(draw: st.DrawFn) -> Edit:
    """One key is added, removed or changed, in a file where some others are set, too."""
    whole: dict[str, Any] = {
        "version": 1,
        "name": "shop",
        "defaults": {"retry": "a", "queue": {"type": draw(st.sampled_from(["quorum", "classic"]))}},
        "retry_policies": {
            "a": {"delays": draw(delays)},
            "b": {"backoff": {"initial": "1h", "max": "20h", "retries": 2}},
        },
        "exchanges": {"events": {"type": "topic"}, "heads": {"type": "headers"}},
        "queues": {"one": {"bindings": draw(bindings)}, "two": {"retry": "none"}},
    }
    path = draw(st.sampled_from(sorted(LANGUAGE)))
    for other in draw(st.lists(st.sampled_from(sorted(LANGUAGE)), max_size=2, unique=True)):
        if other != path:
            put(whole, other, draw(LANGUAGE[other]))
    sides = [st.just(draw(LANGUAGE[path])), LANGUAGE[path] if path in REQUIRED else st.just(ABSENT) | LANGUAGE[path]]
    one, other_value = (draw(side) for side in draw(st.permutations(sides)))
    before, after = deepcopy(whole), deepcopy(whole)
    put(before, path, one)
    put(after, path, other_value)
    assume(before != after)
    found = [check(json.dumps(file)) for file in (before, after)]
    assume(not any(each.errors for each in found))
    one_state, other_state = (each.topologies[0].desired for each in found)
    assume(one_state != other_state)  # a longer give_up_after is a matter of the consumer alone
    return Edit(path=path, before=before, after=after)


def put(whole: dict[str, Any], path: Path, value: Any) -> None:
    """Set a key, or remove it."""
    for part in path[:-1]:
        whole = whole.setdefault(part, {})
    if value is ABSENT:
        whole.pop(path[-1], None)
    else:
        whole[path[-1]] = value


def compiled(file: Mapping[str, Any], address: BrokerAddress) -> CompiledTopology:
    (topology,) = check(json.dumps(file)).topologies
    return replace(topology, vhost=address.vhost)


_numbers = count()


@contextmanager
def fresh(broker: BrokerUnderTest, vhost: BrokerAddress) -> Iterator[BrokerAddress]:
    """An empty virtual host for one example."""
    name = f"{vhost.vhost}-{next(_numbers)}"
    broker.management.put("vhosts", name)
    try:
        broker.management.put("permissions", name, vhost.user, body={"configure": ".*", "write": ".*", "read": ".*"})
        yield vhost.with_vhost(name)
    finally:
        broker.management.delete("vhosts", name)


def test_any_edit_is_applied_or_refused_and_no_message_is_lost(broker: BrokerUnderTest, vhost: BrokerAddress) -> None:
    seen: Counter[str] = Counter()

    @settings(
        max_examples=EXAMPLES or 6,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        phases=[Phase.generate],  # shrinking takes minutes on a real broker, and files are small already
        suppress_health_check=list(HealthCheck),
    )
    @given(edits())
    def one_edit(edit: Edit) -> None:
        note(f"{'.'.join(edit.path)}\nbefore: {json.dumps(edit.before)}\nafter: {json.dumps(edit.after)}")
        with fresh(broker, vhost) as address:
            seen[asyncio.run(_edited(edit, address))] += 1

    one_edit()
    print(dict(seen))
    assert any(outcome.startswith("applied") for outcome in seen)


async def _edited(edit: Edit, address: BrokerAddress) -> str:
    before, after = compiled(edit.before, address), compiled(edit.after, address)
    assert (await api.apply(before, address)).complete
    async with await connect(address, name="amqpflow test") as connection:
        ids = await _publish(connection, list(before.desired.queues))
    outcome = await _applied(after, before, address, prune=False)
    if outcome != "refused":
        # what goes is not empty: work and parking queues are refused for that, retry queues stay until they are
        outcome += f", pruning {await _applied(after, after, address, prune=True)}"
    async with await connect(address, name="amqpflow test") as connection:
        assert await _take(connection, address) == Counter(ids)
    return outcome


async def _applied(topology: CompiledTopology, held: CompiledTopology, address: BrokerAddress, *, prune: bool) -> str:
    """Plan and apply: applied, nothing to do, postponed in part, or refused, and then nothing is done."""
    there = _definitions(address)
    planned = await api.plan(topology, address, prune=prune)
    if planned.refusals:
        with pytest.raises(RefusedError):
            await api.apply(topology, address, prune=prune, allow=["replace", "delete"])
        assert _definitions(address) == there
        await _nothing_to_do(held, address)
        return "refused"
    try:
        report = await api.apply(planned, address, allow=["replace", "delete"])
    except (PartlyDoneError, RefusedError) as error:
        if not prune or not re.search(r"has \d+ message", f"{error} {error.__cause__}"):
            raise
        # statistics are seconds old: what the plan took for empty is looked at exactly before it is deleted
        await _nothing_to_do(topology, address)
        return "stopped, not empty"
    if report.postponed:
        again = await api.plan(topology, address, prune=prune)
        assert again.refusals == ()
        assert {label(change) for change in again.changes} <= {label(change) for change in planned.changes}
        return "postponed"
    assert report.done == planned.changes
    await _nothing_to_do(topology, address)
    return "applied" if planned.changes else "nothing to do"


async def _nothing_to_do(topology: CompiledTopology, address: BrokerAddress) -> None:
    again = await api.plan(topology, address)
    assert again.refusals == ()
    assert again.changes == ()
    assert {each.what for each in (await api.drift(topology, address)).drifts} <= {"added"}  # what was not pruned


def _definitions(address: BrokerAddress) -> list[str]:
    """All that is declared, comparable, but for the lock of an apply that has just ended."""
    management = Management(address)
    keys = ("name", "type", "durable", "arguments", "source", "destination", "routing_key", "pattern", "definition")
    return sorted(
        json.dumps([kind, *(each.get(key) for key in keys)], sort_keys=True)
        for kind in ("exchanges", "queues", "bindings", "policies")
        for each in management.get(kind, address.vhost, query="disable_stats=true" if kind == "queues" else "")
        if not each.get("exclusive") and each.get("source") != ""
    )


async def _publish(connection: Connection, queues: list[str]) -> list[str]:
    """Two messages into each queue; returns their ids."""
    ids = [f"{queue}#{number}" for queue in queues for number in range(2)]
    channel = await connection.open_channel()
    for each in ids:
        queue = each.partition("#")[0]
        properties = Properties(message_id=each, delivery_mode=2)
        await channel.publish(Publish.of(exchange="", routing_key=queue, properties=properties, body=b"{}"))
    await channel.close()
    return ids


async def _take(connection: Connection, address: BrokerAddress) -> Counter[str]:
    """How often each message is in any queue; empties them. A queue with a single active consumer refuses a get."""
    found: Counter[str] = Counter()
    channel = await connection.admin_channel()
    for queue in Management(address).get("queues", address.vhost, query="disable_stats=true"):
        ready = (await channel.queue_declare(queue["name"], passive=True)).message_count
        arrived: asyncio.Queue[str] = asyncio.Queue()

        async def take(message: Any, arrived: asyncio.Queue[str] = arrived) -> None:
            await arrived.put(str(message.header.properties.message_id))

        consumer = await channel.basic_consume(queue["name"], take, no_ack=True)
        for _ in range(ready):
            found[await asyncio.wait_for(arrived.get(), 30)] += 1
        await channel.basic_cancel(consumer.consumer_tag)
    await channel.close()
    return found
