"""Where dead letters go, as far as the bindings of a virtual host tell."""

from __future__ import annotations

import pytest

from amqpflow.model.resources import Binding, BrokerState, Exchange
from amqpflow.planning.checks.dead_letter_targets import leads_only_to


def bound(kind: str, *bindings: tuple[str, str], to: str = "queue") -> BrokerState:
    return BrokerState(
        exchanges={"dlx": Exchange(name="dlx", type=kind)},
        bindings=tuple(
            Binding(source="dlx", destination=queue, routing_key=key, destination_type=to)  # type: ignore[arg-type]
            for queue, key in bindings
        ),
    )


@pytest.mark.parametrize(
    ("state", "key", "sure"),
    [
        (bound("direct", ("dlq", "k")), "k", True),
        (bound("direct", ("dlq", "k"), ("other", "j")), "k", True),
        (bound("direct", ("dlq", "k"), ("other", "k")), "k", False),
        (bound("direct", ("dlq", "k")), "j", False),
        (bound("direct", ("dlq", "k")), None, False),
        (bound("fanout", ("dlq", "")), None, True),
        (bound("fanout", ("dlq", ""), ("other", "")), None, False),
        (bound("topic", ("dlq", "#")), None, True),
        (bound("topic", ("dlq", "k")), "k", True),
        (bound("topic", ("dlq", "a.*")), "a.b", False),
        (bound("headers", ("dlq", "")), "k", False),
        (bound("fanout", ("dlq", ""), to="exchange"), None, False),
        (bound("direct"), "k", False),
        (BrokerState(), "k", False),
    ],
)
def test_a_dead_letter_exchange_leads_to_one_queue_alone_only_when_that_is_sure(
    state: BrokerState, key: str | None, sure: bool
) -> None:
    assert leads_only_to(state, "dlq", "dlx", key) is sure


def test_by_the_default_exchange_the_key_is_the_queue() -> None:
    assert leads_only_to(BrokerState(), "dlq", "", "dlq")
    assert not leads_only_to(BrokerState(), "dlq", "", None)
