"""A topology as a Mermaid flowchart: https://mermaid.js.org/syntax/flowchart.html."""

from __future__ import annotations

from collections.abc import Iterator

from .graph import Graph, messages

MAX_EDGES = 500
"""Mermaid refuses more, unless the page that draws it says otherwise (maxEdges)."""

_PLAIN = frozenset(" -_.,:/@+*[]=") | frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")


def render_mermaid(graph: Graph) -> str:
    """Render the flowchart. The delays of a work queue are one node, so that a large topology stays below MAX_EDGES."""
    return "\n".join(_lines(graph))


def count_edges(graph: Graph) -> int:
    """Count the edges of the flowchart."""
    of_works = sum(1 + len(work.feeds) + 2 * bool(work.steps) + bool(work.native) for work in graph.works)
    return of_works + sum(bool(each.alternate) for each in graph.exchanges)


def _lines(graph: Graph) -> Iterator[str]:
    exchanges = {each.name: f"e{number}" for number, each in enumerate(graph.exchanges)}
    parkings = {each.name: f"p{number}" for number, each in enumerate(graph.parkings)}
    yield "flowchart LR"
    yield f"  accTitle: Topology {_escaped(graph.name)}"
    yield f"  accDescr: {_escaped(graph.description)}"
    for exchange in graph.exchanges:
        kind = exchange.kind or "external"
        yield f'  {exchanges[exchange.name]}{{{{"{_escaped(exchange.name)}<br>{_escaped(kind)}"}}}}'
    for parking in graph.parkings:
        yield f'  {parkings[parking.name]}[("{_escaped(parking.name)}{messages(parking.depth)}")]'
    for number, work in enumerate(graph.works):
        remarks = f"<br>{_escaped(', '.join(work.remarks))}" if work.remarks else ""
        yield f'  q{number}["{_escaped(work.name)}{remarks}{messages(work.depth)}"]'
        for feed in work.feeds:
            label = f'|"{_escaped(feed.key)}"|' if feed.key else ""
            yield f"  {exchanges[feed.exchange]} -->{label} q{number}"
        if work.steps:
            delays = "<br>".join(step.label for step in work.steps)
            yield f'  t{number}(["{delays}"])'
            yield f'  q{number} -->|"{_escaped(graph.retry_exchange)}"| t{number}'
            yield f"  t{number} -.-> q{number}"
        if work.native:
            yield f'  q{number} -.->|"{_escaped(work.native)}"| q{number}'
        yield f'  q{number} -->|"{_escaped(graph.parking_exchange)}"| {parkings[work.parking]}'
    for exchange in graph.exchanges:
        if exchange.alternate:
            yield f'  {exchanges[exchange.name]} -.->|"alternate"| {exchanges[exchange.alternate]}'
    for style, colours, members in (
        ("exchange", "fill:#e7edfd,stroke:#4263eb,color:#1c2733", exchanges.values()),
        ("work", "fill:#e5f5ea,stroke:#2b8a3e,color:#1c2733", [f"q{number}" for number in range(len(graph.works))]),
        (
            "retry",
            "fill:#fff3dc,stroke:#d9770a,color:#1c2733",
            [f"t{number}" for number, work in enumerate(graph.works) if work.steps],
        ),
        ("parking", "fill:#fde8e8,stroke:#c92a2a,color:#1c2733", parkings.values()),
    ):
        if members:
            yield f"  classDef {style} {colours}"
            yield f"  class {','.join(members)} {style}"


def _escaped(text: str) -> str:
    """Write whatever could mean something to Mermaid or HTML as its entity codes."""
    return "".join(each if each in _PLAIN else f"#{ord(each)};" for each in text)
