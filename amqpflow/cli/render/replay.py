"""A replay for people: what it will do, and what it did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from amqpflow.cli.safe import safe
from amqpflow.services.replay_plan import Group, ReplayPlan
from amqpflow.services.replay_report import ReplayReport

_NAMED = 10  #: messages left behind that are listed


def plan_lines(plan: ReplayPlan, *, keep_attempts: bool) -> Iterator[str]:
    """What would be replayed."""
    queue, parking = safe(plan.queue), safe(plan.parking_queue)
    if not plan.selected:
        yield f"Nothing to replay: {parking} holds no message of {queue}."
    else:
        yield f"{_messages(plan.selected)} from {parking} to {queue}, oldest first:"
        yield from _groups(plan.groups)
        yield "Their attempts go on counting." if keep_attempts else "Their attempts begin anew; the history stays."
    if plan.others:
        yield f"{_messages(plan.others)} of other work queues, or whose origin is not known, not touched."
    yield from _misplaced(plan.misplaced, parking)
    if plan.ended_early:
        yield f"Not all of {parking} was read: {safe(plan.ended_early)}."


def report_lines(report: ReplayReport) -> Iterator[str]:
    """What was replayed, and what was not and why."""
    rate = f", {report.replayed / report.seconds:.0f} a second" if report.replayed > 1 and report.seconds > 0 else ""
    yield f"Replayed {_messages(report.replayed)} to {safe(report.queue)} in {report.seconds:.1f} s{rate}."
    yield from _groups(report.groups.most_common())
    if report.failed:
        yield f"Still parked, not sent: {report.failed}"
    if report.in_doubt:
        yield f"Still parked, and perhaps in {safe(report.queue)} too, with the same hop id: {report.in_doubt}"
    for each in report.left_behind[:_NAMED]:
        yield f"  {each.id}  {safe(each.message_id or '(no message id)')}: {safe(each.why)}"
    if report.failed + report.in_doubt > _NAMED:
        yield f"  ... and {report.failed + report.in_doubt - _NAMED} more"
    if report.came_back:
        yield f"Failed again while the replay went on: {report.came_back}"
    yield from _misplaced(report.misplaced, safe(report.parking_queue))
    if report.remaining is not None:
        yield f"{_messages(report.remaining)} in {safe(report.parking_queue)} now."


def _misplaced(count: int, parking: str) -> Iterator[str]:
    if count:
        yield (
            f"{_messages(count)} in {parking} of work queues that are not parked there, so that no replay takes "
            f"{'it' if count == 1 else 'them'}. `amqpflow parked list --queue {parking}` shows which."
        )


def _groups(groups: Sequence[tuple[Group, int]]) -> Iterator[str]:
    wide = max((len(str(count)) for _, count in groups), default=0)
    for (reason, what), count in groups:
        yield f"  {count:>{wide}}  {safe(reason)}{f': {safe(what)}' if what else ''}"


def _messages(count: int) -> str:
    return "1 message" if count == 1 else f"{count} messages"
