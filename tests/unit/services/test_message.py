"""A message as its handler sees it."""

from __future__ import annotations

import gzip
import time
import zlib
from typing import Any

import pytest

from amqpflow import Message, UndecodableError
from amqpflow.model import headers as h
from amqpflow.model.properties import Properties
from tests.deliveries import NOW, QUEUE, comes_back, decided, failed, incoming, publish_of, retried, routes


def message(body: bytes = b"{}", encoding: str | None = None, **options: Any) -> Message:
    return Message(incoming(body=body, content_encoding=encoding), **options)


def test_a_first_attempt() -> None:
    first = Message(incoming({"theirs": 1}, correlation_id="c", priority=0))
    assert (first.attempt, first.retry, first.redelivered) == (1, None, False)
    assert (first.queue, first.exchange, first.routing_key) == (QUEUE, "events", "order.placed")
    assert (first.message_id, first.correlation_id, first.priority) == ("m", "c", 0)
    assert first.headers == {"theirs": 1}
    assert first.hop == "m/0/0"
    assert repr(first) == "<Message 'm' from 'orders', attempt 1>"


def test_a_second_attempt_tells_of_the_first() -> None:
    second = Message(comes_back(publish_of(decided(incoming(), failed("OSError", "down"), routes(5000)))))
    assert (second.attempt, second.hop) == (2, "m/0/1")
    assert (second.exchange, second.routing_key) == ("events", "order.placed")
    assert second.retry is not None
    assert (second.retry.error_type, second.retry.error_message) == ("OSError", "down")
    assert (second.retry.first_failed_at, second.retry.due_at) == (NOW, NOW + 5000)
    assert not any(name.startswith(h.PREFIX) for name in second.headers)


def test_without_any_id_there_is_no_hop_until_the_first_retry() -> None:
    assert Message(incoming(message_id=None)).hop == ""


def test_a_forged_hop_is_shown_as_it_is_and_counts_for_nothing() -> None:
    assert Message(retried(1, hop="/a/b")).hop == "/a/b"


def test_without_headers_there_are_none() -> None:
    bare = Message(incoming())
    assert bare.headers == {}
    assert bare.properties == Properties(message_id="m", headers={})


@pytest.mark.parametrize("encoding", [None, "", "identity", "utf-8", "br"])
def test_an_encoding_that_is_not_ours_to_undo_leaves_the_body(encoding: str | None) -> None:
    assert message(b"body", encoding).body == b"body"


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(b"body", mtime=0)),
        ("GZip ", gzip.compress(b"body", mtime=0)),
        ("x-gzip", gzip.compress(b"body", mtime=0)),
        ("deflate", zlib.compress(b"body")),
        ("deflate", gzip.compress(b"body", mtime=0)),
        ("gzip", gzip.compress(b"bo", mtime=0) + gzip.compress(b"dy", mtime=0)),
        ("gzip", gzip.compress(b"body", mtime=0) + b"\0" * 10),
    ],
)
def test_compression_is_undone(encoding: str, body: bytes) -> None:
    assert message(body, encoding).body == b"body"


def test_an_empty_compressed_body_is_empty() -> None:
    assert message(gzip.compress(b"", mtime=0), "gzip").body == b""


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "cut short"),
        (b"plain", "is not gzip"),
        (gzip.compress(b"body", mtime=0)[:-1], "cut short"),
        (gzip.compress(b"body", mtime=0) + b"more", "is not gzip"),
        (gzip.compress(b"x" * 1001, mtime=0), "grows past 1000 bytes"),
        (gzip.compress(b"x" * 600, mtime=0) * 2, "grows past 1000 bytes"),
        (gzip.compress(b"", mtime=0) * 10_001, "more than 10000 members"),
    ],
)
def test_what_cannot_be_undone_is_undecodable(body: bytes, words: str) -> None:
    with pytest.raises(UndecodableError, match=words):
        _ = message(body, "gzip", max_body_bytes=1000).body


def test_a_body_of_exactly_the_limit_is_taken() -> None:
    assert len(message(gzip.compress(b"x" * 1000), "gzip", max_body_bytes=1000).body) == 1000


@pytest.mark.timing
def test_a_bomb_costs_little() -> None:
    bomb = gzip.compress(b"0" * 200_000_000)
    began = time.process_time()
    with pytest.raises(UndecodableError):
        _ = message(bomb, "gzip", max_body_bytes=1_000_000).body
    assert time.process_time() - began < 1


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le"])
def test_json_in_any_unicode(encoding: str) -> None:
    assert message('{"total": 12, "name": "grün"}'.encode(encoding)).json() == {"total": 12, "name": "grün"}


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe\xff", b"[" * 100_000, b"9" * 10_000, b"nope"])
def test_what_is_no_json_is_undecodable(body: bytes) -> None:
    with pytest.raises(UndecodableError, match="not JSON"):
        message(body).json()
