"""The management client against servers that are no RabbitMQ, or not quite: always one clear sentence, no password."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from amqpflow.errors import AmqpflowError, BrokerError, ManagementUnavailableError, PermissionDeniedError
from amqpflow.model.resources import Policy
from amqpflow.planning.values.observation import Depth
from amqpflow.rabbitmq import decode
from amqpflow.rabbitmq import management_http as module
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.management import Management, open_management

TLS = Path(__file__).parents[2] / "tls"
ADDRESS = BrokerAddress(url="amqp://app:s3cret@127.0.0.1/", source="test")
T = TypeVar("T")
QUEUES = "GET /api/queues/%2F?disable_stats=true&columns=name%2Cdurable%2Cauto_delete%2Cexclusive%2Ctype%2Carguments"

Answer = tuple[int, str | None]  #: status and body; None: no answer at all
Answers = dict[str, Answer | list[Answer]]  #: by request; a list: one after another


class Server:
    """Answers by path, WHOAMI always; remembers what was asked."""

    def __init__(self, answers: Answers) -> None:
        self.answers = {"GET /api/whoami": (200, '{"name": "app", "tags": "management, policymaker"}'), **answers}
        self.asked: list[str] = []
        self.bodies: list[str] = []
        self.url = ""
        self._released = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                request = line.decode().rpartition(" ")[0]
                length = 0
                while (header := await reader.readline()).strip():
                    name, _, value = header.decode().partition(":")
                    length = int(value) if name.lower() == "content-length" else length
                self.bodies.append((await reader.readexactly(length)).decode())
                self.asked.append(request)
                answer = self.answers.get(request) or (404, '{"error":"Object Not Found","reason":"Not Found"}')
                status, body = answer.pop(0) if isinstance(answer, list) else answer
                if body is None:
                    await self._released.wait()
                    return
                writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: {len(body.encode())}\r\n\r\n{body}".encode())
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    def release(self) -> None:
        self._released.set()


@asynccontextmanager
async def serving(answers: Answers, context: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server(answers)
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.ensure_future(server.serve(reader, writer)))

    listening = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    port = listening.sockets[0].getsockname()[1]
    server.url = f"{'https' if context else 'http'}://127.0.0.1:{port}"
    try:
        yield server
    finally:
        server.release()
        listening.close()
        await asyncio.gather(*tasks)
        await listening.wait_closed()


def ask(answers: Answers, question: Callable[[Management], Awaitable[T]]) -> tuple[T, Server]:
    async def go() -> tuple[T, Server]:
        async with (
            serving(answers) as server,
            await open_management(replace(ADDRESS, management_url=server.url)) as management,
        ):
            return await question(management), server

    return asyncio.run(go())


def refused(answers: Answers, question: Callable[[Management], Awaitable[Any]]) -> AmqpflowError:
    with pytest.raises(AmqpflowError) as caught:
        ask(answers, question)
    assert "s3cret" not in str(caught.value)
    return caught.value


def test_names_are_encoded_in_the_path() -> None:
    path = "GET /api/queues/a%2Fb%20c%25/x%2F%3F%23?"
    found, server = ask({path[:-1]: (200, '{"messages_dlx": 3}')}, lambda m: m.queue_statistics("a/b c%", "x/?#"))
    assert found == {"messages_dlx": 3}
    assert server.asked[-1] == path[:-1]


def test_a_path_in_front_of_the_api_is_kept() -> None:
    async def go() -> list[str]:
        whoami = '{"name": "app", "tags": "management"}'
        async with serving({"GET /rabbit/api/whoami": (200, whoami)}) as server:
            address = replace(ADDRESS, management_url=f"{server.url}/rabbit/api/")
            async with await open_management(address) as management:
                assert await management.queue_statistics("/", "q") is None
            return server.asked

    assert asyncio.run(go()) == ["GET /rabbit/api/whoami", "GET /rabbit/api/queues/%2F/q"]


def test_a_missing_path_in_front_of_the_api_is_suspected() -> None:
    missing = (404, '{"error":"Object Not Found","reason":"Not Found"}')
    error = refused({"GET /api/whoami": missing}, lambda m: m.queues("/"))
    assert "management.path_prefix" in error.hint


def test_lists_are_asked_for_without_statistics() -> None:
    queues = '[{"name":"q","durable":true,"auto_delete":false,"arguments":{},"type":"quorum"}]'
    (queue,), _ = ask({QUEUES: (200, queues)}, lambda m: m.queues("/"))
    assert queue.type == "quorum"


def test_the_default_exchange_and_its_bindings_are_left_out() -> None:
    bindings = [
        {"source": s, "destination": "q", "destination_type": "queue", "routing_key": "k", "arguments": {}}
        for s in ("", "e")
    ]
    found, _ = ask({"GET /api/bindings/%2F": (200, json.dumps(bindings))}, lambda m: m.bindings("/"))
    assert [each.source for each in found] == ["e"]


def test_an_empty_table_may_be_an_empty_list() -> None:
    policies = '[{"name":"p","pattern":".*","definition":[],"priority":1.5,"apply-to":"all"}]'
    (policy,), _ = ask({"GET /api/policies/%2F": (200, policies)}, lambda m: m.policies("/"))
    assert policy.definition == {}
    assert policy.priority == 1.5


def test_a_policy_is_put() -> None:
    policy = Policy(name="a.b", pattern="^q$", definition={"max-length": 1}, priority=7)
    _, server = ask({"PUT /api/policies/%2F/a.b": (201, "")}, lambda m: m.put_policy("/", policy))
    body = {"pattern": "^q$", "definition": {"max-length": 1}, "priority": 7, "apply-to": "queues"}
    assert json.loads(server.bodies[-1]) == body


def test_what_is_gone_already_is_deleted() -> None:
    ask({}, lambda m: m.delete_policy("/", "p"))


def test_a_virtual_host_is_found_beside_one_that_is_being_deleted() -> None:
    listed = json.dumps([{"recv_oct": 1, "tags": []}, {"name": "v", "messages": 0}])
    found = ask({"GET /api/vhosts": (200, listed)}, lambda m: m.vhost("v"))[0]
    assert found == {"name": "v", "messages": 0}


def test_a_missing_queue_has_no_statistics() -> None:
    assert ask({}, lambda m: m.queue_statistics("/", "q"))[0] is None


def test_a_queue_that_is_being_deleted_is_asked_for_again() -> None:
    """RabbitMQ answers 500 without a body at that moment (fact 11.28)."""
    found, server = ask({"GET /api/queues/%2F/q": [(500, "")]}, lambda m: m.queue_statistics("/", "q"))
    assert found is None
    assert server.asked.count("GET /api/queues/%2F/q") == 2


def test_an_object_that_cannot_be_read_is_named_with_its_key() -> None:
    error = refused({QUEUES: (200, '[{"name":"theirs","arguments":7}]')}, lambda m: m.queues("/"))
    assert isinstance(error, ManagementUnavailableError)
    assert str(error).endswith("returned a list that cannot be decoded: queue 'theirs': arguments is 7")


def test_a_list_that_rabbitmq_fails_to_make_is_no_other_server() -> None:
    error = refused({QUEUES: (500, "")}, lambda m: m.queues("/"))
    assert isinstance(error, BrokerError)
    assert error.code == 500
    assert "failed on queues / (HTTP 500)" in str(error)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, "<html>It works!</html>"),
        (200, '{"queues": 1}'),
        (200, "[1, 2]"),
        (200, '[{"name": 3}]'),
        (404, "<html>nginx</html>"),
        (500, "<html>oops</html>"),
        (418, ""),
    ],
)
def test_what_is_not_rabbitmqs_answer_is_said_to_be_so(status: int, body: str) -> None:
    error = refused({QUEUES: (status, body)}, lambda m: m.queues("/"))
    assert isinstance(error, ManagementUnavailableError)
    assert "is not RabbitMQ's management API" in str(error)


@pytest.mark.parametrize(
    ("reason", "says", "path"),
    [
        ("Not management user", "tag management is missing", "GET /api/policies/%2F"),
        ("User not authorised to access object", "tag policymaker is missing", "GET /api/policies/%2F"),
        ("User not authorised to access virtual host", "access to the virtual host /", "GET /api/policies/%2F"),
        ("Not_Authorized", "refuses the user or the password", "GET /api/policies/%2F"),
        ("Login failed", "refuses the user or the password", "GET /api/policies/%2F"),
    ],
)
def test_a_401_names_what_is_missing(reason: str, says: str, path: str) -> None:
    """Fact 11.11: denied is 401, not 403."""
    error = refused({path: (401, json.dumps({"error": "not_authorised", "reason": reason}))}, lambda m: m.policies("/"))
    assert isinstance(error, PermissionDeniedError)
    assert says in str(error)


def test_a_vhost_needs_an_administrator() -> None:
    denied = (401, '{"error":"not_authorised","reason":"User not authorised to access object"}')
    assert "tag administrator is missing" in str(refused({"GET /api/vhosts": denied}, lambda m: m.vhost("v")))


def test_rabbitmqs_own_words_are_shown_unescaped() -> None:
    """3.10 escapes them for HTML."""
    body = '{"error":"bad_request","reason":"Validation failed\\n\\n&lt;&lt;\\"a\\"&gt;&gt; is not valid\\n"}'
    policy = Policy(name="p", pattern="^q$", definition={"max-length": "a"})
    error = refused({"PUT /api/policies/%2F/p": (400, body)}, lambda m: m.put_policy("/", policy))
    assert isinstance(error, BrokerError)
    assert error.code == 400
    assert str(error).endswith('Validation failed <<"a">> is not valid')


def test_silence_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_TIMEOUT", 0.05)
    error = refused({"GET /api/policies/%2F": (200, None)}, lambda m: m.policies("/"))
    assert "does not answer in time" in str(error)


def test_nobody_listening_is_said_for_every_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    urls = ("http://127.0.0.1:1", "http://127.0.0.1:2")
    monkeypatch.setattr(BrokerAddress, "management_candidates", lambda _: urls)
    with pytest.raises(ManagementUnavailableError) as caught:
        asyncio.run(open_management(ADDRESS))
    assert all(url in str(caught.value) for url in urls)


def test_candidates_are_tried_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> str:
        async with serving({}) as server:
            html = "<html></html>"
            async with serving({"GET /api/whoami": (200, html)}) as other:
                urls = ("http://127.0.0.1:1", other.url, server.url)
                monkeypatch.setattr(BrokerAddress, "management_candidates", lambda _: urls)
                async with await open_management(ADDRESS) as management:
                    return "right" if management.url == server.url else management.url

    assert asyncio.run(go()) == "right"


def test_a_refusal_stops_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """The password is not offered to the next one when RabbitMQ itself said no."""
    denied = (401, '{"error":"not_authorised","reason":"Not management user"}')

    async def go() -> int:
        async with serving({"GET /api/whoami": denied}) as first, serving({}) as second:
            monkeypatch.setattr(BrokerAddress, "management_candidates", lambda _: (first.url, second.url))
            with pytest.raises(PermissionDeniedError):
                await open_management(ADDRESS)
            return len(second.asked)

    assert asyncio.run(go()) == 0


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert ask({"GET /api/policies/%2F": (200, "[]")}, lambda m: m.policies("/"))[0] == ()


def test_a_certificate_that_is_rotated_is_trusted_by_the_file_as_it_is_by_then(tmp_path: Path) -> None:
    """On a client that is open: its second connection meets the next certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "certificate.pem", TLS / "key.pem")
    trusted = tmp_path / "ca.pem"
    trusted.write_bytes((TLS / "certificate.pem").read_bytes())

    async def go() -> None:
        async with serving({"GET /api/policies/%2F": (200, "[]")}, context) as server:
            address = replace(ADDRESS, management_url=server.url, ca_file=str(trusted))
            async with await open_management(address) as management:
                context.load_cert_chain(TLS / "next-certificate.pem", TLS / "next-key.pem")
                twice = [management.policies("/"), management.policies("/")]
                with pytest.raises(ManagementUnavailableError, match="certificate"):
                    await asyncio.gather(*twice)
                trusted.write_bytes((TLS / "next-certificate.pem").read_bytes())
                assert await asyncio.gather(management.policies("/"), management.policies("/")) == [(), ()]

    asyncio.run(go())


@pytest.mark.parametrize("trusted", [True, False])
def test_https_verifies_the_certificate(trusted: bool) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "certificate.pem", TLS / "key.pem")

    async def go() -> None:
        async with serving({"GET /api/policies/%2F": (200, "[]")}, context) as server:
            ca_file = str(TLS / "certificate.pem") if trusted else None
            address = replace(ADDRESS, management_url=server.url, ca_file=ca_file)
            async with await open_management(address) as management:
                assert await management.policies("/") == ()

    if trusted:
        asyncio.run(go())
        return
    with pytest.raises(ManagementUnavailableError, match="certificate") as caught:
        asyncio.run(go())
    assert "`ca_file`" in caught.value.hint


@pytest.mark.parametrize(
    ("entry", "depth"),
    [
        ({}, Depth(messages=None)),
        ({"messages": "undefined", "messages_ready": 0}, Depth(messages=None, ready=0)),
        (
            {"messages": 10, "messages_ready": 7, "messages_unacknowledged": 0},
            Depth(messages=10, ready=7, unacked=0, hidden=3),
        ),
        (
            {"messages": 7, "messages_ready": 5, "messages_unacknowledged": 2},
            Depth(messages=7, ready=5, unacked=2, hidden=0, retained=0, delayed=0),
        ),
        (
            {"messages": 10, "messages_ready": 5, "messages_unacknowledged": 0, "messages_dlx": 5},
            Depth(messages=10, ready=5, unacked=0, hidden=5, retained=5, delayed=0),
        ),
        (
            {
                "messages": 10,
                "messages_ready": 5,
                "messages_unacknowledged": 0,
                "messages_dlx": 2,
                "messages_delayed": 3,
                "message_bytes_ready": 500,
                "consumers": 1,
            },
            Depth(messages=10, ready=5, unacked=0, hidden=5, retained=2, delayed=3, ready_bytes=500, consumers=1),
        ),
    ],
)
def test_a_count_that_is_missing_is_not_known(entry: dict[str, Any], depth: Depth) -> None:
    """Fact 11.26."""
    assert decode.depth(entry) == depth
