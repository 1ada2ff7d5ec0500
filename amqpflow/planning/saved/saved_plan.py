"""Save a plan as text: it is approved now, and later carried out exactly so, or not at all.

It holds the compiled topology, the steps, and what was seen of the virtual host as far as the plan rests on it. No
password and no address is in it.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from hashlib import sha256
from typing import Any

from amqpflow.model.resources import BrokerState
from amqpflow.planning.values.observation import Observation
from amqpflow.planning.values.plan import Plan

from .json_codec import UnreadablePlanError, decode, encode

FORMAT = 2
_KEY = "amqpflow_plan"
_HEAD = re.compile(rf'\s*\{{\s*"{_KEY}"')


def is_saved_plan(text: str) -> bool:
    """Return whether a file that begins so is a saved plan, and no topology."""
    return _HEAD.match(text) is not None


def plan_to_text(plan: Plan, *, version: str) -> str:
    """Return the plan as JSON, with a checksum that an edited or cut file does not have.

    It holds the version of amqpflow: another one may take other steps for the same difference.
    """
    kept = encode(Plan, replace(plan, observed=relevant(plan)))
    body = {"amqpflow": version, "plan": kept}
    return json.dumps({_KEY: FORMAT, "checksum": _checksum(body), **body}, indent=1) + "\n"


def plan_from_text(text: str, *, version: str) -> Plan:
    """Return the plan that `plan_to_text` wrote, with no address.

    Raises:
        UnreadablePlanError: cut, edited, or written by another version. `str()` says which.
    """
    try:
        whole: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise UnreadablePlanError("it is incomplete: the file was truncated or edited") from None
    if not isinstance(whole, dict) or _KEY not in whole:
        raise UnreadablePlanError("it is not a saved plan")
    if whole[_KEY] != FORMAT:
        raise UnreadablePlanError(f"it has format {whole[_KEY]!r}, this version of amqpflow reads {FORMAT}")
    if whole.get("amqpflow") != version:
        raise UnreadablePlanError(f"amqpflow {whole.get('amqpflow')} made it, this is {version}")
    body = {"amqpflow": whole["amqpflow"], "plan": whole.get("plan")}
    if whole.get("checksum") != _checksum(body):
        raise UnreadablePlanError("it was edited after it was saved: the checksum does not match")
    plan: Plan = decode(Plan, body["plan"], "plan")
    return plan


def relevant(plan: Plan) -> Observation:
    """Return what the plan rests on: what it names, what is ours, and the policies. Foreign queues are left out."""
    topology, state = plan.topology, plan.observed.state
    desired = topology.desired
    queues = {*desired.queues, *topology.required_queues, *topology.routes}
    exchanges = {*desired.exchanges, *topology.required_exchanges}
    ends = {"queue": queues, "exchange": exchanges}
    own = (topology.retry_exchange, topology.parking_exchange)
    return replace(
        plan.observed,
        others=(),
        state=BrokerState(
            exchanges={n: e for n, e in state.exchanges.items() if n in exchanges or e.owner == topology.name},
            queues={n: q for n, q in state.queues.items() if n in queues or q.owner == topology.name},
            bindings=tuple(
                each
                for each in state.bindings
                if each.source in own or (each.source and each.destination in ends[each.destination_type])
            ),
            policies=dict(state.policies),
            operator_policies=dict(state.operator_policies),
        ),
    )


def _checksum(body: dict[str, Any]) -> str:
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return f"sha256:{sha256(canonical.encode()).hexdigest()}"
