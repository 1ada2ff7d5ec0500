"""Keys of queues: what the queue's type can have, and what goes together."""

from __future__ import annotations

from amqpflow.model.diagnostic import Place
from amqpflow.topology.compile.naming import Names
from amqpflow.topology.language.codes import Code
from amqpflow.topology.reading.problems import Problems
from amqpflow.topology.reading.spec import QueueSpec, TopologySpec

MOST_QUORUM_PRIORITY = 31
SHORT_TIMEOUT_MS = 60_000

_NOT_EXISTING = {
    "arguments": "the program that declares it sets its arguments",
    "max_priority": "a priority is an argument, which the program that declares it sets",
    "single_active_consumer": "this is an argument, which the program that declares it sets",
}
_NOT_EXTERNAL = ("bindings", "max_priority", "limits", "delivery_limit", "single_active_consumer", "tiers", "arguments")


def overflow(spec: TopologySpec, problems: Problems) -> None:
    """Require reject-publish on quorum queues, which at-least-once dead-lettering needs (facts 4.4, 4.12)."""
    for queue in spec.queues.values():
        kept = queue.existing and queue.dead_letters == "keep" and queue.overflow == "drop-head"
        if queue.quorum and not queue.external and not kept and queue.overflow != "reject-publish":
            message = (
                f"{queue.subject('overflow')}: overflow {queue.overflow} on a quorum queue switches at-least-once "
                "dead-lettering off, and drops messages"
            )
            problems.error(Code.OVERFLOW, queue.at("overflow"), message, "overflow: reject-publish, or type: classic")


def overflow_on_classic(spec: TopologySpec, problems: Problems) -> None:
    """Warn about what drop-head and reject-publish-dlx do on a classic queue."""
    consequences = {
        "drop-head": "a full queue parks its oldest messages, at most once",
        "reject-publish-dlx": "a full queue refuses a message and parks it as well, so that a publisher who tries "
        "again makes a copy",
    }
    for queue in spec.queues.values():
        if queue.classic and not queue.external and not queue.keeps_dead_letters and queue.overflow in consequences:
            message = f"{queue.subject('overflow')}: {consequences[queue.overflow]}"
            problems.warning(Code.AT_MOST_ONCE, queue.at("overflow"), message, "overflow: reject-publish does neither")


def priority_range(spec: TopologySpec, problems: Problems) -> None:
    """Check priorities: 0 to 31 on quorum queues, 0 to 255 on classic ones (facts 12.3, 12.4)."""
    for queue in spec.queues.values():
        if queue.quorum and queue.max_priority is not None and queue.max_priority > MOST_QUORUM_PRIORITY:
            message = f"{queue.subject('max_priority')}: a quorum queue has priorities up to {MOST_QUORUM_PRIORITY}"
            problems.error(Code.PRIORITY_RANGE, queue.at("max_priority"), message, "classic queues have up to 255")


def quorum_only_keys(spec: TopologySpec, problems: Problems) -> None:
    """Refuse on classic queues what only quorum queues have (facts 3.7, 3.9, 12.1), but for the defaults."""
    for queue in spec.queues.values():
        for key in ("delivery_limit", "consumer_timeout", "crash_limit"):
            if queue.classic and key in queue.places:
                counts = ": it does not count deliveries" if key == "crash_limit" else ""
                message = f"queue {queue.name}: a classic queue has no {key}{counts}"
                problems.error(Code.NOT_ON_CLASSIC, queue.at(key), message, f"remove {key}, or type: quorum")


def crash_limits(spec: TopologySpec, problems: Problems) -> None:
    """Warn about crash limits above the delivery limit: RabbitMQ parks the message first."""
    for queue in spec.queues.values():
        policy = spec.policy_of(queue)
        if not queue.quorum or queue.external or (policy and policy.native):
            continue  # the owner's limit, or one that is always higher
        if queue.crash_limit > queue.delivery_limit and queue.says("crash_limit"):
            message = (
                f"{queue.subject('crash_limit')}: crash_limit {queue.crash_limit} is above delivery_limit "
                f"{queue.delivery_limit}: RabbitMQ parks the message first, without a failure record"
            )
            hint = f"crash_limit: {max(2, queue.delivery_limit)}, or a higher delivery_limit"
            problems.warning(Code.CRASH_LIMIT, queue.at("crash_limit"), message, hint)


def at_most_once(spec: TopologySpec, problems: Problems) -> None:
    """Warn that classic queues and classic retry queues can lose dead letters (facts 4.1, 4.9)."""
    said: set[Place] = set()
    for queue in spec.queues.values():
        if queue.external:
            continue
        if queue.classic and queue.dead_letters != "keep" and queue.at("type") not in said:
            said.add(queue.at("type"))
            message = (
                f"{queue.subject('type')}: messages that RabbitMQ dead-letters from a classic queue (expiry, "
                "length, a foreign reject) are parked at most once"
            )
            problems.warning(Code.AT_MOST_ONCE, queue.at("type"), message, "type: quorum parks them at least once")
        if queue.tiers_type == "classic" and spec.has_tiers(queue) and queue.at("tiers_type") not in said:
            said.add(queue.at("tiers_type"))
            message = (
                f"{queue.subject('tiers_type')}: classic retry queues return messages at most once: they are lost "
                "if the work queue is missing"
            )
            problems.warning(Code.AT_MOST_ONCE, queue.at("tiers_type"), message, "tiers: {type: quorum}")


def classic_tiers_with_limits(spec: TopologySpec, problems: Problems) -> None:
    """Refuse classic retry queues with limits: they lose what a full work queue refuses (facts 4.1, 4.9)."""
    for queue in spec.queues.values():
        if queue.tiers_type == "classic" and queue.limited and spec.has_tiers(queue):
            message = f"queue {queue.name} has limits: classic retry queues lose what it refuses while it is full"
            problems.error(
                Code.CLASSIC_TIERS_WITH_LIMITS, queue.at("tiers_type"), message, "tiers: {type: quorum}, or no limits"
            )


def parking_types(spec: TopologySpec, problems: Problems) -> None:
    """Check that work queues that share a parking queue agree on its type."""
    names = Names(topology=spec.name, naming=spec.naming)
    first: dict[str, QueueSpec] = {}
    for queue in spec.queues.values():
        if queue.external:
            continue
        name = queue.parking_queue or names.parking_queue(queue.name)
        other = first.setdefault(name, queue)
        if other.parking_type != queue.parking_type:
            message = (
                f"parking queue {name[:80]} is {queue.parking_type} for {queue.name} and {other.parking_type} for "
                f"{other.name}"
            )
            hint = "write its type in one place: defaults: {parking: {type: ...}}"
            problems.error(Code.PARKING_CONFLICT, queue.at("parking_type"), message, hint)


def who_declares(spec: TopologySpec, problems: Problems) -> None:
    """Refuse keys that would be declared on a queue that another program declares."""
    for queue in spec.queues.values():
        if queue.existing and queue.external:
            message = f"queue {queue.name} is existing (an application's) or external (another topology's), not both"
            problems.error(Code.CONFLICTING_KEYS, queue.at("external"), message, "remove one of them")
        elif queue.existing:
            for key in sorted(queue.places.keys() & _NOT_EXISTING.keys()):
                message = f"queue {queue.name} is existing: {_NOT_EXISTING[key]}"
                problems.error(Code.NOT_DECLARED_HERE, queue.at(key), message, f"remove {key}")
        elif queue.external:
            for key in _NOT_EXTERNAL:
                if key in queue.places:
                    message = f"queue {queue.name} is external: its owner sets {key}"
                    problems.error(Code.NOT_DECLARED_HERE, queue.at(key), message, f"remove {key}")
        if "owner" in queue.places and not queue.external and "external" not in queue.places:
            message = f"queue {queue.name}: owner requires external: true"
            problems.error(Code.NOT_DECLARED_HERE, queue.at("owner"), message, "external: true, or remove owner")
        elif queue.external and queue.owner == spec.name:
            message = f"queue {queue.name} is external, and its owner is this topology"
            problems.error(Code.CONFLICTING_KEYS, queue.at("owner"), message, "remove external, or name the owner")


def forgetting(spec: TopologySpec, problems: Problems) -> None:
    """Warn about queues that are configured to drop messages: parking them has no limit."""
    for queue in spec.queues.values():
        if not (queue.existing and queue.forgets):
            continue
        key = "policy" if "message-ttl" in queue.carried else "overflow"
        cause = "messages leave it when they are old" if key == "policy" else "a full queue drops its oldest message"
        if queue.dead_letters is None:
            message = f"queue {queue.name}: {cause}, so amqpflow keeps its dead letters out of the parking queue"
            hint = "write dead_letters: keep to confirm this, or dead_letters: park to park them"
            problems.warning(Code.FORGETS, queue.at(key), message, hint)
        elif queue.dead_letters == "park":
            message = f"queue {queue.name}: {cause}, and all of them are parked: a parking queue has no limit"
            hint = "dead_letters: keep leaves them where they go today"
            problems.warning(Code.FORGETS, queue.at("dead_letters"), message, hint)


def whose_dead_letters(spec: TopologySpec, problems: Problems) -> None:
    """Check that dead_letters stands on existing queues, with policies where it parks."""
    for queue in spec.queues.values():
        if "dead_letters" not in queue.places or queue.dead_letters is None:
            continue
        if not queue.existing:
            message = f"queue {queue.name}: dead_letters is for existing queues"
            whose = "are set by its owner" if queue.external else "always go to its parking queue"
            hint = f"remove it: the dead letters of queue {queue.name} {whose}"
            problems.error(Code.NOT_DECLARED_HERE, queue.at("dead_letters"), message, hint)
        elif queue.dead_letters == "park" and spec.settings == "arguments":
            message = f"queue {queue.name}: dead_letters: park needs a policy, and settings: arguments writes none"
            problems.error(Code.CONFLICTING_KEYS, queue.at("dead_letters"), message, "remove one of them")


def short_consumer_timeouts(spec: TopologySpec, problems: Problems) -> None:
    """Warn about short consumer timeouts: RabbitMQ before 4.3 checks once a minute."""
    for queue in spec.queues.values():
        timeout = queue.consumer_timeout_ms
        if queue.quorum and timeout is not None and timeout < SHORT_TIMEOUT_MS:
            message = f"{queue.subject('consumer_timeout')}: a consumer_timeout below 1m cuts off running handlers"
            hint = "set 1m or more; RabbitMQ before 4.3 checks only about once a minute"
            problems.warning(Code.SHORT_CONSUMER_TIMEOUT, queue.at("consumer_timeout"), message, hint)


RULES = (
    overflow,
    overflow_on_classic,
    priority_range,
    quorum_only_keys,
    crash_limits,
    at_most_once,
    classic_tiers_with_limits,
    parking_types,
    who_declares,
    forgetting,
    whose_dead_letters,
    short_consumer_timeouts,
)
