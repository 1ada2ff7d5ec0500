"""Retry policies: schedules that can be built, and rules that can be reached."""

from __future__ import annotations

import builtins
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from amqpflow.model.diagnostic import Place
from amqpflow.model.units import format_duration
from amqpflow.topology.compile.schedule import delays_of
from amqpflow.topology.language.codes import Code
from amqpflow.topology.language.types import MAX_DELAY_MS
from amqpflow.topology.reading.problems import Problems
from amqpflow.topology.reading.spec import BackoffSpec, DelaySpec, PolicySpec, RuleSpec, TopologySpec

_TIERS_ONLY = ("delays", "backoff", "give_up_after", "jitter")
_NATIVE_ONLY = ("delay", "retries")


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A schedule somewhere in a policy."""

    what: str
    part: PolicySpec | RuleSpec
    delays: tuple[DelaySpec, ...] | None
    backoff: BackoffSpec | None

    @property
    def place(self) -> Place:
        return self.part.at("delays" if self.delays is not None else "backoff")


def one_schedule(spec: TopologySpec, problems: Problems) -> None:
    """Check that a policy has delays or a backoff, and a rule one of delays, backoff and park."""
    for policy in spec.policies.values():
        if policy.tiers:
            _exactly_one(f"retry policy {policy.name}", policy, ("delays", "backoff"), problems)
        for rule in policy.on:
            _exactly_one("a rule", rule, ("delays", "backoff", "park"), problems)


def _exactly_one(what: str, part: PolicySpec | RuleSpec, keys: tuple[str, ...], problems: Problems) -> None:
    given = [key for key in keys if key in part.places]
    if not given:
        hint = "delays: [5s, 30s, 5m]; delays: [] parks the first failure"
        problems.error(Code.NO_SCHEDULE, part.place, f"{what} needs one of {', '.join(keys)}", hint)
    for key in given[1:]:
        message = f"{what} has {given[0]} and {key}, which cannot be combined"
        problems.error(Code.CONFLICTING_KEYS, part.at(key), message, "keep one of them")


def native_only_keys(spec: TopologySpec, problems: Problems) -> None:
    """Refuse delay and retries without the native engine."""
    for policy in spec.policies.values():
        for key in _NATIVE_ONLY:
            if policy.tiers and key in policy.places:
                hint = "delays: [...] or backoff: {...}; engine: native needs RabbitMQ 4.3"
                problems.error(Code.CONFLICTING_KEYS, policy.at(key), f"{key} requires engine: native", hint)


def native_keys(spec: TopologySpec, problems: Problems) -> None:
    """Check keys of native retry: it grows linearly, without jitter or schedules by error (facts 8.3, 8.11)."""
    for policy in spec.policies.values():
        if not policy.native:
            continue
        for key in _TIERS_ONLY:
            if key in policy.places:
                message = f"engine: native cannot honour {key}: RabbitMQ waits min times the attempt, at most max"
                problems.error(Code.NATIVE_CANNOT, policy.at(key), message, f"remove {key}, or engine: native")
        for rule in policy.on:
            for key in ("delays", "backoff"):
                if key in rule.places:
                    message = f"engine: native has one delay for all errors: a rule can only park, not set {key}"
                    problems.error(Code.NATIVE_CANNOT, rule.at(key), message, "park: DETAIL, or engine: tiers")
        for key in _NATIVE_ONLY:
            if key not in policy.places:
                example = "delay: {min: 1s, max: 30s}" if key == "delay" else "retries: 8"
                message = f"retry policy {policy.name} has no {key}, which engine: native needs"
                problems.error(Code.MISSING_KEY, policy.place, message, example)
        delay = policy.native_delay
        if delay and delay.min_ms is not None and delay.max_ms is not None and delay.max_ms < delay.min_ms:
            message = "the delay's max is shorter than its min"
            problems.error(Code.OUT_OF_RANGE, delay.at("max"), message)


def native_queues(spec: TopologySpec, problems: Problems) -> None:
    """Check that native retry stands on quorum queues, without a delivery limit of their own."""
    for queue in spec.queues.values():
        policy = spec.policy_of(queue)
        if policy is None or not policy.native:
            continue
        named = f"queue {queue.name}: retry policy {policy.name} has engine: native"
        if queue.classic:
            message = f"{named}, which needs a quorum queue"
            problems.error(Code.NATIVE_NEEDS_QUORUM, queue.at("type"), message, "type: quorum")
        if queue.external:
            message = f"{named}, which the owner of an external queue decides"
            problems.error(Code.NATIVE_CANNOT, queue.at("retry"), message, "a policy with engine: tiers")
        excluded = {"delivery_limit": "sets the limit itself, to its retries and 20", "tiers": "has no retry queues"}
        for key, why in excluded.items():
            if key in queue.places:
                problems.error(Code.NATIVE_CANNOT, queue.at(key), f"{named}, which {why}", f"remove {key}")


def delays_increase(spec: TopologySpec, problems: Problems) -> None:
    """Refuse delays that do not grow, which are nearly always typos: 5m 30s, or 1s for 1m."""
    for _, schedule in _schedules(spec):
        for before, after in pairwise(schedule.delays or ()):
            if after.delay_ms <= before.delay_ms:
                here, there = format_duration(after.delay_ms), format_duration(before.delay_ms)
                message, hint = f"delay {here} comes after the longer {there}", "sort the delays, shortest first"
                if after.delay_ms == before.delay_ms:
                    message = f"delay {here} is listed twice"
                    hint = f"write {{delay: {here}, times: {before.times + after.times}}}"
                problems.error(Code.DELAYS_NOT_INCREASING, after.place, message, hint)


def backoff_grows(spec: TopologySpec, problems: Problems) -> None:
    """Check that a backoff stays between its initial delay and the longest that RabbitMQ can hold."""
    for _, schedule in _schedules(spec):
        backoff = schedule.backoff
        if backoff is None or backoff.initial_ms is None:
            continue
        if backoff.max_ms is not None and backoff.max_ms < backoff.initial_ms:
            message = f"max is shorter than initial, {format_duration(backoff.initial_ms)}"
            problems.error(Code.BAD_BACKOFF, backoff.at("max"), message, "make max longer, or initial shorter")
        elif "max" not in backoff.places and (delays := delays_of(None, backoff)) and delays[-1] == MAX_DELAY_MS:
            longest = format_duration(MAX_DELAY_MS)
            message = f"the backoff grows beyond {longest} ({MAX_DELAY_MS} ms), the longest delay RabbitMQ has"
            problems.error(Code.BAD_BACKOFF, backoff.place, message, "give it a max, such as max: 2h")


def gives_up(spec: TopologySpec, problems: Problems) -> None:
    """Check that a schedule fits into give_up_after, at least its first delay."""
    for policy, schedule in _schedules(spec):
        limit = policy.give_up_after_ms
        delays = delays_of(schedule.delays, schedule.backoff)
        if limit is None or not delays:
            continue
        said = f"give_up_after: {format_duration(limit)}"
        if delays[0] > limit:
            message = f"{schedule.what}: the first delay, {format_duration(delays[0])}, is longer than {said}"
            hint = "every failure would be parked at once; make give_up_after longer"
            problems.error(Code.GIVES_UP_AT_ONCE, schedule.place, message, hint)
            continue
        waited = 0
        for number, delay in enumerate(delays, start=1):
            waited += delay
            if waited * (1 - policy.jitter) > limit:
                message = (
                    f"{schedule.what}: retry {number} after {format_duration(delay)} never happens, the delays up to "
                    f"it are longer than {said}"
                )
                hint = "make give_up_after longer, or remove the delay"
                problems.warning(Code.STEP_NEVER_TAKEN, schedule.place, message, hint)
                break


def error_names(spec: TopologySpec, problems: Problems) -> None:
    """Check that errors are named as in Python: a class, or a class with its module."""
    for policy in spec.policies.values():
        for rule in policy.on:
            for error in rule.errors:
                if not all(part.isidentifier() for part in error.value.split(".")):
                    message = f"{error.value[:80]!r} cannot be the name of an exception"
                    hint = "for example ValueError or httpx.ConnectError"
                    problems.error(Code.BAD_ERROR_NAME, error.place, message, hint)


def rules_reachable(spec: TopologySpec, problems: Problems) -> None:
    """Warn about unreachable rules: the first rule that matches an error, or a base of it, wins."""
    for policy in spec.policies.values():
        earlier: dict[str, Place] = {}
        for rule in policy.on:
            for error in rule.errors:
                above = next((name for name in _names_above(error.value) if name in earlier), None)
                if above is not None:
                    line = earlier[above].line
                    message = f"{error.value[:80]} never matches here: the rule for {above} on line {line} comes first"
                    problems.warning(Code.RULE_UNREACHABLE, error.place, message, "put the more specific class first")
            for error in rule.errors:
                earlier.setdefault(error.value, error.place)


def _names_above(name: str) -> list[str]:
    """Return the name itself, and the bases of a built-in exception."""
    found = getattr(builtins, re.sub(r"^builtins\.", "", name), None)
    if isinstance(found, type) and issubclass(found, BaseException):
        return [base.__name__ for base in found.__mro__ if base is not object]
    return [name]


def _schedules(spec: TopologySpec) -> Iterator[tuple[PolicySpec, Schedule]]:
    """Yield every schedule of the policies that have some."""
    for policy in spec.policies.values():
        if policy.native:
            continue
        named = f"retry policy {policy.name}"
        yield policy, Schedule(what=named, part=policy, delays=policy.delays, backoff=policy.backoff)
        for rule in policy.on:
            yield policy, Schedule(what=f"{named}, a rule", part=rule, delays=rule.delays, backoff=rule.backoff)


RULES = (
    one_schedule,
    native_only_keys,
    native_keys,
    native_queues,
    delays_increase,
    backoff_grows,
    gives_up,
    error_names,
    rules_reachable,
)
