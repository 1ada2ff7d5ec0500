"""Decide whether a parking queue may be read. Reading requeues every message, and a requeue can use a message up.

A quorum queue counts deliveries and drops what passes its delivery limit: with the default limit of RabbitMQ 4 a look
deletes a message after 21 rounds, on 4.3 one that RabbitMQ itself had parked at the first (facts 6.2, 6.3). Limits come
from arguments, policies and operator policies, and the smallest works (fact 11.6).

A queue with a length limit that drops its head counts ready messages. Messages that are held while others publish to it
come back over the limit, as its head (fact 6.20).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

from amqpflow.errors import NotAppliedError, PermissionDeniedError, RefusedError
from amqpflow.model.resources import Policy, Queue
from amqpflow.model.routes import CompiledTopology
from amqpflow.planning.policies.matching import alternatives, may_work, surely_matches
from amqpflow.rabbitmq.observe import Broker
from amqpflow.rabbitmq.probe import Probe, Unreadable

SAFE_LIMIT = 1_000_000
"""What amqpflow gives its parking queues; a smaller limit in effect comes from elsewhere (fact 6.4)."""

_KEEP_THE_HEAD = frozenset({"reject-publish", "reject-publish-dlx"})
UNCHECKED = (
    "policies cannot be seen without the management API; one with a delivery-limit or a max-length would make reading "
    "unsafe"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Readable:
    """A parking queue that may be read."""

    queue: Queue  #: as it is on the broker, as far as is known
    consumer_timeout_ms: int | None  #: the smallest that is known to work on it
    notes: tuple[str, ...]  #: for people


async def require_readable(
    broker: Broker, compiled: CompiledTopology, queue: str, *, unverified: bool = False
) -> Readable:
    """Refuse to read a parking queue whose messages could be used up by it.

    With the management API arguments and policies are compared. Over AMQP alone the arguments are, which takes the
    configure permission, and policies stay unseen.

    Args:
        unverified: read also where that cannot be verified, and where it depends on what others publish meanwhile. A
            queue that is known to be unsafe is refused all the same.

    Raises:
        NotAppliedError: there is no such queue.
        RefusedError: the effective delivery limit is too low, or cannot be verified; or a length limit drops the head.
    """
    found, policies, notes = await _look(broker, compiled, queue, unverified)
    version = broker.connection.version
    problem = next((why for each in policies if (why := reading_problem(found, each, version)) is not None), None)
    if problem is not None:
        raise RefusedError(
            f"reading the parking queue {queue} is not safe: {problem}",
            hint="a parking queue that amqpflow applied is safe as long as no policy lowers its delivery limit"
            if queue in compiled.parking_queues
            else "reading requeues every message, which counts as a delivery; a quorum queue without an argument "
            f"x-delivery-limit becomes safe by a policy with delivery-limit: {SAFE_LIMIT}",
        )
    limited = next((why for each in policies if (why := length_problem(found, each)) is not None), None)
    if limited is not None and not unverified:
        raise RefusedError(
            f"reading the parking queue {queue} is not safe: {limited}",
            hint="give it overflow: reject-publish, or raise the limit; or stop what publishes to it and "
            "read with `unverified`",
        )
    notes = notes if limited is None else (*notes, f"{queue}: {limited}")
    timeout = consumer_timeout(found, [policy for each in policies for policy in each])
    return Readable(queue=found, consumer_timeout_ms=timeout, notes=notes)


def length_problem(queue: Queue, policies: Iterable[Policy]) -> str | None:
    """Say which length limit could make the queue drop what is requeued; None when there is none."""
    sources = [(queue.arguments, "x-", "its arguments")]
    sources += [(policy.definition, "", _called(policy, queue)) for policy in policies]
    overflows = {found[f"{prefix}overflow"] for found, prefix, _ in sources if f"{prefix}overflow" in found}
    # which of several works differs from type to type (fact 11.6): all of them have to keep the head
    if overflows and overflows <= _KEEP_THE_HEAD:
        return None
    for found, prefix, source in sources:
        for key, unit in (("max-length", "messages"), ("max-length-bytes", "bytes")):
            if f"{prefix}{key}" in found:
                return (
                    f"{source} limit it to {found[prefix + key]} {unit}, and it drops its oldest message for a new "
                    "one: messages that are published meanwhile push out the ones that are requeued"
                )
    return None


def _called(policy: Policy, queue: Queue) -> str:
    return f"policy {policy.name}" + ("" if surely_matches(policy, queue) else " (if its pattern matches)")


def consumer_timeout(queue: Queue, policies: Iterable[Policy]) -> int | None:
    """Return the smallest consumer timeout of the queue's arguments and the policies that work on it, in ms."""
    found = [queue.arguments.get("x-consumer-timeout"), *(each.definition.get("consumer-timeout") for each in policies)]
    return min((each for each in found if isinstance(each, int) and each > 0), default=None)


def reading_problem(queue: Queue, policies: Iterable[Policy], version: tuple[int, ...]) -> str | None:
    """Say why requeueing messages could lose them; None when it cannot."""
    if queue.type == "classic":
        return None
    if queue.type != "quorum":
        return f"it is a {queue.type} queue, from which messages cannot be removed"
    found = [(queue.arguments.get("x-delivery-limit"), "argument x-delivery-limit")]
    found += [(policy.definition.get("delivery-limit"), _called(policy, queue)) for policy in policies]
    limits = [(limit, source) for limit, source in found if isinstance(limit, int) and not isinstance(limit, bool)]
    finite = [(limit, source) for limit, source in limits if limit >= 0]
    if version < (4,) and len(finite) < len(limits):
        return "its delivery limit is below 0, which RabbitMQ 3 takes as 0 (fact 3.2)"
    if finite and min(finite)[0] < SAFE_LIMIT:
        limit, source = min(finite)
        return f"{source} limits it to {limit} deliveries of a message, after which the message is dropped"
    if not limits and version >= (4,):
        return "it has RabbitMQ's default delivery limit of 20, after which a message is dropped"
    return None


async def _look(
    broker: Broker, compiled: CompiledTopology, queue: str, unverified: bool
) -> tuple[Queue, Sequence[tuple[Policy, ...]], tuple[str, ...]]:
    """Return the queue, the policies that work on it (several combinations where that is not known), and notes."""
    desired = compiled.desired.queues.get(queue, Queue(name=queue, arguments={"x-queue-type": "quorum"}))
    if broker.management is not None:
        vhost, version = broker.address.vhost, broker.connection.version
        found = next((each for each in await broker.management.queues(vhost) if each.name == queue), None)
        if found is None:
            raise _missing(compiled, queue)
        users = may_work(await broker.management.policies(vhost), found, version)
        operators = may_work(await broker.management.operator_policies(vhost), found, version)
        works = product(alternatives(users, found), alternatives(operators, found))
        return found, [tuple(policy for policy in each if policy is not None) for each in works], ()
    probe = Probe(broker.connection)
    try:
        compared = await probe.queue(desired)
    except PermissionDeniedError as error:
        if not unverified:
            raise RefusedError(
                f"cannot verify that reading {queue} is safe: without the management API amqpflow compares its "
                f"arguments by declaring it again, and that is denied: {error}",
                hint="give `management_url`, or the configure permission on the queue, or `unverified`",
            ) from error
        return desired, [()], (f"the delivery limit of {queue} was not verified", UNCHECKED)
    finally:
        await probe.close()
    if compared is None:
        raise _missing(compiled, queue)
    if isinstance(compared, Unreadable):
        raise RefusedError(f"the parking queue {queue} is not as the file says: {compared.text}")
    return compared, [()], (UNCHECKED,)


def _missing(compiled: CompiledTopology, queue: str) -> NotAppliedError:
    if queue not in compiled.parking_queues:
        return NotAppliedError(f"there is no queue {queue}", hint="check that the URL names the right virtual host")
    return NotAppliedError(f"there is no parking queue {queue}", hint=f"amqpflow apply {shlex.quote(compiled.file)}")
