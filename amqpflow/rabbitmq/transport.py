"""Read and write the frames of messages beside aiormq.

pamqp, aiormq's codec, raises on what producers may send: text that is not UTF-8, or a timestamp in microseconds. That
ends the connection, the message comes again, and ends the next one. aiormq also matches a returned message to its
publish by message id alone, and starts a task for every delivery. So the frames of deliveries, returns and confirms are
taken out of the byte stream here, and aiormq reads the rest.

What carries messages is written here as well, straight to the socket: aiormq's own writer costs a queue, a task and a
send for each frame. Whole frames are written at once, so the two never mix.

The seam is aiormq's `transport_factory`, and that it reads from the StreamReader it gets with `readexactly` and
`at_eof`; `tests/integration/test_channel.py` fails when it moves. ADR 0003 has the reasons.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Any

from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory

from amqpflow.model.closing import CloseReason, closed_by_broker, missed_heartbeats, socket_closed, socket_failed

from .frames import decode_close

Take = Callable[[int, bytes], bool]  #: frame type and payload; True when the frame is not for aiormq

_CHUNK = 256 * 1024
_HEAD = struct.Struct(">BHI")
_FRAME_TYPES = (1, 2, 3, 8)
_HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"
_BLOCKED, _UNBLOCKED, _CLOSE = b"\x00\x0a\x00\x3c", b"\x00\x0a\x00\x3d", b"\x00\x0a\x00\x32"
_SIGN_OF_LIFE = 1.0  #: seconds
_FIRST = 16  #: bytes that tell what speaks


class ContentTransport(TransportFactory):
    """Opens the socket of one connection. `takers` are asked, by channel number, before aiormq sees a frame."""

    def __init__(self) -> None:
        self.takers: dict[int, Take] = {}
        self.blocked: str | None = None  #: why the broker reads nothing from this connection now (connection.blocked)
        self.on_blocked: list[Callable[[str | None], None]] = []  #: called with the reason, with None when it is over
        self.close_reason: CloseReason | None = None  #: what was first seen of the end of the connection
        self.explain: Callable[[CloseReason], CloseReason] | None = None  #: says more of a reason than the socket does
        self.heartbeat = 0.0  #: seconds, once it is negotiated; 0 for none
        self._written = 0  # bytes
        self._writer: asyncio.StreamWriter | None = None
        self._reader: FrameReader | None = None

    @property
    def in_use(self) -> bool:
        """aiormq has read frames through it, as it must have once it is connected."""
        return self._reader is not None and self._reader.passed_on

    @property
    def reached(self) -> bool:
        """The socket was opened."""
        return self._reader is not None

    @property
    def first(self) -> bytes:
        """The first bytes that the peer sent; none when it sent nothing."""
        return self._reader.first if self._reader is not None else b""

    @property
    def received(self) -> int:
        """How often bytes were received: it grows while the peer is alive."""
        return self._reader.received if self._reader is not None else 0

    @property
    def unsent(self) -> int:
        """Bytes that were written and that the socket has not taken."""
        return self._writer.transport.get_write_buffer_size() if self._writer is not None else 0

    @property
    def taken(self) -> int:
        """Bytes that the socket has taken."""
        return self._written - self.unsent

    @property
    def silent_for(self) -> float:
        """Seconds since the last byte was received."""
        return self._reader.silent_for if self._reader is not None else 0.0

    def abort(self, why: str = "") -> None:
        """Close the socket at once, with what was not sent yet. `why` is the `close_reason` if there is none yet."""
        if why:
            self.ended(CloseReason(text=why))
        if self._writer is not None:
            self._writer.transport.abort()

    async def create(self, url: Any, **kwargs: Any) -> tuple[Any, asyncio.StreamWriter]:
        factory = TLSTransportFactory() if url.scheme == "amqps" else TCPTransportFactory()
        reader, writer = await factory.create(url, **kwargs)
        self._writer = writer
        self._reader = FrameReader(reader, self.takers, self._control, self.ended, self._reading_cancelled)
        return self._reader, writer

    def write(self, data: bytes) -> bool:
        """Send whole frames. What the socket does not take is kept; bulk writers await `drain` now and then.

        Returns:
            False when the connection has ended, and certainly none of it was sent.
        """
        if self._writer is None or self._writer.is_closing():
            return False
        self._written += len(data)
        self._writer.write(data)
        return True

    async def drain(self) -> None:
        """Wait while more is kept than the socket's high-water mark. Raises OSError when the connection is lost."""
        if self._writer is not None:
            await self._writer.drain()

    def ended(self, reason: CloseReason) -> None:
        """Keep the first reason: what follows is its consequence."""
        if self.close_reason is None:
            self.close_reason = self.explain(reason) if self.explain is not None else reason

    def _reading_cancelled(self) -> None:
        # by aiormq's check of heartbeats; a close of ours has set the reason before
        if self.heartbeat and self.silent_for > self.heartbeat:
            self.ended(missed_heartbeats(self.heartbeat, self.silent_for))

    def _control(self, payload: bytes) -> None:
        if payload.startswith(_CLOSE):
            self.ended(closed_by_broker("connection", *decode_close(payload)))
            return
        if payload.startswith(_BLOCKED):
            self.blocked = payload[5 : 5 + payload[4]].decode("utf-8", "replace")
        elif payload.startswith(_UNBLOCKED):
            self.blocked = None
        else:
            return
        for callback in self.on_blocked:
            callback(self.blocked)


class FrameReader:
    """Stands in for the connection's StreamReader: the same bytes, without the frames that a taker took."""

    def __init__(
        self,
        stream: asyncio.StreamReader,
        takers: dict[int, Take],
        control: Callable[[bytes], None] | None = None,
        ended: Callable[[CloseReason], None] | None = None,
        cancelled: Callable[[], None] | None = None,
    ) -> None:
        self._stream = stream
        self._takers = takers
        self._control = control  # called with the methods of channel 0, which aiormq reads as well
        self._ended = ended  # called with what the socket ended with
        self._cancelled = cancelled  # called when aiormq reads no more
        self._unread: list[bytes] = []  # from the socket, one frame that is not whole yet
        self._missing = 0  # bytes until it can be
        self._ready = bytearray()  # for aiormq
        self._frames = True
        self.first = b""  #: the first bytes that the peer sent
        self._last_passed = 0.0
        self.received = 0  #: how often bytes have come
        self._last_read = asyncio.get_running_loop().time()

    @property
    def silent_for(self) -> float:
        """Seconds since the last byte was received."""
        return asyncio.get_running_loop().time() - self._last_read

    @property
    def passed_on(self) -> bool:
        """aiormq was given a frame."""
        return self._last_passed > 0

    def at_eof(self) -> bool:
        return not self._ready and self._stream.at_eof()

    async def readexactly(self, n: int) -> bytes:
        """Read as asyncio.StreamReader does."""
        while len(self._ready) < n:
            chunk = await self._read(_CHUNK)
            if not chunk:
                raise asyncio.IncompleteReadError(bytes(self._ready), n)
            self._sort(chunk)
        data = bytes(self._ready[:n])
        del self._ready[:n]
        return data

    async def read(self, n: int = -1) -> bytes:
        """Read as asyncio.StreamReader does."""
        if not self._ready:
            self._sort(await self._read(n))
        data = bytes(self._ready)
        self._ready.clear()
        return data

    async def _read(self, n: int) -> bytes:
        try:
            chunk = await self._stream.read(n)
        except OSError as error:
            self._tell(socket_failed(error))
            raise
        except asyncio.CancelledError:
            if self._cancelled is not None:
                self._cancelled()
            raise
        if not chunk:
            self._tell(socket_closed())
        self._last_read = asyncio.get_running_loop().time()
        self.first = self.first or chunk[:_FIRST]
        if not self.passed_on and chunk and chunk[0] not in _FRAME_TYPES and not self._unread:
            raise OSError("the peer does not speak AMQP 0-9-1")  # aiormq would wait for the rest of a frame
        return chunk

    def _tell(self, reason: CloseReason) -> None:
        if self._ended is not None:
            self._ended(reason)

    def _sort(self, chunk: bytes) -> None:
        self.received += 1
        if not self._frames:
            self._ready += chunk
            return
        if self._unread:
            self._unread.append(chunk)
            self._missing -= len(chunk)
            if self._missing > 0:
                return
            chunk = b"".join(self._unread)
            self._unread = []
        at, size, taken, taker_of = 0, len(chunk), False, self._takers.get
        missing = 0
        while at < size:
            if size - at < _HEAD.size:
                missing = _HEAD.size - size + at
                break
            kind, channel, length = _HEAD.unpack_from(chunk, at)
            if kind not in _FRAME_TYPES:
                # the peer does not speak AMQP 0-9-1: aiormq raises the error for it
                self._frames = False
                self._ready += chunk[at:]
                return
            end = at + _HEAD.size + length + 1
            if end > size:
                missing = end - size
                break
            take = taker_of(channel)
            if take is not None and take(kind, chunk[at + _HEAD.size : end - 1]):
                taken = True
            else:
                if channel == 0 and kind == 1 and self._control is not None:
                    self._control(chunk[at + _HEAD.size : end - 1])
                self._pass_on(chunk[at:end])
            at = end
        if at < size:
            self._unread, self._missing = [chunk[at:]], missing
        if taken and asyncio.get_running_loop().time() - self._last_passed > _SIGN_OF_LIFE:
            # aiormq ends a connection on which it sees nothing, and a busy broker sends no heartbeats of its own
            self._pass_on(_HEARTBEAT)

    def _pass_on(self, frame: bytes) -> None:
        self._ready += frame
        self._last_passed = asyncio.get_running_loop().time()
