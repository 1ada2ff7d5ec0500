"""A URL that leads to the wrong port, a limit that is reached, a permission that is missing: each has its own name."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from amqpflow.errors import (
    AmqpflowError,
    BrokerUnavailableError,
    ManagementUnavailableError,
    TlsError,
    VirtualHostMissingError,
)
from amqpflow.rabbitmq import peer
from amqpflow.rabbitmq.address import BrokerAddress, resolve_address
from amqpflow.rabbitmq.connection import connect
from amqpflow.rabbitmq.management import open_management
from tests.brokers.management import Management, as_user
from tests.shop import shop
from tests.waiting import until

TLS = Path(__file__).parents[1] / "tls"
EVERYTHING = {"configure": ".*", "write": ".*", "read": ".*"}


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What listens there may be slow to say what it is."""
    monkeypatch.setattr(peer, "_TIMEOUT", 3.0)


def refusal(address: BrokerAddress) -> AmqpflowError:
    """What a connection there is refused with."""

    async def scenario() -> None:
        async with await connect(address, name="amqpflow test"):
            pass

    with pytest.raises(AmqpflowError) as refused:
        asyncio.run(scenario())
    return refused.value


def no_management(address: BrokerAddress) -> ManagementUnavailableError:
    async def scenario() -> None:
        async with await open_management(address):
            pass

    with pytest.raises(ManagementUnavailableError) as refused:
        asyncio.run(scenario())
    return refused.value


@pytest.fixture
def user(vhost: BrokerAddress) -> Iterator[BrokerAddress]:
    """A user with all permissions, deleted after the test."""
    management, name = Management(vhost), f"amqpflow-test-{uuid4().hex[:8]}"
    management.put("users", name, body={"password": "p", "tags": ""})
    management.put("permissions", vhost.vhost, name, body=EVERYTHING)
    try:
        yield as_user(vhost, name, "p")
    finally:
        management.delete("users", name)


def limit(vhost: BrokerAddress, kind: str, of: str, value: int) -> None:
    key = {"connections": "max-connections", "channels": "max-channels"}[kind]
    if of:
        Management(vhost).put("user-limits", of, key, body={"value": value})
    else:
        Management(vhost).put("vhost-limits", vhost.vhost, key, body={"value": value})


# -- refused by RabbitMQ


def test_a_missing_virtual_host_and_missing_access_have_names_of_their_own(
    vhost: BrokerAddress, user: BrokerAddress
) -> None:
    missing = refusal(vhost.with_vhost("no such/vhost"))
    assert type(missing) is VirtualHostMissingError
    assert "there is no virtual host no such/vhost" in str(missing)
    assert missing.hint == "rabbitmqctl add_vhost 'no such/vhost'"
    Management(vhost).delete("permissions", vhost.vhost, user.user)
    denied = refusal(user)
    assert type(denied) is VirtualHostMissingError
    assert f"the user {user.user} has no access to the virtual host {vhost.vhost}" in str(denied)


def test_a_connection_limit_is_named_with_whose_it_is(vhost: BrokerAddress, user: BrokerAddress) -> None:
    limit(vhost, "connections", user.user, 0)
    refused = refusal(user)
    assert type(refused) is BrokerUnavailableError
    assert f"the user {user.user} has no connections left: the limit of 0 is reached" in str(refused)
    assert "set_user_limits" in refused.hint
    limit(vhost, "connections", user.user, -1)
    limit(vhost, "connections", "", 0)
    refused = refusal(user)
    assert f"the virtual host {vhost.vhost} accepts no more connections: the limit of 0 is reached" in str(refused)
    assert "set_vhost_limits" in refused.hint


def test_a_channel_limit_is_named(vhost: BrokerAddress, user: BrokerAddress) -> None:
    limit(vhost, "channels", user.user, 1)

    async def scenario() -> None:
        async with await connect(user, name="amqpflow test") as connection:

            async def no_more() -> BrokerUnavailableError | None:
                try:
                    await connection.open_channel()
                except BrokerUnavailableError as error:
                    return error
                return None

            await connection.open_channel()
            refused = await until(no_more)  # RabbitMQ counts channels a moment after it has opened them
            assert "the user has no channels left, its limit is 1" in str(refused)
            assert "set_user_limits" in refused.hint

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_a_consumer_at_a_limit_says_so_and_publishes_once_it_is_lifted(
    vhost: BrokerAddress, user: BrokerAddress
) -> None:
    """The limit leaves room for the connection that consumes, and none for that of retries."""

    async def scenario() -> None:
        async with shop(vhost) as scene:
            scene.address = user
            limit(vhost, "connections", user.user, 1)

            async def fail(_: object) -> None:
                raise ValueError

            async def no_more() -> bool:
                try:
                    async with await connect(user, name="amqpflow test"):
                        return False
                except BrokerUnavailableError:
                    return True

            async with scene.consumer(orders=fail) as consumer:
                await until(no_more)  # RabbitMQ counts a connection a moment after it has opened it
                await scene.publish("bad")
                await until(lambda: "has no connections left" in consumer.problems.get("orders", ""))
                limit(vhost, "connections", user.user, -1)
                await scene.take_one("orders.parking")
                await until(lambda: consumer.healthy)

    asyncio.run(scenario())


# -- the wrong port


@pytest.mark.one_broker
def test_the_http_port_given_as_amqp(vhost: BrokerAddress) -> None:
    """RabbitMQ closes it after seconds without an answer, so it is asked in HTTP."""
    port = Management(vhost).base.rpartition(":")[2]
    refused = refusal(resolve_address(f"amqp://guest:guest@{vhost.host}:{port}/", environ={}))
    assert type(refused) is BrokerUnavailableError
    assert "the server speaks HTTP" in str(refused)
    assert "15672 is the management API" in refused.hint


@pytest.mark.one_broker
def test_the_amqp_port_given_as_http(vhost: BrokerAddress) -> None:
    refused = no_management(replace(vhost, management_url=f"http://{vhost.host}:{vhost.port}"))
    assert f"the server at http://{vhost.host}:{vhost.port} speaks AMQP" in str(refused)
    assert "15672" in refused.hint


@pytest.mark.one_broker
def test_a_plain_port_given_as_tls(vhost: BrokerAddress) -> None:
    refused = refusal(replace(vhost, url=vhost.url.replace("amqp://", "amqps://")))
    assert type(refused) is TlsError
    assert "amqp:// is without TLS" in refused.hint
    base = Management(vhost).base.replace("http://", "https://")
    assert "does not speak TLS" in str(no_management(replace(vhost, management_url=base)))


Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(answer: Answer, *, tls: bool = False) -> AsyncIterator[int]:
    """A server that is no RabbitMQ; yields its port."""
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(TLS / "certificate.pem", TLS / "key.pem")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield int(server.sockets[0].getsockname()[1])


def says(*data: bytes) -> Answer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        for each in data:
            writer.write(each)
        await writer.drain()
        await reader.read()  # until the client has had enough

    return answer


async def hangs_up(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read(8)


@pytest.mark.parametrize(
    ("answer", "tls", "words", "hint"),
    [
        (says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), False, "the server speaks HTTP", "5672"),
        (says(b"AMQP\x00\x01\x00\x00"), False, "does not speak AMQP 0-9-1, but AMQP 1.0.0", ""),
        (says(b"SSH-2.0-OpenSSH_9.2\r\n"), False, "does not speak AMQP 0-9-1", "5672"),
        (says(), True, "requires TLS", "amqps://"),
        (hangs_up, False, "closed the connection without an answer", "5672"),
    ],
)
def test_what_is_no_rabbitmq(answer: Answer, tls: bool, words: str, hint: str) -> None:
    """At once, though it holds the connection open."""

    async def scenario() -> None:
        async with listening(answer, tls=tls) as port, asyncio.timeout(30):
            url = f"amqp://app:s3cret@127.0.0.1:{port}/"
            with pytest.raises(BrokerUnavailableError, match=words) as refused:
                await connect(resolve_address(url, environ={}), name="amqpflow test", timeout=60)
            assert hint in refused.value.hint
            assert "s3cret" not in f"{refused.value}{refused.value.hint}"

    asyncio.run(scenario())


@pytest.mark.parametrize("reached", [True, False])
def test_a_peer_that_says_nothing_is_told_from_one_that_cannot_be_reached(reached: bool) -> None:
    async def scenario() -> None:
        async with listening(says()) as port:
            host = f"127.0.0.1:{port}" if reached else "192.0.2.1:5672"
            what = "was reached but did not answer in time" if reached else "cannot"
            within = 2 if reached else 0.3  # it is to be reached, on a slow machine as well
            with pytest.raises(BrokerUnavailableError, match=what):
                await connect(resolve_address(f"amqp://{host}/", environ={}), name="amqpflow test", timeout=within)

    asyncio.run(scenario())


def http(status: str, *headers: str, body: str = "") -> Answer:
    head = "\r\n".join((f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers))
    return says(f"{head}\r\n\r\n{body}".encode())


@pytest.mark.parametrize(
    ("answer", "tls", "words"),
    [
        (http("301 Moved", "Location: https://m/api/whoami"), False, "redirects to https://m/api/whoami (HTTP 301"),
        (http("502 Bad Gateway", body="<html>nginx</html>"), False, "says HTTP 502 Bad Gateway: a proxy"),
        (http("200 OK", body="<html>It works!</html>"), False, "is not RabbitMQ's management API"),
        (http("200 OK", body=json.dumps([])), True, "requires TLS"),
    ],
)
def test_what_is_no_management_api(answer: Answer, tls: bool, words: str) -> None:
    async def scenario() -> None:
        async with listening(answer, tls=tls) as port:
            url = f"http://127.0.0.1:{port}"
            with pytest.raises(ManagementUnavailableError) as refused:
                await open_management(resolve_address("amqp://h", url, environ={}))
            assert words in str(refused.value)

    asyncio.run(scenario())
