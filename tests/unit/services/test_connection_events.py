"""Which of a consumer's connections are blocked, and when it says that an alarm is over."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from amqpflow.model.event import ConnectionEvent
from amqpflow.services.consuming.connection_events import ConnectionEvents
from amqpflow.services.consuming.events import Events
from amqpflow.services.consuming.health import ConsumerHealth

WHY = {"publishing": "the broker blocks publishes: low on memory"}


@dataclass(eq=False)
class Link:
    address: Any = field(default_factory=lambda: SimpleNamespace(redacted="amqp://broker"))
    is_closed: bool = False


class Scene:
    def __init__(self) -> None:
        health = ConsumerHealth()
        self.problems = health.problems
        self.said: list[str] = []
        events = Events()
        events.subscribe(lambda event: self.said.append(f"{event.name} {event.purpose}"), ConnectionEvent)
        self._connections = ConnectionEvents(health, events)

    def told(self, link: Link, purpose: str, reason: str | None) -> None:
        self._connections.blocked(link, purpose, reason)  # type: ignore[arg-type]


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_the_end_of_a_connection_that_was_not_blocked_leaves_the_alarm(scene: Scene) -> None:
    scene.told(Link(), "retries", "low on memory")
    scene.told(Link(is_closed=True), "consumer", None)
    assert scene.problems == WHY
    assert scene.said == ["connection.blocked retries"]


def test_the_alarm_is_over_once_the_last_blocked_connection_is_unblocked(scene: Scene) -> None:
    retries, publisher = Link(), Link()
    scene.told(retries, "retries", "low on memory")
    scene.told(publisher, "publisher", "low on memory")
    retries.is_closed = True
    scene.told(retries, "retries", None)
    assert scene.problems == WHY
    scene.told(publisher, "publisher", None)
    assert scene.problems == {}
    assert scene.said == ["connection.blocked retries", "connection.unblocked publisher"]


def test_the_end_of_a_blocked_connection_is_not_said_to_be_the_end_of_the_alarm(scene: Scene) -> None:
    blocked = Link()
    scene.told(blocked, "retries", "low on memory")
    blocked.is_closed = True
    scene.told(blocked, "retries", None)
    scene.told(Link(), "retries", "low on memory")
    assert scene.problems == WHY
    assert scene.said == ["connection.blocked retries"] * 2
