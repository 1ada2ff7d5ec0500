"""The least permissions, as values. That they suffice, and that none is too many, is shown on brokers."""

from __future__ import annotations

import re

import pytest

from amqpflow.planning.compare.replacement import stand_in_name
from amqpflow.planning.reports.permissions import Grant, grants
from tests.topology_files import compiled

SHOP = """
retry_policies:
  standard: {delays: [5s, 1m30s]}
defaults: {retry: standard}
exchanges:
  events: {type: topic, alternate_exchange: unrouted}
  unrouted: {type: fanout}
  elsewhere: {external: true}
queues:
  orders.payment:
    bindings: [{exchange: events, routing_key: a}, {exchange: elsewhere, routing_key: b}]
  orders.audit:
    retry: none
    bindings: [{exchange: unrouted}]
"""


def granted(text: str = SHOP, **options: object) -> dict[str, Grant]:
    return {each.role: each for each in grants(compiled(text), **options)}  # type: ignore[arg-type]


def test_the_applying_user_may_name_what_the_file_names_and_retry_queues_of_any_delay() -> None:
    apply = granted()["apply"]
    for name in ("orders.payment", "orders.payment.retry.7h", "orders.audit.parking", "events", "shop.retry"):
        assert re.search(apply.configure.text, name), name
    for pattern in apply.patterns.values():
        assert re.search(pattern.text, "orders.payment.retry.7h.swap"), pattern
    for name in ("elsewhere", "orders.audit.retry.5s", "orders.other", "orders.payment.retry.5s.x", "amq.default"):
        assert not re.search(apply.configure.text, name), name
    assert re.search(apply.write.text, "amq.default")
    assert re.search(apply.read.text, "elsewhere")
    assert not re.search(apply.read.text, "orders.payment.parking")
    assert apply.tags == ("management",)


@pytest.mark.parametrize("queue", ["orders", "o" * 236])
def test_what_stands_in_for_a_retry_queue_is_matched_whatever_its_name(queue: str) -> None:
    text = f"""
    naming: {{retry: "{{queue}}.5s.{{delay}}"}}
    retry_policies: {{standard: {{delays: [5s]}}}}
    queues: {{{queue}: {{retry: standard}}}}
    """
    apply = granted(text)["apply"]
    (tier,) = compiled(text).routes[queue].tiers
    for pattern in apply.patterns.values():
        assert re.search(pattern.text, stand_in_name(tier.queue)), tier.queue


def test_policies_need_the_policymaker_tag() -> None:
    with_limits = SHOP.replace("    retry: none\n", "    retry: none\n    limits: {max_length: 5}\n")
    assert granted(with_limits)["apply"].tags == ("management", "policymaker")


def test_a_service_writes_to_the_two_exchanges_and_reads_its_work_queues() -> None:
    consume = granted()["consume"]
    assert [pattern.text for pattern in consume.patterns.values()] == [
        "^$",
        r"^shop\.(parking|retry)$",
        r"^orders\.(audit|payment)$",
    ]


def test_a_service_of_one_queue_without_retries_only_parks() -> None:
    consume = granted(queues=["orders.audit"])["consume"]
    assert [pattern.text for pattern in consume.patterns.values()] == ["^$", r"^shop\.parking$", r"^orders\.audit$"]


def test_a_publisher_writes_to_the_exchanges_but_to_those_that_only_catch_what_is_unrouted() -> None:
    publish = granted()["publish"]
    assert publish.write.text == "^(elsewhere|events)$"
    assert publish.notes == ("without unrouted: messages come to it as an alternate exchange",)


def test_without_an_exchange_a_publisher_uses_the_default_exchange() -> None:
    assert granted("queues: {orders: {retry: none}}")["publish"].write.text == r"^amq\.default$"


def test_who_looks_needs_a_tag_alone() -> None:
    observe = granted()["observe"]
    assert {pattern.text for pattern in observe.patterns.values()} == {"^$"}
    assert observe.tags == ("management",)


def test_many_queues_get_patterns_that_every_release_takes_or_a_word_about_it() -> None:
    queues = "".join(f"  shop{number % 9}.queue-{number:04d}: {{retry: standard}}\n" for number in range(400))
    text = f"retry_policies:\n  standard: {{delays: [5s]}}\nqueues:\n{queues}"
    for grant in granted(text).values():
        for kind, pattern in grant.patterns.items():
            assert pattern.fits
            assert any(note.startswith(f"{kind} is wider") for note in grant.notes) == bool(pattern.widened)
    exact = granted(text, exact=True)["consume"]
    assert not exact.read.fits
    assert not exact.read.widened
    assert "read has" in exact.notes[-1]


def test_native_retry_is_told_by_an_exchange_that_a_service_may_see_and_a_publisher_does_not_need() -> None:
    text = """
    retry_policies:
      broker: {engine: native, delay: {min: 1s, max: 30s}, retries: 8}
    exchanges: {events: {type: topic}}
    queues: {orders: {retry: broker, bindings: [{exchange: events, routing_key: a}]}}
    """
    found = granted(text)
    assert found["consume"].read.text == r"^(orders|shop\.native)$"
    assert found["publish"].write.text == "^events$"
