"""Dead-letter cycles without a rejection: RabbitMQ drops a message that goes round in one, in silence.

Delivery limit, expiry and length count as the broker's own doing; only basic.reject and basic.nack by a consumer make
a cycle legal (facts 2.1 to 2.4). What amqpflow builds has no such cycle: a work queue gives to parking, a retry queue
to its work queue, and parking to nobody. A file can build one by naming parking after another of its queues, or by
arguments of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from amqpflow.model.diagnostic import Place
from amqpflow.topology.codes import Code
from amqpflow.topology.naming import Names
from amqpflow.topology.problems import Problems
from amqpflow.topology.schedule import all_delays
from amqpflow.topology.spec import QueueSpec, TopologySpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """RabbitMQ itself moves messages from one queue to another."""

    source: str
    target: str
    why: str
    place: Place


def cycles(spec: TopologySpec, problems: Problems) -> None:
    """Follow what the broker does on its own; coming back to a queue is a cycle."""
    graph: dict[str, list[Edge]] = {}
    for edge in _edges(spec):
        graph.setdefault(edge.source, []).append(edge)
    finished: set[str] = set()
    for start in graph:
        _walk(start, graph, finished, problems)


def _walk(start: str, graph: dict[str, list[Edge]], finished: set[str], problems: Problems) -> None:
    """Depth first without recursion: a file may hold thousands of queues in a row."""
    if start in finished:
        return
    path: list[Edge] = []
    on_path = {start}
    pending = [iter(graph.get(start, ()))]
    while pending:
        edge = next(pending[-1], None)
        if edge is None:
            pending.pop()
            left = path.pop().target if path else start
            on_path.discard(left)
            finished.add(left)
        elif edge.target in on_path:
            _report([*path, edge], edge.target, problems)
        elif edge.target not in finished:
            path.append(edge)
            on_path.add(edge.target)
            pending.append(iter(graph.get(edge.target, ())))


def _report(path: list[Edge], first: str, problems: Problems) -> None:
    start = next(index for index, edge in enumerate(path) if edge.source == first)
    cycle = path[start:]
    way = " -> ".join([cycle[0].source, *(f"({edge.why}) {edge.target}" for edge in cycle)])
    message = f"a dead-letter cycle without a rejection: {way[:600]}; RabbitMQ drops a message that goes round in it"
    place = min(edge.place for edge in cycle)
    hint = "let it end in a parking queue, which dead-letters nowhere"
    problems.error(Code.DEAD_LETTER_CYCLE, place, message, hint)


def _edges(spec: TopologySpec) -> Iterator[Edge]:
    names = Names(topology=spec.name, naming=spec.naming)
    for queue in spec.queues.values():
        if queue.external:
            continue
        why = _why(queue)
        if why:
            for target, place in _targets(queue, spec, names):
                yield Edge(source=queue.name, target=target, why=why, place=place)
        policy = spec.policy_of(queue)
        for delay in all_delays(policy) if policy else ():
            tier = names.retry_queue(queue.name, delay)
            yield Edge(source=tier, target=queue.name, why="expired", place=queue.place)


def _why(queue: QueueSpec) -> str:
    """What makes RabbitMQ dead-letter from a work queue without a consumer's doing; empty when nothing does."""
    if queue.quorum:
        return "delivery_limit"
    if "x-message-ttl" in queue.arguments:
        return "expired"
    return "maxlen" if queue.limited and queue.overflow != "reject-publish" else ""


def _targets(queue: QueueSpec, spec: TopologySpec, names: Names) -> Iterator[tuple[str, Place]]:
    """Where a queue dead-letters to: its own arguments are followed as if they were allowed, to say what they do."""
    exchange = queue.arguments.get("x-dead-letter-exchange")
    key = queue.arguments.get("x-dead-letter-routing-key")
    if exchange is None:
        if key is not None:
            yield str(key.value), key.place
            return
        place = queue.at("parking_queue") if queue.parking_queue is not None else queue.place
        yield queue.parking_queue or names.parking_queue(queue.name), place
        return
    if exchange.value == "":
        # without a key of its own a message keeps the one it came with, and through the default exchange that is
        # the queue's name
        yield (str(key.value) if key is not None else queue.name), exchange.place
        return
    if exchange.value == names.retry_exchange and key is not None:
        yield str(key.value), exchange.place
        return
    for other in spec.queues.values():
        for binding in other.bindings:
            if binding.exchange == exchange.value and _routes(spec, str(exchange.value), binding.routing_key, key):
                yield other.name, exchange.place


def _routes(spec: TopologySpec, exchange: str, binding_key: str, key: object) -> bool:
    """Whether a message could go that way; with patterns, headers or an unknown key it could."""
    defined = spec.exchanges.get(exchange)
    if defined is None or defined.type != "direct" or key is None:
        return True
    return binding_key == str(getattr(key, "value", key))


RULES = (cycles,)
