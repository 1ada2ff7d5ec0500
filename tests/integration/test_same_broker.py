"""AMQP here, the management API there: two brokers are told apart, whatever their names, and neither is touched."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amqpflow import Consumer, Message, Refused, Topology, adopt, apply, destroy, drift, explain, parked, plan, replay
from amqpflow.api import plan_replay
from amqpflow.node import create_virtual_host
from amqpflow.planning.permissions import grants
from amqpflow.rabbitmq import same_broker
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.connection import Connection
from amqpflow.rabbitmq.management import Management, Overview
from amqpflow.rabbitmq.observe import open_broker
from tests.brokers import management as http
from tests.brokers.management import as_user
from tests.brokers.own_node import OwnNode
from tests.brokers.selection import BrokerUnderTest

SHOP = """
version: 1
name: shop
vhost: ${AMQPFLOW_VHOST}
retry_policies:
  standard: {delays: [100ms]}
queues:
  orders: {retry: standard, limits: {max_length: 1000}}
"""
pytestmark = pytest.mark.one_broker


@pytest.fixture(params=["elsewhere@there"])
def other(
    request: pytest.FixtureRequest, node: OwnNode, broker: BrokerUnderTest, vhost: BrokerAddress
) -> BrokerAddress:
    """The other broker, which has a virtual host of the same name, and a cluster name of its own or (None) the same."""
    create_virtual_host(node.address, vhost.vhost)
    name = request.param or http.Management(broker.address).get("cluster-name")["name"]
    http.Management(node.address).put("cluster-name", body={"name": name})
    return node.address.with_vhost(vhost.vhost)


whatever_its_name = pytest.mark.parametrize("other", ["elsewhere@there", None], indirect=True, ids=["name", "namesake"])


@pytest.fixture
def file(vhost: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AMQPFLOW_VHOST", vhost.vhost)
    path = tmp_path / "shop.yaml"
    path.write_text(SHOP)
    return path


def management_url(address: BrokerAddress) -> str:
    """With its user and password, which are not those of the other broker."""
    scheme, _, host = address.management_candidates()[-1].partition("://")
    return f"{scheme}://{address.user}:{address.password}@{host}"


def amqpflow(*arguments: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AMQPFLOW_URL", "RABBITMQ_"))}
    return subprocess.run(
        [sys.executable, "-m", "amqpflow", *map(str, arguments)],
        env={**clean, **environ},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@contextmanager
def untouched(*addresses: BrokerAddress) -> Iterator[None]:
    def state() -> list[Any]:
        found: list[Any] = []
        for address in addresses:
            management = http.Management(address)
            for kind in ("queues", "exchanges", "policies"):
                listed = management.get(kind, address.vhost, query="disable_stats=true")
                # what was exclusive may be listed for a moment after its connection was closed
                found.append(sorted(each["name"] for each in listed if not each.get("exclusive")))
            parameters = management.get("global-parameters")
            found.append([each for each in parameters if address.vhost in each["name"]])
        return found

    before = state()
    yield
    assert state() == before


@pytest.mark.parametrize(
    "command",
    [
        ("plan", "FILE"),
        ("apply", "FILE"),
        ("drift", "FILE"),
        ("status", "FILE"),
        ("explain", "FILE", "orders"),
        ("graph", "FILE", "--live"),
        ("parked", "list", "FILE"),
        ("replay", "FILE", "--yes"),
        ("dev", "FILE"),
    ],
    ids=lambda command: command[0],
)
def test_every_command_refuses_the_management_api_of_another_broker(
    vhost: BrokerAddress, other: BrokerAddress, file: Path, command: tuple[str, ...]
) -> None:
    arguments = [file if each == "FILE" else each for each in command]
    with untouched(vhost, other):
        done = amqpflow(*arguments, "--url", vhost.url, "--management-url", management_url(other))
    assert done.returncode == 4, done.stdout + done.stderr
    ours = f"{vhost} (cluster {http.Management(vhost).get('cluster-name')['name']})"
    theirs = f"{other.management_candidates()[-1]} (cluster elsewhere@there)"
    assert f"{ours} and {theirs} are two brokers: " in done.stderr
    assert "Traceback" not in done.stderr
    for password in (f":{vhost.password}@", other.password):
        assert password not in done.stdout + done.stderr


@whatever_its_name
def test_also_when_both_are_from_the_environment(vhost: BrokerAddress, other: BrokerAddress, file: Path) -> None:
    with untouched(vhost, other):
        done = amqpflow("apply", file, AMQPFLOW_URL=vhost.url, AMQPFLOW_MANAGEMENT_URL=management_url(other))
    assert done.returncode == 4, done.stderr
    assert "are two brokers" in done.stderr


def test_a_url_that_is_given_does_not_go_with_the_management_url_of_the_environment(
    vhost: BrokerAddress, other: BrokerAddress, file: Path
) -> None:
    """Production by --url, staging in the shell: nothing of staging is asked for."""
    file.write_text(SHOP.replace(", limits: {max_length: 1000}", ""))
    with untouched(other):
        done = amqpflow("apply", file, "--url", vhost.url, AMQPFLOW_MANAGEMENT_URL=management_url(other))
    assert done.returncode == 0, done.stderr
    assert "AMQPFLOW_MANAGEMENT_URL is not used, because --url is given" in done.stderr
    assert "orders" in {each["name"] for each in http.Management(vhost).get("queues", vhost.vhost)}


CALLS: dict[str, Callable[[Topology, str, str], Awaitable[object]]] = {
    "plan": lambda topology, url, management: plan(topology, url, management_url=management),
    "apply": lambda topology, url, management: apply(topology, url, management_url=management),
    "drift": lambda topology, url, management: drift(topology, url, management_url=management),
    "destroy": lambda topology, url, management: destroy(topology, url, allow=["delete"], management_url=management),
    "adopt": lambda topology, url, management: adopt(topology, "queue", ["orders"], url, management_url=management),
    "explain": lambda topology, url, management: explain(topology, "orders", url, management_url=management),
    "parked": lambda topology, url, management: parked(topology, url, management_url=management),
    "plan_replay": lambda topology, url, management: plan_replay(topology, url, management_url=management),
    "replay": lambda topology, url, management: replay(topology, url, management_url=management),
}


@pytest.mark.parametrize("name", CALLS)
def test_so_does_every_function_of_the_api(vhost: BrokerAddress, other: BrokerAddress, file: Path, name: str) -> None:
    async def call() -> None:
        await CALLS[name](Topology.load(file), vhost.url, management_url(other))

    with untouched(vhost, other), pytest.raises(Refused, match="are two brokers"):
        asyncio.run(call())


@whatever_its_name
def test_a_consumer_does_not_start_and_does_not_wait(vhost: BrokerAddress, other: BrokerAddress, file: Path) -> None:
    async def scenario() -> None:
        assert (await apply(Topology.load(file), vhost)).complete
        consumer = Consumer(file, vhost.url, management_url=management_url(other), wait_for_topology=60)

        async def handle(message: Message) -> None: ...

        consumer.add_handler("orders", handle)
        began = time.monotonic()
        with pytest.raises(Refused, match="are two brokers"):
            await consumer.start()
        assert time.monotonic() - began < 30

    asyncio.run(scenario())


@whatever_its_name
def test_a_derived_management_url_of_another_broker_is_not_used(
    vhost: BrokerAddress, other: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where another broker of the same machine has the usual port."""
    monkeypatch.setattr(BrokerAddress, "management_candidates", lambda _: (other.management_url,))
    monkeypatch.setattr(BrokerAddress, "management_credentials", lambda _: (other.user, other.password))

    async def scenario() -> None:
        async with open_broker(replace(vhost, management_url=None)) as broker:
            assert broker.management is None
            assert "are two brokers" in broker.source

    asyncio.run(scenario())


@contextmanager
def user_of(vhost: BrokerAddress, topology: Topology, role: str) -> Iterator[BrokerAddress]:
    """Who has the permissions of a role and no others."""
    grant = next(each for each in grants(topology.compiled) if each.role == role)
    management, name = http.Management(vhost), f"{vhost.vhost}-{role}"
    management.put("users", name, body={"password": "s3cret", "tags": ",".join(grant.tags)})
    try:
        patterns = {kind: pattern.text for kind, pattern in grant.patterns.items()}
        management.put("permissions", vhost.vhost, name, body=patterns)
        yield as_user(vhost, name, "s3cret")
    finally:
        management.delete("users", name)


@pytest.mark.parametrize("other", [None], indirect=True)
def test_a_user_who_may_apply_and_no_more_is_refused_by_the_lock(
    vhost: BrokerAddress, other: BrokerAddress, file: Path
) -> None:
    """The broker declares no queue of its own naming for this user; the lock is one that it does."""
    topology = Topology.load(file)

    async def scenario(user: BrokerAddress) -> None:
        with untouched(vhost, other), pytest.raises(Refused, match="are two brokers"):
            await apply(topology, user.url, management_url=management_url(other))
        report = await apply(topology, user.url, management_url=vhost.management_candidates()[-1])
        assert report.complete

    with user_of(vhost, topology, "apply") as user:
        asyncio.run(scenario(user))


def test_a_user_who_may_declare_nothing_is_refused_when_the_names_differ(
    vhost: BrokerAddress, other: BrokerAddress, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(same_broker, "CONNECTION_LISTED_WITHIN", 0.5)
    topology = Topology.load(file)

    async def scenario(user: BrokerAddress) -> None:
        with pytest.raises(Refused, match="are two brokers: the AMQP connection is unknown to the management API"):
            await plan(topology, user.url, management_url=management_url(other))
        found = await plan(topology, user.url, management_url=vhost.management_candidates()[-1])
        assert found.complete

    with user_of(vhost, topology, "observe") as user:
        asyncio.run(scenario(user))


def test_a_user_who_may_declare_nothing_reaches_a_cluster_whose_nodes_have_different_names(
    vhost: BrokerAddress, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API lists the user's own connection, after some seconds."""
    monkeypatch.setattr(same_broker, "CONNECTION_LISTED_WITHIN", 30.0)
    overview = Management.overview

    async def of_another_node(management: Management) -> Overview:
        return replace(await overview(management), cluster_name="rabbit@another-node")

    monkeypatch.setattr(Management, "overview", of_another_node)
    topology = Topology.load(file)

    async def scenario(user: BrokerAddress) -> None:
        found = await plan(topology, user.url, management_url=vhost.management_candidates()[-1])
        assert found.complete

    with user_of(vhost, topology, "observe") as user:
        asyncio.run(scenario(user))


def test_what_proves_it_is_gone_before_anything_is_looked_at(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with open_broker(replace(vhost, management_url=management_url(vhost))) as broker:
            assert broker.management is not None
            assert await broker.management.queues(vhost.vhost) == ()

    asyncio.run(scenario())


def test_a_virtual_host_that_is_missing_there_is_another_broker(vhost: BrokerAddress, node: OwnNode) -> None:
    ours = http.Management(vhost).get("cluster-name")["name"]
    http.Management(node.address).put("cluster-name", body={"name": ours})

    async def scenario() -> None:
        with pytest.raises(Refused, match="are two brokers"):
            async with open_broker(replace(vhost, management_url=management_url(node.address))):
                pass

    asyncio.run(scenario())


@whatever_its_name
def test_a_plan_for_another_broker_is_refused(vhost: BrokerAddress, other: BrokerAddress, file: Path) -> None:
    async def scenario() -> None:
        planned = await plan(Topology.load(file), vhost)
        with untouched(vhost, other), pytest.raises(Refused, match="was made for the cluster") as refused:
            await apply(planned, other)
        names = [http.Management(each).get("cluster-name")["name"] for each in (vhost, other)]
        assert names[0] in str(refused.value)
        assert ("this is another one of that name" in str(refused.value)) == (names[0] == names[1])

    asyncio.run(scenario())


def test_a_plan_is_applied_through_another_node_of_the_cluster(
    vhost: BrokerAddress, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no cluster name is set each node has one of its own."""

    async def scenario() -> None:
        planned = await plan(Topology.load(file), vhost)
        monkeypatch.setattr(Connection, "cluster_name", "rabbit@another-node")
        assert (await apply(planned, vhost)).complete

    asyncio.run(scenario())


def test_without_the_id_a_plan_for_a_cluster_of_another_name_is_refused(
    vhost: BrokerAddress, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(SHOP.replace(", limits: {max_length: 1000}", ""))
    topology = Topology.load(file)

    async def scenario(observer: BrokerAddress) -> None:
        planned = await plan(topology, observer.url, management_url=vhost.management_candidates()[-1])
        monkeypatch.setattr(Connection, "cluster_name", "rabbit@another-node")
        with pytest.raises(Refused, match="this is rabbit@another-node") as refused:
            await apply(planned, vhost)
        assert "set_cluster_name" in refused.value.hint

    with user_of(vhost, topology, "observe") as observer:
        asyncio.run(scenario(observer))
