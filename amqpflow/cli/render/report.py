"""Show the result of an apply: what was done, what failed, what remains."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from amqpflow.cli.safe import safe, said
from amqpflow.model.units import format_duration
from amqpflow.planning.values.apply_report import ApplyReport
from amqpflow.planning.values.changes import Change, Drain, label

from .colors import paint


def stopped_text(report: ApplyReport, *, color: bool) -> str:
    """Return what an apply did before it was stopped."""
    return "\n".join(_lines(report, color))


def postponed_text(report: ApplyReport) -> str:
    """Return what waits for messages to leave retry queues, and when to apply again."""
    now_ms = int(time.time() * 1000)
    waiting = [(each.change, each.messages) for each in report.postponed if isinstance(each.change, Drain)]
    lines = ["Left for the next time:"]
    for drain, messages in waiting:
        count = "an unknown number of" if messages is None else messages
        held = f"{count} message{'s' * (messages != 1)} still to return to {drain.returns_to}"
        lines.append(f"  {safe(label(drain))}: {safe(held)}")
    if rest := len(report.postponed) - len(waiting):
        lines.append(f"  and {rest} step{'s' * (rest != 1)} that wait{'s' * (rest == 1)} for that")
    due = report.due_ms(now_ms)
    if due is not None:
        left = format_duration(max(0, due - now_ms + 999) // 1000 * 1000)
        when = datetime.fromtimestamp(due / 1000, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        soon = f"from {when} on, in {left}" if due > now_ms else "now"
        lines.append(f"Run the same command again {soon}, or with --wait.")
    return "\n".join(lines)


def _lines(report: ApplyReport, color: bool) -> Iterator[str]:
    yield from _listed("Done", report.done, paint("+", "green", color))
    if report.failed is not None:
        yield "Failed:"
        yield f"  {paint('!', 'red', color)} {safe(label(report.failed.change))}: {said(report.failed.reason)}"
    if report.interrupted:
        yield "Under way when it was stopped, may be done or not:"
        for change in report.interrupted:
            yield f"  {paint('?', 'yellow', color)} {safe(label(change))}"
    yield from _listed("Not begun", report.remaining, " ")


def _listed(title: str, changes: Iterable[Change], symbol: str) -> Iterator[str]:
    each = list(changes)
    if each:
        yield f"{title}:"
        yield from (f"  {symbol} {safe(label(change))}" for change in each)
