"""The settings that we work out are those that RabbitMQ works by."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from amqpflow.model.message import Publish
from amqpflow.model.properties import Properties
from amqpflow.model.resources import BrokerState, Policy
from amqpflow.planning.policies.effective import effective_in
from amqpflow.planning.values.observation import Observation
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.connection import connect
from amqpflow.rabbitmq.management import open_management
from tests.brokers.management import Management
from tests.brokers.selection import BrokerUnderTest
from tests.waiting import until

KEYS: dict[str, Any] = {
    "message-ttl": 100_000,
    "expires": 1_000_000,
    "dead-letter-exchange": "",
    "dead-letter-routing-key": "x",
    "dead-letter-strategy": "at-least-once",
    "max-length": 10,
    "max-length-bytes": 1000,
    "overflow": "reject-publish",
    "delivery-limit": 5,
    "queue-leader-locator": "balanced",
    "consumer-timeout": 1_800_000,
    "target-group-size": 3,
    "queue-version": 2,
    "queue-mode": "lazy",
    "max-in-memory-length": 10,
    "max-in-memory-bytes": 10,
    "max-age": "1D",
    "stream-max-segment-size-bytes": 1000,
    "initial-cluster-size": 1,
    "ha-mode": "all",
    "queue-master-locator": "min-masters",
}


async def seen(address: BrokerAddress) -> BrokerState:
    async with await open_management(address) as management:
        return BrokerState(
            queues={each.name: each for each in await management.queues(address.vhost)},
            policies={each.name: each for each in await management.policies(address.vhost)},
            operator_policies={each.name: each for each in await management.operator_policies(address.vhost)},
        )


async def declare(address: BrokerAddress, queues: dict[str, dict[str, Any]]) -> None:
    connection = await connect(address, name="amqpflow test")
    channel = await connection.admin_channel()
    for name, arguments in queues.items():
        await channel.queue_declare(name, durable=True, arguments=arguments)
    await connection.close()


def put(management: Management, vhost: str, kind: str, policy: Policy) -> bool:
    body = {
        "pattern": policy.pattern,
        "definition": dict(policy.definition),
        "priority": policy.priority,
        "apply-to": policy.apply_to,
    }
    try:
        management.put(kind, vhost, policy.name, body=body)
    except AssertionError:
        return False  # this release does not know the key
    return True


def test_the_policy_that_works_is_the_one_we_say(vhost: BrokerAddress, broker: BrokerUnderTest) -> None:
    """Each key by itself, on both types, with another policy below it that works when the first is passed over."""
    queues = {f"{kind}.{key}": {"x-queue-type": kind} for key in KEYS for kind in ("classic", "quorum")}
    asyncio.run(declare(vhost, queues))
    management = Management(vhost)
    put(management, vhost.vhost, "policies", Policy(name="low", pattern="", definition={"max-length": 9}, priority=-1))
    for key, value in KEYS.items():
        pattern = rf"^(classic|quorum)\.{key}$"
        put(management, vhost.vhost, "policies", Policy(name=f"p-{key}", pattern=pattern, definition={key: value}))

    def ours() -> dict[str, list[str]]:
        state = asyncio.run(seen(vhost))
        found = {
            name: effective_in(Observation(state=state, version=broker.version), queue, topology="").policies
            for name, queue in state.queues.items()
        }
        return {name: [each.name for each in policies] for name, policies in found.items()}

    def theirs() -> dict[str, list[str]]:
        listed = management.get("queues", vhost.vhost, query="disable_stats=true")
        return {each["name"]: [each["policy"]] for each in listed}

    expected = ours()
    asyncio.run(until(lambda: theirs() == expected))


def test_what_rabbitmq_reports_is_what_we_work_out(vhost: BrokerAddress, broker: BrokerUnderTest) -> None:
    """Compared with its statistics: effective_policy_definition, and from RabbitMQ 4 on delivery_limit.

    A case is an argument x-delivery-limit, a policy and an operator policy.
    """
    cases: dict[str, tuple[int | None, dict[str, Any], dict[str, Any]]] = {
        "user": (None, {"max-length": 5, "expires": 600_000}, {"max-length": 9, "message-ttl": 70_000}),
        "operator": (None, {"max-length": 9, "message-ttl": 80_000}, {"max-length": 5, "message-ttl": 70_000}),
        "limit": (50, {"delivery-limit": 7}, {"delivery-limit": 5}),
        "argument": (3, {"delivery-limit": 7}, {}),
        "default": (None, {}, {}),
    }
    if broker.version >= (4,):
        cases["overflow"] = (None, {"overflow": "reject-publish"}, {"overflow": "drop-head"})
        cases["lifted"] = (-1, {}, {})
        cases["lifted-by-argument"] = (-1, {"delivery-limit": 9}, {})
        cases["lifted-by-policy"] = (9, {"delivery-limit": -1}, {})
        cases["lifted-twice"] = (9, {"delivery-limit": -1}, {"delivery-limit": 5})
    queues = {
        name: {"x-queue-type": "quorum"} | ({} if argument is None else {"x-delivery-limit": argument})
        for name, (argument, _, _) in cases.items()
    }
    asyncio.run(declare(vhost, queues))
    management = Management(vhost)
    for name, (_, user, operator) in cases.items():
        for kind, definition in (("policies", user), ("operator-policies", operator)):
            if definition:
                policy = Policy(name=name, pattern=f"^{name}$", definition=definition)
                assert put(management, vhost.vhost, kind, policy)
    state = asyncio.run(seen(vhost))
    expected: dict[str, Any] = {}
    for name, (argument, user, operator) in cases.items():
        works = effective_in(Observation(state=state, version=broker.version), state.queues[name], topology="")
        limit = works.value("delivery-limit") if broker.version >= (4,) else None
        # RabbitMQ reports what the two policies come to, the argument left out
        merged = {key: works.value(key) for key in (*user, *operator) if argument is None or key != "delivery-limit"}
        expected[name] = (merged, limit)

    def reported() -> dict[str, Any]:
        found = {}
        for each in management.get("queues", vhost.vhost):
            name = each["name"]
            merged = dict(each.get("effective_policy_definition") or {})
            if cases[name][0] is not None:
                merged.pop("delivery-limit", None)
            limit = each.get("delivery_limit")
            found[name] = (merged, -1 if limit == "unlimited" else limit)
        return found

    asyncio.run(until(lambda: reported() == expected, timeout=30))


@pytest.mark.one_broker
def test_what_rabbitmq_retains_is_found(vhost: BrokerAddress) -> None:
    """Dead letters whose target is gone: counted by RabbitMQ alone, and only in its statistics."""
    retains = {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "nowhere",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
        "x-message-ttl": 1,
    }

    async def scenario() -> None:
        await declare(vhost, {"stuck": retains, "other": {"x-queue-type": "quorum"}})
        connection = await connect(vhost, name="amqpflow test")
        channel = await connection.open_channel()
        for queue in ("stuck", "stuck", "other"):
            await channel.publish(
                Publish.of(
                    exchange="", routing_key=queue, properties=Properties(delivery_mode=2, message_id=queue), body=b""
                )
            )
        await connection.close()
        async with await open_management(vhost) as management:

            async def found() -> bool:
                return {name: n for name, n in (await management.retained(vhost.vhost)).items() if n} == {"stuck": 2}

            await until(found, timeout=30, every=0.2)

    asyncio.run(scenario())
