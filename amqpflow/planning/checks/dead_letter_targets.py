"""Where dead letters go: a target that leads to no queue loses them without a word (fact 4.1)."""

from __future__ import annotations

from typing import Any

from amqpflow.model.resources import BrokerState, Exchange


def leads_nowhere(now: BrokerState, planned: BrokerState, queue: str, exchange: Any, key: Any) -> bool:
    """Return whether a message that `queue` dead-letters to this exchange is surely lost.

    `planned` is what will be there besides what is `now`. Where bindings by pattern or header decide, they are taken to
    match. Without a dead-letter routing key (None) a message keeps its own, which may be any.
    """
    if exchange == "":
        # with its own key a message that came through the default exchange comes back to the queue itself
        return (queue if key is None else key) not in now.queues.keys() | planned.queues.keys()
    target: Exchange | None = now.exchanges.get(exchange) or planned.exchanges.get(exchange)
    if target is None:
        return True
    if target.alternate_exchange is not None:
        return False
    bindings = [each for each in (*now.bindings, *planned.bindings) if each.source == exchange]
    if target.type == "direct" and key is not None:
        return not any(each.routing_key == key for each in bindings)
    return not bindings


def leads_only_to(state: BrokerState, queue: str, exchange: Any, key: Any) -> bool:
    """Return whether a message that is dead-lettered to this exchange surely gets into one queue, and into no other."""
    if exchange == "":
        return bool(key == queue)
    target = state.exchanges.get(exchange)
    if target is None:
        return False
    matching = [each for each in state.bindings if each.source == exchange]
    if target.type == "direct" and key is not None:
        matching = [each for each in matching if each.routing_key == key]
        sure = bool(matching)
    elif target.type == "topic":
        sure = any(each.routing_key in ("#", key) for each in matching)
    else:
        sure = target.type == "fanout" and bool(matching)
    return sure and all(each.destination_type == "queue" and each.destination == queue for each in matching)
