"""One AMQP connection, on aio-pika, without its automatic reconnect.

A reconnecting client hides that its channels, and with them every delivery tag and unconfirmed publish, are gone.
The consumer must know that, so it opens a new connection itself (ADR 0003).
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import uuid4

import aio_pika

from amqpflow import __version__
from amqpflow.errors import AddressChanged, AmqpflowError, AuthenticationFailed, BrokerUnavailable, ClientLibraryError
from amqpflow.model.closing import CLOSED_HERE, CloseReason

from .address import BrokerAddress
from .channel import Channel
from .opening import Seen, not_opened
from .peer import ask
from .rpc import RpcChannel
from .translate import translate
from .watch import Watch

try:
    from .transport import ContentTransport

    _missing = ""
except ImportError as error:
    _missing = str(error)

CLIENT_LIBRARIES = {"aio-pika": ">=10.1,<11", "aiormq": ">=7.2,<8"}
"""What pyproject.toml requires, for the message when something else is installed."""
IDENTITY = "connection_id"  #: the client property that tells a connection from every other one
CLOSE_TIMEOUT = 5.0  #: seconds for the broker to answer a close
_BLOCKED_TIMEOUT = 1.0  #: the same of a broker that said it reads nothing
ANOTHER_LOGIN = "a permission was missing, and the URL has another login by now"  #: why a connection is left
LOGIN_LASTS = 20.0  #: seconds for which a connection is not left for another login
CONNECT_TIMEOUT = 10.0  #: seconds for TCP, TLS, login and opening the virtual host
_NODE_TIMEOUT = 5.0  #: the same where another node can be tried


class Connection:
    """An open connection. Made by `connect`."""

    def __init__(self, pika: Any, address: BrokerAddress, identity: str) -> None:
        self._pika = pika
        self._amqp = pika.transport.connection  # the aiormq connection below
        self.address = address  #: of the node that it leads to
        self.cluster = address  #: of all nodes that could have been taken, as it was when this was opened
        self.identity = identity  #: unique, and among the client properties that the management API shows
        self.closed = asyncio.Event()
        self._opened_at = asyncio.get_running_loop().time()
        self._on_close: list[Callable[[], None]] = []
        pika.content.heartbeat = float(self.heartbeat)
        self._watch = Watch(pika.content, self.heartbeat, self._give_up)
        self._amqp.closing.add_done_callback(self._connection_closed)

    @property
    def close_reason(self) -> CloseReason | None:
        """Why it ended; None while it is open."""
        reason: CloseReason | None = self._pika.content.close_reason
        return reason

    def explain(self, explain: Callable[[CloseReason], CloseReason]) -> None:
        """Ask `explain` for the `close_reason` once there is one: the caller may know why a socket fell silent."""
        self._pika.content.explain = explain

    @property
    def heartbeat(self) -> int:
        """
        Seconds between heartbeats, as negotiated: RabbitMQ takes what the client names. 0 for none. A connection that
        is silent for twice as long is ended, by RabbitMQ and by `Watch`.
        """
        return int(self._amqp.connection_tune.heartbeat or 0)

    @property
    def frame_max(self) -> int:
        """The largest frame in bytes that was negotiated; 0 means no limit. Headers must fit one frame."""
        return int(self._amqp.connection_tune.frame_max)

    @property
    def product(self) -> str:
        """RabbitMQ, or what else answers as a broker."""
        return str(_decoded(self._amqp.server_properties.get("product", "unknown")))

    @property
    def version(self) -> tuple[int, ...]:
        """The broker's version from AMQP's server properties, such as (4, 3, 6); () when it is not a number."""
        text = str(_decoded(self._amqp.server_properties.get("version", "")))
        numbers = []
        for part in text.split("."):
            if not part.isdecimal():
                break
            numbers.append(int(part))
        return tuple(numbers)

    @property
    def cluster_name(self) -> str:
        """Not unique: see `amqpflow.rabbitmq.same_broker`; empty when the broker does not say."""
        return str(_decoded(self._amqp.server_properties.get("cluster_name", "")))

    @property
    def is_closed(self) -> bool:
        return self.closed.is_set() or bool(self._amqp.is_closed)

    @property
    def blocked(self) -> str | None:
        """
        Why the broker reads nothing from this connection now: it is short of memory or disk, and the connection has
        published (https://www.rabbitmq.com/docs/connection-blocked). None when it does read.
        """
        blocked: str | None = self._pika.content.blocked
        return blocked

    def on_blocked(self, callback: Callable[[str | None], None]) -> None:
        """Call back with the reason whenever the broker blocks the connection, with None when that or it then ends."""
        self._pika.content.on_blocked.append(callback)

    async def open_channel(self) -> Channel:
        """A channel in confirm mode. Raises BrokerUnavailable, BrokerError (channel limit)."""
        channel = Channel(await self._open(publisher_confirms=True), self.frame_max, self._pika.content)
        self._watch.add(channel)
        return channel

    async def admin_channel(self) -> Any:
        """
        An aiormq channel, for declaring. Wrap what you do with it in `translate()`. A call whose caller is cancelled
        comes to its end all the same (`RpcChannel`). Raises BrokerUnavailable, BrokerError (channel limit).
        """
        return await self._open(publisher_confirms=False)

    async def _open(self, *, publisher_confirms: bool) -> RpcChannel:
        # nothing is on a channel that is not open yet: when this is cancelled, or takes too long, aiormq closes it
        with translate():
            async with asyncio.timeout(CONNECT_TIMEOUT):
                return RpcChannel(await self._amqp.channel(publisher_confirms=publisher_confirms))

    def on_close(self, callback: Callable[[], None]) -> None:
        """Call back once when the connection is closed or lost."""
        if self.closed.is_set():
            callback()
        else:
            self._on_close.append(callback)

    def _connection_closed(self, closing: asyncio.Future[Any]) -> None:
        error = None if closing.cancelled() else closing.exception()
        self._pika.content.ended(CloseReason(text=f"the client library closed it: {error!r}"))
        self.closed.set()
        self._watch.stop()
        for callback in self._on_close:
            callback()
        self._on_close.clear()
        if self.blocked is not None:
            for blocked in self._pika.content.on_blocked:
                blocked(None)
        self._pika.content.on_blocked.clear()

    async def has_another_login(self) -> bool:
        """
        Say whether a new connection would log in with another user or password, so that this one is better left.

        RabbitMQ before 4.3 refuses what a token permitted once it has expired, and keeps the connection open (fact
        18.10). So this is asked when a permission is missing. A function may return another token each time: a
        connection is left `LOGIN_LASTS` seconds after it was opened, and not before.
        """
        if self.cluster.url_from is None or asyncio.get_running_loop().time() < self._opened_at + LOGIN_LASTS:
            return False
        try:
            now = await self.cluster.current()
        except BrokerUnavailable:
            return False
        return (now.user, now.password) != (self.address.user, self.address.password)

    def _give_up(self, why: str) -> None:
        self._pika.content.abort(why)  # whoever opened it says so, with the reason

    async def close(self, why: str = "", *, within: float = CLOSE_TIMEOUT) -> None:
        """
        Close, telling the broker. Never raises: a connection that is lost is closed. `why` is for the `close_reason`.

        A broker that is out of memory reads nothing from connections that published, not even their close, and a dead
        network answers nothing: after `within` seconds the socket is closed without an answer, or after 1 s if the
        broker said that it reads nothing.
        """
        within = min(within, _BLOCKED_TIMEOUT) if self.blocked is not None else within
        self._watch.stop()
        self._pika.content.ended(CloseReason(text=why, by_us=True) if why else CLOSED_HERE)
        closing = asyncio.ensure_future(self._pika.close())
        closing.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            await asyncio.wait([closing], timeout=within)
        finally:
            if not closing.done():
                self._pika.content.abort()
                closing.cancel()
                await asyncio.wait([closing], timeout=within)  # a task that is left would outlive the event loop
            self.closed.set()

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class _PikaConnection(aio_pika.Connection):
    """aio-pika's connection on a transport of ours."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.content = ContentTransport()
        self.kwargs["transport_factory"] = self.content

    async def connect(self, *args: Any, **kwargs: Any) -> None:
        await super().connect(*args, **kwargs)
        if not self.content.in_use:
            await self.close()
            raise _unsupported("it does not read through a transport_factory")

    def __del__(self) -> None:
        """Do nothing: aio-pika closes it as a task of any event loop that runs in the thread of the collector."""


async def connect(
    address: BrokerAddress, *, name: str, timeout: float = CONNECT_TIMEOUT, beside: Connection | None = None
) -> Connection:
    """
    Open a connection, to the first node of the address that takes it.

    A URL from a file or a function is read for each connection (`BrokerAddress.current`), and once more when the broker
    refuses the login: the secret may have been replaced in between.

    Args:
        address: where to, with credentials and TLS settings.
        name: what the management page shows for the connection.
        timeout: seconds until a silent peer is given up; 5 while another node is left to try.
        beside: a connection that this one works together with, on the same broker and virtual host.

    Raises:
        AuthenticationFailed, VirtualHostMissing, TlsFailed, BrokerUnavailable: each with one clear sentence.
        AddressChanged: the URL names another broker or virtual host than that of `beside`, and it can be reached.
        ClientLibraryError: the installed aiormq or aio-pika is not one that amqpflow works with.
    """
    if _missing:
        raise _unsupported(_missing)
    now = await address.current()
    try:
        connection = await _connect_to_any(now, name, timeout)
    except AuthenticationFailed:
        if (latest := await address.current()) == now:
            raise
        now, connection = latest, await _connect_to_any(latest, name, timeout)
    connection.cluster = now
    if beside is not None and not now.leads_to(beside.address):
        await connection.close()
        raise AddressChanged(f"the URL names {now} now, and no longer {beside.address}")
    return connection


async def _connect_to_any(address: BrokerAddress, name: str, timeout: float) -> Connection:
    errors: list[AmqpflowError] = []
    *first, last = address.nodes
    for node in first:
        try:
            return await _connect(node, name, min(timeout, _NODE_TIMEOUT))
        except AmqpflowError as error:
            errors.append(error)
    try:
        return await _connect(last, name, timeout)
    except AmqpflowError as error:
        if not errors:
            raise
        errors.append(error)
    # what every node of a cluster would say is the reason; else all of them are
    clear = next((each for each in errors if type(each) is not BrokerUnavailable), None)
    raise clear or BrokerUnavailable("; ".join(map(str, errors)))


async def _connect(address: BrokerAddress, name: str, timeout: float) -> Connection:
    identity = uuid4().hex
    context = address.ssl_context() if address.tls else None
    opening: list[_PikaConnection] = []

    def make(*args: Any, **kwargs: Any) -> _PikaConnection:
        opening.append(_PikaConnection(*args, **kwargs))
        return opening[0]

    task, is_open = asyncio.current_task(), False
    cancels = task.cancelling() if task is not None else 0
    try:
        pika = await aio_pika.connect(
            address.url,
            ssl_context=context,
            timeout=timeout,
            heartbeat=str(address.heartbeat),
            connection_class=make,
            client_properties={
                "connection_name": name,
                IDENTITY: identity,
                "product": "amqpflow",
                "version": __version__,
                "platform": f"Python {platform.python_version()}",
            },
        )
        if task is not None and task.cancelling() > cancels:
            raise asyncio.CancelledError  # `asyncio.wait_for` of Python 3.11 drops one that comes with the result
        is_open = True
    except AmqpflowError:
        raise
    except (AttributeError, TypeError, NotImplementedError) as error:
        raise _unsupported(str(error)) from error
    except Exception as error:
        content = opening[0].content if opening else None
        seen = Seen(reached=content.reached, first=content.first, closed=content.close_reason) if content else Seen()
        if seen.reached and not seen.first and not isinstance(error, TimeoutError):
            seen = replace(seen, speaks=await ask(address.host, address.port, tls=address.tls))
        raise not_opened(error, address, seen) from error
    finally:
        if opening and not is_open:
            opening[0].content.abort()  # aiormq leaves it open when it is cancelled in the turn in which it opened it
    return Connection(pika, address, identity)


def _unsupported(why: str) -> ClientLibraryError:
    installed = " with ".join(f"{name} {_version_of(name)}" for name in reversed(CLIENT_LIBRARIES))
    wanted = " ".join(f"'{name}{versions}'" for name, versions in CLIENT_LIBRARIES.items())
    return ClientLibraryError(f"amqpflow cannot use {installed}: {why}", hint=f"pip install {wanted}")


def _version_of(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "of an unknown version"


def _decoded(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes | bytearray) else value
