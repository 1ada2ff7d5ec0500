"""Derived names, and names that two things would have."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpflow.model.diagnostic import Place
from amqpflow.topology.compile.naming import Names
from amqpflow.topology.language.types import MAX_DELAY_MS
from amqpflow.topology.reading.spec import NamingSpec
from tests.topology_files import HEAD, check, compiled


def collisions(text: str) -> list[str]:
    return [each.message for each in check(HEAD + text).errors if each.code == "T204"]


def test_names_follow_their_templates() -> None:
    topology = compiled("""
        naming:
          retry: "wait.{delay}.{topology}.{queue}"
          parking: "{topology}.parked.{queue}"
          retry_exchange: "retry-of-{topology}"
          parking_exchange: "parked.{topology}"
        retry_policies: {p: {delays: [90s]}}
        queues: {q: {retry: p}}
    """)
    assert set(topology.desired.queues) == {"q", "wait.1m30s.shop.q", "shop.parked.q"}
    assert set(topology.desired.exchanges) == {"retry-of-shop", "parked.shop"}
    assert (topology.retry_exchange, topology.parking_exchange) == ("retry-of-shop", "parked.shop")


@given(st.lists(st.integers(min_value=1, max_value=MAX_DELAY_MS), min_size=2, max_size=2, unique=True))
def test_two_delays_never_share_a_name(delays: list[int]) -> None:
    names = Names(topology="t", naming=NamingSpec(place=Place(file="f")))
    assert names.retry_queue("q", delays[0]) != names.retry_queue("q", delays[1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            "exchanges: {shop.retry: {type: direct}}\nqueues: {q: {retry: none}}\n",
            "the retry exchange and exchange shop.retry would both be the exchange shop.retry",
            id="own exchange",
        ),
        pytest.param(
            "exchanges: {shop.parking: {external: true}}\nqueues: {q: {retry: none}}\n",
            "the parking exchange and exchange shop.parking would both be the exchange shop.parking",
            id="external exchange",
        ),
        pytest.param(
            "retry_policies: {p: {delays: [5s]}}\nqueues: {a: {retry: p}, a.retry.5s: {retry: none}}\n",
            "a retry queue of a and work queue a.retry.5s would both be the queue a.retry.5s",
            id="retry queue",
        ),
        pytest.param(
            "queues: {a: {retry: none}, a.parking: {retry: none}}\n",
            "the parking queue of a and work queue a.parking would both be the queue a.parking",
            id="parking queue",
        ),
        pytest.param(
            "retry_policies: {p: {delays: [5s]}}\nqueues: {a: {retry: p, parking: {queue: a.retry.5s}}}\n",
            "a retry queue of a and the parking queue of a would both be the queue a.retry.5s",
            id="parking in a retry queue",
        ),
        pytest.param(
            "queues: {a: {retry: none, parking: {queue: a}}}\n",
            "the parking queue of a and work queue a would both be the queue a",
            id="parking in itself",
        ),
        pytest.param(
            'naming: {retry: "{queue}{delay}"}\nretry_policies: {p: {delays: [1s, 11s]}}\n'
            "queues: {a: {retry: p}, a1: {retry: p}}\n",
            "a retry queue of a1 and a retry queue of a would both be the queue a11s",
            id="retry queues of two",
        ),
        pytest.param(
            'naming: {parking_exchange: "{topology}.retry"}\nqueues: {a: {retry: none}}\n',
            "the parking exchange and the retry exchange would both be the exchange shop.retry",
            id="templates",
        ),
        pytest.param(
            "exchanges: {shop.native: {type: direct}}\n"
            "retry_policies: {p: {engine: native, delay: {min: 1s, max: 2s}, retries: 3}}\nqueues: {a: {retry: p}}\n",
            "the marker of native retry and exchange shop.native would both be the exchange shop.native",
            id="marker",
        ),
    ],
)
def test_two_things_of_one_name_are_refused(text: str, message: str) -> None:
    assert collisions(text) == [message]


def test_queues_and_exchanges_do_not_share_their_names() -> None:
    assert collisions("queues: {a: {retry: none, parking: {queue: shop.parking}}, shop.retry: {retry: none}}\n") == []


def test_a_shared_parking_queue_is_no_collision() -> None:
    topology = compiled("""
        defaults: {retry: none, parking: {queue: parked}}
        queues: {a: {}, b: {}}
    """)
    assert topology.parking_queues == ("parked",)
    bound = [each for each in topology.desired.bindings if each.source == "shop.parking"]
    assert [(each.destination, each.routing_key) for each in bound] == [("parked", "parked")]
