"""The parts of a layout: boxes, lines between them, rails that lines go through. All in pixels."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """Sizes in pixels."""

    name: float
    small: float
    line: float  #: of bindings
    gap: float  #: between rows
    chip: float  #: height
    per_line: int  #: chips


ROOMY = Style(name=13, small=11, line=20, gap=22, chip=22, per_line=5)
COMPACT = Style(name=12, small=10, line=17, gap=9, chip=18, per_line=8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A rectangle with text."""

    kind: str  #: exchange, work, retry, parking, chip
    x: float
    y: float
    width: float
    height: float
    lines: tuple[tuple[str, str], ...] = ()  #: class (name, small) and text
    title: str = ""  #: the whole text, where it was shortened
    badge: str = ""  #: messages
    dashed: bool = False

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height

    @property
    def middle(self) -> float:
        return self.y + self.height / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of horizontal and vertical parts, with an arrow at its end."""

    kind: str  #: feed, retry, back, park, alternate
    points: tuple[tuple[float, float], ...]
    label: str = ""
    label_at: tuple[float, float] = (0, 0)
    title: str = ""
    through: tuple[float, float] | None = None  #: where it goes through an exchange
    arrow: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Rail:
    """An exchange of amqpflow's own, as an upright line that publishes go through."""

    kind: str
    x: float
    top: float
    bottom: float
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A layout. Boxes do not overlap, and no line crosses a box."""

    style: Style
    width: float
    height: float
    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]
    rails: tuple[Rail, ...]
    headings: tuple[tuple[float, str], ...]
    legend_y: float
