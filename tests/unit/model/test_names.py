"""Names that both RabbitMQ and aio-pika can address."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Queue

from amqpflow.model.names import MAX_NAME_BYTES, name_problem


@pytest.mark.parametrize("name", ["orders", "a.b-c_d:e@f#g,h/i+j k", "x" * 255, "amqp.orders", "0"])
def test_an_addressable_name_has_no_problem(name: str) -> None:
    assert name_problem(name) is None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "empty"),
        ("amq.mine", "reserved"),
        ("x" * 256, "256 bytes"),
        ("é" * 128, "256 bytes"),
        ("a!b", "'!'"),
        ("tëst", "'ë'"),
        ("a\nb", r"'\n'"),
        ("a\n", r"'\n'"),
        ("a\0", r"'\x00'"),
        ("a{b}", "'{'"),
    ],
)
def test_any_other_name_says_why(name: str, said: str) -> None:
    problem = name_problem(name)
    assert problem is not None
    assert said in problem


@given(st.text(max_size=MAX_NAME_BYTES) | st.text("aZ09-_.:@#,/+ ", min_size=1, max_size=MAX_NAME_BYTES))
def test_a_name_without_a_problem_is_one_the_client_can_send(name: str) -> None:
    if name_problem(name) is None:
        Queue.Declare(queue=name).marshal()
