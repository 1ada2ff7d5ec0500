"""RabbitMQ's own delayed retry: refused wherever what is rejected would come back at once.

The arguments are accepted and ignored before 4.3, and a policy of ours works only while no other is over it: then a
rejected message is delivered again within milliseconds (facts 8.1, 11.6b). An argument beats a policy (fact 8.10).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from amqpflow.model.resources import Policy
from amqpflow.model.routes import CompiledTopology, NativeRetry
from amqpflow.planning.policies.matching import may_work, surely_matches
from amqpflow.planning.values.findings import Finding, Ref, refuse

SINCE = (4, 3)
TYPE = "delayed-retry-type"


def delays(topology: CompiledTopology) -> Mapping[str, NativeRetry]:
    """Return the delays of a topology's native queues, by queue."""
    return {routes.queue: routes.native for routes in topology.native_queues if routes.native is not None}


def is_native(policy: Policy) -> bool:
    """Return whether a policy makes a queue delay rejected messages."""
    return TYPE in policy.definition


def definition_of(native: NativeRetry) -> Mapping[str, Any]:
    """Return the policy keys that delay as the file says."""
    return {TYPE: "failed", "delayed-retry-min": native.min_ms, "delayed-retry-max": native.max_ms}


def holds(definition: Mapping[str, Any], native: NativeRetry) -> bool:
    """Return whether a policy definition, or arguments without their x-, delays as the file says."""
    return all(definition.get(key) == value for key, value in definition_of(native).items())


def too_old(topology: CompiledTopology, version: tuple[int, ...]) -> Iterator[Finding]:
    """Yield a refusal when the release has no delayed retry; a broker without a version counts as too old."""
    wanted = delays(topology)
    if wanted and version < SINCE:
        yield refuse(
            "native-not-on-this-release",
            Ref.of("queue", list(wanted)),
            f"engine: native needs RabbitMQ 4.3, and this is {'.'.join(map(str, version)) or 'an unknown release'}: "
            "a rejected message would come back at once",
            "engine: tiers in the retry policy works on every release",
        )


def hidden(topology: CompiledTopology, policies: Iterable[Policy]) -> Iterator[Finding]:
    """Yield a refusal for each native queue on which another of `policies`, all user policies to be, works."""
    if topology.settings == "arguments":
        return
    every = tuple(policies)
    for name, native in delays(topology).items():
        queue = topology.desired.queues.get(name)
        if queue is None:
            continue
        for policy in may_work(every, queue):
            if not holds(policy.definition, native):
                works = "works" if surely_matches(policy, queue) else "works (if its pattern matches)"
                yield refuse(
                    "native-hidden",
                    Ref("queue", name),
                    f"policy {policy.name} (priority {policy.priority}) {works} there instead of the one that makes "
                    "RabbitMQ delay retries: a rejected message would come back at once",
                    f"take {name} out of its pattern {policy.pattern}, or use engine: tiers",
                )
