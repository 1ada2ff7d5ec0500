"""A topology in Graphviz's language: https://graphviz.org/doc/info/lang.html."""

from __future__ import annotations

from collections.abc import Iterator

from .graph import Graph, messages


def render_dot(graph: Graph) -> str:
    """Render a digraph; the delays of a work queue are one node."""
    return "\n".join(_lines(graph))


def _lines(graph: Graph) -> Iterator[str]:
    exchanges = {each.name: f"e{number}" for number, each in enumerate(graph.exchanges)}
    parkings = {each.name: f"p{number}" for number, each in enumerate(graph.parkings)}
    yield f"digraph {_quoted(graph.name)} {{"
    yield '  graph [rankdir=LR, ranksep=1.2, nodesep=0.25, fontname="Helvetica"];'
    yield '  node [shape=box, style="rounded,filled", fontname="Helvetica", fontsize=11];'
    yield '  edge [fontname="Helvetica", fontsize=9, color="#5c6975"];'
    for exchange in graph.exchanges:
        label = _quoted(f"{exchange.name}\n{exchange.kind or 'external'}")
        yield f'  {exchanges[exchange.name]} [label={label}, shape=hexagon, fillcolor="#e7edfd", color="#4263eb"];'
    for parking in graph.parkings:
        label = _quoted(parking.name + messages(parking.depth))
        yield f'  {parkings[parking.name]} [label={label}, shape=cylinder, fillcolor="#fde8e8", color="#c92a2a"];'
    for number, work in enumerate(graph.works):
        remarks = f"\n{', '.join(work.remarks)}" if work.remarks else ""
        label = _quoted(work.name + remarks + messages(work.depth))
        yield f'  q{number} [label={label}, fillcolor="#e5f5ea", color="#2b8a3e"];'
        for feed in work.feeds:
            yield f"  {exchanges[feed.exchange]} -> q{number} [label={_quoted(feed.key)}];"
        if work.steps:
            label = _quoted("\n".join(step.label for step in work.steps))
            yield f'  t{number} [label={label}, fillcolor="#fff3dc", color="#d9770a"];'
            yield f"  q{number} -> t{number} [label={_quoted(graph.retry_exchange)}];"
            yield f"  t{number} -> q{number} [style=dashed];"
        if work.native:
            yield f"  q{number} -> q{number} [label={_quoted(work.native)}, style=dashed];"
        yield f"  q{number} -> {parkings[work.parking]} [label={_quoted(graph.parking_exchange)}];"
    for exchange in graph.exchanges:
        if exchange.alternate:
            target = exchanges[exchange.alternate]
            yield f'  {exchanges[exchange.name]} -> {target} [label="alternate", style=dashed];'
    yield "}"


def _quoted(text: str) -> str:
    """Quote a string, in which only our line breaks are escape sequences."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
