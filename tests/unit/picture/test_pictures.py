"""Pictures of topologies: nothing overlaps, no line crosses a box, no name or key breaks a format."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amqpflow.cli.safe import safe
from amqpflow.model.routes import CompiledTopology
from amqpflow.picture.dot import render_dot
from amqpflow.picture.graph import DelayNode, ExchangeNode, Feed, Graph, ParkingNode, WorkNode, build_graph
from amqpflow.picture.layout import lay_out
from amqpflow.picture.measure import shortened, width_of
from amqpflow.picture.mermaid import count_edges, render_mermaid
from amqpflow.picture.plain_text import render_text
from amqpflow.picture.shapes import Box, Layout
from amqpflow.picture.svg import render_svg
from tests.topology_files import compiled

SHOP = """
retry_policies:
  standard: {delays: [5s, 30s]}
  jittered: {delays: [10s], jitter: 10%}
  broker: {engine: native, delay: {min: 1s, max: 30s}, retries: 8}
defaults: {retry: standard}
exchanges:
  events: {type: topic, alternate_exchange: unrouted}
  unrouted: {type: fanout}
  elsewhere: {external: true}
queues:
  orders:
    bindings: [{exchange: events, routing_key: "order.*"}, {exchange: elsewhere, routing_key: x}]
    parking: {queue: parking}
  audit: {retry: none, bindings: [{exchange: unrouted}], parking: {queue: parking}}
  mails: {retry: jittered}
  charges: {retry: broker}
"""
HOSTILE = """a"]; click x "javascript:alert(1)" <script>&amp; \\n \x1b[31m \u202e \\" %% ]] --> }"""
WORDS = st.text("abcdefghijklmnop.-", min_size=1, max_size=60)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    exchanges = draw(st.lists(WORDS, max_size=6, unique=True))
    parkings = draw(st.lists(WORDS, min_size=1, max_size=6, unique=True))
    names = draw(st.lists(WORDS, min_size=1, max_size=20, unique=True))
    depth = st.none() | st.integers(0, 10**9)
    works = []
    for name in names:
        feeds = draw(st.lists(st.tuples(st.sampled_from(exchanges), WORDS), max_size=9)) if exchanges else []
        delays = draw(st.lists(st.sampled_from(["1s", "2m30s", "12345ms"]), max_size=20))
        works.append(
            WorkNode(
                name=name,
                remarks=tuple(draw(st.sampled_from([(), ("classic",), ("existing",)]))),
                feeds=tuple(Feed(exchange=exchange, key=key) for exchange, key in feeds),
                steps=tuple(DelayNode(delay=delay, queues=("a", "b"), depth=draw(depth)) for delay in delays),
                native=None,
                parking=draw(st.sampled_from(parkings)),
                depth=draw(depth),
            )
        )
    used = dict.fromkeys(work.parking for work in works)
    return Graph(
        name=draw(WORDS),
        retry_exchange="shop.retry",
        parking_exchange="shop.parking",
        exchanges=tuple(
            ExchangeNode(name=name, kind="topic", alternate=draw(st.none() | st.sampled_from(exchanges)))
            for name in exchanges
        ),
        works=tuple(sorted(works, key=lambda work: list(used).index(work.parking))),
        parkings=tuple(ParkingNode(name=name, depth=draw(depth)) for name in used),
    )


def segments(layout: Layout) -> Iterator[tuple[float, float, float, float]]:
    for line in layout.lines:
        for (x1, y1), (x2, y2) in zip(line.points, line.points[1:], strict=False):
            assert x1 == x2 or y1 == y2, "a line that is neither level nor upright"
            yield min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def overlap(one: Box, other: Box) -> bool:
    return one.x < other.right and other.x < one.right and one.y < other.bottom and other.y < one.bottom


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_boxes_do_not_overlap_and_no_line_crosses_one(graph: Graph) -> None:
    layout = lay_out(graph)
    boxes = [box for box in layout.boxes if box.kind != "chip"]
    assert not [(one, other) for one, other in combinations(boxes, 2) if overlap(one, other)]
    inside = [
        (box, segment)
        for segment in segments(layout)
        for box in boxes
        if segment[0] < box.right - 0.01
        and segment[2] > box.x + 0.01
        and segment[1] < box.bottom - 0.01
        and segment[3] > box.y + 0.01
    ]
    assert not inside
    for box in layout.boxes:
        assert box.x > 0
        assert box.right < layout.width
        assert box.bottom < layout.legend_y
        size = {"name": layout.style.name, "small": layout.style.small}
        badge = width_of(box.badge, layout.style.small) + 17 if box.badge else 0
        for kind, text in box.lines:
            assert width_of(text, size[kind]) + badge <= box.width
    for line in layout.lines:
        if line.label:
            x, y = line.label_at
            end = x + width_of(line.label, layout.style.small)
            assert not [box for box in boxes if box.x < end and x < box.right and box.y < y < box.bottom]


@settings(max_examples=30, deadline=None)
@given(graphs())
def test_every_format_draws_every_graph(graph: Graph) -> None:
    ElementTree.fromstring(render_svg(graph))
    assert render_mermaid(graph).startswith("flowchart LR\n")
    assert count_edges(graph) == len(re.findall(r" -->| -\.->", render_mermaid(graph)))
    assert render_dot(graph).endswith("}")
    for work in graph.works:
        assert f"queue {work.name}" in render_text(graph)


def shop() -> CompiledTopology:
    return compiled(SHOP)


def test_a_topology_becomes_what_is_drawn() -> None:
    graph = build_graph(shop(), {"orders": 3, "orders.retry.5s": 2, "mails.retry.10s": 1, "mails.retry.9s": 4})
    assert [(each.name, each.external, each.alternate) for each in graph.exchanges] == [
        ("events", False, "unrouted"),
        ("unrouted", False, None),
        ("elsewhere", True, None),
    ]
    works = {work.name: work for work in graph.works}
    assert [(step.delay, step.depth) for step in works["orders"].steps] == [("5s", 2), ("30s", None)]
    assert [(step.delay, len(step.queues), step.depth) for step in works["mails"].steps] == [("10s", 4, 5)]
    assert works["charges"].native == "1s to 30s, 8 retries"
    live = build_graph(shop(), {}, delayed={"charges": 1200})
    assert [work.native for work in live.works if work.name == "charges"] == ["1s to 30s, 8 retries: 1,200"]
    assert works["audit"].feeds == (Feed(exchange="unrouted", key=""),)
    assert list(works)[:2] == ["orders", "audit"]  # they share a parking queue
    assert works["orders"].depth == 3


def test_the_text_says_it_all() -> None:
    assert render_text(build_graph(shop(), {"orders": 1200})).splitlines()[:18] == [
        "Topology shop: 3 exchanges, 4 work queues, 3 delays, 3 parking queues",
        "",
        "exchange events (topic)",
        "  order.* --> orders",
        "  unroutable messages --> exchange unrouted",
        "",
        "exchange unrouted (fanout)",
        "  --> audit",
        "",
        "exchange elsewhere (external)",
        "  x --> orders",
        "",
        "queue orders [1,200]",
        "  fails  --> shop.retry --> waits 5s, 30s --> back to orders",
        "  parked --> shop.parking --> parking",
        "",
        "queue audit",
        "  parked --> shop.parking --> parking",
    ]


@pytest.mark.parametrize("show", [str, safe])
def test_hostile_keys_break_no_format(show: object) -> None:
    graph = Graph(
        name=show(HOSTILE),  # type: ignore[operator]
        retry_exchange="r",
        parking_exchange="p",
        exchanges=(ExchangeNode(name="e", kind="topic"),),
        works=(
            WorkNode(
                name="q",
                remarks=(),
                feeds=(Feed(exchange="e", key=show(HOSTILE)),),  # type: ignore[operator]
                steps=(),
                native=None,
                parking="x",
            ),
        ),
        parkings=(ParkingNode(name="x"),),
    )
    svg = render_svg(graph)
    tags = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(svg).iter()}
    assert tags <= {"svg", "title", "desc", "style", "rect", "text", "path", "circle", "g"}
    assert "\x1b" not in svg
    assert "\u202e" not in svg
    labels = re.findall(r'\|"(.*?)"\|', render_mermaid(graph))
    assert all(re.fullmatch(r"(?:[\w .,:/@+*\[\]=-]|#\d+;)*", label) for label in labels)
    for line in render_dot(graph).splitlines():
        bare = re.sub(r'"(?:[^"\\]|\\.)*"', "", line)
        assert '"' not in bare
        assert "script" not in bare


def test_the_picture_has_words_for_who_cannot_see_it() -> None:
    root = ElementTree.fromstring(render_svg(build_graph(shop())))
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == "title description"
    description = next(element.text for element in root if element.get("id") == "description")
    assert description is not None
    assert "orders: retried after 5s, 30s, parked in parking" in description
    assert "prefers-color-scheme:dark" in render_svg(build_graph(shop()))


def test_names_are_shortened_in_their_middle_and_whole_on_hover() -> None:
    assert shortened("a" * 10 + "z", 5) == "aa…az"
    name = "orders." + "x" * 100 + ".end"
    queues = {"queues": f"queues:\n  {name}: {{retry: none}}\n"}
    svg = render_svg(build_graph(compiled(queues["queues"])))
    assert f"<title>{name}</title>" in svg
    assert "….x" not in svg
