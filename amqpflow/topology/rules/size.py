"""How much a file may ask for. Checked first: what is too large is not worked out any further."""

from __future__ import annotations

from amqpflow.topology.compile.schedule import delays_by_policy, retries_in
from amqpflow.topology.language.codes import Code
from amqpflow.topology.language.keys_of_retries import MOST_RETRIES
from amqpflow.topology.reading.problems import Problems
from amqpflow.topology.reading.spec import PolicySpec, RuleSpec, TopologySpec

MOST_STEPS = 100_000
MOST_STEPS_OF_QUEUES = 500_000
MOST_RETRY_QUEUES = 50_000
MANY_RETRY_QUEUES = 40


def fits(spec: TopologySpec, problems: Problems) -> bool:
    """Return whether the schedules and retry queues of a file are small enough to work out."""
    return schedules(spec, problems) and retry_queues(spec, problems)


def schedules(spec: TopologySpec, problems: Problems) -> bool:
    """Check that each schedule is bounded, and that all of them together fit into memory."""
    fit = True
    lengths = dict.fromkeys(spec.policies, 0)
    for policy in spec.policies.values():
        parts: tuple[PolicySpec | RuleSpec, ...] = (policy, *policy.on)
        for part in parts:
            retries = retries_in(part.delays, part.backoff)
            lengths[policy.name] += retries
            if retries > MOST_RETRIES:
                message = f"retry policy {policy.name}: a schedule of {retries:,} retries, more than {MOST_RETRIES:,}"
                problems.error(Code.OUT_OF_RANGE, part.at("delays"), message)
                fit = False
    used = sum(lengths.get(queue.retry or "", 0) for queue in spec.queues.values())
    for total, most, of in (
        (sum(lengths.values()), MOST_STEPS, "all retry policies together"),
        (used, MOST_STEPS_OF_QUEUES, "the schedules of all queues together"),
    ):
        if total > most:
            message = f"{of} have {total:,} retries, more than {most:,}"
            problems.error(Code.TOO_COMPLEX, spec.at("retry_policies"), message, "write several topologies")
            fit = False
    return fit


def retry_queues(spec: TopologySpec, problems: Problems) -> bool:
    """Limit the retry queues: each is a quorum queue, with a Raft group, files and memory on each node."""
    counts = {name: len(delays) for name, delays in delays_by_policy(spec).items()}
    total = sum(counts.get(queue.retry, 0) for queue in spec.queues.values())
    if total > MOST_RETRY_QUEUES:
        message = f"the file makes {total:,} retry queues, more than {MOST_RETRY_QUEUES:,}"
        hint = "use fewer different delays, or write several topologies"
        problems.error(Code.TOO_COMPLEX, spec.at("queues"), message, hint)
    used = {queue.retry for queue in spec.queues.values()}
    for name, policy in spec.policies.items():
        if counts[name] > MANY_RETRY_QUEUES and name in used:
            message = f"retry policy {name}: {counts[name]} retry queues for each work queue, each a queue of its own"
            hint = "equal delays share one; jitter makes four of each"
            problems.warning(Code.MANY_TIERS, policy.place, message, hint)
    return total <= MOST_RETRY_QUEUES
