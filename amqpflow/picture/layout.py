"""Lay out a graph: four columns, a row for each work queue, lines that run between boxes and never through one.

From left to right: exchanges, work queues, retry queues, parking queues. Bindings run from an exchange along a track of
its own in the gap before the work queues. What a consumer publishes crosses the rail of the exchange it goes through.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .graph import ExchangeNode, Feed, Graph, ParkingNode, WorkNode, messages
from .measure import shortened, width_of
from .shapes import COMPACT, ROOMY, Box, Layout, Line, Rail

COMPACT_FROM = 13  #: work queues
MAX_NAME = 44  #: characters
MAX_KEY = 30
_MARGIN, _HEAD = 24.0, 84.0
_TRACK = 9.0  # between two tracks
_FEEDS = 4  # bindings to one exchange that are drawn one by one


def lay_out(graph: Graph) -> Layout:
    """Lay out a graph. The same graph always gives the same layout."""
    return _Layouter(graph).run()


class _Layouter:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.style = COMPACT if len(graph.works) >= COMPACT_FROM else ROOMY
        self.feeds = {work.name: _gathered(work.feeds) for work in graph.works}
        self.boxes: list[Box] = []
        self.lines: list[Line] = []
        self.works: dict[str, Box] = {}
        self.lanes: dict[str, float] = {}  #: of a work queue: the height of its line to the parking queue

    def run(self) -> Layout:
        graph, style = self.graph, self.style
        alternates = [each for each in graph.exchanges if each.alternate]
        x_exchange = _MARGIN + _TRACK * len(alternates)
        exchange_width = max([110.0, *(self._exchange_width(each) for each in graph.exchanges)])
        feeding = [each for each in graph.exchanges if self._fed(each)]
        tracks = x_exchange + exchange_width + 16
        labels = tracks + _TRACK * max(0, len(feeding) - 1) + 10
        keys = [width_of(shortened(feed.key, MAX_KEY), style.small) for feeds in self.feeds.values() for feed in feeds]
        x_work = labels + max([40.0, *(key + 26 for key in keys)])
        if not graph.exchanges:
            x_work = _MARGIN
        work_width = max(
            [120.0, *(self._name_width(work.name, work.depth, ", ".join(work.remarks)) for work in graph.works)]
        )
        has_retries = any(work.steps or work.native for work in graph.works)
        x_retry_rail = x_work + work_width + 36
        x_retry = x_retry_rail + 36 if has_retries else x_work + work_width
        chips = [self._chips(work) for work in graph.works]
        retry_width = max([0.0, *(width for width, _ in chips)]) if has_retries else 0.0
        if has_retries:
            retry_width = max(retry_width, width_of("RETRY QUEUES", 11) + 8)
        x_parking_rail = x_retry + retry_width + 40
        shared = [each for each in graph.parkings if self._users(each) > 1]
        x_park_tracks = x_parking_rail + 24
        x_parking = x_park_tracks + _TRACK * max(1, len(shared)) + 22
        parking_width = max([120.0, *(self._name_width(each.name, each.depth) for each in graph.parkings)])

        y = _HEAD
        for work, (chip_width, chip_rows) in zip(graph.works, chips, strict=True):
            steps = bool(work.steps or work.native)
            inner = chip_rows * (style.chip + 4) + 8 if steps else 0.0
            lane = 16.0 if steps else 0.0
            needed = max(1, len(self.feeds[work.name])) * style.line + 6
            height = max(inner + lane, needed, style.name + (26 if work.remarks else 16))
            if steps:
                height = max(height, 30 + lane)
            box = self._work_box(work, x_work, y, work_width, height)
            self.boxes.append(box)
            self.works[work.name] = box
            self.lanes[work.name] = box.bottom - lane / 2 if steps else box.middle
            if steps:
                retry = Box(
                    kind="retry", x=x_retry, y=y, width=chip_width, height=height - lane - 2, dashed=bool(work.native)
                )
                self.boxes += (retry, *self._chip_boxes(work, retry))
                forward, back = retry.y + retry.height * 0.34, retry.y + retry.height * 0.72
                through = None if work.native else (x_retry_rail, forward)
                there = ((box.right, forward), (retry.x, forward))
                self.lines.append(Line(kind="retry", points=there, through=through))
                self.lines.append(Line(kind="back", points=((retry.x, back), (box.right, back))))
            y += height + style.gap
        rows_bottom = max(y - style.gap, _HEAD + 40)

        bottom_parking = self._parkings(shared, x_parking_rail, x_park_tracks, x_parking, parking_width)
        bottom_exchanges = self._exchanges(feeding, alternates, x_exchange, exchange_width, tracks, labels)
        bottom = max(rows_bottom, bottom_parking, bottom_exchanges)
        rails = [Rail(kind="parking", x=x_parking_rail, top=_HEAD - 14, bottom=bottom, name=graph.parking_exchange)]
        if any(work.steps for work in graph.works):
            rails.insert(
                0, Rail(kind="retry", x=x_retry_rail, top=_HEAD - 14, bottom=bottom, name=graph.retry_exchange)
            )
        headings = [(x_exchange, "EXCHANGES")] if graph.exchanges else []
        headings.append((x_work, "WORK QUEUES"))
        if has_retries:
            headings.append((x_retry, "RETRY QUEUES"))
        headings.append((x_parking, "PARKING QUEUES"))
        rail_end = x_parking_rail + width_of(graph.parking_exchange, 10) / 2
        return Layout(
            style=style,
            width=max(x_parking + parking_width, rail_end) + _MARGIN,
            height=bottom + 66,
            boxes=tuple(self.boxes),
            lines=tuple(self.lines),
            rails=tuple(rails),
            headings=tuple(headings),
            legend_y=bottom + 36,
        )

    # -- sizes

    def _name_width(self, name: str, depth: int | None, remarks: str = "") -> float:
        badge = 0.0 if depth is None else width_of(f"{depth:,}", self.style.small) + 22
        text = width_of(shortened(name, MAX_NAME), self.style.name)
        return max(text, width_of(remarks, self.style.small)) + 22 + badge

    def _exchange_width(self, exchange: ExchangeNode) -> float:
        return max(self._name_width(exchange.name, None), width_of(_kind(exchange), self.style.small) + 22)

    def _chip_texts(self, work: WorkNode) -> list[tuple[str, str]]:
        if work.native:
            return [(work.native, "RabbitMQ delays these itself")]
        texts = []
        for step in work.steps:
            several = f" x{len(step.queues)}" if len(step.queues) > 1 else ""
            texts.append((f"{step.delay}{several}{messages(step.depth)}", ", ".join(step.queues)))
        return texts

    def _chip_rows(self, work: WorkNode) -> list[list[tuple[str, str]]]:
        """Return the texts and titles of chips, a list for each line of them."""
        texts, per_line = self._chip_texts(work), self.style.per_line
        return [texts[start : start + per_line] for start in range(0, len(texts), per_line)]

    def _chips(self, work: WorkNode) -> tuple[float, int]:
        """Return the width of the box around the chips, and how many lines of chips it has."""
        rows = self._chip_rows(work)
        widths = [sum(self._chip_width(text) + 5 for text, _ in row) + 7 for row in rows]
        return max(widths, default=0.0), len(rows)

    def _chip_width(self, text: str) -> float:
        return width_of(text, self.style.small) + 12

    # -- boxes

    def _work_box(self, work: WorkNode, x: float, y: float, width: float, height: float) -> Box:
        texts = [("name", shortened(work.name, MAX_NAME))]
        if work.remarks:
            texts.append(("small", ", ".join(work.remarks)))
        return Box(
            kind="work",
            x=x,
            y=y,
            width=width,
            height=height,
            lines=tuple(texts),
            title=work.name,
            badge=_badge(work.depth),
            dashed="external" in work.remarks or "existing" in work.remarks,
        )

    def _chip_boxes(self, work: WorkNode, retry: Box) -> Iterator[Box]:
        style, rows = self.style, self._chip_rows(work)
        y = retry.y + (retry.height - len(rows) * (style.chip + 4) + 4) / 2
        for row in rows:
            x = retry.x + 6
            for text, title in row:
                width = self._chip_width(text)
                yield Box(kind="chip", x=x, y=y, width=width, height=style.chip, lines=(("small", text),), title=title)
                x += width + 5
            y += style.chip + 4

    def _parkings(self, shared: Sequence[ParkingNode], rail: float, tracks: float, x: float, width: float) -> float:
        height = self.style.name + 14
        track_of = {each.name: tracks + _TRACK * position for position, each in enumerate(shared)}
        free, bottom = _HEAD - 8, 0.0
        for parking in self.graph.parkings:
            users = [work.name for work in self.graph.works if work.parking == parking.name]
            ys = [self.lanes[name] for name in users]
            wanted = (min(ys) + max(ys)) / 2
            y = max(wanted - height / 2, free)
            free, bottom = y + height + 4, y + height
            box = Box(
                kind="parking",
                x=x,
                y=y,
                width=width,
                height=height,
                lines=(("name", shortened(parking.name, MAX_NAME)),),
                title=parking.name,
                badge=_badge(parking.depth),
            )
            self.boxes.append(box)
            track = track_of.get(parking.name, x - 16)
            for name in users:
                lane = self.lanes[name]
                aligned = abs(lane - box.middle) < 0.5
                end = lane if aligned else box.middle
                bend = () if aligned else ((track, lane), (track, end))
                points = ((self.works[name].right, lane), *bend, (box.x, end))
                self.lines.append(Line(kind="park", points=points, through=(rail, lane)))
        return bottom

    def _exchanges(
        self,
        feeding: Sequence[ExchangeNode],
        alternates: Sequence[ExchangeNode],
        x: float,
        width: float,
        tracks: float,
        labels: float,
    ) -> float:
        height = self.style.name + self.style.small + 18
        ports = dict(self._ports())
        wanted: dict[str, float] = {}
        for exchange in self.graph.exchanges:
            ys = [y for name, _, y in ports.get(exchange.name, ())]
            wanted[exchange.name] = (min(ys) + max(ys)) / 2 if ys else 1e9
        placed: dict[str, Box] = {}
        free = _HEAD
        order = sorted(self.graph.exchanges, key=lambda each: wanted[each.name])
        for exchange in order:
            y = free if wanted[exchange.name] > 1e8 else max(free, wanted[exchange.name] - height / 2)
            free = y + height + 16
            box = Box(
                kind="exchange",
                x=x,
                y=y,
                width=width,
                height=height,
                lines=(("name", shortened(exchange.name, MAX_NAME)), ("small", _kind(exchange))),
                title=exchange.name,
                dashed=exchange.external,
            )
            placed[exchange.name] = box
            self.boxes.append(box)
        by_height = sorted(feeding, key=lambda each: placed[each.name].middle)
        for position, exchange in enumerate(by_height):
            track, box = tracks + _TRACK * (len(by_height) - 1 - position), placed[exchange.name]
            for _, feed, y in ports[exchange.name]:
                target = next(work for work in self.works.values() if work.y <= y <= work.bottom)
                begin = y if abs(y - box.middle) < 0.5 else box.middle
                bend = () if begin == y else ((track, begin), (track, y))
                self.lines.append(
                    Line(
                        kind="feed",
                        points=((box.right, begin), *bend, (target.x, y)),
                        label=shortened(feed.key, MAX_KEY),
                        label_at=(labels + 4, y - 3),
                        title=feed.key,
                    )
                )
        for position, exchange in enumerate(alternates):
            source, target = placed[exchange.name], placed[str(exchange.alternate)]
            track = x - 8 - _TRACK * position
            self.lines.append(
                Line(
                    kind="alternate",
                    points=(
                        (source.x, source.middle + 5),
                        (track, source.middle + 5),
                        (track, target.middle - 5),
                        (target.x, target.middle - 5),
                    ),
                    title=f"unroutable messages of {exchange.name}",
                )
            )
        return max((box.bottom for box in placed.values()), default=0.0)

    def _ports(self) -> Iterator[tuple[str, list[tuple[str, Feed, float]]]]:
        found: dict[str, list[tuple[str, Feed, float]]] = {}
        for name, box in self.works.items():
            feeds = self.feeds[name]
            for position, feed in enumerate(feeds):
                # a little lower than even, for labels stand above their lines
                y = box.y + (position + 0.5) * box.height / len(feeds) + (3 if len(feeds) > 1 else 0)
                found.setdefault(feed.exchange, []).append((name, feed, y))
        yield from found.items()

    def _fed(self, exchange: ExchangeNode) -> bool:
        return any(feed.exchange == exchange.name for feeds in self.feeds.values() for feed in feeds)

    def _users(self, parking: ParkingNode) -> int:
        return sum(1 for work in self.graph.works if work.parking == parking.name)


def _gathered(feeds: Sequence[Feed]) -> list[Feed]:
    """Gather the bindings to draw, by exchange; of many to one exchange the first, and how many more."""
    by_exchange: dict[str, list[Feed]] = {}
    for feed in feeds:
        by_exchange.setdefault(feed.exchange, []).append(feed)
    drawn: list[Feed] = []
    for exchange, each in by_exchange.items():
        if len(each) <= _FEEDS:
            drawn += each
        else:
            drawn += each[: _FEEDS - 1]
            drawn.append(Feed(exchange=exchange, key=f"and {len(each) - _FEEDS + 1} more"))
    return drawn


def _kind(exchange: ExchangeNode) -> str:
    return ", ".join(each for each in (exchange.kind, "external" if exchange.external else "") if each)


def _badge(depth: int | None) -> str:
    return "" if depth is None else f"{depth:,}"
