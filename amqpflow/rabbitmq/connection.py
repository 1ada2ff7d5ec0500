"""One AMQP connection, on aio-pika, without its automatic reconnect.

A reconnecting client hides that its channels, and with them every delivery tag and unconfirmed publish, are gone.
The consumer must know that, so it opens a new connection itself (ADR 0003).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from amqpflow.errors import AddressChangedError, AmqpflowError, AuthenticationError, BrokerUnavailableError
from amqpflow.model.closing import CLOSED_HERE, CloseReason
from amqpflow.model.queue_stats import QueueCounts

from .address import BrokerAddress
from .channel import Channel
from .client_library import open_pika
from .connection_monitor import ConnectionMonitor
from .decode import version_numbers
from .rpc import RpcChannel, retrieve
from .translate import translate

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
        # the connection's owner reports that it was given up, with the reason
        self._monitor = ConnectionMonitor(pika.content, self.heartbeat, give_up=pika.content.abort)
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
        """Seconds between heartbeats, as negotiated: RabbitMQ takes what the client names. 0 for none. A connection
        that is silent for twice as long is ended, by RabbitMQ and by `ConnectionMonitor`.
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
        return version_numbers(str(_decoded(self._amqp.server_properties.get("version", ""))))

    @property
    def cluster_name(self) -> str:
        """Not unique: see `amqpflow.rabbitmq.same_broker`; empty when the broker does not say."""
        return str(_decoded(self._amqp.server_properties.get("cluster_name", "")))

    @property
    def is_closed(self) -> bool:
        return self.closed.is_set() or bool(self._amqp.is_closed)

    @property
    def blocked(self) -> str | None:
        """Why the broker reads nothing from this connection now: it is short of memory or disk, and the connection has
        published (https://www.rabbitmq.com/docs/connection-blocked). None when it does read.
        """
        blocked: str | None = self._pika.content.blocked
        return blocked

    def on_blocked(self, callback: Callable[[str | None], None]) -> None:
        """Call back with the reason when the broker blocks the connection, with None when that ends or it is closed."""
        self._pika.content.on_blocked.append(callback)

    async def open_channel(self) -> Channel:
        """Open a channel in confirm mode. Raises BrokerUnavailableError, BrokerError (channel limit)."""
        channel = Channel(await self._open(publisher_confirms=True), self.frame_max, self._pika.content)
        self._monitor.add(channel)
        return channel

    async def admin_channel(self) -> RpcChannel:
        """Open an aiormq channel, for declaring. Wrap what you do with it in `translate()`. A call whose caller is
        cancelled is finished all the same (`RpcChannel`). Raises BrokerUnavailableError, BrokerError (channel
        limit).
        """
        return await self._open(publisher_confirms=False)

    async def queue_counts(self, queue: str) -> QueueCounts:
        """Count a queue's ready messages and its consumers, on a channel of its own. Raises as `RpcChannel` does."""
        channel = await self.admin_channel()
        counts = await channel.queue_counts(queue)
        with translate():  # not when cancelled: a silent broker would hold the caller up
            await channel.close()
        return counts

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
        self._monitor.stop()
        for callback in self._on_close:
            callback()
        self._on_close.clear()
        if self.blocked is not None:
            for blocked in self._pika.content.on_blocked:
                blocked(None)
        self._pika.content.on_blocked.clear()

    async def has_another_login(self) -> bool:
        """Return whether a new connection would log in with another user or password, so that this one should be
        closed.

        RabbitMQ before 4.3 refuses what a token permitted once it has expired, and keeps the connection open (fact
        18.10). So this is asked when a permission is missing. A function may return another token each time: a
        connection is left `LOGIN_LASTS` seconds after it was opened, and not before.
        """
        if self.cluster.url_from is None or asyncio.get_running_loop().time() < self._opened_at + LOGIN_LASTS:
            return False
        try:
            now = await self.cluster.current()
        except BrokerUnavailableError:
            return False
        return (now.user, now.password) != (self.address.user, self.address.password)

    async def close(self, why: str = "", *, within: float = CLOSE_TIMEOUT) -> None:
        """Close, telling the broker. Never raises: a connection that is lost is closed. `why` is for the
        `close_reason`.

        A broker that is out of memory reads nothing from connections that published, not even their close, and a dead
        network answers nothing: after `within` seconds the socket is closed without an answer, or after 1 s if the
        broker said that it reads nothing.
        """
        within = min(within, _BLOCKED_TIMEOUT) if self.blocked is not None else within
        self._monitor.stop()
        self._pika.content.ended(CloseReason(text=why, by_us=True) if why else CLOSED_HERE)
        closing = asyncio.ensure_future(self._pika.close())
        closing.add_done_callback(retrieve)
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


async def connect(
    address: BrokerAddress, *, name: str, timeout: float = CONNECT_TIMEOUT, beside: Connection | None = None
) -> Connection:
    """Open a connection, to the first node of the address that takes it.

    A URL from a file or a function is read for each connection (`BrokerAddress.current`), and once more when the broker
    refuses the login: the secret may have been replaced in between.

    Args:
        address: where to, with credentials and TLS settings.
        name: what the management UI shows for the connection.
        timeout: seconds until a silent peer is given up; 5 while another node is left to try.
        beside: a connection that this one must share broker and virtual host with.

    Raises:
        AuthenticationError, VirtualHostMissingError, TlsError, BrokerUnavailableError: each with one clear sentence.
        AddressChangedError: the URL names another broker or virtual host than `beside` leads to, and it can be reached.
        ClientLibraryError: the installed aiormq or aio-pika is not one that amqpflow works with.
    """
    now = await address.current()
    try:
        connection = await _connect_to_any(now, name, timeout)
    except AuthenticationError:
        if (latest := await address.current()) == now:
            raise
        now, connection = latest, await _connect_to_any(latest, name, timeout)
    connection.cluster = now
    if beside is not None and not now.leads_to(beside.address):
        await connection.close()
        raise AddressChangedError(f"the URL names {now} now, and no longer {beside.address}")
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
    # an error that every node of a cluster would give is the reason; else all of them are
    clear = next((each for each in errors if type(each) is not BrokerUnavailableError), None)
    raise clear or BrokerUnavailableError("; ".join(map(str, errors)))


async def _connect(address: BrokerAddress, name: str, timeout: float) -> Connection:
    identity = uuid4().hex
    properties = {"connection_name": name, IDENTITY: identity}
    return Connection(await open_pika(address, properties, timeout), address, identity)


def _decoded(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes | bytearray) else value
