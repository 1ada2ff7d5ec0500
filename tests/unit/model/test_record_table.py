"""Our headers as they are written: what is read back is what was written, encoded at once or as values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from amqpflow.model import headers as h
from amqpflow.model.raw_headers import RawHeaders
from amqpflow.model.record import MAX_HISTORY, FailureRecord, PastAttempt, ReplayMark, read_record
from amqpflow.model.record_table import encode_record, record_table
from amqpflow.model.wire import encode_table
from tests.messages import tables

times = st.integers(1, (1 << 53) - 1)
texts = st.text(min_size=1, max_size=300)
some_texts = st.none() | texts
records = st.builds(
    FailureRecord,
    queue=texts,
    attempts=st.integers(0, 1_000_000),
    hop=st.builds("{}/{}/{}".format, texts, st.integers(0, 9), st.integers(0, 9)),
    exchange=st.none() | st.text(max_size=20),
    routing_key=st.none() | st.text(max_size=20),
    original=tables,
    first_failed_at=st.none() | times,
    failed_at=st.none() | times,
    due_at=st.none() | times,
    reason=some_texts,
    reason_detail=some_texts,
    error_type=some_texts,
    error_message=some_texts,
    error_location=some_texts.map(lambda text: text and text[:60]),
    error_stack=some_texts,
    fingerprint=some_texts,
    history=st.lists(
        st.builds(PastAttempt, at=st.none() | times, tier=st.text(max_size=20), error_type=st.text(max_size=20)),
        max_size=MAX_HISTORY + 2,
    ).map(tuple),
    replay=st.none() | st.builds(ReplayMark, id=texts, count=st.integers(0, 1_000_000), at=st.none() | times),
    host=some_texts,
    version=some_texts,
)


def decoded(entries: bytes) -> dict[str, Any]:
    return dict(RawHeaders(len(entries).to_bytes(4, "big") + entries, 0))


@given(records)
def test_what_is_written_is_read_back(record: FailureRecord) -> None:
    back = read_record(decoded(encode_record(record)))
    assert back is not None
    root = record.hop.rsplit("/", 2)[0] if record.hop else None
    history = record.history[-MAX_HISTORY:]
    assert replace(back, original={}) == replace(record, original={}, root=root, history=history)
    assert encode_table(back.original) == encode_table(dict(record.original))


@given(records)
def test_what_is_encoded_at_once_is_what_is_encoded_as_values(record: FailureRecord) -> None:
    assert decoded(encode_record(record)) == decoded(encode_table(record_table(record))[4:])


def test_what_is_absent_is_not_written() -> None:
    assert record_table(FailureRecord(queue="orders")) == {h.QUEUE: "orders"}
    assert decoded(encode_record(FailureRecord(queue=""))) == {}


def test_an_empty_exchange_or_routing_key_is_written() -> None:
    """A message came through the default exchange, or to a fanout exchange: not the same as unknown."""
    record = FailureRecord(queue="orders", exchange="", routing_key="")
    assert decoded(encode_record(record)) == {h.QUEUE: "orders", h.EXCHANGE: "", h.ROUTING_KEY: ""}
