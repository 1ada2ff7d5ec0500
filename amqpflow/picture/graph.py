"""The graph to draw: exchanges, work queues with their delays, and parking queues, in the order of drawing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from amqpflow.model.routes import CompiledTopology, NativeRetry, QueueRoutes
from amqpflow.model.units import format_duration, plural

Show = Callable[[object], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeNode:
    """An exchange that messages are published to."""

    name: str
    kind: str  #: topic; empty when the file does not say
    external: bool = False
    alternate: str | None = None  #: name of its alternate exchange


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """A binding of a work queue."""

    exchange: str
    key: str  #: routing key, or the header arguments


@dataclass(frozen=True, slots=True, kw_only=True)
class DelayNode:
    """A delay; with jitter, several retry queues."""

    delay: str
    queues: tuple[str, ...]
    depth: int | None = None

    @property
    def label(self) -> str:
        """The delay, the number of its queues if there are several, and their messages."""
        several = f" ({len(self.queues)} queues)" if len(self.queues) > 1 else ""
        return f"{self.delay}{several}{messages(self.depth)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkNode:
    """A work queue."""

    name: str
    remarks: tuple[str, ...]  #: classic, existing, external
    feeds: tuple[Feed, ...]
    steps: tuple[DelayNode, ...]
    native: str | None  #: RabbitMQ's own delayed retry, in words
    parking: str
    depth: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkingNode:
    """A parking queue."""

    name: str
    depth: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A topology as it is drawn: work queues that share a parking queue stand together."""

    name: str
    retry_exchange: str
    parking_exchange: str
    exchanges: tuple[ExchangeNode, ...]
    works: tuple[WorkNode, ...]
    parkings: tuple[ParkingNode, ...]
    live: bool = False

    @property
    def description(self) -> str:
        """One sentence, for people who cannot see the picture."""
        steps = sum(len(work.steps) for work in self.works)
        return (
            f"{plural(len(self.exchanges), 'exchange')}, {plural(len(self.works), 'work queue')}, "
            f"{plural(steps, 'delay')}, {plural(len(self.parkings), 'parking queue')}"
        )


def build_graph(
    topology: CompiledTopology,
    depths: Mapping[str, int] | None = None,
    *,
    delayed: Mapping[str, int] | None = None,
    show: Show = str,
) -> Graph:
    """Build the graph to draw.

    Args:
        topology: as compiled.
        depths: messages by queue, to draw on it; None draws none.
        delayed: messages in RabbitMQ's own delayed retry, by work queue.
        show: neutralises names and keys.
    """
    own = {topology.retry_exchange, topology.parking_exchange, topology.native_marker}
    desired = topology.desired
    exchanges = [
        ExchangeNode(name=show(each.name), kind=show(each.type), alternate=_shown(each.alternate_exchange, show))
        for each in desired.exchanges.values()
        if each.name not in own
    ]
    exchanges += [ExchangeNode(name=show(name), kind="", external=True) for name in topology.required_exchanges]
    feeds: dict[str, list[Feed]] = {}
    for binding in desired.bindings:
        if binding.source not in own and binding.destination in topology.routes:
            pairs = (f"{key}={value}" for key, value in binding.arguments.items())
            key = binding.routing_key or ", ".join(pairs)
            feeds.setdefault(binding.destination, []).append(Feed(exchange=show(binding.source), key=show(key)))
    known = {each.name for each in exchanges}
    named = [each.alternate for each in exchanges if each.alternate]
    named += [feed.exchange for each in feeds.values() for feed in each]
    exchanges += [ExchangeNode(name=name, kind="", external=True) for name in dict.fromkeys(named) if name not in known]
    parking_queues = dict.fromkeys(routes.parking_queue for routes in topology.routes.values())
    order = {name: position for position, name in enumerate(parking_queues)}
    routes = sorted(topology.routes.values(), key=lambda each: order[each.parking_queue])
    return Graph(
        name=show(topology.name),
        retry_exchange=show(topology.retry_exchange),
        parking_exchange=show(topology.parking_exchange),
        exchanges=tuple(exchanges),
        works=tuple(_work(each, tuple(feeds.get(each.queue, ())), depths, delayed or {}, show) for each in routes),
        parkings=tuple(ParkingNode(name=show(name), depth=_depth(depths, [name])) for name in order),
        live=depths is not None,
    )


def messages(depth: int | None) -> str:
    """Write how many messages a queue holds, behind its name."""
    return "" if depth is None else f": {depth:,}"


def _work(
    routes: QueueRoutes,
    feeds: tuple[Feed, ...],
    depths: Mapping[str, int] | None,
    delayed: Mapping[str, int],
    show: Show,
) -> WorkNode:
    steps: dict[int, set[str]] = {}
    for step in (*routes.steps, *(each for rule in routes.rules for each in rule.steps or ())):
        steps.setdefault(step.delay_ms, set()).update(tier.queue for tier in step.tiers)
    native = routes.native
    remarks = [routes.queue_type] if routes.queue_type != "quorum" else []
    remarks += ["existing"] if routes.existing else []
    remarks += ["external"] if routes.external else []
    return WorkNode(
        name=show(routes.queue),
        remarks=tuple(remarks),
        feeds=feeds,
        steps=tuple(
            DelayNode(
                delay=format_duration(delay_ms),
                queues=tuple(show(name) for name in sorted(queues)),
                depth=_depth(depths, queues),
            )
            for delay_ms, queues in sorted(steps.items())
        ),
        native=None if native is None else _native(native, delayed.get(routes.queue)),
        parking=show(routes.parking_queue),
        depth=_depth(depths, [routes.queue]),
    )


def _native(native: NativeRetry, waiting: int | None) -> str:
    text = f"{format_duration(native.min_ms)} to {format_duration(native.max_ms)}, {native.retries} retries"
    return text if waiting is None else f"{text}: {waiting:,}"


def _depth(depths: Mapping[str, int] | None, queues: object) -> int | None:
    if depths is None:
        return None
    found = [depths[name] for name in queues if name in depths]  # type: ignore[attr-defined]
    return sum(found) if found else None


def _shown(name: str | None, show: Show) -> str | None:
    return None if name is None else show(name)
