"""Arrange a plan as rows in groups: dangerous steps first, then by work queue, repetitions merged.

Text and markdown are written from the same rows. Each row names the steps it stands for, since the order in which
apply works is another one than the order in which people read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from amqpflow.cli.safe import with_options
from amqpflow.model.routes import QueueRoutes
from amqpflow.model.units import format_duration
from amqpflow.planning.policies.index import named_exactly
from amqpflow.planning.reports.consequences import Consequence, Danger, consequences
from amqpflow.planning.values import changes
from amqpflow.planning.values.plan import Plan

from .definition import exchange_words, policy_words, queue_words, value_words

ALIKE = 5  #: so many of a kind are shown one by one, of more only the first
_NAMES = 12  #: so many names are listed in full

_WORK, _TIER, _PARKING, _BINDING, _OWN_BINDINGS = range(5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One change, or several equal ones."""

    symbol: str
    action: str
    kind: str
    label: str  #: queue orders.confirm
    words: str = ""
    steps: tuple[int, ...] = ()  #: from 1; none: it is not done
    details: tuple[tuple[str, str], ...] = ()  #: what it is about, text: max-length, 5 -> 7; messages, none is lost
    danger: Danger = Danger.NONE
    rank: int = 0  #: the place among the rows of its work queue
    about: tuple[str, ...] = ()  #: of a policy: the queues it works on
    #: texts of this row alone, and what stands for them when it speaks for others
    own: tuple[tuple[str, str], ...] = ()
    messages: int | None = None  #: in a queue that goes, when the plan was made


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Rows under one title; `others` are the work queues that change in the same way."""

    title: str
    rows: tuple[Row, ...]
    others: tuple[str, ...] = ()
    other_steps: tuple[int, ...] = ()
    danger: bool = False


def plan_groups(plan: Plan) -> tuple[Group, ...]:
    """Return the groups that have rows, the dangerous one first. Unchanged objects are in none."""
    return tuple(group for group in _Grouping(plan).groups() if group.rows)


class _Grouping:
    def __init__(self, plan: Plan) -> None:
        self.plan, self.topology = plan, plan.topology
        self.owners = _owners(plan)
        self.dangerous: list[Row] = []
        self.exchanges = list(_used(plan))
        self.shared: list[Row] = []
        self.policies: list[Row] = []
        self.leaving: list[Row] = []
        self.recorded: list[Row] = []
        self.of_queue: dict[str, list[Row]] = {name: [] for name in plan.topology.routes}
        self.own_bindings: dict[tuple[str, str], list[Consequence]] = {}

    def groups(self) -> Iterator[Group]:
        for each in consequences(self.plan):
            self._place(each)
        through = f"in {self.topology.retry_exchange} and {self.topology.parking_exchange}, each queue by its own name"
        self._found()
        for (owner, _), bindings in self.own_bindings.items():
            steps = tuple(each.step or 0 for each in bindings)
            label = counted(len(bindings), "binding")
            row = replace(_row(bindings[0], through), label=label, steps=steps, rank=_OWN_BINDINGS)
            self.of_queue.get(owner, self.shared).append(row)
        self.dangerous.sort(key=lambda row: (bool(row.steps), row.steps))
        yield Group(title="Review before applying", rows=_together(self.dangerous), danger=True)
        yield Group(title="Exchanges", rows=_together(self.exchanges))
        yield Group(title="Shared by several queues", rows=_together(self.shared))
        yield from self._queues()
        yield Group(title="Policies", rows=_together(self.policies))
        yield Group(title="No longer in the file, or replaced", rows=_together(self.leaving))
        yield Group(title="Owned, and recorded on the broker", rows=_together(self.recorded))

    def _place(self, each: Consequence) -> None:
        change, topology, row = each.change, self.topology, _row(each, self._words(each))
        if each.danger is Danger.DANGER:
            self.dangerous.append(row)
            return
        match change:
            case changes.CreateExchange():
                self.exchanges.append(row)
            case changes.CreateQueue(queue=queue):
                owner = self.owners.get(queue.arguments.get(changes.STANDS_IN, queue.name), "")
                self.of_queue.get(owner, self.shared).append(replace(row, rank=self._rank(queue.name)))
            case changes.Bind(binding=binding) | changes.EnsureBinding(binding=binding):
                owner = self.owners.get(binding.destination, "") if binding.destination_type == "queue" else ""
                if binding.source in (topology.retry_exchange, topology.parking_exchange):
                    self.own_bindings.setdefault((owner, each.action), []).append(each)
                else:
                    self.of_queue.get(owner, self.exchanges).append(replace(row, rank=_BINDING))
            case changes.PutPolicy() | changes.RemovePolicy():
                self.policies.append(row)
            case changes.PutManifest() | changes.RemoveManifest():
                # the parameter's whole name has the virtual host in it, which is said above
                row = replace(row, label=f"manifest {topology.name}")
                if isinstance(change, changes.PutManifest) and self.recorded:
                    first = self.recorded.pop()
                    words = f"{first.words}; then {row.words}"
                    row = replace(first, words=words, steps=(*first.steps, *row.steps))
                self.recorded.append(row)
            case _:
                self.leaving.append(row)

    def _found(self) -> None:
        """Return the bindings of the file that may be foreign, unless a step changes them."""
        changed = {change.name for change in self.plan.changes if change.kind == "binding"}
        words = {
            "foreign": "created by another program, stays",
            "unproven": "created by amqpflow or by another program: unknown",
        }
        for listed in self.plan.listed:
            name, owner = listed.binding.name, self.owners.get(listed.binding.destination, "")
            if listed.origin in words and name not in changed:
                row = Row(symbol="=", action="use", kind="binding", label=f"binding {name}", words=words[listed.origin])
                self.of_queue.get(owner, self.exchanges).append(replace(row, rank=_BINDING))

    def _words(self, each: Consequence) -> str:
        match each.change:
            case changes.CreateExchange(exchange=exchange):
                return exchange_words(exchange, self.topology)
            case changes.CreateQueue(queue=queue):
                return queue_words(queue, self.topology)
            case changes.PutPolicy(policy=policy):
                return policy_words(policy) if each.action == "create" else ""
            case changes.PutManifest(differences=differences):
                return ", ".join(differences)
            case changes.Rebind(replaces=bound):
                return f"instead of {bound.destination}"
            case changes.RemovePolicy(policy=policy):
                return f"{policy_words(policy)}; the file no longer asks for it"
            case _:
                return "cannot be changed in place: refused" if each.step is None else ""

    def _rank(self, queue: str) -> int:
        if queue in self.topology.routes:
            return _WORK
        return _PARKING if queue in self.topology.parking_queues else _TIER

    def _queues(self) -> Iterator[Group]:
        alike: dict[object, list[Group]] = {}
        for name, rows in self.of_queue.items():
            if rows:
                rows.sort(key=lambda row: row.rank)
                group = Group(title=_queue_title(self.topology.routes[name]), rows=tuple(rows), others=(name,))
                alike.setdefault(_shape(name, group), []).append(group)
        for groups in alike.values():
            if len(groups) <= ALIKE:
                yield from (replace(group, others=()) for group in groups)
            else:
                others = groups[1:]
                names = tuple(group.others[0] for group in others)
                steps = sorted(step for group in others for row in group.rows for step in row.steps)
                yield replace(groups[0], others=names, other_steps=tuple(steps))


def _shape(queue: str, group: Group) -> object:
    """Return a value that is equal for work queues that differ only in names and routing keys."""

    def anonymous(text: str) -> str:
        return text.replace(queue, "\0")

    return (
        anonymous(group.title),
        *(
            (row.action, row.kind if row.rank == _BINDING else anonymous(row.label), anonymous(row.words), row.details)
            for row in group.rows
        ),
    )


def _together(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Merge rows of one kind that differ only in their names, if there are more than a few."""
    alike: dict[object, list[Row]] = {}
    for row in rows:
        common = _common(row)
        alike.setdefault((row.action, row.kind, common.words, common.details), []).append(row)
    made: list[Row] = []
    for same in alike.values():
        if len(same) > ALIKE:
            same = [_merged(same)]
        for row in same:
            words = "; ".join(part for part in (row.words, f"on {listed(row.about)}" if row.about else "") if part)
            made.append(replace(row, words=words))
    return tuple(made)


def _merged(same: list[Row]) -> Row:
    names = [row.label.partition(" ")[2] for row in same]
    about = tuple(queue for row in same for queue in row.about)
    first = _common(same[0])
    words = [first.words, "" if about else listed(names)]
    if any(row.messages is not None for row in same):
        words.append(f"{sum(row.messages or 0 for row in same)} messages in all when the plan was made")
    return replace(
        first,
        label=counted(len(same), same[0].kind),
        words="; ".join(word for word in words if word),
        steps=tuple(step for row in same for step in row.steps),
        about=about,
    )


def _common(row: Row) -> Row:
    """Return the row without its own names and counts."""

    def common(text: str) -> str:
        for own, instead in row.own:
            text = text.replace(own, instead)
        return text

    if not row.own:
        return row
    details = tuple((label, common(text)) for label, text in row.details)
    return replace(row, words=common(row.words), details=details)


def _own(each: Consequence) -> tuple[tuple[str, str], ...]:
    """Return the names and counts in the text of a removal; longer names first."""
    names: dict[str, str] = {}
    held: int | None = None
    match each.change:
        case changes.Drain(queue=queue, messages=held):
            names = {queue.name: "it", each.change.returns_to: "its work queue"}
        case changes.DeleteQueue(queue=queue, messages=held):
            names = {queue.name: "it", str(queue.arguments.get(changes.STANDS_IN, "")): "another one"}
        case changes.Unbind(binding=binding):
            names = {binding.destination: "it"}
        case changes.Rebind(binding=binding, replaces=bound):
            names = {binding.destination: "the new one", bound.destination: "the old one"}
        case _:
            return ()
    names |= {f"queue {name}": instead for name, instead in names.items() if name}
    own = sorted(((name, instead) for name, instead in names.items() if name), key=lambda pair: -len(pair[0]))
    counts = [] if held is None else [(f" {held} messages", " messages"), (f" ({held} when the plan was made)", "")]
    return (*counts, *own)


def _row(each: Consequence, words: str) -> Row:
    return Row(
        symbol=each.symbol,
        action=each.action,
        kind=each.kind,
        label=f"{each.kind} {each.name}",
        words=words,
        steps=() if each.step is None else (each.step,),
        details=tuple(_details(each)),
        danger=each.danger,
        about=each.queues if each.action in ("create", "update") else (),
        own=_own(each),
        messages=each.change.messages if isinstance(each.change, changes.Drain | changes.DeleteQueue) else None,
    )


def _details(each: Consequence) -> Iterator[tuple[str, str]]:
    """Yield the details of a change; new objects and repeated bindings have none."""
    for difference in each.attributes:
        old, new = difference.observed, difference.desired
        if difference.key == "pattern" and (text := _names_changed(old, new)):
            yield "queues", text
        else:
            yield difference.key, f"{value_words(difference.key, old)} -> {value_words(difference.key, new)}"
    if each.reason:
        yield "why", each.reason
    if each.kind == "manifest" or (each.action in ("create", "ensure") and each.danger is Danger.NONE):
        return
    if each.how:
        yield "how", with_options(each.how)
    for label, text in (
        ("messages", each.effects.messages),
        ("consumers", each.effects.consumers),
        ("bindings", each.effects.bindings),
        ("when", each.effects.when),
    ):
        if text:
            yield label, text


def _names_changed(old: object, new: object) -> str:
    before, after = named_exactly(str(old)), named_exactly(str(new))
    if before is None or after is None:
        return ""
    joined, left = [n for n in after if n not in before], [n for n in before if n not in after]
    parts = [f"{word} {listed(names)}" for word, names in (("now also", joined), ("no longer", left)) if names]
    return "; ".join(parts)


def listed(names: Iterable[str]) -> str:
    """List names: a, b, c; of many the first three and the last."""
    all_names = list(names)
    if len(all_names) <= _NAMES:
        return ", ".join(all_names)
    return f"{', '.join(all_names[:3])} ... {all_names[-1]} ({len(all_names)} in all)"


def counted(number: int, kind: str) -> str:
    """Write a count: 1 queue, 3 policies."""
    if number != 1:
        kind = "policies" if kind == "policy" else f"{kind}s"
    return f"{number} {kind}"


def ranges(steps: Iterable[int]) -> str:
    """Write numbers as ranges: 3, 5-8, 12."""
    parts: list[list[int]] = []
    for step in sorted(steps):
        if parts and step == parts[-1][1] + 1:
            parts[-1][1] = step
        else:
            parts.append([step, step])
    if len(parts) > 8:
        return f"{parts[0][0]} to {parts[-1][1]}, with others between"
    return ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in parts)


def _used(plan: Plan) -> Iterator[Row]:
    for used in plan.used:
        by = f"the topology {used.owner}" if used.owner else "another program"
        words = f"used as it is, created by {by}"
        yield Row(symbol="=", action="use", kind="exchange", label=f"exchange {used.exchange}", words=words)


def _owners(plan: Plan) -> dict[str, str]:
    """Return the work queue of each queue; a shared parking queue has none."""
    routes = plan.topology.routes.values()
    users = Counter(each.parking_queue for each in routes)
    owners = {each.parking_queue: each.queue for each in routes if users[each.parking_queue] == 1}
    for each in routes:
        owners |= {tier.queue: each.queue for tier in each.tiers}
        owners[each.queue] = each.queue
    return owners


def _queue_title(routes: QueueRoutes) -> str:
    delays = " ".join(format_duration(step.delay_ms) for step in routes.steps)
    if routes.native is not None:
        return f"{routes.queue}: retried by RabbitMQ itself, then parked in {routes.parking_queue}"
    if not delays:
        return f"{routes.queue}: parked in {routes.parking_queue} at the first failure"
    return f"{routes.queue}: retried after {delays}, then parked in {routes.parking_queue}"
