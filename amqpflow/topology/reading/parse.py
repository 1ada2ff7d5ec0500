"""Fields -> TopologySpec: names for what was read, and defaults for what was not."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from amqpflow.model.diagnostic import Place
from amqpflow.model.own_policies import DEFAULT_POLICY_PRIORITY
from amqpflow.topology.language.keys import TOPOLOGY

from .nodes import MappingNode
from .problems import Problems
from .spec import (
    BackoffSpec,
    BindingSpec,
    DelaySpec,
    ExchangeSpec,
    NamingSpec,
    NativeDelaySpec,
    PolicySpec,
    QueueSpec,
    RuleSpec,
    TopologySpec,
)
from .validate import At, Fields, read

_SIMPLE = ("type", "retry", "max_priority", "delivery_limit", "crash_limit", "single_active_consumer")
_TABLES = ("retry_policies", "exchanges", "queues")


def parse_topology(root: MappingNode, problems: Problems) -> TopologySpec:
    """Read the whole file. What cannot be read is reported, and stands as if it were not there."""
    fields: Fields = read(root, TOPOLOGY, "the file", root.place, problems)
    defaults: Fields | None = fields.get("defaults")
    base, inherited = _defaults(defaults)
    naming: Fields | None = fields.get("naming")
    default_retry = defaults.get("retry") if defaults else None
    policies, exchanges, queues = (
        {name: each for name, each in (fields.get(table) or {}).items() if each.readable} for table in _TABLES
    )
    named = {name for table in _TABLES for name in fields.get(table) or ()}
    return TopologySpec(
        place=fields.place,
        places=fields.places,
        file=problems.file,
        name=fields.get("name") or "",
        vhost=fields.get("vhost") or "",
        settings=fields.get("settings") or "policies",
        policy_priority=fields.values.get("policy_priority", DEFAULT_POLICY_PRIORITY),
        naming=NamingSpec(place=naming.place, places=naming.places, **naming.values)
        if naming
        else NamingSpec(place=fields.place),
        policies={name: _policy(name, each) for name, each in policies.items()},
        exchanges={name: _exchange(name, each) for name, each in exchanges.items()},
        queues={name: _queue(name, each, base, inherited) for name, each in queues.items()},
        default_retry=At(place=defaults.places["retry"], value=default_retry) if defaults and default_retry else None,
        unreadable=frozenset(named - policies.keys() - exchanges.keys() - queues.keys()),
    )


def _defaults(defaults: Fields | None) -> tuple[dict[str, Any], dict[str, Place]]:
    """Return what every queue starts from, as arguments of QueueSpec, and where each of it was written."""
    if defaults is None:
        return {}, {}
    queue: Fields | None = defaults.get("queue")
    parts = [defaults] if queue is None else [queue, defaults]
    values: dict[str, Any] = {}
    places: dict[str, Place] = {}
    for part in parts:
        values |= _queue_values(part)
        places |= _queue_places(part)
    places.pop("queue", None)
    return values, places


def _queue_values(fields: Fields) -> dict[str, Any]:
    """Return the arguments of QueueSpec that these fields determine."""
    values = {name: fields.values[name] for name in _SIMPLE if name in fields.values}
    if "type" in fields.places:
        values.setdefault("type", "")  # neither type is assumed, so that nothing is said that follows from a guess
    limits, parking, tiers = (fields.get(name) for name in ("limits", "parking", "tiers"))
    if limits:
        values |= limits.values
    if parking:
        values |= {f"parking_{name}": value for name, value in parking.values.items()}
    if tiers and "type" in tiers.values:
        values["tiers_type"] = tiers.values["type"]
    if "policy" in fields.values:
        values["carried"] = fields.values["policy"]
    if "consumer_timeout" in fields.values:
        values["consumer_timeout_ms"] = fields.values["consumer_timeout"]
    return values


def _queue_places(fields: Fields) -> dict[str, Place]:
    places = dict(fields.places)
    for name in ("limits", "parking", "tiers"):
        if part := fields.get(name):
            places |= {key if name == "limits" else f"{name}_{key}": place for key, place in part.places.items()}
    return places


def _queue(name: str, fields: Fields, base: dict[str, Any], inherited: dict[str, Place]) -> QueueSpec:
    values = base | _queue_values(fields)
    for flag in ("existing", "external"):
        values[flag] = bool(fields.get(flag))
    return QueueSpec(
        place=fields.place,
        places=_queue_places(fields),
        inherited=inherited,
        name=name,
        bindings=tuple(_binding(each) for each in fields.get("bindings") or ()),
        arguments=fields.get("arguments") or {},
        owner=fields.get("owner"),
        dead_letters=fields.get("dead_letters"),
        **values,
    )


def _binding(fields: Fields) -> BindingSpec:
    return BindingSpec(
        place=fields.place,
        places=fields.places,
        exchange=fields.get("exchange"),
        routing_key=fields.get("routing_key") or "",
        arguments=fields.get("arguments") or {},
    )


def _exchange(name: str, fields: Fields) -> ExchangeSpec:
    durable = fields.get("durable")
    return ExchangeSpec(
        place=fields.place,
        places=fields.places,
        name=name,
        type=fields.get("type"),
        durable=True if durable is None else durable,
        alternate_exchange=fields.get("alternate_exchange"),
        arguments=fields.get("arguments") or {},
        external=bool(fields.get("external")),
    )


def _policy(name: str, fields: Fields) -> PolicySpec:
    delay: Fields | None = fields.get("delay")
    return PolicySpec(
        place=fields.place,
        places=fields.places,
        name=name,
        engine=fields.get("engine") or ("" if "engine" in fields.places else "tiers"),
        delays=_delays(fields.get("delays")),
        backoff=_backoff(fields.get("backoff")),
        give_up_after_ms=fields.get("give_up_after"),
        jitter=fields.get("jitter") or Fraction(0),
        on=tuple(_rule(each) for each in fields.get("on") or ()),
        native_delay=NativeDelaySpec(
            place=delay.place, places=delay.places, min_ms=delay.get("min"), max_ms=delay.get("max")
        )
        if delay
        else None,
        retries=fields.get("retries"),
    )


def _rule(fields: Fields) -> RuleSpec:
    return RuleSpec(
        place=fields.place,
        places=fields.places,
        errors=fields.get("errors") or (),
        delays=_delays(fields.get("delays")),
        backoff=_backoff(fields.get("backoff")),
        park=fields.get("park"),
    )


def _delays(items: tuple[Fields | At, ...] | None) -> tuple[DelaySpec, ...] | None:
    if items is None:
        return None
    found = []
    for item in items:
        if isinstance(item, At):
            found.append(DelaySpec(place=item.place, delay_ms=item.value))
        elif (delay := item.get("delay")) is not None:
            found.append(DelaySpec(place=item.place, places=item.places, delay_ms=delay, times=item.get("times") or 1))
    return tuple(found)


def _backoff(fields: Fields | None) -> BackoffSpec | None:
    if fields is None:
        return None
    return BackoffSpec(
        place=fields.place,
        places=fields.places,
        initial_ms=fields.get("initial"),
        multiplier=fields.get("multiplier") or 2,
        max_ms=fields.get("max"),
        retries=fields.get("retries"),
    )
