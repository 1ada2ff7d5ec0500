"""A layout as SVG: one file, no script, no font, readable on light and on dark pages, with a description."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .graph import Graph
from .layout import lay_out
from .measure import width_of
from .shapes import Box, Layout, Line, Rail

_LIGHT_TEXT = {"page": "#ffffff", "text": "#1c2733", "dim": "#5c6975", "line": "#7c8894"}
_LIGHT = {
    "exchange": ("#e7edfd", "#4263eb"),
    "work": ("#e5f5ea", "#2b8a3e"),
    "retry": ("#fff6e6", "#d9770a"),
    "parking": ("#fde8e8", "#c92a2a"),
    "chip": ("#ffe2b0", "#ffe2b0"),
}
_DARK_TEXT = {"page": "#12171d", "text": "#e7ebef", "dim": "#9aa7b3", "line": "#7f8b97"}
_DARK = {
    "exchange": ("#1d2a4d", "#748ffc"),
    "work": ("#173325", "#51cf66"),
    "retry": ("#33260f", "#ffa94d"),
    "parking": ("#3b1a1a", "#ff8787"),
    "chip": ("#5a3f10", "#5a3f10"),
}
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif"
_LEGEND = (
    ("exchange", "exchange"),
    ("work", "work queue"),
    ("retry", "retry queues, by delay"),
    ("parking", "parking queue"),
)
# what XML 1.0 cannot hold, and what turns the direction of text around
_FORBIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def render_svg(graph: Graph) -> str:
    """Render the picture as a document."""
    return "\n".join(_document(graph, lay_out(graph)))


def _document(graph: Graph, layout: Layout) -> Iterator[str]:
    legend = list(_legend(layout))
    width = max(layout.width, legend[-1][0], width_of(_title(graph), 17) + 48)
    size = f'width="{_n(width)}" height="{_n(layout.height)}" viewBox="0 0 {_n(width)} {_n(layout.height)}"'
    yield f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title description">'
    yield f'<title id="title">{_escaped(_title(graph))}</title>'
    yield f'<desc id="description">{_escaped(_description(graph))}</desc>'
    yield f"<style>{_style(layout)}</style>"
    yield '<rect class="page" width="100%" height="100%"/>'
    yield f'<text class="title" x="24" y="32">{_escaped(_title(graph))}</text>'
    for x, heading in layout.headings:
        yield f'<text class="heading" x="{_n(x)}" y="62">{heading}</text>'
    for rail in layout.rails:
        yield from _rail(rail)
    for line in layout.lines:
        yield from _line(line)
    for box in layout.boxes:
        yield from _box(box, layout)
    for line in layout.lines:
        if line.label:
            x, y = line.label_at
            title = f"<title>{_escaped(line.title)}</title>" if line.title != line.label else ""
            yield f'<text class="key" x="{_n(x)}" y="{_n(y)}">{title}{_escaped(line.label)}</text>'
    yield from (text for _, text in legend if text)
    yield "</svg>"


def _title(graph: Graph) -> str:
    return f"Topology {graph.name}"


def _description(graph: Graph) -> str:
    works = "; ".join(
        f"{work.name}: "
        + (f"retried after {', '.join(step.delay for step in work.steps)}, " if work.steps else "")
        + f"parked in {work.parking}"
        for work in graph.works
    )
    return f"{graph.description}. {works}."


def _rail(rail: Rail) -> Iterator[str]:
    yield f'<path class="rail {rail.kind}" d="M{_n(rail.x)} {_n(rail.top)}V{_n(rail.bottom)}"/>'
    yield f'<text class="railname" x="{_n(rail.x)}" y="{_n(rail.top - 22)}">{_escaped(rail.name)}</text>'


def _line(line: Line) -> Iterator[str]:
    (x, y), *rest = line.points
    path = f"M{_n(x)} {_n(y)}" + "".join(f"L{_n(x)} {_n(y)}" for x, y in rest)
    title = f"><title>{_escaped(line.title)}</title></path>" if line.title and not line.label else "/>"
    yield f'<path class="line {line.kind}" d="{path}"{title}'
    (before, _), (end, y) = line.points[-2:]
    step = -6 if end > before else 6
    yield (
        f'<path class="head {line.kind}" d="M{_n(end)} {_n(y)}L{_n(end + step)} {_n(y - 3.5)}'
        f'L{_n(end + step)} {_n(y + 3.5)}Z"/>'
    )
    if line.through:
        x, y = line.through
        yield f'<circle class="dot {line.kind}" cx="{_n(x)}" cy="{_n(y)}" r="3.5"/>'


def _box(box: Box, layout: Layout) -> Iterator[str]:
    dashed = " dashed" if box.dashed else ""
    radius = 9 if box.kind == "chip" else 6
    yield "<g>" + (f"<title>{_escaped(box.title)}</title>" if box.title else "")
    yield (
        f'<rect class="{box.kind}{dashed}" x="{_n(box.x)}" y="{_n(box.y)}" width="{_n(box.width)}" '
        f'height="{_n(box.height)}" rx="{radius}"/>'
    )
    style = layout.style
    heights = [style.name if kind == "name" else style.small for kind, _ in box.lines]
    y = box.middle - (sum(heights) + 4 * (len(heights) - 1)) / 2
    for (kind, text), height in zip(box.lines, heights, strict=True):
        y += height
        middle = " middle" if box.kind == "chip" else ""
        x = box.x + (box.width / 2 if middle else 11)
        yield f'<text class="{kind}{middle}" x="{_n(x)}" y="{_n(y - height * 0.14)}">{_escaped(text)}</text>'
        y += 4
    if box.badge:
        width = width_of(box.badge, style.small) + 12
        x, high = box.right - width - 5, style.small + 6
        quiet = " quiet" if box.badge == "0" else ""
        yield (
            f'<rect class="badge {box.kind}{quiet}" x="{_n(x)}" y="{_n(box.middle - high / 2)}" width="{_n(width)}" '
            f'height="{_n(high)}" rx="{_n(high / 2)}"/>'
        )
        baseline = box.middle + style.small * 0.36
        yield f'<text class="small count{quiet}" x="{_n(x + width / 2)}" y="{_n(baseline)}">{box.badge}</text>'
    yield "</g>"


def _legend(layout: Layout) -> Iterator[tuple[float, str]]:
    """Yield texts, each with where it ends at the right."""
    x, y = 24.0, layout.legend_y
    for kind, text in _LEGEND:
        yield 0, f'<rect class="{kind}" x="{_n(x)}" y="{_n(y - 9)}" width="16" height="12" rx="3"/>'
        yield 0, f'<text class="small" x="{_n(x + 22)}" y="{_n(y + 1)}">{text}</text>'
        x += 22 + width_of(text, layout.style.small) + 18
    for kind, text in (("retry", "through the exchange above"), ("back", "back when its delay is over")):
        yield 0, f'<path class="line {kind}" d="M{_n(x)} {_n(y - 3)}h28"/>'
        if kind == "retry":
            yield 0, f'<circle class="dot retry" cx="{_n(x + 14)}" cy="{_n(y - 3)}" r="3.5"/>'
        yield 0, f'<text class="small" x="{_n(x + 36)}" y="{_n(y + 1)}">{text}</text>'
        x += 36 + width_of(text, layout.style.small) + 18
    yield x + 6, ""


def _style(layout: Layout) -> str:
    name, small = layout.style.name, layout.style.small
    fixed = (
        f"text{{font-family:{_FONT}}}"
        ".title{font-size:17px;font-weight:600}.heading{font-size:11px;font-weight:600;letter-spacing:.04em}"
        f".name{{font-size:{name}px}}.small{{font-size:{small}px}}.key{{font-size:{small}px}}"
        ".railname{font-size:10px;text-anchor:middle}.middle,.count{text-anchor:middle}"
        ".line{fill:none;stroke-width:1.3}.rail{fill:none;stroke-width:2;stroke-dasharray:1 5;stroke-linecap:round}"
        ".line.back,.line.alternate{stroke-dasharray:5 4}rect{stroke-width:1.2}.dashed{stroke-dasharray:4 3}"
        ".quiet{opacity:.45}"
    )
    dark = f"@media (prefers-color-scheme:dark){{{_colours(_DARK_TEXT, _DARK)}}}"
    return fixed + _colours(_LIGHT_TEXT, _LIGHT) + dark


def _colours(plain: dict[str, str], palette: dict[str, tuple[str, str]]) -> str:
    rules = [
        f".page{{fill:{plain['page']};stroke:none}}",
        f".title,.name,.small{{fill:{plain['text']}}}",
        f".heading,.key{{fill:{plain['dim']}}}",
        f".line{{stroke:{plain['line']}}}.head{{fill:{plain['line']}}}",
    ]
    for kind in ("exchange", "work", "retry", "parking", "chip"):
        fill, stroke = palette[kind]
        rules.append(f"rect.{kind}{{fill:{fill};stroke:{stroke}}}")
    rules.append(f"rect.badge{{fill:{plain['page']}}}")
    for kind, colour in (("retry", "retry"), ("back", "retry"), ("park", "parking"), ("parking", "parking")):
        stroke = palette[colour][1]
        rules.append(f".line.{kind},.rail.{kind}{{stroke:{stroke}}}.head.{kind},.dot.{kind}{{fill:{stroke}}}")
    rules.append(f".railname{{fill:{plain['dim']}}}")
    return "".join(rules)


def _escaped(text: str) -> str:
    clean = _FORBIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        clean = clean.replace(character, entity)
    return clean


def _n(number: float) -> str:
    """Format a number without digits that are not visible."""
    return f"{number:.1f}".removesuffix(".0")
