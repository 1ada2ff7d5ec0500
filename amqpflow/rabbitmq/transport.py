"""Read what carries messages before aiormq does.

pamqp, aiormq's codec, raises on what producers may send: text that is no UTF-8, or a timestamp in microseconds. That
ends the connection, the message comes again, and ends the next one. aiormq also matches a returned message to its
publish by message id alone, and starts a task for every delivery. So the frames of deliveries, returns and confirms are
taken out of the byte stream here, and aiormq reads the rest.

The seam is aiormq's `transport_factory`, and that it reads from the StreamReader it gets with `readexactly` and
`at_eof`; `tests/integration/test_channel.py` fails when it moves. ADR 0003 has the reasons.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Any

from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory

Take = Callable[[int, bytes], bool]  #: frame type and payload; True when the frame is not for aiormq

_CHUNK = 256 * 1024
_HEAD = struct.Struct(">BHI")
_FRAME_TYPES = (1, 2, 3, 8)
_HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"
_SIGN_OF_LIFE = 1.0  #: seconds


class ContentTransport(TransportFactory):
    """Opens the socket of one connection. `takers` are asked, by channel number, before aiormq sees a frame."""

    def __init__(self) -> None:
        self.takers: dict[int, Take] = {}
        self._writer: asyncio.StreamWriter | None = None

    def abort(self) -> None:
        """Close the socket at once, with what was not sent yet."""
        if self._writer is not None:
            self._writer.transport.abort()

    async def create(self, url: Any, **kwargs: Any) -> tuple[Any, asyncio.StreamWriter]:
        factory = TLSTransportFactory() if url.scheme == "amqps" else TCPTransportFactory()
        reader, writer = await factory.create(url, **kwargs)
        self._writer = writer
        return FrameReader(reader, self.takers), writer


class FrameReader:
    """Stands in for the connection's StreamReader: the same bytes, without the frames that a taker took."""

    def __init__(self, stream: asyncio.StreamReader, takers: dict[int, Take]) -> None:
        self._stream = stream
        self._takers = takers
        self._unread = bytearray()  # from the socket, frames not whole yet
        self._ready = bytearray()  # for aiormq
        self._frames = True
        self._last_passed = 0.0

    def at_eof(self) -> bool:
        return not self._ready and self._stream.at_eof()

    async def readexactly(self, n: int) -> bytes:
        """As asyncio.StreamReader's."""
        while len(self._ready) < n:
            chunk = await self._stream.read(_CHUNK)
            if not chunk:
                raise asyncio.IncompleteReadError(bytes(self._ready), n)
            self._sort(chunk)
        data = bytes(self._ready[:n])
        del self._ready[:n]
        return data

    async def read(self, n: int = -1) -> bytes:
        """As asyncio.StreamReader's."""
        if not self._ready:
            self._sort(await self._stream.read(n))
        data = bytes(self._ready)
        self._ready.clear()
        return data

    def _sort(self, chunk: bytes) -> None:
        if not self._frames:
            self._ready += chunk
            return
        self._unread += chunk
        at, size, taken = 0, len(self._unread), False
        while size - at >= _HEAD.size:
            kind, channel, length = _HEAD.unpack_from(self._unread, at)
            if kind not in _FRAME_TYPES:
                # no AMQP 0-9-1 is spoken here: aiormq finds the words for it
                self._frames, self._ready = False, self._ready + self._unread[at:]
                self._unread.clear()
                return
            end = at + _HEAD.size + length + 1
            if end > size:
                break
            take = self._takers.get(channel)
            if take is not None and take(kind, bytes(self._unread[at + _HEAD.size : end - 1])):
                taken = True
            else:
                self._pass_on(self._unread[at:end])
            at = end
        del self._unread[:at]
        if taken and asyncio.get_running_loop().time() - self._last_passed > _SIGN_OF_LIFE:
            # aiormq ends a connection on which it sees nothing, and a busy broker sends no heartbeats of its own
            self._pass_on(_HEARTBEAT)

    def _pass_on(self, frame: bytes | bytearray) -> None:
        self._ready += frame
        self._last_passed = asyncio.get_running_loop().time()
