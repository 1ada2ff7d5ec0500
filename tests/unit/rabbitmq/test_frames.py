"""Frames as bytes: what is written can be read by pamqp, and what is read is taken in the order of the wire."""

from __future__ import annotations

import asyncio
import struct
from itertools import pairwise
from typing import Any

import pamqp.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Basic, Channel, Connection
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from amqpflow.model.message import Publish
from amqpflow.model.properties import Properties
from amqpflow.model.wire import encode_content_header
from amqpflow.rabbitmq.frames import ContentFrames, ack_frame, nack_frame, publish_frames
from amqpflow.rabbitmq.transport import FrameReader
from tests.messages import properties


def unmarshalled(data: bytes) -> list[Any]:
    found = []
    while data:
        size, channel, frame = pamqp.frame.unmarshal(data)
        assert channel == 3
        found.append(frame)
        data = data[size:]
    return found


def publish(body: bytes = b"x", **more: Any) -> Publish:
    return Publish.of(exchange="e", routing_key="k", properties=Properties(message_id="m", **more), body=body)


# -- writing


@pytest.mark.parametrize(("size", "frames"), [(0, 0), (1, 1), (4088, 1), (4089, 2), (8176, 2), (8177, 3)])
def test_a_publish_is_mandatory_and_its_body_is_cut_at_frame_max(size: int, frames: int) -> None:
    body = bytes(number % 256 for number in range(size))
    data = publish_frames(3, publish(body), 4096)
    method, header, *bodies = unmarshalled(data)
    assert isinstance(method, Basic.Publish)
    assert (method.exchange, method.routing_key, method.mandatory, method.immediate) == ("e", "k", True, False)
    assert isinstance(header, ContentHeader)
    assert (header.body_size, header.properties.message_id) == (size, "m")
    assert len(bodies) == frames
    assert b"".join(each.value for each in bodies) == body
    assert all(len(each.value) <= 4096 - 8 for each in bodies)


def test_without_a_limit_bodies_are_cut_all_the_same() -> None:
    assert len(unmarshalled(publish_frames(3, publish(b"x" * 300_000), 0))) == 2 + 3


def test_a_header_frame_is_refused_from_one_byte_too_many() -> None:
    fits = (
        4096 - 8 - len(publish_frames(3, publish(b"", headers={"h": ""}), 0)) + len(publish_frames(3, publish(b""), 0))
    )
    size = next(n for n in range(5000) if not is_taken(n)) - 1
    assert abs(size - fits) < 100
    _, header = unmarshalled(publish_frames(3, publish(b"", headers={"h": "x" * size}), 4096))
    assert len(pamqp.frame.marshal(header, 3)) == 4096


def is_taken(size: int) -> bool:
    try:
        publish_frames(3, publish(b"", headers={"h": "x" * size}), 4096)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("name", ["exchange", "routing_key"])
def test_names_over_255_bytes_are_refused(name: str) -> None:
    message = publish()
    fields = {"exchange": "", "routing_key": "", name: "ü" * 128}
    with pytest.raises(ValueError, match="256 bytes"):
        publish_frames(3, Publish.of(properties=message.properties, body=b"", **fields), 4096)


@pytest.mark.parametrize("multiple", [True, False])
def test_acks_and_nacks(multiple: bool) -> None:
    (ack,) = unmarshalled(ack_frame(3, 1 << 40, multiple=multiple))
    assert (type(ack), ack.delivery_tag, ack.multiple) == (Basic.Ack, 1 << 40, multiple)
    for requeue in (True, False):
        (nack,) = unmarshalled(nack_frame(3, 7, multiple=multiple, requeue=requeue))
        assert (type(nack), nack.delivery_tag) == (Basic.Nack, 7)
        assert (nack.multiple, nack.requeue) == (multiple, requeue)


# -- reading


class Taker:
    """What the frames of channel 3 said, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.frames = ContentFrames(
            delivered=lambda *event: self.events.append(("delivered", *event)),
            returned=lambda *event: self.events.append(("returned", *event)),
            confirmed=lambda *event: self.events.append(("confirmed", *event)),
            closing=lambda code, text: self.events.append(("closing", code, text)),
        )


def content(body: bytes, size: int = 100) -> bytes:
    data = pamqp.frame.marshal(ContentHeader(body_size=len(body), properties=Basic.Properties(message_id="m")), 3)
    for at in range(0, len(body), size):
        data += pamqp.frame.marshal(pamqp.body.ContentBody(body[at : at + size]), 3)
    return data


DELIVER = pamqp.frame.marshal(Basic.Deliver("tag", 5, True, "e", "k"), 3)
RETURN = pamqp.frame.marshal(Basic.Return(312, "NO_ROUTE", "e", "k"), 3)
SAID = b"".join(
    (
        DELIVER + content(b"0123456789" * 25),
        pamqp.frame.marshal(Basic.Ack(4, False), 3),
        RETURN + content(b""),
        pamqp.frame.marshal(Basic.Nack(9, True), 3),
        pamqp.frame.marshal(Basic.GetOk(1, False, "e", "k", 0), 3) + content(b"got"),
        pamqp.frame.marshal(Basic.Ack(1, False), 4),  # another channel's
        DELIVER + content(b""),
        pamqp.frame.marshal(Channel.Close(404, "NOT_FOUND", 60, 40), 3),
    )
)


HEARTBEAT = pamqp.frame.marshal(Heartbeat(), 0)


def sorted_out(*chunks: bytes) -> tuple[list[tuple[Any, ...]], bytes]:
    """What a taker of channel 3 was told of a stream that comes in these chunks, and what aiormq reads of it."""
    taker = Taker()

    async def read() -> bytes:
        reader = FrameReader(Socket(chunks), {3: taker.frames.take})  # type: ignore[arg-type]
        data = b""
        while not reader.at_eof():
            try:
                data += await reader.readexactly(1)
            except asyncio.IncompleteReadError as end:
                return data + end.partial
        return data

    events, data = taker.events, asyncio.run(read())
    return events, data.replace(HEARTBEAT, b"")


class Socket:
    """A stream that comes in these chunks."""

    def __init__(self, chunks: tuple[bytes, ...]) -> None:
        self.chunks = list(chunks)

    async def read(self, n: int) -> bytes:
        return self.chunks.pop(0) if self.chunks else b""

    def at_eof(self) -> bool:
        return not self.chunks


@given(st.lists(st.integers(1, len(SAID) - 1), max_size=6))
def test_frames_are_told_in_order_however_the_stream_is_cut(cuts: list[int]) -> None:
    at = sorted({0, *cuts, len(SAID)})
    events, rest = sorted_out(*(SAID[left:right] for left, right in pairwise(at)))
    header = content(b"0123456789" * 25)[7 : 7 + 14 + 2]
    empty = content(b"")[7:-1]
    assert events == [
        ("delivered", "tag", 5, True, "e", "k", header, b"0123456789" * 25),
        ("confirmed", 4, False, True),
        ("returned", "NO_ROUTE", "e", "k", empty),
        ("confirmed", 9, True, False),
        ("delivered", "tag", 5, True, "e", "k", empty, b""),
        ("closing", 404, "NOT_FOUND"),
    ]
    assert [type(each).__name__ for each in frames_of(rest)] == [
        "GetOk",
        "ContentHeader",
        "ContentBody",
        "Ack",
        "Close",
    ]


def frames_of(data: bytes) -> list[Any]:
    found = []
    while data:
        size, _, frame = pamqp.frame.unmarshal(data)
        found.append(frame)
        data = data[size:]
    return found


@given(properties)
def test_the_payload_of_a_header_arrives_untouched(value: Properties) -> None:
    header = encode_content_header(value, 4)
    message = Publish(exchange="e", routing_key="k", header=header, body=b"body", identity="m")
    data = publish_frames(3, message, 0)
    content_frames = data[data.index(b"\x02\x00\x03", 7) :]
    events, _ = sorted_out(DELIVER + content_frames)
    ((_, *_, header, body),) = events
    assert body == b"body"
    assert content_frames[7 : 7 + len(header)] == header


@pytest.mark.parametrize("greeting", [b"AMQP\x00\x00\x09\x01", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-x\r\n"])
def test_what_speaks_no_amqp_is_not_waited_for(greeting: bytes) -> None:
    """It may never send as much as a frame of the length that it seems to have."""

    async def read() -> bytes:
        reader = FrameReader(Socket((greeting,)), {})  # type: ignore[arg-type]
        with pytest.raises(OSError, match="does not speak AMQP"):
            await reader.readexactly(7)
        return reader.first

    assert asyncio.run(read()) == greeting[:16]


def test_what_stops_to_speak_amqp_is_passed_on_as_it_is() -> None:
    events, rest = sorted_out(DELIVER + content(b""), b"HTTP/1.1 400")
    assert [event[0] for event in events] == ["delivered"]
    assert rest == b"HTTP/1.1 400"


def test_a_stream_that_ends_within_a_frame_told_nothing_of_it() -> None:
    events, rest = sorted_out(SAID[: len(DELIVER) + 9])
    assert (events, rest) == ([], b"")


def test_only_so_much_is_taken_as_is_ours() -> None:
    """A channel without a taker reads everything, deliveries included."""

    async def read() -> bytes:
        stream = asyncio.StreamReader()
        stream.feed_data(SAID)
        stream.feed_eof()
        return await FrameReader(stream, {}).readexactly(len(SAID))

    assert asyncio.run(read()) == SAID


def test_a_flag_word_that_goes_on_is_no_reason_to_fail() -> None:
    payload = struct.pack(">HHQHH", 60, 0, 0, 1, 0)
    frame = struct.pack(">BHI", 2, 3, len(payload)) + payload + b"\xce"
    events, _ = sorted_out(DELIVER + frame)
    assert events[0][0] == "delivered"


def test_methods_of_the_connection_are_told_and_passed_on() -> None:
    blocked = pamqp.frame.marshal(Connection.Blocked("low on memory"), 0)
    told: list[bytes] = []

    async def read() -> bytes:
        stream = asyncio.StreamReader()
        stream.feed_data(HEARTBEAT + blocked)
        stream.feed_eof()
        return await FrameReader(stream, {}, told.append).readexactly(len(HEARTBEAT + blocked))

    assert asyncio.run(read()) == HEARTBEAT + blocked
    assert told == [blocked[7:-1]]


def test_a_large_frame_in_many_pieces_is_put_together_once() -> None:
    said = DELIVER + content(b"x" * 100_000, size=100_000)
    events, _ = sorted_out(*(said[at : at + 1000] for at in range(0, len(said), 1000)))
    assert [event[-1] for event in events] == [b"x" * 100_000]
