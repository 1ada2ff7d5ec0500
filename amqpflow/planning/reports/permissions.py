"""What each kind of user needs to be allowed: the least, as regular expressions and tags.

https://www.rabbitmq.com/docs/access-control. RabbitMQ asks for more than the obvious where objects refer to each other:
a user who declares a queue with a dead-letter exchange needs to read the queue and to write to that exchange, here the
default exchange, called amq.default; a user who binds needs to write to the queue and to read the exchange.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from amqpflow.model.names import applying_lock, escape, reading_lock
from amqpflow.model.routes import CompiledTopology
from amqpflow.model.units import format_duration
from amqpflow.planning.compare.replacement import SUFFIX, stand_in_name
from amqpflow.planning.policies.name_patterns import Pattern, pattern_of

ROLES = ("apply", "consume", "publish", "replay", "observe")
PURPOSES = {
    "apply": "applies the file, prunes, destroys",
    "consume": "runs the handlers: takes from the work queues, retries, parks",
    "publish": "publishes to the exchanges of the file",
    "replay": "reads, replays and restores parked messages",
    "observe": "looks at the broker and changes nothing: plan, drift, explain, status",
}
DEFAULT_EXCHANGE = "amq.default"
_DURATION = "[0-9a-z]+"  # how long a retry queue holds, as its name says it
_STAND_IN = f"({escape(SUFFIX)})?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What one user may do in the topology's virtual host."""

    role: str
    configure: Pattern
    write: Pattern
    read: Pattern
    tags: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def patterns(self) -> dict[str, Pattern]:
        """Return them by kind, in the order in which rabbitmqctl takes them."""
        return {"configure": self.configure, "write": self.write, "read": self.read}


def grants(
    topology: CompiledTopology, *, roles: Iterable[str] = ROLES, queues: Collection[str] = (), exact: bool = False
) -> tuple[Grant, ...]:
    """Return the permissions for each of these roles, in the order of `ROLES`.

    Args:
        queues: the work queues that the consuming and the replaying user are about; none means all.
        exact: patterns are never wider than the names they are for, also where RabbitMQ 4.3 refuses their length.
    """
    made, wanted = _Grants(topology, frozenset(queues or topology.routes), exact), set(roles)
    makers = (made.apply, made.consume, made.publish, made.replay, made.observe)
    return tuple(make() for role, make in zip(ROLES, makers, strict=True) if role in wanted)


class _Grants:
    def __init__(self, topology: CompiledTopology, queues: frozenset[str], exact: bool) -> None:
        self.topology, self.queues, self.exact = topology, queues, exact

    def apply(self) -> Grant:
        desired = self.topology.desired
        dead_lettering = {
            queue.name: str(target or DEFAULT_EXCHANGE)
            for queue in desired.queues.values()
            if (target := queue.arguments.get("x-dead-letter-exchange")) is not None
        }
        alternates = {
            exchange.name: exchange.alternate_exchange
            for exchange in desired.exchanges.values()
            if exchange.alternate_exchange is not None
        }
        bound = {binding.destination for binding in desired.bindings}
        sources = {binding.source for binding in desired.bindings}
        notes, tiers, derived = [], self._tiers, self._derived()
        if tiers:
            notes.append(
                "retry queues are matched whatever their delay, and those that stand in for them while they are "
                "replaced, so that changing them needs no new grant"
            )
        if desired.policies:
            notes.append("policymaker: the file has limits, timeouts or native retry, which are set by policy")
        else:
            notes.append("without policymaker no manifest is kept: a binding that left the file is not recognised")
        notes.append("to remove a queue or exchange that left the file it needs what the old file asked for, too")
        # the others are matched with the retry queue that they stand in for
        stand_ins = {name for each in tiers if (name := stand_in_name(each)) != each + SUFFIX or each not in derived}
        return self._grant(
            "apply",
            configure={*desired.queues, *stand_ins, *desired.exchanges, applying_lock(self.topology.name)},
            write={*bound, *stand_ins, *dead_lettering.values(), *alternates.values()},
            read={*sources, *stand_ins, *dead_lettering, *alternates},
            tags=("management", "policymaker") if desired.policies else ("management",),
            notes=notes,
        )

    def consume(self) -> Grant:
        routes = [routes for name, routes in self.topology.routes.items() if name in self.queues]
        exchanges = {each.parking_exchange or DEFAULT_EXCHANGE for each in routes}
        exchanges |= {each.retry_exchange or DEFAULT_EXCHANGE for each in routes if each.tiers}
        read = {each.queue for each in routes}
        notes = ["tag management: only where the consumer is given a management URL"]
        marker = self.topology.native_marker
        if marker is not None and any(each.native for each in routes):
            # RabbitMQ 4.3 tells who has no permission on an exchange that it is there, whether it is or not (fact 7.4)
            read.add(marker)
            notes.append(f"read {marker}: whether it is there says whether RabbitMQ delays retries")
        return self._grant("consume", write=exchanges, read=read, notes=notes)

    def publish(self) -> Grant:
        topology = self.topology
        own = {topology.retry_exchange, topology.parking_exchange, topology.native_marker}
        declared = topology.desired.exchanges.values()
        exchanges = {each.name for each in declared if each.name not in own and not each.internal}
        exchanges |= set(topology.required_exchanges)
        left_out = sorted(exchanges & {each.alternate_exchange for each in declared if each.alternate_exchange})
        notes = [f"without {name}: messages come to it as an alternate exchange" for name in left_out]
        exchanges -= set(left_out)
        if not exchanges:
            exchanges = {DEFAULT_EXCHANGE}
            notes.append("the file has no exchange to publish to: by the default exchange, to any queue")
        return self._grant("publish", write=exchanges, notes=notes)

    def replay(self) -> Grant:
        routes = [each for name, each in self.topology.routes.items() if name in self.queues and not each.external]
        parking = {each.parking_queue for each in routes}
        return self._grant(
            "replay",
            configure={reading_lock(queue) for queue in parking},
            write={each.retry_exchange or DEFAULT_EXCHANGE for each in routes},
            read=parking,
            tags=("management",),
            notes=(
                "configure is for the lock that keeps two readers of a parking queue apart",
                "not for parked restore, which also writes to amq.default: that is to every queue of the virtual host",
            ),
        )

    def observe(self) -> Grant:
        return self._grant("observe", tags=("management",), notes=("reads no message and no queue's contents",))

    @property
    def _tiers(self) -> frozenset[str]:
        """Return retry queues that the topology declares."""
        every = (tier.queue for routes in self.topology.routes.values() for tier in routes.tiers)
        return frozenset(every) & self.topology.desired.queues.keys()

    def _grant(
        self,
        role: str,
        *,
        configure: Collection[str] = (),
        write: Collection[str] = (),
        read: Collection[str] = (),
        tags: tuple[str, ...] = (),
        notes: Collection[str] = (),
    ) -> Grant:
        patterns = {"configure": self._pattern(configure), "write": self._pattern(write), "read": self._pattern(read)}
        return Grant(role=role, tags=tags, notes=(*notes, *_about_length(patterns)), **patterns)

    def _pattern(self, names: Collection[str]) -> Pattern:
        """Return the pattern for names, those of retry queues whatever delay they name."""
        endings: dict[str, set[str]] = {}
        whose = self._derived() if names else {}
        for name in names:
            base, ending = whose.get(name, (name, ""))
            endings.setdefault(base, set()).add(ending)
        return pattern_of(endings, exact=self.exact)

    def _derived(self) -> dict[str, tuple[str, str]]:
        """Return for each retry and parking queue the work queue whose name it begins with, and what follows."""
        found: dict[str, tuple[str, str]] = {}
        for routes in self.topology.routes.values():
            if routes.external:
                continue
            for tier in routes.tiers:
                begin, ending = _split(tier.queue, routes.queue)
                delay = format_duration(tier.delay_ms)
                if ending.count(delay) == 1:
                    before, _, after = ending.partition(delay)
                    found[tier.queue] = (begin, f"{escape(before)}{_DURATION}{escape(after)}{_STAND_IN}")
            for name in (routes.parking_queue, reading_lock(routes.parking_queue)):
                begin, ending = _split(name, routes.queue)
                if begin:
                    found.setdefault(name, (begin, escape(ending)))
        return found


def _split(name: str, beginning: str) -> tuple[str, str]:
    """Return the work queue's name and the rest; ("", name) when it does not begin with it."""
    return (beginning, name[len(beginning) :]) if name.startswith(beginning) else ("", name)


def _about_length(patterns: dict[str, Pattern]) -> list[str]:
    notes = []
    for kind, pattern in patterns.items():
        if pattern.widened:
            shown = ", ".join(pattern.widened[:3]) + (" ..." if len(pattern.widened) > 3 else "")
            notes.append(
                f"{kind} is wider than needed: every name that begins with {shown}. Exact it would take "
                f"{pattern.exact_bytes} bytes, and RabbitMQ 4.3 takes 1024 (before: `exact`)"
            )
        elif not pattern.fits:
            notes.append(
                f"{kind} has {pattern.exact_bytes} bytes; RabbitMQ 4.3 takes 1024. Make several users, each for some "
                "queues (`queue`), or name queues with a common beginning"
            )
    return notes
