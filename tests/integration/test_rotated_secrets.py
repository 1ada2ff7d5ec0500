"""Passwords that are rotated and tokens that expire, while consumers, publishers and commands are at work."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from amqpflow import Message, OutgoingMessage, Park, Publisher, Topology
from amqpflow.errors import (
    AddressChangedError,
    AmqpflowError,
    AuthenticationError,
    PermissionDeniedError,
    PublishForbiddenError,
)
from amqpflow.model.event import ConnectionLost, ConnectionRecovered
from amqpflow.rabbitmq import connection as connection_module
from amqpflow.rabbitmq.address import BrokerAddress, resolve_address
from amqpflow.rabbitmq.connection import connect
from amqpflow.rabbitmq.management import open_management
from amqpflow.services.consuming.consumer import Consumer
from tests.brokers.management import Management, as_user
from tests.faults.proxy import Proxy
from tests.shop import Shop, connections_of, cut, shop
from tests.waiting import until

EVERYTHING = {"configure": ".*", "write": ".*", "read": ".*"}


class User:
    """A user whose password changes, and the mounted file that holds the URL with it."""

    def __init__(self, vhost: BrokerAddress, directory: Path) -> None:
        self.vhost = vhost
        self.name = f"amqpflow-test-{uuid4().hex[:8]}"
        self.file = directory / "url"
        self.management = Management(vhost)

    def has(self, password: str) -> None:
        """From now on the broker knows the user by this password."""
        self.management.put("users", self.name, body={"password": password, "tags": "management"})
        self.management.put("permissions", self.vhost.vhost, self.name, body=EVERYTHING)

    def url(self, password: str, way: BrokerAddress | None = None) -> str:
        return as_user(way or self.vhost, self.name, password).url

    def holds(self, password: str, way: BrokerAddress | None = None) -> None:
        """From now on the file holds this password: it is replaced as a whole, as Kubernetes does."""
        self.writes(self.url(password, way))

    def writes(self, url: str) -> None:
        new = self.file.with_name("new")
        new.write_text(f"{url}\n")
        new.replace(self.file)

    @property
    def address(self) -> BrokerAddress:
        return resolve_address(environ={"AMQPFLOW_URL_FILE": str(self.file)})


@contextmanager
def user_in(vhost: BrokerAddress, directory: Path) -> Iterator[User]:
    user = User(vhost, directory)
    user.has("old")
    user.holds("old")
    try:
        yield user
    finally:
        user.management.delete("users", user.name)


def consumer_of(scene: Shop, user: User, monkeypatch: pytest.MonkeyPatch) -> tuple[Consumer, list[str]]:
    """A consumer that knows the broker by the file alone; it retries and parks `bad ...`, and parks `park ...`."""
    for name in ("AMQPFLOW_URL", "AMQPFLOW_MANAGEMENT_URL", "AMQPFLOW_MANAGEMENT_URL_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AMQPFLOW_URL_FILE", str(user.file))
    consumer = Consumer(Topology(compiled=scene.compiled))
    handled: list[str] = []

    @consumer.handler("orders")
    async def handle(message: Message) -> None:
        handled.append(str(message.message_id))
        if str(message.message_id).startswith("bad"):
            raise ValueError("bad")
        if str(message.message_id).startswith("park"):
            raise Park("as it says")

    return consumer, handled


def test_a_consumer_comes_back_with_the_password_that_the_file_has_by_then(
    vhost: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both connections: the one that consumes is lost, the one for retries is opened for the first time."""

    async def scenario(user: User) -> None:
        async with shop(vhost) as scene, Proxy(vhost, heartbeat=None) as proxy:
            user.holds("old", proxy.address)
            consumer, handled = consumer_of(scene, user, monkeypatch)
            async with consumer:
                await scene.publish("before")
                await until(lambda: handled == ["before"])
                user.has("new")
                user.holds("new", proxy.address)
                proxy.cut()
                await scene.publish("bad")
                parked = await scene.take_one("orders.parking")
                assert parked.header.properties.message_id == "bad"
                await until(lambda: consumer.healthy)

    with user_in(vhost, tmp_path) as user:
        asyncio.run(scenario(user))


@pytest.mark.one_broker
def test_a_consumer_that_is_refused_tries_again_until_the_file_has_the_new_password(
    vhost: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(user: User) -> None:
        async with shop(vhost) as scene, Proxy(vhost, heartbeat=None) as proxy:
            user.holds("old", proxy.address)
            consumer, handled = consumer_of(scene, user, monkeypatch)
            events: list[object] = []
            consumer.subscribe(events.append, ConnectionLost, ConnectionRecovered)
            refusals: list[AmqpflowError] = []
            plain = consumer._connect

            async def noted(*arguments: object) -> object:
                try:
                    return await plain(*arguments)  # type: ignore[arg-type]
                except AmqpflowError as error:
                    refusals.append(error)
                    raise

            monkeypatch.setattr(consumer, "_connect", noted)
            async with consumer:
                user.has("new")
                proxy.cut()
                await until(lambda: len(refusals) >= 2)
                assert {type(each) for each in refusals} == {AuthenticationError}
                assert not consumer.healthy
                user.writes("")
                await until(lambda: any("is empty" in str(each) for each in refusals))
                user.holds("new", proxy.address)
                await scene.publish("after")
                await until(lambda: "after" in handled)
                await until(lambda: consumer.healthy)
            assert [type(each) for each in events] == [ConnectionLost, ConnectionRecovered]

    with user_in(vhost, tmp_path) as user:
        asyncio.run(scenario(user))


@pytest.mark.one_broker
def test_at_the_start_a_refused_password_is_an_error_at_once(
    vhost: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(user: User) -> None:
        async with shop(vhost) as scene:
            user.holds("wrong")
            consumer, _ = consumer_of(scene, user, monkeypatch)
            consumer.wait_for_topology = 60
            with pytest.raises(AuthenticationError):
                await consumer.start()

    with user_in(vhost, tmp_path) as user:
        asyncio.run(scenario(user))


@pytest.mark.one_broker
def test_a_refused_login_is_tried_once_more_when_the_file_was_replaced_meanwhile(
    vhost: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(user: User) -> None:
        address = user.address
        current, asked = BrokerAddress.current, 0

        async def just_before(self: BrokerAddress) -> BrokerAddress:
            nonlocal asked
            found = await current(self)
            asked += 1
            if asked == 1:
                user.has("new")
                user.holds("new")
            return found

        monkeypatch.setattr(BrokerAddress, "current", just_before)
        async with await connect(address, name="amqpflow test") as connection:
            assert connection.address.password == "new"

    with user_in(vhost, tmp_path) as user:
        asyncio.run(scenario(user))


@pytest.mark.one_broker
@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_publisher_and_a_consumer_ask_their_function_for_each_connection(
    vhost: BrokerAddress, tmp_path: Path, asynchronous: bool
) -> None:
    async def scenario(user: User) -> None:
        async with shop(vhost) as scene, Proxy(vhost, heartbeat=None) as proxy:
            token = "old"

            async def fetched() -> str:
                return user.url(token, proxy.address)

            def fetched_blocking() -> str:
                return user.url(token, proxy.address)

            url = fetched if asynchronous else fetched_blocking

            async def handle(message: Message) -> None:
                scene.done.append(str(message.message_id))

            consumer = Consumer(Topology(compiled=scene.compiled), url)
            consumer.add_handler("orders", handle)
            async with consumer, Publisher(url) as publisher:
                await publisher.publish(b"", routing_key="orders", message_id="1")
                await until(lambda: scene.done == ["1"])
                user.has(token := "new")
                proxy.cut()
                await until(lambda: not publisher._here().outbox.is_open)
                await publisher.publish(b"", routing_key="orders", message_id="2")
                await until(lambda: "2" in scene.done)
                assert publisher.address.vhost == vhost.vhost

    with user_in(vhost, tmp_path) as user:
        asyncio.run(scenario(user))


# -- a login that permits nothing any more, on a connection that stays open


@pytest.mark.parametrize("what", ["write", "read"])
def test_a_consumer_logs_in_again_when_its_permissions_have_expired(
    vhost: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """As with a token on RabbitMQ before 4.3, which keeps the connection. The next login is another user here."""
    monkeypatch.setattr(connection_module, "LOGIN_LASTS", 0.0)

    async def scenario(user: User, following: User) -> None:
        async with shop(vhost) as scene:
            consumer, _ = consumer_of(scene, user, monkeypatch)
            async with consumer:
                await scene.publish("park before")  # a permission that a channel has used is not looked at again
                await scene.take_one("orders.parking")
                following.has("next")
                user.writes(following.url("next"))
                if what == "read":  # it is looked at when it consumes again
                    scene.delete("queues", "orders")
                    await until(lambda: "NOT_FOUND" in consumer.problems.get("orders", ""))
                user.management.put("permissions", vhost.vhost, user.name, body={**EVERYTHING, what: "^$"})
                await scene.declare()
                await scene.publish("bad after")
                parked = await scene.take_one("orders.parking")
                assert parked.header.properties.message_id == "bad after"
                await until(lambda: consumer.healthy)

    with user_in(vhost, tmp_path) as user, user_in(vhost, tmp_path) as following:
        user.holds("old")
        asyncio.run(scenario(user, following))


@pytest.mark.one_broker
def test_a_publisher_logs_in_again_when_its_permissions_have_expired(
    vhost: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(user: User, following: User) -> None:
        async with shop(vhost) as scene, Publisher(lambda: logins[-1]) as publisher:
            await publisher.publish(b"", routing_key="orders", message_id="before")
            user.management.put("permissions", vhost.vhost, user.name, body={**EVERYTHING, "write": "^$"})
            exchange = scene.compiled.parking_exchange  # a permission that a channel has used is not looked at again
            with pytest.raises(PublishForbiddenError):
                await publisher.publish(b"", exchange=exchange, routing_key="orders.parking", message_id="refused")
            logins.append(following.url("old"))
            with pytest.raises(PublishForbiddenError):  # a connection is not left for another login at once
                await publisher.publish(b"", exchange=exchange, routing_key="orders.parking", message_id="refused")
            monkeypatch.setattr(connection_module, "LOGIN_LASTS", 0.0)
            await publisher.publish(b"", exchange=exchange, routing_key="orders.parking", message_id="after")
            parked = await scene.take_one("orders.parking")
            assert parked.header.properties.message_id == "after"

    with user_in(vhost, tmp_path) as user, user_in(vhost, tmp_path) as following:
        logins = [user.url("old")]
        asyncio.run(scenario(user, following))


@pytest.mark.one_broker
def test_what_is_on_its_way_when_another_login_is_used_is_confirmed(
    vhost: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "LOGIN_LASTS", 0.0)

    async def scenario() -> None:
        async with shop(vhost), Publisher(lambda: logins[-1]) as publisher:
            for each in (user, following):
                may = {**EVERYTHING, "write": "^(orders|amq.default)$"}
                user.management.put("permissions", vhost.vhost, each.name, body=may)
            with pytest.raises(PublishForbiddenError):
                await publisher.publish(b"", exchange="amq.topic", routing_key="orders")
            some = [OutgoingMessage(body=b"x" * 20_000, routing_key="orders") for _ in range(3000)]
            await publisher.publish(b"", routing_key="orders")
            logins.append(following.url("old"))
            refused, results = False, list[str | AmqpflowError]()

            async def publish_until_refused() -> None:
                while not refused:  # so that some are on their way then, however long it takes
                    results.extend(await publisher.publish_many(some))

            many = asyncio.create_task(publish_until_refused())
            here = publisher._here()
            await until(lambda: here._outstanding > 100)
            with pytest.raises(PublishForbiddenError):
                await publisher.publish(b"", exchange="amq.topic", routing_key="orders")
            refused = True
            await many
            assert [each for each in results if not isinstance(each, str)] == []

    with user_in(vhost, tmp_path) as user, user_in(vhost, tmp_path) as following:
        logins = [user.url("old")]
        asyncio.run(scenario())


# -- the management API


def test_an_open_management_client_reads_its_password_again(vhost: BrokerAddress, tmp_path: Path) -> None:
    """Requests at the same time as well, and a password for another broker is not sent to this one."""

    base = Management(vhost).base

    def writes(user: User, password: str, base: str = base) -> None:
        user.writes(base.replace("://", f"://{user.name}:{password}@"))

    async def scenario(user: User) -> None:
        writes(user, "old")
        environ = {"AMQPFLOW_URL": user.url("old"), "AMQPFLOW_MANAGEMENT_URL_FILE": str(user.file)}
        async with await open_management(resolve_address(environ=environ)) as management:
            user.has("new")
            with pytest.raises(PermissionDeniedError):
                await management.overview()
            writes(user, "new", base.replace("127.0.0.1", "localhost"))
            with pytest.raises(PermissionDeniedError):
                await management.overview()
            writes(user, "new")
            found = await asyncio.gather(*(management.queues(vhost.vhost) for _ in range(10)))
            assert found == [()] * 10
            assert (await management.overview()).user == user.name

    with user_in(vhost, tmp_path) as user:
        asyncio.run(scenario(user))


# -- another place


@pytest.fixture
def elsewhere(vhost: BrokerAddress) -> Iterator[BrokerAddress]:
    """Another virtual host of the same broker."""
    name = f"{vhost.vhost}-elsewhere"
    Management(vhost).put("vhosts", name)
    Management(vhost).put("permissions", name, vhost.user, body=EVERYTHING)
    try:
        yield vhost.with_vhost(name)
    finally:
        Management(vhost).delete("vhosts", name)


@pytest.mark.one_broker
def test_a_consumer_moves_as_a_whole_when_its_url_names_another_virtual_host(
    vhost: BrokerAddress, elsewhere: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry that was published there would leave its virtual host. What was not settled stays where it was."""

    async def scenario(user: User) -> None:
        user.management.put("permissions", elsewhere.vhost, user.name, body=EVERYTHING)
        async with shop(vhost) as here, shop(elsewhere) as there:
            consumer, handled = consumer_of(here, user, monkeypatch)
            consumer.address = user.address  # the file of the topology names no virtual host
            lost: list[ConnectionLost] = []
            consumer.subscribe(lost.append, ConnectionLost)
            async with consumer:
                await here.publish("before")
                await until(lambda: handled == ["before"])
                user.holds("old", elsewhere)
                await here.publish("bad here")
                await there.publish("there")
                await until(lambda: "there" in handled)
                await until(lambda: consumer.healthy)
            assert [f"{elsewhere.vhost} now, and no longer" in each.reason for each in lost] == [True]
            await here.holds("orders", 1)
            assert sum([await there.depth(queue) for queue in there.compiled.desired.queues]) == 0
            (left,) = await here.take("orders")
            assert left.header.properties.message_id == "bad here"

    with user_in(vhost, tmp_path) as user:
        asyncio.run(scenario(user))


@pytest.mark.one_broker
@pytest.mark.parametrize("lost_first", [False, True])
def test_what_handlers_publish_moves_with_the_consumer(
    vhost: BrokerAddress, elsewhere: BrokerAddress, lost_first: bool
) -> None:
    """`lost_first`: the consumer moves by itself, while the connection for what handlers publish is open."""

    async def scenario() -> None:
        urls = [vhost.url]

        async def passes_on(message: Message) -> None:
            await message.publish(b"", routing_key="orders.parking", message_id=message.message_id)

        async with shop(vhost) as here, shop(elsewhere) as there:
            consumer = Consumer(Topology(compiled=here.compiled), lambda: urls[0])
            consumer.address = replace(consumer.address, chosen_vhost=None)  # the file names no virtual host
            consumer.add_handler("orders", passes_on)
            opened = connections_of(consumer)
            lost: list[ConnectionLost] = []
            consumer.subscribe(lost.append, ConnectionLost)
            async with consumer:
                if lost_first:
                    await here.publish("here")
                    await until(lambda: consumer.totals["acked"])
                    await (await opened[0].open_channel()).close()  # once it is answered, RabbitMQ has read the ack
                    urls[0] = elsewhere.url
                    cut(opened[:1])
                else:
                    urls[0] = elsewhere.url
                    await here.publish("here")
                await there.publish("there")
                moved = await there.take_one("orders.parking")
                assert moved.header.properties.message_id == "there"
                await until(lambda: consumer.healthy)
            assert [each.purpose for each in lost] == ["consumer"]
            published = [each.header.properties.message_id for each in await here.take("orders.parking")]
            assert published == ["here"] * lost_first
            await here.holds("orders", int(not lost_first))
            assert await there.depth("orders") == 0

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_a_second_connection_that_would_lead_elsewhere_is_refused(
    vhost: BrokerAddress, elsewhere: BrokerAddress, tmp_path: Path
) -> None:
    async def scenario(user: User) -> None:
        address = user.address
        user.management.put("permissions", elsewhere.vhost, user.name, body=EVERYTHING)
        async with await connect(address, name="amqpflow test") as first:
            user.holds("old", elsewhere)
            with pytest.raises(
                AddressChangedError, match=f"names .*{elsewhere.vhost} now, and no longer .*{vhost.vhost}"
            ):
                await connect(address, name="amqpflow test", beside=first)
            user.holds("old", vhost)
            async with await connect(address, name="amqpflow test", beside=first):
                pass

    with user_in(vhost, tmp_path) as user:
        asyncio.run(scenario(user))
