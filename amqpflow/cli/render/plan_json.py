"""Write a plan and its result as JSON. Within one `version`, keys are only added."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from typing import Any, assert_never

from amqpflow.cli.safe import with_options
from amqpflow.model.resources import Binding, Exchange, Policy, Queue
from amqpflow.planning.checks.message_loss import leaving
from amqpflow.planning.reports.consequences import Consequence, consequences, replaced_queues
from amqpflow.planning.values import changes
from amqpflow.planning.values.apply_report import ApplyReport
from amqpflow.planning.values.findings import Finding
from amqpflow.planning.values.manifest import to_json
from amqpflow.planning.values.observation import Depth
from amqpflow.planning.values.plan import Plan
from amqpflow.planning.values.queue_risk import QueueRisk

from .values import json_value, picked

VERSION = 1


def plan_object(plan: Plan) -> dict[str, Any]:
    """Return the plan for JSON, by `plan_schema`; `changes` are in the order of execution."""
    told = consequences(plan)
    depths = plan.observed.depths
    return {
        "version": VERSION,
        "topology": plan.topology.name,
        "file": plan.topology.file,
        **picked(plan, "broker", "vhost", "complete", "source"),
        "summary": _summary(plan, told),
        "changes": [_change(each, each.change, depths) for each in told if each.change is not None],
        "replacements": [_told(each) for each in told if each.change is None],
        "unchanged": [{"kind": kind, "name": name} for kind, name in plan.unchanged],
        "purpose": plan.purpose,
        "required": list(plan.required),
        "used": [asdict(each) for each in plan.used],
        "bindings": [{"name": each.binding.name, "origin": each.origin} for each in plan.listed],
        "refusals": [_finding(each) for each in plan.refusals],
        "warnings": [_finding(each) for each in plan.warnings],
        "notes": [with_options(each) for each in plan.notes],
        "guarantees": [asdict(each) for each in plan.guarantees],
    }


def applied_object(report: ApplyReport) -> dict[str, Any]:
    """Return the plan, with what was done under `result`."""
    failed = report.failed
    return plan_object(report.plan) | {
        "result": {
            "complete": report.complete,
            "done": [_name(change) for change in report.done],
            "failed": failed
            and {**_name(failed.change), "reason": with_options(failed.reason), "hint": with_options(failed.hint)},
            "interrupted": list(map(_name, report.interrupted)),
            "remaining": [_name(change) for change in report.remaining],
            "postponed": [{**_name(each.change), "messages": each.messages} for each in report.postponed],
        }
    }


def _name(change: changes.Change) -> dict[str, Any]:
    return picked(change, "action", "kind", "name")


def _summary(plan: Plan, told: Iterable[Consequence]) -> dict[str, int]:
    """Count each action; replacements and migrations are counted separately."""
    counts = Counter(each.action for each in told)
    counts["replace"] += len(plan.replaced)
    for _ in replaced_queues(plan.changes):
        counts -= Counter(create=1, delete=1)
    known = dict.fromkeys(("create", "update", "delete", "replace", "migrate", "ensure"), 0)
    return {**known, **counts, "unchanged": len(plan.unchanged)}


def _told(each: Consequence) -> dict[str, Any]:
    """Return the details of a change, or of a queue that would have to be replaced."""
    return {
        **picked(each, "action", "kind", "name", "step", "symbol"),
        "danger": each.danger.name.lower(),
        "attributes": [
            {"name": difference.key, "before": json_value(difference.observed), "after": json_value(difference.desired)}
            for difference in each.attributes
        ],
        "reason": each.reason,
        "how": with_options(each.how),
        "effects": picked(each.effects, "messages", "consumers", "bindings", "when"),
        "queues": list(each.queues),
    }


def _at_stake(stakes: Iterable[QueueRisk], depths: Mapping[str, Depth]) -> list[dict[str, Any]]:
    return [
        {
            "queue": stake.queue,
            "key": str(stake.risk),
            **picked(stake, "before", "after"),
            "messages": leaving(stake, depths.get(stake.queue)),
            "to": stake.target,
            "allowed": stake.allowed,
        }
        for stake in stakes
    ]


def _change(each: Consequence, change: changes.Change, depths: Mapping[str, Depth]) -> dict[str, Any]:
    described = _told(each)
    match change:
        case (
            changes.CreateExchange(exchange=new)
            | changes.CreateQueue(queue=new)
            | changes.Bind(binding=new)
            | changes.EnsureBinding(binding=new)
        ):
            described["after"] = _fields(new)
        case changes.PutPolicy(policy=policy, replaces=replaces):
            described |= {
                "before": replaces and _fields(replaces),
                "after": _fields(policy),
                "at_stake": _at_stake(change.at_stake, depths),
            }
        case changes.RemovePolicy(policy=policy):
            described |= {"before": _fields(policy), "at_stake": _at_stake(change.at_stake, depths)}
        case changes.Unbind(binding=old, why=why) | changes.DeleteExchange(exchange=old, why=why):
            described |= {"before": _fields(old), "why": why}
        case changes.Rebind(binding=binding, replaces=bound):
            described |= {"before": _fields(bound), "after": _fields(binding)}
        case changes.Drain(queue=queue):
            described |= {
                "before": _fields(queue),
                **picked(change, "messages", "delay_ms", "due_ms", "returns_to"),
            }
        case changes.DeleteQueue(queue=queue):
            described |= {"before": _fields(queue), **picked(change, "messages", "consumers", "forced", "why")}
        case changes.PutManifest(manifest=manifest, replaces=recorded):
            described |= {"before": recorded and to_json(recorded), "after": to_json(manifest)}
        case changes.RemoveManifest(manifest=manifest):
            described["before"] = to_json(manifest)
        case _:
            assert_never(change)
    return described


def _fields(thing: Exchange | Queue | Binding | Policy) -> dict[str, Any]:
    return {field.name: json_value(getattr(thing, field.name)) for field in fields(thing)}


def _finding(finding: Finding) -> dict[str, str]:
    message, hint = with_options(finding.message), with_options(finding.hint)
    return {"code": finding.code, "object": finding.object, "message": message, "hint": hint}
