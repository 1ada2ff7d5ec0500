"""What a status says of numbers: sums, what is missing, and what is hidden or stuck."""

from __future__ import annotations

from typing import Any

from amqpflow.model.queue_stats import QueueStats
from amqpflow.planning.reports.status import Status, assess
from amqpflow.planning.values.findings import Ref, warn
from tests.topologies import topology

SHOP = topology({"orders": (5_000, (9_000, 10_000)), "audit": ()}, vhost="/", parking="parking")
CALM = QueueStats(ready=0, exact=True, unacked=0, retained=0, consumers=1)
ALL = (*SHOP.desired.queues,)


def numbers(**changed: QueueStats | None) -> dict[str, QueueStats]:
    """All calm but for these; None is a queue that is missing. A dot is written as two underscores."""
    found = {name: QueueStats(ready=0, unacked=0, retained=0, consumers=0) for name in ALL}
    found |= {"orders": CALM, "audit": CALM}
    for name, each in changed.items():
        name = name.replace("__", ".")
        assert name in found
        if each is None:
            del found[name]
        else:
            found[name] = each
    return found


def status(found: dict[str, QueueStats], **more: Any) -> Status:
    return assess(SHOP, found, vhost="/", broker="RabbitMQ 4.3.6", taken_at=1, complete=True, source="", **more)


def alerts(found: dict[str, QueueStats], **more: Any) -> list[tuple[str, str]]:
    return [(each.code, each.object) for each in status(found, **more).alerts]


def test_a_calm_topology_has_no_alerts() -> None:
    assert alerts(numbers()) == []


def test_what_waits_is_the_sum_of_retry_queues_and_of_the_brokers_delay() -> None:
    found = status(
        numbers(
            orders=QueueStats(ready=1, delayed=4, consumers=1),
            orders__retry__5s=QueueStats(ready=2),
            orders__retry__10s=QueueStats(ready=3),
        )
    )
    assert found.queues[0].waiting == 9
    tiers = found.queues[0].tiers
    assert [(tier.delay_ms, tier.step_ms, tier.due_within_ms) for tier in tiers] == [
        (5_000, 5_000, 5_000),
        (9_000, 10_000, None),
        (10_000, 10_000, 10_000),
    ]


def test_retained_messages_are_an_alert_for_each_queue_and_come_first() -> None:
    kept = QueueStats(ready=0, retained=2, consumers=0)
    found = alerts(
        numbers(orders__retry__5s=kept),
        foreign=[warn("retained", Ref("queue", "x"), ""), warn("other", Ref("x", ""), "")],
    )
    assert found == [("retained", "queue orders.retry.5s"), ("other", "x")]
    assert status(numbers(orders__retry__5s=kept)).queues[0].retained == 2


def test_missing_queues_are_named_together() -> None:
    found = alerts(numbers(orders=None, orders__retry__5s=None, audit=None, parking=None))
    assert found == [("missing", "queues orders, orders.retry.5s, audit and 1 more")]


def test_a_queue_with_messages_that_nobody_consumes_is_an_alert() -> None:
    assert alerts(numbers(orders=QueueStats(ready=1, consumers=0))) == [("no-consumer", "queue orders")]
    assert alerts(numbers(orders=QueueStats(ready=0, consumers=0))) == []
    assert alerts(numbers(orders=QueueStats(ready=1))) == []


def test_a_retry_queue_that_somebody_consumes_is_an_alert() -> None:
    found = alerts(numbers(orders__retry__5s=QueueStats(ready=1, consumers=1)))
    assert found == [("consumed-retry-queue", "queue orders.retry.5s")]


def test_parking_that_grows_is_an_alert_by_its_rate_and_since_the_watch_began() -> None:
    now = QueueStats(ready=5, growth=0.4)
    assert alerts(numbers(parking=now)) == [("parking-grows", "queue parking")]
    before = status(numbers(parking=QueueStats(ready=2)))
    (alert,) = status(numbers(parking=now), earlier=before).alerts
    assert "3 messages more parked since" in alert.message
    assert alerts(numbers(parking=now), earlier=status(numbers(parking=now))) == []


def test_a_shared_parking_queue_is_there_once() -> None:
    (parking,) = status(numbers()).parking
    assert parking.shared_by == ("orders", "audit")


def test_retry_queues_that_left_the_file_are_shown_as_such() -> None:
    found = status({**numbers(), "orders.retry.7s": QueueStats(ready=3)}, left={"orders.retry.7s": ("orders", 7_000)})
    assert [(tier.queue, tier.left) for tier in found.queues[0].tiers] == [
        ("orders.retry.5s", False),
        ("orders.retry.7s", True),
        ("orders.retry.9s", False),
        ("orders.retry.10s", False),
    ]
    assert found.queues[0].waiting == 3
