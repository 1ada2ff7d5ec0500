"""A plan for people: grouped by work queue, in Terraform's symbols, unchanged things counted only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from amqpflow.cli.safe import safe
from amqpflow.model.duration import format_duration
from amqpflow.model.routes import QueueRoutes
from amqpflow.planning.changes import (
    Bind,
    Change,
    CreateExchange,
    CreateQueue,
    DeleteExchange,
    DeleteQueue,
    Drain,
    EnsureBinding,
    PutManifest,
    PutPolicy,
    Rebind,
    RemoveManifest,
    RemovePolicy,
    Unbind,
    label,
)
from amqpflow.planning.plan import Plan
from amqpflow.planning.policies import applies

from .colors import paint
from .definition import exchange_words, policy_words, queue_words

_SYMBOLS = {
    "create": ("+", "green"),
    "update": ("~", "yellow"),
    "delete": ("-", "red"),
    "ensure": ("?", "cyan"),
    "drain": ("…", "yellow"),
}
_USED = ("=", "cyan")
_PLURALS = {
    "exchange": "exchanges",
    "queue": "queues",
    "binding": "bindings",
    "policy": "policies",
    "manifest": "manifests",
}
_DONE = {
    "create": "created",
    "update": "changed",
    "delete": "removed",
    "ensure": "bound again",
    "drain": "drained",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    action: str
    label: str  #: queue orders.confirm
    words: str = ""
    rank: int = 0  #: the place among the rows of its work queue


def plan_text(plan: Plan, *, color: bool) -> str:
    """The plan as lines: what changes, then warnings and notes."""
    lines = [safe(f"Topology {plan.topology.name} on {plan.broker}, virtual host {plan.vhost}"), ""]
    groups = [(title, rows) for title, rows in _groups(plan) if rows]
    width = min(max((len(safe(row.label)) for _, rows in groups for row in rows), default=0), 60)
    for title, rows in groups:
        lines.append(f"  {safe(title)}")
        lines += [_line(row, width, color) for row in rows]
        lines.append("")
    lines += [paint("Warning: ", "yellow", color) + safe(each) for each in plan.warnings]
    lines += [f"Note: {safe(each)}" for each in plan.notes]
    if plan.warnings or plan.notes:
        lines.append("")
    return "\n".join(lines)


def plan_summary(plan: Plan) -> str:
    """Plan: 2 exchanges, 6 queues, 7 bindings to create; 0 unchanged."""
    if plan.nothing_to_do:
        return _nothing_to_do(plan)
    words = {"create": "to create", "update": "to change", "delete": "to remove", "ensure": "to bind again"}
    words |= {"drain": "to wait for"}
    return f"Plan: {_counted(plan.changes, words)}; {len(plan.unchanged)} unchanged."


def applied_summary(plan: Plan, done: Iterable[Change]) -> str:
    """Applied: 2 exchanges, 6 queues, 7 bindings created; 0 unchanged."""
    if plan.nothing_to_do:
        return _nothing_to_do(plan)
    return f"Applied: {_counted(done, _DONE)}; {len(plan.unchanged)} unchanged."


def _nothing_to_do(plan: Plan) -> str:
    bound = len(plan.changes)
    again = f" {bound} bindings, which cannot be read over AMQP, are bound again." if bound else ""
    return f"Nothing to do: {len(plan.unchanged)} objects are as the file says.{again}"


def _counted(changes: Iterable[Change], words: dict[str, str]) -> str:
    counts = Counter((change.action, change.kind) for change in changes)
    parts = []
    for action, said in words.items():
        kinds = [
            f"{counts[action, kind]} {_noun(kind, counts[action, kind])}" for kind in _PLURALS if counts[action, kind]
        ]
        if kinds:
            parts.append(f"{', '.join(kinds)} {said}")
    return "; ".join(parts) or "nothing"


def _line(row: _Row, width: int, color: bool) -> str:
    symbol, tint = _USED if row.action == "use" else _SYMBOLS[row.action]
    return f"    {paint(symbol, tint, color)} {safe(row.label):<{width}}  {safe(row.words)}".rstrip()


def _groups(plan: Plan) -> Iterator[tuple[str, list[_Row]]]:
    topology = plan.topology
    exchanges = list(_used(plan))
    policies: list[_Row] = []
    shared: list[_Row] = []
    removed: list[_Row] = []
    manifest: list[_Row] = []
    of_queue: dict[str, list[_Row]] = {name: [] for name in topology.routes}
    own_bindings: Counter[tuple[str, str]] = Counter()
    owners = _owners(plan)
    for change in plan.changes:
        match change:
            case CreateExchange(exchange=exchange):
                exchanges.append(_row(change, exchange_words(exchange, topology)))
            case CreateQueue(queue=queue):
                rows = of_queue.get(owners.get(queue.name, ""), shared)
                rows.append(_row(change, queue_words(queue, topology), _rank(plan, queue.name)))
            case Bind(binding=binding) | EnsureBinding(binding=binding):
                owner = owners.get(binding.destination, "") if binding.destination_type == "queue" else ""
                if binding.source in (topology.retry_exchange, topology.parking_exchange):
                    own_bindings[owner, change.action] += 1
                else:
                    of_queue.get(owner, exchanges).append(_row(change, rank=_BINDING))
            case PutPolicy(policy=policy):
                queues = [queue.name for queue in topology.desired.queues.values() if applies(policy, queue)]
                words = policy_words(policy) if change.action == "create" else ", ".join(map(str, change.differences))
                policies.append(_row(change, f"{words}; on {', '.join(queues)}"))
            case RemovePolicy(policy=policy):
                policies.append(_row(change, f"{policy_words(policy)}; the file no longer asks for it"))
            case Unbind(why=why):
                removed.append(_row(change, why))
            case Rebind(replaces=bound):
                removed.append(_row(change, f"instead of {bound.destination}"))
            case Drain():
                held = "" if change.messages is None else f"{change.messages} messages "
                delay = format_duration(change.delay_ms)
                removed.append(_row(change, f"wait until {held}are back in {change.returns_to}, {delay} at most"))
            case DeleteQueue() | DeleteExchange():
                removed.append(_row(change, change.why))
            case PutManifest() | RemoveManifest():
                differences = change.differences if isinstance(change, PutManifest) else ()
                manifest.append(_row(change, ", ".join(differences)))
    through = f"in {topology.retry_exchange} and {topology.parking_exchange}, each queue by its own name"
    for (owner, action), count in own_bindings.items():
        named = f"{count} {_noun('binding', count)}"
        of_queue.get(owner, shared).append(_Row(action=action, label=named, words=through, rank=_OWN_BINDINGS))
    yield "Exchanges", exchanges
    yield "Shared by several queues", shared
    for name, rows in of_queue.items():
        yield _queue_title(topology.routes[name]), sorted(rows, key=lambda row: row.rank)
    yield "Policies", policies
    yield "No longer in the file, or replaced", removed
    yield "Owned, and recorded on the broker", manifest


_WORK, _TIER, _PARKING, _BINDING, _OWN_BINDINGS = range(5)


def _rank(plan: Plan, queue: str) -> int:
    if queue in plan.topology.routes:
        return _WORK
    return _PARKING if queue in plan.topology.parking_queues else _TIER


def _row(change: Change, words: str = "", rank: int = 0) -> _Row:
    return _Row(action=change.action, label=label(change), words=words, rank=rank)


def _used(plan: Plan) -> Iterator[_Row]:
    for used in plan.used:
        by = f"the topology {used.owner}" if used.owner else "somebody else"
        yield _Row(action="use", label=f"exchange {used.exchange}", words=f"used as it is, created by {by}")


def _owners(plan: Plan) -> dict[str, str]:
    """The work queue that each queue belongs to; a parking queue of several belongs to none."""
    routes = plan.topology.routes.values()
    users = Counter(each.parking_queue for each in routes)
    owners = {each.parking_queue: each.queue for each in routes if users[each.parking_queue] == 1}
    for each in routes:
        owners |= {tier.queue: each.queue for tier in each.tiers}
        owners[each.queue] = each.queue
    return owners


def _noun(kind: str, count: int) -> str:
    return kind if count == 1 else _PLURALS[kind]


def _queue_title(routes: QueueRoutes) -> str:
    delays = " ".join(format_duration(step.delay_ms) for step in routes.steps)
    if routes.native is not None:
        return f"{routes.queue}: retried by RabbitMQ itself, then parked in {routes.parking_queue}"
    if not delays:
        return f"{routes.queue}: parked in {routes.parking_queue} at the first failure"
    return f"{routes.queue}: retried after {delays}, then parked in {routes.parking_queue}"
