"""Show what a replay will do, and what it did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from amqpflow.cli.safe import safe, said
from amqpflow.parking.journal import OLD_VERSION, JournalState, Key
from amqpflow.services.replaying.plan import Group, ReplayPlan
from amqpflow.services.replaying.report import ReplayReport

from .values import picked, rfc3339

_NAMED = 10  #: messages left behind that are listed
_SHOWN = 30  #: groups, of which -o json has all
_NOT_FOR_PEOPLE = ("now", "set_headers_digest")


def plan_lines(plan: ReplayPlan, *, keep_attempts: bool) -> Iterator[str]:
    """Yield what would be replayed."""
    queue, parking = safe(plan.queue), safe(plan.parking_queue)
    if not plan.selected:
        yield f"Nothing to replay: {parking} holds no message of {queue} that is selected."
    else:
        to = plan.destinations[0][0] if len(plan.destinations) == 1 else "where they failed"
        yield f"{_messages(plan.selected)} from {parking} to {safe(to)}:"
        yield from _groups(plan.groups)
        if len(plan.destinations) > 1:
            yield from (f"  to {safe(label)}: {count}" for label, count in plan.destinations)
        if keep_attempts:
            yield "amqpflow continues to count their attempts."
        else:
            yield "amqpflow counts their attempts from 1 again; the history stays."
        for name, count in plan.counters:
            yield f"  {count} carry a counter of another framework, {safe(name)}: it continues where it stopped."
    if plan.others:
        yield f"{_messages(plan.others)} of other work queues or not selected, not touched."
    yield from _misplaced(plan.misplaced, parking)
    yield from _unknown_origin(plan.unknown_origin, parking)
    if plan.ended_early:
        yield f"Not all of {parking} was read: {said(plan.ended_early)}."


def report_lines(report: ReplayReport) -> Iterator[str]:
    """Yield what was replayed, and what was not and why."""
    rate = f", {report.replayed / report.seconds:.0f} a second" if report.replayed > 1 and report.seconds > 0 else ""
    yield f"Replayed {_messages(report.replayed)} to {safe(report.to or report.queue)} in {report.seconds:.1f} s{rate}."
    yield from _groups(report.groups.most_common())
    if report.already:
        yield f"Sent by an interrupted replay before, now taken out of the parking queue: {report.already}"
    if report.sent_again:
        yield f"In doubt since an interrupted replay, sent again with the same hop id: {report.sent_again}"
    if report.failed:
        yield f"Still parked, not sent: {report.failed}"
    if report.in_doubt:
        to = safe(report.to or report.queue)
        yield f"Still parked, and perhaps in {to} too, with the same hop id: {report.in_doubt}"
    for each in report.left_behind[:_NAMED]:
        yield f"  {each.id}  {safe(each.message_id or '(no message id)')}: {said(each.why)}"
    if report.failed + report.in_doubt > _NAMED:
        yield f"  ... and {report.failed + report.in_doubt - _NAMED} more"
    if report.came_back:
        yield f"Parked again since: {report.came_back}"
    yield from _misplaced(report.misplaced, safe(report.parking_queue))
    yield from _unknown_origin(report.unknown_origin, safe(report.parking_queue))
    if report.remaining is not None:
        yield f"{_messages(report.remaining)} in {safe(report.parking_queue)} now."
    if report.journal:
        yield f"Replay {safe(report.replay_id)}; its journal is {safe(report.journal)}"


def history_lines(states: Sequence[JournalState]) -> Iterator[str]:
    """Yield `replay --history`: the replays, oldest first."""
    if not states:
        yield "No replays."
    for state in states:
        head = state.head
        asked = " ".join(
            f"{name}={_words(value)}"
            for name, value in {**head.selection, **head.options}.items()
            if name not in _NOT_FOR_PEOPLE
        )
        yield (
            f"{safe(head.id)}  {rfc3339(head.at)}  {safe(head.by)}  {safe(head.topology)}  "
            f"{safe(head.queue or 'all queues')}{f'  {safe(asked)}' if asked else ''}"
        )
        yield f"  {_outcome(state)}"


def _outcome(state: JournalState) -> str:
    sent = f"sent {state.sent}, confirmed {state.confirmed}"
    if state.end is None:
        unproven = f", acks not proven {len(state.leaving)}" if state.leaving else ""
        resume = f"amqpflow replay FILE --resume {state.head.id}" if state.head.version != OLD_VERSION else "old format"
        return f"interrupted: {sent}, in doubt {len(state.in_doubt)}{unproven}; {resume}"
    if by := state.end.get("finished_by"):
        return f"interrupted, and finished by {safe(str(by))}: {sent}"
    why = state.end.get("stopped") or ("Ctrl-C" if state.end.get("interrupted") else "")
    left = f", left {state.left}, in doubt {len(state.in_doubt)}" if state.left or state.in_doubt else ""
    return f"{'complete' if state.is_complete else 'not complete'}: {sent}{left}{f'; {safe(str(why))}' if why else ''}"


def _words(value: object) -> str:
    if isinstance(value, dict):
        return str(value.get("label") or "")
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def history_object(state: JournalState) -> dict[str, Any]:
    """Return one replay of `replay --history -o json`."""
    head = state.head
    return {
        "id": head.id,
        "at": rfc3339(head.at),
        **picked(head, "by", "topology", "vhost"),
        "cluster": head.cluster or None,
        "parking_queues": list(head.parking_queues),
        "queue": head.queue,
        "selection": dict(head.selection),
        "options": dict(head.options),
        "version": head.written_by,
        "resumed": [{"at": rfc3339(each["resumed"]), "by": each["by"]} for each in state.resumed],
        **picked(state, "sent", "confirmed", "left"),
        "in_doubt": _keys(state.in_doubt),
        "unacked": _keys(state.unacked),
        "unproven": _keys(state.leaving),
        "complete": state.is_complete,
        "end": dict(state.end) if state.end is not None else None,
    }


def _keys(messages: Mapping[int, Key]) -> list[dict[str, Any]]:
    return [{"number": number, "hop": hop} for number, (hop, _) in messages.items()]


def _misplaced(count: int, parking: str) -> Iterator[str]:
    if count:
        yield (
            f"{_messages(count)} in {parking} of work queues that do not park there; no replay takes "
            f"{'it' if count == 1 else 'them'}. `amqpflow parked list --queue {parking}` shows which."
        )


def _unknown_origin(count: int, parking: str) -> Iterator[str]:
    if count == 1:
        yield (
            f"1 message in {parking} does not say where it failed, and stays parked. --origin QUEUE asserts its work "
            "queue, --to sends it elsewhere."
        )
    elif count:
        yield (
            f"{count} messages in {parking} do not say where they failed, and stay parked. --origin QUEUE asserts "
            "their work queue, --to sends them elsewhere."
        )


def _groups(groups: Sequence[tuple[Group, int]]) -> Iterator[str]:
    wide = max((len(str(count)) for _, count in groups), default=0)
    for (reason, what), count in groups[:_SHOWN]:
        yield f"  {count:>{wide}}  {safe(reason)}{f': {safe(what)}' if what else ''}"
    if len(groups) > _SHOWN:
        yield f"  {sum(count for _, count in groups[_SHOWN:]):>{wide}}  of {len(groups) - _SHOWN} more kinds"


def _messages(count: int) -> str:
    return "1 message" if count == 1 else f"{count} messages"
