"""What changed on a broker between two looks at it: which object, which attribute, from what to what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from amqpflow.model.resources import Binding, Exchange, Queue
from amqpflow.planning.values.changes import label
from amqpflow.planning.values.differences import same_value
from amqpflow.planning.values.observation import Observation
from amqpflow.planning.values.plan import Plan

from .saved_plan import relevant

_MANY = 20


def changes_since(then: Plan, now: Plan) -> tuple[str, ...]:
    """Return why a plan is not the one that it was, in sentences: what moved on the broker, else which steps differ."""
    told = [f"it was {then.broker}, it is {now.broker}"] if then.broker != now.broker else []
    if then.complete != now.complete:
        told.append(f"it was read by {then.source}, now by {now.source}")
    before, after = _things(relevant(then)), _things(relevant(now))
    for name in dict.fromkeys([*before, *after]):
        told += _differences(name, before.get(name), after.get(name))
    told = told or [*_steps(then, now)]
    more = [f"and {len(told) - _MANY} more differences"] if len(told) > _MANY else []
    return (*told[:_MANY], *more)


def _things(observed: Observation) -> dict[str, Mapping[str, Any]]:
    """Return everything seen, by its label, as attributes."""
    state = observed.state
    things: dict[str, Mapping[str, Any]] = {}
    for exchange in state.exchanges.values():
        things[f"exchange {exchange.name}"] = _attributes(exchange, "type", "durable", "auto_delete", "internal")
    for queue in state.queues.values():
        things[f"queue {queue.name}"] = _attributes(queue, "durable", "auto_delete", "exclusive")
    for binding in state.bindings:
        things[f"binding {binding.name}"] = _attributes(binding)
    for kind, policies in (("policy", state.policies), ("operator policy", state.operator_policies)):
        for policy in policies.values():
            about = {"pattern": policy.pattern, "priority": policy.priority, "apply-to": policy.apply_to}
            things[f"{kind} {policy.name}"] = {**about, **policy.definition}
    return things


def _attributes(thing: Exchange | Queue | Binding, *names: str) -> Mapping[str, Any]:
    return {**{name: getattr(thing, name) for name in names}, **thing.arguments}


def _differences(name: str, then: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> Iterator[str]:
    if then is None:
        yield f"{name} was not there, it is now"
    elif now is None:
        yield f"{name} was there, it is gone"
    else:
        for key in dict.fromkeys([*then, *now]):
            if not same_value(then.get(key), now.get(key)):
                yield f"{name}: {key} {_shown(then, key)} -> {_shown(now, key)}"


def _shown(attributes: Mapping[str, Any], key: str) -> str:
    return repr(attributes[key]) if key in attributes else "(not set)"


def _steps(then: Plan, now: Plan) -> Iterator[str]:
    """Say where two plans part when nothing that was saved has changed."""
    for number, (old, new) in enumerate(zip(then.changes, now.changes, strict=False), 1):
        if old != new:
            yield f"step {number} was {old.action} {label(old)}, it would be {new.action} {label(new)}"
            return
    if len(then.changes) != len(now.changes):
        yield f"it had {len(then.changes)} steps, it would have {len(now.changes)}"
    old_reasons = {str(each) for each in then.refusals}
    yield from (f"refused now: {each}" for each in now.refusals if str(each) not in old_reasons)
