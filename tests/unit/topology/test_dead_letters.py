"""Dead-letter cycles without a rejection, which RabbitMQ drops messages in (facts 2.1 to 2.4)."""

from __future__ import annotations

import pytest

from tests.topology_files import HEAD, check

POLICY = "retry_policies: {s: {delays: [1s]}}\ndefaults: {retry: s}\n"


def ways(text: str) -> list[str]:
    problems = [each for each in check(HEAD + POLICY + text).errors if each.code == "T606"]
    return [each.message.split(": ")[1].split(";")[0] for each in problems]


@pytest.mark.parametrize(
    ("text", "way"),
    [
        pytest.param(
            "queues: {q: {parking: {queue: q.retry.1s}}}\n",
            "q -> (delivery_limit) q.retry.1s -> (expired) q",
            id="parking named after a retry queue",
        ),
        pytest.param("queues: {q: {parking: {queue: q}}}\n", "q -> (delivery_limit) q", id="parking in itself"),
        pytest.param(
            "queues: {a: {parking: {queue: b}}, b: {parking: {queue: a}}}\n",
            "a -> (delivery_limit) b -> (delivery_limit) a",
            id="parking in each other",
        ),
        pytest.param(
            'queues: {q: {arguments: {x-dead-letter-exchange: "", x-dead-letter-routing-key: q.retry.1s}}}\n',
            "q -> (delivery_limit) q.retry.1s -> (expired) q",
            id="own dead-lettering to a retry queue",
        ),
        pytest.param(
            'queues: {q: {arguments: {x-dead-letter-exchange: ""}}}\n',
            "q -> (delivery_limit) q",
            id="own dead-lettering without a key",
        ),
        pytest.param(
            "exchanges: {d: {type: direct}}\nqueues: {q: {bindings: [{exchange: d, routing_key: k}], "
            "arguments: {x-dead-letter-exchange: d, x-dead-letter-routing-key: k}}}\n",
            "q -> (delivery_limit) exchange d key k -> (routed) q",
            id="by a direct exchange",
        ),
        pytest.param(
            "exchanges: {t: {type: topic}}\nqueues: {q: {bindings: [{exchange: t, routing_key: '#'}], "
            "arguments: {x-dead-letter-exchange: t, x-dead-letter-routing-key: k}}}\n",
            "q -> (delivery_limit) exchange t -> (routed) q",
            id="by a pattern",
        ),
        pytest.param(
            "queues: {q: {type: classic, arguments: {x-message-ttl: 5, x-dead-letter-exchange: shop.retry, "
            "x-dead-letter-routing-key: q.retry.1s}}}\n",
            "q -> (expired) exchange shop.retry key q.retry.1s -> (routed) q.retry.1s -> (expired) q",
            id="expiry of a classic queue",
        ),
        pytest.param(
            "queues: {q: {type: classic, limits: {max_length: 5, overflow: drop-head}, arguments: "
            '{x-dead-letter-exchange: "", x-dead-letter-routing-key: q.retry.1s}}}\n',
            "q -> (maxlen) q.retry.1s -> (expired) q",
            id="length of a classic queue",
        ),
    ],
)
def test_a_cycle_without_a_rejection_is_refused_with_its_way(text: str, way: str) -> None:
    assert ways(text) == [way]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("queues: {q: {}}\n", id="what amqpflow builds"),
        pytest.param("queues: {q: {parking: {queue: b}}, b: {}}\n", id="no way back"),
        pytest.param(
            'queues: {q: {type: classic, arguments: {x-dead-letter-exchange: "", '
            "x-dead-letter-routing-key: q.retry.1s}}}\n",
            id="only a rejection leads into it",
        ),
        pytest.param(
            "exchanges: {d: {type: direct}}\nqueues: {q: {bindings: [{exchange: d, routing_key: k}], "
            "arguments: {x-dead-letter-exchange: d, x-dead-letter-routing-key: other}}}\n",
            id="another key",
        ),
        pytest.param("queues: {q: {external: true, parking: {queue: q}}}\n", id="not ours"),
    ],
)
def test_what_is_no_such_cycle_is_not_reported(text: str) -> None:
    assert ways(text) == []


def test_the_place_is_the_one_to_mend() -> None:
    problems = check(HEAD + POLICY + "queues:\n  q:\n    parking:\n      queue: q.retry.1s\n").errors
    assert [(each.place.line, each.place.column) for each in problems if each.code == "T606"] == [(8, 14)]
