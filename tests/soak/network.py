"""The network between a soak's consumers and their broker, whose connections die without a word."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import TracebackType

from amqpflow.rabbitmq.address import BrokerAddress


@dataclass(eq=False, slots=True)
class _Link:
    client: asyncio.StreamWriter
    broker: asyncio.StreamWriter | None = None  #: None: it was accepted, and nobody answers
    said: bytes = b""  #: by the client at first, its name among it
    dead: bool = False
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def abort(self) -> None:
        for writer in (self.client, self.broker):
            if writer is not None:
                writer.transport.abort()
        for task in self.tasks:
            task.cancel()


class Network:
    """A TCP proxy before one broker. Use as an async context manager."""

    def __init__(self, broker: BrokerAddress) -> None:
        self.mute = False  #: accept new connections, and say nothing
        self._broker = broker
        self._links: set[_Link] = set()
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def __aenter__(self) -> Network:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        tasks = [task for link in self._links for task in link.tasks]
        self.cut()
        await asyncio.gather(*tasks, return_exceptions=True)

    def freeze(self, purpose: str = "") -> int:
        """Let nothing pass any more on the connections with this in their name, not even their end; return how many."""
        chosen = [each for each in self._links if not each.dead and purpose.encode() in each.said]
        for each in chosen:
            each.dead = True
        return len(chosen)

    def cut(self, purpose: str = "") -> int:
        """Reset the connections with this in their name; return how many."""
        chosen = [each for each in self._links if purpose.encode() in each.said]
        for each in chosen:
            each.abort()
        self._links.difference_update(chosen)
        return len(chosen)

    async def _serve(self, from_client: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        link = _Link(client)
        self._links.add(link)
        if self.mute:
            link.dead = True
            link.tasks = [asyncio.create_task(self._swallow(link, from_client))]
            return
        try:
            from_broker, link.broker = await asyncio.open_connection(self._broker.host, self._broker.port)
        except OSError:
            self._links.discard(link)
            client.transport.abort()
            return
        link.tasks = [
            asyncio.create_task(self._forward(link, from_client, link.broker, by_client=True)),
            asyncio.create_task(self._forward(link, from_broker, client, by_client=False)),
        ]

    async def _forward(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, by_client: bool
    ) -> None:
        try:
            while data := await reader.read(65536):
                if link.dead:
                    await self._swallow(link, reader)
                    return
                if by_client and len(link.said) < 4096:
                    link.said += data
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        if not link.dead:
            self._links.discard(link)
            for each in (link.client, link.broker):
                if each is not None:
                    each.transport.abort()

    async def _swallow(self, link: _Link, reader: asyncio.StreamReader) -> None:
        try:
            while await reader.read(65536):
                pass
        except OSError:
            pass
