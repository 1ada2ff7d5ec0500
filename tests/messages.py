"""Messages that producers might send: strategies for hypothesis, and what is too much."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from amqpflow.model.headers import NEVER_TRAVELS, PREFIX
from amqpflow.model.properties import Properties
from amqpflow.model.wire import length_prefixed
from amqpflow.model.wire_decode import LAST_SECOND


def nested(levels: int) -> bytes:
    """A header's value, encoded: tables in tables, so many."""
    value = b"V"
    for _ in range(levels):
        value = b"F" + length_prefixed(b"\1k" + value)
    return value


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
short_texts = texts.filter(lambda text: len(text.encode()) <= 255)
timestamps = st.integers(0, LAST_SECOND).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
not_utf8 = st.binary(min_size=1, max_size=10).map(lambda data: data + b"\xff")

scalars = st.one_of(
    st.none(),
    st.booleans(),
    texts,
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.floats(allow_nan=False),
    not_utf8,
    st.binary(max_size=10).map(bytearray),
    timestamps,
    st.builds(lambda n, scale: Decimal(n).scaleb(-scale), st.integers(-(1 << 31), (1 << 31) - 1), st.integers(0, 20)),
)
field_values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(short_texts, inner, max_size=3),
    max_leaves=8,
)
tables = st.dictionaries(short_texts, field_values, max_size=5)

special_names = st.sampled_from(
    [
        *sorted(NEVER_TRAVELS),
        f"{PREFIX}attempt",
        f"{PREFIX}queue",
        f"{PREFIX}hop",
        f"{PREFIX}original",
        f"{PREFIX}unknown",
    ]
)
header_tables = st.dictionaries(short_texts | special_names, field_values, max_size=6)

properties = st.builds(
    Properties,
    content_type=st.none() | short_texts,
    content_encoding=st.none() | short_texts,
    headers=st.none() | header_tables,
    delivery_mode=st.none() | st.sampled_from([1, 2]),
    priority=st.none() | st.integers(0, 255),
    correlation_id=st.none() | short_texts,
    reply_to=st.none() | short_texts,
    expiration=st.none() | st.integers(0, 10**9).map(str),
    message_id=st.none() | short_texts,
    timestamp=st.none() | timestamps | st.integers(LAST_SECOND + 1, (1 << 64) - 1),
    type=st.none() | short_texts,
    user_id=st.none() | short_texts,
    app_id=st.none() | short_texts,
    cluster_id=st.none() | short_texts,
)
"""Properties as they may come from the wire."""
