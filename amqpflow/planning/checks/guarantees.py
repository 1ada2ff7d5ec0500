"""Judge which guarantees hold on a queue that an application declared: its arguments stay, and decide much.

Told from the settings that work on the queue, as it will be once the plan is carried out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from amqpflow.model.own_policies import LENGTHS
from amqpflow.model.resources import BrokerState, Queue
from amqpflow.model.routes import CompiledTopology, QueueRoutes
from amqpflow.model.units import format_duration
from amqpflow.planning.ownership.ownership import is_own_policy
from amqpflow.planning.policies.effective import Effective, Setting, effective_in
from amqpflow.planning.values.guarantee import Guarantee, Promise
from amqpflow.planning.values.observation import Observation

from .dead_letter_targets import leads_nowhere, leads_only_to

_Judged = tuple[bool | None, str]  #: whether a promise holds, None: unknown; and why


def guarantees(desired: CompiledTopology, observed: Observation) -> tuple[Guarantee, ...]:
    """Return every promise about every `existing` queue of a topology that is there, with whether it holds and why."""
    found: list[Guarantee] = []
    for routes in desired.routes.values():
        queue = observed.state.queues.get(routes.queue)
        if routes.existing and queue is not None:
            if observed.complete:
                works = as_planned(desired, observed, queue)
                found += _QueueGuarantees(desired, observed.state, routes, works).all()
            else:
                found += _unseen(routes.queue)
    return tuple(found)


def as_planned(desired: CompiledTopology, observed: Observation, queue: Queue) -> Effective:
    """Return what will work on a queue once the policies of the topology are as the file says."""
    ours = desired.desired.policies
    theirs = [p for p in observed.state.policies.values() if not is_own_policy(p.name, desired.name)]
    return effective_in(observed, queue, topology=desired.name, policies=[*theirs, *ours.values()])


def as_found(desired: CompiledTopology, observed: Observation) -> CompiledTopology:
    """Return the topology with the at-least-once dead-lettering and the consumer timeout that a consumer may rely on.

    Over AMQP alone neither can be seen, and nothing changes. A consumer relies on it for as long as it runs. So
    dead-lettering counts only where arguments, which cannot change, name the parking queue itself: a policy, or a
    binding of the application's exchange, can be gone a moment later.
    """
    if not observed.complete:
        return desired
    routes = dict(desired.routes)
    for name, route in desired.routes.items():
        queue = observed.state.queues.get(name)
        if queue is None:
            continue
        works = effective_in(observed, queue, topology=desired.name)
        target = queue.arguments.get("x-dead-letter-exchange"), queue.arguments.get("x-dead-letter-routing-key")
        timeouts = [each.value for each in works.settings["consumer-timeout"].possible]
        shortest = min((each for each in timeouts if isinstance(each, int) and each > 0), default=None)
        routes[name] = replace(
            route,
            at_least_once=not route.existing and works.at_least_once and target == ("", route.parking_queue),
            consumer_timeout_ms=shortest,
        )
    return replace(desired, routes=routes)


def sentences(found: tuple[Guarantee, ...]) -> Iterator[str]:
    """Yield what a plan says of them: a line for what holds, one for each thing that does not."""
    by_queue: dict[str, list[Guarantee]] = {}
    for each in found:
        by_queue.setdefault(each.queue, []).append(each)
    for queue, judged in by_queue.items():
        held = [each.name for each in judged if each.holds]
        yield f"existing queue {queue}: holds: {', '.join(held) or 'nothing for sure'}."
        for each in judged:
            if not each.holds:
                verdict = "does not hold" if each.holds is False else "unknown"
                yield f"existing queue {queue}: {verdict}: {each.name}: {each.why}."


def _parks(works: Effective, parking_queue: str, state: BrokerState) -> bool:
    """Return whether the queue's own dead-lettering leads to its parking queue, by whatever exchange."""
    exchanges, keys = (works.settings[key].possible for key in ("dead-letter-exchange", "dead-letter-routing-key"))
    return all(
        exchange.value is not None and leads_only_to(state, parking_queue, exchange.value, key.value)
        for exchange in exchanges
        for key in keys
    )


class _QueueGuarantees:
    def __init__(self, desired: CompiledTopology, state: BrokerState, routes: QueueRoutes, works: Effective) -> None:
        self.desired, self.state, self.routes, self.works = desired, state, routes, works
        self.queue = works.queue
        self.parks = _parks(works, routes.parking_queue, state)

    def all(self) -> Iterator[Guarantee]:
        parks = "a message that is not retried any more is parked with its failure record"
        judged = {
            Promise.RETRIES: self._retries(),
            Promise.PARKING: (True, parks),
            Promise.BROKER_PARKS: self._broker_parks(),
            Promise.AT_LEAST_ONCE: self._at_least_once(),
            Promise.NOTHING_EXPIRES: self._nothing_expires(),
            Promise.CRASHES_END: self._crashes_end(),
            Promise.SURVIVES: self._survives(),
            Promise.LIMITS: self._limits(),
        }
        for name, (holds, why) in judged.items():
            if why:
                yield Guarantee(queue=self.queue.name, name=name, holds=holds, why=why)

    def _retries(self) -> _Judged:
        limited = any(self.works.value(key) is not None for key in LENGTHS)
        overflow = self.works.settings["overflow"]
        if limited and not overflow.is_surely("reject-publish"):
            text = (
                f"it is limited, and overflow {overflow.value} ({overflow.source}) works: while it is full, a message "
                f"that comes back pushes the oldest one out, which {self._fate()}"
            )
            return False, text
        return True, "a failed message waits in a retry queue and comes back to it"

    def _fate(self) -> str:
        """Return what happens to a message that RabbitMQ removes from the queue, after `which`."""
        exchange, key = self.works.settings["dead-letter-exchange"], self.works.settings["dead-letter-routing-key"]
        if exchange.value is None:
            return "is deleted"
        if self.parks:
            by = f" through exchange {exchange.value} ({exchange.source})" if exchange.value else ""
            return f"goes to {self.routes.parking_queue}{by}"
        where = f"exchange {exchange.value or '(default)'}" + (f", key {key.value}" if key.value is not None else "")
        if leads_nowhere(self.state, self.desired.desired, self.queue.name, exchange.value, key.value):
            return f"goes to {where} ({exchange.source}), which routes nowhere, so it is deleted"
        return f"goes to {where} ({exchange.source}), outside what amqpflow can see"

    def _broker_parks(self) -> _Judged:
        uncertain = [each for each in self._dead_lettering() if not each.certain]
        if uncertain:
            return None, _tie(uncertain[0])
        gives_up = "a message that RabbitMQ dead-letters (delivery limit, expiry, length, a foreign reject)"
        return self.parks, f"{gives_up} {self._fate()}{self._hidden()}"

    def _hidden(self) -> str:
        """Return why our policy does not do it."""
        for setting in self._dead_lettering():
            for each in setting.overruled:
                if each.source.policy is not None and is_own_policy(each.source.name, self.desired.name):
                    return f"; ours does not work: {each.why}"
        if not self.parks and self.desired.settings == "arguments":
            return "; with settings: arguments amqpflow writes no policy, and its arguments stay"
        return ""

    def _dead_lettering(self) -> list[Setting]:
        return [self.works.settings[key] for key in ("dead-letter-exchange", "dead-letter-routing-key")]

    def _at_least_once(self) -> _Judged:
        if self.queue.type != "quorum":
            return False, "a classic queue's own dead-lettering is at most once"
        if self.works.value("dead-letter-exchange") is None:
            return False, "it has no dead-letter exchange"
        setting = self.works.settings["dead-letter-strategy"]
        if not setting.certain:
            return None, _tie(setting)
        why = next((f": {each.why}" for each in setting.overruled if each.value == "at-least-once"), "")
        return self.works.at_least_once, f"its own dead-lettering is {setting.value}{why}"

    def _nothing_expires(self) -> _Judged:
        expires, ttl = self.works.settings["expires"], self.works.settings["message-ttl"]
        for each in (expires, ttl):
            if not each.certain:
                return None, _tie(each)
        if expires.value is not None:
            text = f"unused for {duration_or_ms(expires.value)} it is deleted with its messages ({expires.source})"
            return False, text
        if ttl.value is not None:
            text = f"a message that waits for {duration_or_ms(ttl.value)} ({ttl.source}), unhandled, {self._fate()}"
            return False, text
        return True, "no message-ttl and no expires works on it"

    def _crashes_end(self) -> _Judged:
        if self.queue.type != "quorum":
            text = "a classic queue counts no deliveries: a message that crashes its consumer is redelivered forever"
            return False, text
        limit = self.works.settings["delivery-limit"]
        if limit.value is None or (isinstance(limit.value, int) and limit.value < 0):
            parks = f"amqpflow's consumers park after {self.routes.crash_limit} deliveries without an answer"
            return True, f"{parks}; no delivery limit works on it, which would bind other consumers too"
        return True, f"the delivery limit is {limit.value} ({limit.source})"

    def _survives(self) -> _Judged:
        flaws = []
        if self.queue.durable is not True:
            flaws.append("not durable: a restart of RabbitMQ deletes it")
        if self.queue.auto_delete is not False:
            flaws.append("auto-delete: it is deleted with its messages when its last consumer goes")
        return not flaws, f"it is {', and '.join(flaws) or 'durable'}"

    def _limits(self) -> _Judged:
        """Return whether the limits that the file sets by our policy are those that work; no text: it sets none."""
        wanted = [
            policy.definition
            for policy in (*self.works.policies, *self.works.hidden, *(each.policy for each in self.works.passed_over))
            if is_own_policy(policy.name, self.desired.name)
        ]
        keys = (*LENGTHS, "consumer-timeout")
        asked = {key: value for definition in wanted for key, value in definition.items() if key in keys}
        for key, value in asked.items():
            setting = self.works.settings[key]
            if not setting.is_surely(value):
                text = f"{key} is {setting.value} ({setting.source}) and not {value}"
                return False, text
        return True, ", ".join(f"{key} {value}" for key, value in asked.items())


def _unseen(queue: str) -> Iterator[Guarantee]:
    yield Guarantee(queue=queue, name=Promise.PARKING, holds=True, why="amqpflow itself retries and parks")
    why = "its arguments and policies cannot be seen over AMQP alone"
    for name in Promise:
        if name not in (Promise.PARKING, Promise.LIMITS):
            yield Guarantee(queue=queue, name=name, holds=None, why=why)


def _tie(setting: Setting) -> str:
    doubtful = next((each.source for each in setting.possible if not each.source.certain), None)
    if doubtful is not None and doubtful.policy is not None:
        return (
            f"only RabbitMQ can tell if the pattern {doubtful.policy.pattern} of {doubtful.label} matches, which "
            f"decides {setting.key}"
        )
    names = " and ".join(dict.fromkeys(str(each.source) for each in setting.possible))
    return f"{names} differ about {setting.key} and share one priority; which works differs between releases"


def duration_or_ms(value: object) -> str:
    """Return 5s; a value that is not a positive number of milliseconds unchanged."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return format_duration(value)
    return f"{value} ms"
