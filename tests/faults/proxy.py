"""A network that fails: a TCP proxy before a broker that drops connections, freezes, stalls, cuts after N bytes."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass, field
from types import TracebackType

from amqpflow.rabbitmq.address import BrokerAddress


@dataclass(eq=False, slots=True)
class _Link:
    """One proxied connection."""

    client: asyncio.StreamWriter
    broker: asyncio.StreamWriter
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    swallows: set[asyncio.StreamWriter] = field(default_factory=set)  #: nothing reaches these any more

    def abort(self) -> None:
        for writer in (self.client, self.broker):
            writer.transport.abort()  # a reset, not an orderly end
        for task in self.tasks:
            task.cancel()


class Proxy:
    """Forwards to a broker, until told otherwise.

    `to_broker` and `to_client` are cleared to hold back what flows that way while the connections stay open, which is
    what a firewall that forgot them looks like: both for a stall, one for a peer that is deaf or mute. `freeze` does so
    for good to the connections that are open, and new ones work.

    Args:
        broker: where it leads to.
        heartbeat: in seconds, of the connections to `address`; None for the default of amqpflow.
    """

    def __init__(self, broker: BrokerAddress, *, heartbeat: int | None = 1) -> None:
        self._broker = broker
        self._heartbeat = heartbeat
        self._links: dict[_Link, None] = {}  # in the order in which they were opened
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self._fuse: int | None = None
        self._budget: int | None = None
        self.held = asyncio.Event()  #: set when what `hold_after` allowed has gone through
        self.to_broker, self.to_client = asyncio.Event(), asyncio.Event()
        self.cuts = 0  #: how many connections were cut, or given up while something was held back
        self.rate = 0.0  #: bytes a second to the broker; 0 for no limit
        self.silent = False  #: new connections are accepted, and nothing is said on them
        self.restore()

    @property
    def address(self) -> BrokerAddress:
        """The broker's, by way of the proxy. Heartbeats of 1 s make a silent peer known within 3 s."""
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        user, password, vhost = self._broker.user, self._broker.password, self._broker.parts.path
        query = "" if self._heartbeat is None else f"?heartbeat={self._heartbeat}"
        return BrokerAddress(url=f"amqp://{user}:{password}@127.0.0.1:{port}{vhost}{query}", source="proxy")

    async def __aenter__(self) -> Proxy:
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)  # what is held back here is soon felt there
        listening.bind(("127.0.0.1", 0))
        self._server = await asyncio.start_server(self._serve, sock=listening)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        tasks = [*self._serving, *(task for link in self._links for task in link.tasks)]
        self.cut()
        for task in tasks:  # one may be connecting to the broker still, for a client that has gone
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def cut(self) -> None:
        """Reset every connection in the middle of whatever it says."""
        for link in tuple(self._links):
            self.cuts += 1
            link.abort()
        self._links.clear()

    def freeze(self, *numbers: int, to_broker: bool = True, to_client: bool = True) -> None:
        """Swallow all that flows over connections that are open now, their ends included, as a firewall that forgot
        them.

        Args:
            numbers: which of them, in the order in which they were opened; none for all.
            to_broker: what flows that way. `to_client`: the same.
        """
        links = list(self._links)
        for link in [links[number] for number in numbers] or links:
            link.swallows |= ({link.broker} if to_broker else set()) | ({link.client} if to_client else set())

    @property
    def open(self) -> int:
        """How many connections are open, frozen ones included."""
        return len(self._links)

    def cut_after(self, size: int) -> None:
        """Reset every connection once so many bytes more have gone through, wherever in a frame that is."""
        self._fuse = size

    def hold_after(self, size: int) -> None:
        """Hold back what flows to the broker once so many bytes more have gone there, and set `held`."""
        self._budget = size
        self.held.clear()

    def restore(self) -> None:
        """Let everything through."""
        self._fuse = self._budget = None
        self.to_broker.set()
        self.to_client.set()

    async def _serve(self, from_client: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            await self._serve_one(from_client, client)
        except asyncio.CancelledError:
            pass  # the proxy ends
        finally:
            self._serving.discard(task)
            client.transport.abort()

    async def _serve_one(self, from_client: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        if self.silent:
            await from_client.read()
            client.transport.abort()
            return
        try:
            from_broker, broker = await asyncio.open_connection(self._broker.host, self._broker.port)
        except OSError:
            client.transport.abort()
            return
        link = _Link(client, broker)
        self._links[link] = None
        link.tasks = [
            asyncio.create_task(self._forward(link, from_client, broker, self.to_broker)),
            asyncio.create_task(self._forward(link, from_broker, client, self.to_client)),
        ]
        await asyncio.wait(link.tasks, return_when=asyncio.FIRST_COMPLETED)
        if link.swallows:
            await asyncio.wait(link.tasks)
        if link in self._links:
            self.cuts += not (self.to_broker.is_set() and self.to_client.is_set())
            del self._links[link]
        link.abort()

    async def _forward(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event
    ) -> None:
        try:
            while data := await reader.read(65536):
                await gate.wait()
                if writer in link.swallows:
                    continue
                if self.rate and gate is self.to_broker:
                    await asyncio.sleep(len(data) / self.rate)
                if self._budget is not None and gate is self.to_broker:
                    self._budget -= len(data)
                    if self._budget < 0:
                        self._budget = None
                        gate.clear()
                        self.held.set()
                        await gate.wait()
                if self._fuse is not None:
                    data, self._fuse = data[: self._fuse], self._fuse - len(data)
                writer.write(data)
                await writer.drain()
                if self._fuse is not None and self._fuse <= 0:
                    self._fuse = None
                    self.cut()
        except OSError:
            pass
