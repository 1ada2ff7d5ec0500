"""Where dead letters go: a target that leads to no queue loses them without a word (fact 4.1)."""

from __future__ import annotations

from typing import Any

from amqpflow.model.resources import BrokerState, Exchange


def leads_nowhere(now: BrokerState, planned: BrokerState, queue: str, exchange: Any, key: Any) -> bool:
    """
    Whether a message that is dead-lettered to this exchange is lost.

    Args:
        now: the virtual host as it is.
        planned: what will be there as well.
        queue: the queue it comes from; without a dead-letter routing key the original key stays, which may be any.
        exchange: the dead-letter exchange that works; "" is the default exchange.
        key: the dead-letter routing key that works; None: the message keeps its own.

    Returns:
        True when it is certain; where bindings by pattern or header decide, they are taken to match.
    """
    queues = now.queues.keys() | planned.queues.keys()
    if exchange == "":
        # with its own key a message that came through the default exchange comes back to the queue itself
        return (queue if key is None else key) not in queues
    target: Exchange | None = now.exchanges.get(exchange) or planned.exchanges.get(exchange)
    if target is None:
        return True
    if target.alternate_exchange is not None:
        return False
    bindings = [each for each in (*now.bindings, *planned.bindings) if each.source == exchange]
    if target.type == "direct" and key is not None:
        return not any(each.routing_key == key for each in bindings)
    return not bindings
