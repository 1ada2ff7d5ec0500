"""Which change of what works on a queue makes RabbitMQ drop or move messages that are in it.

What works before and after decides, and counts say how many (facts 4.11, 5.3, 5.6, 8.9, 11.6f and 11.27):

- `max-length` or `max-length-bytes` appears or shrinks, or the overflow of a limited queue becomes `drop-head`: of what
  is ready the oldest beyond the limit leave at once, dead-lettered at most once or deleted; of what is unacked, when it
  comes back. On a quorum queue with `reject-publish-dlx` as well; with `reject-publish`, and on a classic queue with
  `reject-publish-dlx`, all stay.
- At-least-once ends, since the strategy, the dead-letter exchange or overflow `reject-publish` goes, or another policy
  works: what RabbitMQ retains is deleted, at once and without a trace. With another target it goes there.
- `expires` appears or shrinks: an unused queue is deleted with its messages.
- `message-ttl`, `delivery-limit`, `consumer-timeout` and `delayed-retry-*`: all stay. They keep their deadlines, and
  the new limit counts at their next return.

On a quorum queue of RabbitMQ 4.3 a length that is below the number of delayed messages stops the queue for good
(fact 8.14).
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import replace

from amqpflow.model.resources import BrokerState
from amqpflow.model.units import plural
from amqpflow.planning.policies.effective import Effective, effective
from amqpflow.planning.policies.index import ByName, covered
from amqpflow.planning.policies.precedence import is_number
from amqpflow.planning.values.approvals import Approval, Approvals, allow_flag
from amqpflow.planning.values.changes import Change, CreateQueue, DeleteQueue, PutPolicy, RemovePolicy
from amqpflow.planning.values.findings import Finding, Ref, refuse, warn
from amqpflow.planning.values.observation import Depth, Observation
from amqpflow.planning.values.queue_risk import QueueRisk, Risk

_LENGTHS = (Risk.LENGTH, Risk.BYTES)


def with_risks(
    changes: Sequence[Change], observed: Observation, approvals: Approvals, topology: str
) -> tuple[Change, ...]:
    """Return the changes of a plan, each that writes or removes a policy with what it puts at stake.

    Each is judged by the policies that are there when its turn comes. `topology` is whose policies are ours.
    """
    changing = [each for each in changes if isinstance(each, PutPolicy | RemovePolicy)]
    if not changing:
        return tuple(changes)
    state = observed.state
    names = {each.name for each in changing}
    untouched = ByName(each for each in state.policies.values() if each.name not in names)
    now = {name: policy for name, policy in state.policies.items() if name in names}
    operators = ByName(state.operator_policies.values())
    losing = {each.name for each in changes if isinstance(each, DeleteQueue) and each.forced}
    by_name, targets, version = dict(state.queues), {*state.queues}, observed.version
    result: list[Change] = []
    for change in changes:
        if not isinstance(change, PutPolicy | RemovePolicy):
            if isinstance(change, CreateQueue):
                targets.add(change.name)
            elif isinstance(change, DeleteQueue):
                by_name.pop(change.name, None)
            result.append(change)
            continue
        earlier = ByName(now.values())
        if isinstance(change, PutPolicy):
            touched = [change.policy, *([now[change.name]] if change.name in now else ())]
            now[change.name] = change.policy
        else:
            touched = [now.pop(change.name, change.policy)]
        later = ByName(now.values())
        found: list[QueueRisk] = []
        queues = {each.name: each for policy in touched for each in covered(policy, by_name, version)}
        for queue in queues.values():
            if queue.name in losing:
                continue
            before, after = (
                effective(
                    queue,
                    [*untouched.near(queue.name), *each.near(queue.name)],
                    operators.near(queue.name),
                    version=version,
                    topology=topology,
                )
                for each in (earlier, later)
            )
            allowed = Approval("drop", Ref("queue", queue.name)) in approvals
            found += (replace(each, allowed=allowed) for each in stakes(before, after, state, targets))
        result.append(replace(change, at_stake=tuple(found)))
    return tuple(result)


def stakes(before: Effective, after: Effective, there: BrokerState, queues: Container[str]) -> Iterator[QueueRisk]:
    """Say what a change puts at stake in one queue. Where policies share a priority, the worse is assumed.

    `queues` are the names of those that are there when the change is made: dead letters may go to one.
    """
    queue = after.queue
    delays = queue.type == "quorum" and any(_delays(each) for each in (before, after))
    if _may_retain(before) and not after.at_least_once:
        yield QueueRisk(queue=queue.name, risk=Risk.RETAINED, delays=delays)
    for risk in _LENGTHS:
        limit, was = _drops_beyond(after, risk), _surely_dropped_beyond(before, risk)
        if limit is not None and (was is None or limit < was):
            target = _target(after, there, queues)
            yield QueueRisk(queue=queue.name, risk=risk, before=was, after=limit, target=target, delays=delays)
    expires = _numbers(after, Risk.EXPIRES)
    already = _numbers(before, Risk.EXPIRES)
    if expires and (not already or min(expires) < max(already)):
        was = max(already) if already else None
        yield QueueRisk(queue=queue.name, risk=Risk.EXPIRES, before=was, after=min(expires), delays=delays)


def _may_retain(works: Effective) -> bool:
    """Return whether at-least-once may work: it is asked for, even where it should have no effect."""
    setting = works.settings.get("dead-letter-strategy")
    asked = () if setting is None else (*setting.possible, *setting.overruled)
    return works.queue.type == "quorum" and any(each.value == "at-least-once" for each in asked)


def _delays(works: Effective) -> bool:
    return works.value("delayed-retry-type") is not None


def _numbers(works: Effective, key: str) -> list[int]:
    setting = works.settings.get(key)
    return [each.value for each in setting.possible if is_number(each.value)] if setting is not None else []


def _dropping(works: Effective) -> list[bool]:
    """Return for each overflow that may work whether a full queue drops its head (fact 4.12)."""
    setting = works.settings.get("overflow")
    kept = ("reject-publish",) if works.queue.type == "quorum" else ("reject-publish", "reject-publish-dlx")
    return [each.value not in kept for each in setting.possible] if setting is not None else [True]


def _drops_beyond(works: Effective, key: str) -> int | None:
    """Return the smallest limit beyond which messages may be dropped, None when none is."""
    return min(_numbers(works, key), default=None) if any(_dropping(works)) else None


def _surely_dropped_beyond(works: Effective, key: str) -> int | None:
    """Return the largest limit that may have worked, None when it is not certain that any did."""
    setting = works.settings.get(key)
    numbers = _numbers(works, key)
    certain = setting is not None and len(numbers) == len(setting.possible) and all(_dropping(works))
    return max(numbers) if certain and numbers else None


def _target(works: Effective, there: BrokerState, queues: Container[str]) -> str:
    """Return where the dead letters of a queue go, "" when they are deleted."""
    exchange, key = works.value("dead-letter-exchange"), works.value("dead-letter-routing-key")
    if exchange is None:
        return ""
    if exchange == "":
        return f"queue {key}" if key in queues else ""
    if exchange not in there.exchanges:
        return ""
    bound = sorted(
        each.destination
        for each in there.bindings
        if each.source == exchange and each.destination_type == "queue" and each.routing_key == key
    )
    return f"queue {bound[0]}" if len(bound) == 1 else f"exchange {exchange}"


def leaving(stake: QueueRisk, depth: Depth | None) -> int | None:
    """Return how many messages leave the queue with the change: at most 9 s ago, by statistics. None: not known.

    What is unacked does not count for a length until it comes back, and goes then (fact 6.20).
    """
    if depth is None:
        return None
    match stake.risk:
        case Risk.RETAINED:
            # of totals all that hides may be retained
            return depth.hidden if depth.retained is None else depth.retained
        case Risk.EXPIRES:
            return depth.messages
        case Risk.LENGTH:
            delayed = _delayed(stake, depth)
            if depth.ready is None or stake.after is None:
                return None
            held = depth.ready + (depth.unacked or 0)
            if held and delayed is None:
                return None
            beyond = min(held, max(0, held + (delayed or 0) - stake.after))
            return None if depth.unacked is None and not beyond else beyond
        case Risk.BYTES:
            if depth.ready == 0 == depth.unacked:
                return 0
            if depth.ready is None or depth.ready_bytes is None or stake.after is None:
                return None
            held, size = depth.ready + (depth.unacked or 0), depth.ready_bytes + (depth.unacked_bytes or 0)
            surplus = size - stake.after
            if surplus > 0:
                return min(held, -(-surplus * held // size))
            return None if depth.unacked is None or depth.unacked_bytes is None else 0


def _delayed(stake: QueueRisk, depth: Depth) -> int | None:
    if not stake.delays:
        return 0
    return depth.hidden if depth.delayed is None else depth.delayed


def objection(stake: QueueRisk, depth: Depth | None, *, counted: bool) -> Finding | None:
    """Return what speaks against a change, for one queue: a refusal, a warning, or nothing.

    While planning, `counted` is False: what cannot be counted yet is counted again before the change is made.
    """
    count = leaving(stake, depth)
    ref = Ref("queue", stake.queue)
    if stake.risk is Risk.RETAINED:
        return _of_retained(ref, stake, count, counted)
    delayed = _delayed(stake, depth) if depth is not None else None
    if stake.risk is Risk.LENGTH and stake.after is not None and (delayed or 0) > stake.after:
        return refuse(
            "limit-below-delayed",
            ref,
            f"max-length becomes {stake.after}, and RabbitMQ delays {delayed} of its messages for a retry: a quorum "
            "queue of RabbitMQ 4.3 stops working for good when its limit is below that number",
            "wait until they have returned, or raise the limit",
        )
    text = sentence(stake, count, depth)
    flag = allow_flag(Approval("drop", ref))
    code = "expires-shrinks" if stake.risk is Risk.EXPIRES else "limit-shrinks"
    if stake.allowed or (count == 0 and stake.risk is not Risk.EXPIRES) or (count is None and not counted):
        return warn(code, ref, text)
    if stake.risk is Risk.EXPIRES:
        return refuse(code, ref, text, f"leave expires out, or add {flag}")
    return refuse(code, ref, text, f"consume them first, raise the limit, or add {flag}")


def _of_retained(ref: Ref, stake: QueueRisk, count: int | None, counted: bool) -> Finding | None:
    ends = "at-least-once dead-lettering ends with this change, and RabbitMQ then deletes what it retains for a target"
    if count:
        held = "retains or delays" if stake.delays else "retains"
        return refuse(
            "retained-lost",
            ref,
            f"{ends}: {plural(count, 'message')} that it {held} (messages_dlx)",
            "repair their target first: RabbitMQ tries again every 3 minutes",
        )
    if count is None and counted and not stake.allowed:
        return refuse(
            "retained-lost",
            ref,
            f"{ends}: how many messages that is cannot be read (messages_dlx)",
            f"see that the management API has statistics of this queue, or add {allow_flag(Approval('drop', ref))}",
        )
    return None


def sentence(stake: QueueRisk, count: int | None, depth: Depth | None = None) -> str:
    """Say what happens to messages: max-length becomes 5 (20 before): the 95 oldest messages are deleted at once."""
    if stake.risk is Risk.RETAINED:
        return "those that RabbitMQ retains for a target would be deleted (fact 4.11): refused while there are any"
    was = "nothing was dropped before" if stake.before is None else f"{stake.before} before"
    head = f"{stake.risk} becomes {stake.after} ({was})"
    if stake.risk is Risk.EXPIRES:
        held = "all its messages" if count is None else f"its {plural(count, 'message')}"
        return f"{head}: when it is unused for that many ms, RabbitMQ deletes the queue with {held}"
    gone = f"dead-lettered to {stake.target} at once (at most once)" if stake.target else "deleted at once"
    if count == 0:
        return f"{head}: no message is beyond that now; if more arrive, the oldest are {gone}"
    if count is None:
        return f"{head}: the oldest beyond that are {gone}; how many these are is not known yet"
    many = f"the {count} oldest messages are" if count != 1 else "the oldest message is"
    unacked = (depth.unacked or 0) if depth is not None else 0
    later = f"; unacked ones, {unacked} now, count too and go when they come back" if unacked else ""
    return f"{head}: {many} {gone}{later}"


def objections(changes: Iterable[Change], observed: Observation) -> tuple[Finding, ...]:
    """Return what speaks against the changes of a plan, by what was counted; queues that lose nothing at once."""
    found: list[Finding] = []
    quiet: dict[str, list[str]] = {}
    for change in changes:
        if not isinstance(change, PutPolicy | RemovePolicy):
            continue
        for stake in change.at_stake:
            depth = observed.depths.get(stake.queue)
            finding = objection(stake, depth, counted=False)
            if finding is None:
                continue
            if finding.code == "limit-shrinks" and leaving(stake, depth) == 0:
                names = quiet.setdefault(finding.message, [])
                if stake.queue not in names:
                    names.append(stake.queue)
            else:
                found.append(finding)
    found += (warn("limit-shrinks", Ref.of("queue", names), text) for text, names in quiet.items())
    return tuple(dict.fromkeys(found))


def at_stake(changes: Iterable[Change]) -> Iterator[QueueRisk]:
    """Yield everything that the changes of a plan put at stake."""
    for change in changes:
        if isinstance(change, PutPolicy | RemovePolicy):
            yield from change.at_stake
