"""A topology for a terminal: a block for each work queue, in ASCII, so that it can be pasted anywhere."""

from __future__ import annotations

from collections.abc import Iterator

from .graph import DelayNode, ExchangeNode, Graph


def render_text(graph: Graph) -> str:
    """Render lines, without a line break at the end."""
    return "\n".join(_lines(graph))


def _lines(graph: Graph) -> Iterator[str]:
    yield f"Topology {graph.name}: {graph.description}"
    for exchange in graph.exchanges:
        yield from ("", _exchange(exchange))
        fed = [(feed.key, work.name) for work in graph.works for feed in work.feeds if feed.exchange == exchange.name]
        width = max((len(key) for key, _ in fed), default=0)
        yield from (f"  {key.ljust(width) + ' ' if width else ''}--> {name}" for key, name in fed)
        if exchange.alternate:
            yield f"  unroutable messages --> exchange {exchange.alternate}"
    depths = {parking.name: parking.depth for parking in graph.parkings}
    for work in graph.works:
        yield from ("", f"queue {work.name}{_remarks(work.remarks)}{_depth(work.depth)}")
        if work.steps:
            steps = ", ".join(map(_step, work.steps))
            yield f"  fails  --> {graph.retry_exchange} --> waits {steps} --> back to {work.name}"
        if work.native:
            yield f"  fails  --> RabbitMQ delays it itself: {work.native}"
        yield f"  parked --> {graph.parking_exchange} --> {work.parking}{_depth(depths.get(work.parking))}"


def _exchange(exchange: ExchangeNode) -> str:
    remarks = tuple(each for each in (exchange.kind, "external" if exchange.external else "") if each)
    return f"exchange {exchange.name}{_remarks(remarks)}"


def _step(step: DelayNode) -> str:
    several = f" ({len(step.queues)} queues)" if len(step.queues) > 1 else ""
    return f"{step.delay}{several}{_depth(step.depth)}"


def _remarks(remarks: tuple[str, ...]) -> str:
    return f" ({', '.join(remarks)})" if remarks else ""


def _depth(depth: int | None) -> str:
    return "" if depth is None else f" [{depth:,}]"
