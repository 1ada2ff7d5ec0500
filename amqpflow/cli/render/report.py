"""What became of an apply, for people: what was done, what failed, what remains."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from amqpflow.cli.safe import safe
from amqpflow.planning.changes import Change, label
from amqpflow.planning.report import ApplyReport

from .colors import paint


def stopped_text(report: ApplyReport, *, color: bool) -> str:
    """The account of an apply that did not get to its end."""
    return "\n".join(_lines(report, color))


def _lines(report: ApplyReport, color: bool) -> Iterator[str]:
    yield from _listed("Done", report.done, paint("+", "green", color))
    if report.failed is not None:
        yield "Failed:"
        yield f"  {paint('!', 'red', color)} {safe(label(report.failed.change))}: {safe(report.failed.reason)}"
    if report.interrupted is not None:
        yield "Under way when it was stopped, may be done or not:"
        yield f"  {paint('?', 'yellow', color)} {safe(label(report.interrupted))}"
    yield from _listed("Not begun", report.remaining, " ")


def _listed(title: str, changes: Iterable[Change], symbol: str) -> Iterator[str]:
    each = list(changes)
    if each:
        yield f"{title}:"
        yield from (f"  {symbol} {safe(label(change))}" for change in each)
