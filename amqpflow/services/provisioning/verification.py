"""Before a consumer trusts a broker: is the topology there, and is it the one in the file?"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial

from amqpflow.errors import BrokerError, BrokerUnavailableError, NotAppliedError, PermissionDeniedError, RefusedError
from amqpflow.model.resources import BrokerState
from amqpflow.model.routes import CompiledTopology
from amqpflow.planning.checks.guarantees import as_found
from amqpflow.planning.compare.delayed_retry import SINCE, is_native
from amqpflow.planning.compare.diff import diff
from amqpflow.planning.compare.replacement import TierReplacement
from amqpflow.planning.ownership.ownership import is_own_policy
from amqpflow.planning.values.changes import label
from amqpflow.planning.values.observation import Observation
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.channel import Channel
from amqpflow.rabbitmq.connection import Connection

log = logging.getLogger("amqpflow.consumer")

_NOT_A_CONSUMERS = ("missing-tag", "policy-tie", "manifest-unreadable", "dead-letters-kept")
"""Refusals about what an apply writes; what a tie can do to the queues is among the findings of preflight."""


async def require_topology(connection: Connection, compiled: CompiledTopology, queues: Iterable[str]) -> None:
    """Declare the work queues and the two exchanges passively.

    A passive declare proves existence alone (fact 7.3); arguments are compared where the management API is configured.

    Raises:
        NotAppliedError: what is missing, all of it, with the command that fixes it.
        BrokerUnavailableError: nothing is missing, but a queue cannot be reached now: its node is down.
        PermissionDeniedError: the user may not look.
    """
    problems: list[str] = []
    unreachable: list[str] = []
    native: list[str] = []
    exchanges: set[str] = set()
    names: list[str] = []
    for queue in queues:
        routes = compiled.routes[queue]
        exchanges |= {routes.retry_exchange, routes.parking_exchange}
        if routes.native is not None and compiled.native_marker is not None:
            exchanges.add(compiled.native_marker)
            if connection.version < SINCE:
                native.append(queue)
        names.append(queue)
        if routes.external:  # its owner declared them, perhaps by a file that was not given
            names += (routes.parking_queue, *(tier.queue for tier in routes.tiers))
    for queue in dict.fromkeys(names):
        try:
            if await _is_missing(connection, partial(Channel.queue_counts, queue=queue)):
                problems.append(f"queue {queue} is missing")
        except BrokerError as error:
            if error.code != 404:
                raise
            unreachable.append(f"queue {queue} exists and cannot be reached: {error}")
    if native:
        raise RefusedError(
            f"engine: native needs RabbitMQ 4.3, and this is {'.'.join(map(str, connection.version))}: "
            f"retries of {', '.join(native)} would be a hot loop",
            hint="engine: tiers in the retry policy works on every release",
        )
    for exchange in sorted(exchanges - {""}):
        if await _is_missing(connection, partial(Channel.require_exchange, exchange=exchange)):
            problems.append(f"exchange {exchange} is missing")
    if problems:
        raise NotAppliedError(
            f"the topology {compiled.name} is not on the broker: {', '.join((*problems, *unreachable))} "
            f"in virtual host {connection.address.vhost}",
            hint=_remedy(compiled, problems),
        )
    if unreachable:
        raise BrokerUnavailableError(
            ", ".join(unreachable), hint="start the node that holds it; nothing has to be applied"
        )


async def require_as_compiled(
    address: BrokerAddress, compiled: CompiledTopology, queues: Iterable[str]
) -> CompiledTopology:
    """Compare what the handlers rest on with the file, arguments and foreign policies included, over the management
    API.

    Returns:
        The topology, with the at-least-once dead-lettering and consumer timeouts that were found to work.

    Raises:
        NotAppliedError: every difference, with the command that fixes it or says more.
        ManagementUnavailableError, PermissionDeniedError: the configured API cannot be used.
    """
    from amqpflow.rabbitmq.observe import observe, open_broker

    # imported here: a consumer without the management API does not pay for the HTTP client
    async with open_broker(address, name=f"amqpflow start check {compiled.name}") as broker:
        wanted = _part_for(compiled, frozenset(queues))
        observed = await observe(wanted, broker)
    wanted = _without_what_is_replaced(wanted, observed)
    plan = diff(_with_policies_as_they_are(wanted, observed), observed)
    for warning in plan.warnings:
        log.warning("start check of topology %s: %s", compiled.name, warning)
    missing = [
        f"{label(change)} is missing"
        for change in plan.changes
        if change.action != "delete" and change.kind != "manifest"
    ]
    problems = [*missing, *(str(each) for each in plan.refusals if each.code not in _NOT_A_CONSUMERS)]
    if problems:
        raise NotAppliedError(
            f"the broker does not hold what {compiled.file} says; the consumer does not start",
            problems=problems,
            hint=_apply(compiled),
        )
    return as_found(compiled, observed)


def warn_of_short_timeouts(compiled: CompiledTopology, timeouts: Mapping[str, float | None]) -> None:
    """Log a warning for each handler that may run for longer than RabbitMQ leaves it its delivery: it would run twice.

    `timeouts` of the handlers are in seconds, by queue.
    """
    for queue, seconds in timeouts.items():
        shortest = compiled.routes[queue].consumer_timeout_ms
        if seconds is not None and shortest is not None and seconds * 1000 >= shortest:
            log.warning(
                "%s: its handler may take %g s, and RabbitMQ takes a delivery back after %g s (consumer timeout): the "
                "message is then handled again. Raise consumer_timeout, or lower the handler's timeout",
                queue,
                seconds,
                shortest / 1000,
            )


def _without_what_is_replaced(part: CompiledTopology, observed: Observation) -> CompiledTopology:
    """Leave out retry queues that an apply replaces right now: stand-in queues do their work meanwhile."""
    desired, tiers = part.desired, {tier.queue: name for name, routes in part.routes.items() for tier in routes.tiers}
    replaced = {
        name
        for name in tiers.keys() & desired.queues.keys()
        if TierReplacement(
            desired=desired.queues[name], work_queue=tiers[name], retry_exchange=part.retry_exchange, observed=observed
        ).carries
    }
    return replace(
        part,
        desired=replace(
            desired,
            queues={name: queue for name, queue in desired.queues.items() if name not in replaced},
            bindings=tuple(each for each in desired.bindings if each.destination not in replaced),
        ),
    )


def _with_policies_as_they_are(part: CompiledTopology, observed: Observation) -> CompiledTopology:
    """Use our policies as they are on the broker: a consumer does not change them."""
    own = {
        name: each
        for name, each in observed.state.policies.items()
        if is_own_policy(name, part.name) and not is_native(each)
    }
    return replace(part, desired=replace(part.desired, policies={**own, **part.desired.policies}))


def _part_for(compiled: CompiledTopology, queues: frozenset[str]) -> CompiledTopology:
    """Return the part of a topology that settling the deliveries of some work queues rests on."""
    names = set(queues)
    for queue in queues:
        routes = compiled.routes[queue]
        names |= {routes.parking_queue, *(tier.queue for tier in routes.tiers)}
    desired = compiled.desired
    own = {compiled.retry_exchange, compiled.parking_exchange}
    native = any(compiled.routes[queue].native for queue in queues)
    if native and compiled.native_marker is not None:
        own.add(compiled.native_marker)
    return replace(
        compiled,
        desired=BrokerState(
            exchanges={name: exchange for name, exchange in desired.exchanges.items() if name in own},
            queues={name: queue for name, queue in desired.queues.items() if name in names},
            bindings=tuple(each for each in desired.bindings if each.source in own and each.destination in names),
            # structure is in arguments, and no policy is needed to trust it, but for those that delay
            policies={name: each for name, each in desired.policies.items() if native and is_native(each)},
        ),
        routes={queue: compiled.routes[queue] for queue in queues},
        required_exchanges=(),
        required_queues=tuple(name for name in compiled.required_queues if name in names),
        notes=(),
    )


def _remedy(compiled: CompiledTopology, problems: list[str]) -> str:
    theirs = {
        f"queue {name} is missing"
        for routes in compiled.routes.values()
        if routes.existing or routes.external
        for name in (
            routes.queue,
            *((routes.parking_queue, *(t.queue for t in routes.tiers)) if routes.external else ()),
        )
    }
    if theirs.isdisjoint(problems):
        return _apply(compiled)
    return "an existing or external queue is its declarer's to create; then " + _apply(compiled)


def _apply(compiled: CompiledTopology) -> str:
    return f"amqpflow apply {shlex.quote(compiled.file)}"


async def _is_missing(connection: Connection, look: Callable[[Channel], Awaitable[object]]) -> bool:
    channel = await connection.open_channel()
    try:
        await look(channel)
    except BrokerError as error:
        if not error.missing:
            raise
        return True
    except PermissionDeniedError:
        # it exists: RabbitMQ 4.3 wants some permission on a name before it says more (fact 7.4)
        return False
    finally:
        await channel.close()
    return False
