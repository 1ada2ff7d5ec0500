"""Dead-letter cycles without a rejection: RabbitMQ drops a message that goes round in one, in silence.

Delivery limit, expiry and length count as the broker's own doing; only basic.reject and basic.nack by a consumer make
a cycle legal (facts 2.1 to 2.4). What amqpflow builds has no such cycle: a work queue dead-letters to parking, a retry
queue to its work queue, and parking does not dead-letter. A file can build one by naming parking after another of its
queues, or by arguments of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from amqpflow.model.diagnostic import Place
from amqpflow.topology.compile.naming import Names
from amqpflow.topology.compile.schedule import delays_by_policy
from amqpflow.topology.language.codes import Code
from amqpflow.topology.reading.problems import Problems
from amqpflow.topology.reading.spec import QueueSpec, TopologySpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """RabbitMQ itself moves messages from one queue to another."""

    source: str
    target: str
    why: str
    place: Place
    chosen: bool = False  #: by the file, and so the place to fix it


def cycles(spec: TopologySpec, problems: Problems) -> None:
    """Report cycles: dead-letter paths that lead back to a queue without a consumer."""
    graph: dict[str, list[Edge]] = {}
    for edge in _edges(spec):
        graph.setdefault(edge.source, []).append(edge)
    finished: set[str] = set()
    for start in graph:
        _walk(start, graph, finished, problems)


def _walk(start: str, graph: dict[str, list[Edge]], finished: set[str], problems: Problems) -> None:
    """Walk depth first without recursion: a file may hold thousands of queues in a row."""
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
    message = (
        f"a dead-letter cycle without a rejection: {way[:600]}; RabbitMQ silently drops a message that cycles in it"
    )
    place = next((edge.place for edge in cycle if edge.chosen), cycle[0].place)
    hint = "let it end in a parking queue, which dead-letters nowhere"
    problems.error(Code.DEAD_LETTER_CYCLE, place, message, hint)


def _edges(spec: TopologySpec) -> Iterator[Edge]:
    names, delays = Names(topology=spec.name, naming=spec.naming), delays_by_policy(spec)
    exchanges: dict[str, str | None] = {}
    for queue in spec.queues.values():
        if queue.external:
            continue
        if why := _why(queue):
            target, place = _target(queue, spec, names, exchanges)
            yield Edge(source=queue.name, target=target, why=why, place=place, chosen=True)
        for delay in delays.get(queue.retry, ()):
            tier = names.retry_queue(queue.name, delay)
            yield Edge(source=tier, target=queue.name, why="expired", place=queue.place)
    if exchanges:
        yield from _routes(spec, names, exchanges)


def _why(queue: QueueSpec) -> str:
    """Return what makes RabbitMQ dead-letter to parking without a consumer; empty when nothing does."""
    if queue.keeps_dead_letters:
        return ""
    if queue.quorum:
        return "delivery_limit"
    if "x-message-ttl" in queue.arguments:
        return "expired"
    return "maxlen" if queue.limited and queue.overflow != "reject-publish" else ""


def _target(queue: QueueSpec, spec: TopologySpec, names: Names, exchanges: dict[str, str | None]) -> tuple[str, Place]:
    """Return where a queue dead-letters to, and where that was written.

    A file's own dead-letter arguments are refused elsewhere; here they are followed, to say what they would do. A
    named exchange is a node of its own, and goes to `exchanges` with the key of what arrives there.
    """
    exchange = queue.arguments.get("x-dead-letter-exchange")
    key = queue.arguments.get("x-dead-letter-routing-key")
    if exchange is None:
        if key is not None:
            return str(key.value), key.place
        place = queue.at("parking_queue") if queue.parking_queue is not None else queue.place
        return queue.parking_queue or names.parking_queue(queue.name), place
    if exchange.value == "":
        # a message keeps its key when there is no other, and through the default exchange that is the queue's name
        return (str(key.value) if key is not None else queue.name), exchange.place
    defined = spec.exchanges.get(str(exchange.value))
    node = f"exchange {exchange.value}"
    if key is not None and (exchange.value == names.retry_exchange or (defined and defined.type == "direct")):
        node += f" key {key.value}"
        exchanges[node] = str(key.value)
    else:
        exchanges[node] = None
    return node, exchange.place


def _routes(spec: TopologySpec, names: Names, exchanges: dict[str, str | None]) -> Iterator[Edge]:
    """Yield edges from exchanges to the queues bound there: by key when direct, else to all."""
    for node, key in exchanges.items():
        if key is not None and node == f"exchange {names.retry_exchange} key {key}":
            yield Edge(source=node, target=key, why="routed", place=spec.place)
    for queue in spec.queues.values():
        for binding in queue.bindings:
            for node in (f"exchange {binding.exchange}", f"exchange {binding.exchange} key {binding.routing_key}"):
                if node in exchanges:
                    yield Edge(source=node, target=queue.name, why="routed", place=binding.place)


RULES = (cycles,)
