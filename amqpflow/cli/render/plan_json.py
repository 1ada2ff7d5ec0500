"""A plan and what became of it, for programs. Within one `format`, keys are only added."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, assert_never

from amqpflow.planning.changes import (
    Bind,
    Change,
    CreateExchange,
    CreateQueue,
    DeleteExchange,
    DeleteQueue,
    Drain,
    EnsureBinding,
    PutManifest,
    PutPolicy,
    Rebind,
    RemoveManifest,
    RemovePolicy,
    Unbind,
)
from amqpflow.planning.findings import Finding
from amqpflow.planning.manifest import to_json
from amqpflow.planning.plan import Plan
from amqpflow.planning.report import ApplyReport

FORMAT = 1


def plan_object(plan: Plan) -> dict[str, Any]:
    """The plan as JSON takes it; `changes` are in the order in which they are carried out."""
    return {
        "format": FORMAT,
        "topology": plan.topology.name,
        "file": plan.topology.file,
        "broker": plan.broker,
        "vhost": plan.vhost,
        "complete": plan.complete,
        "source": plan.source,
        "changes": [_change(change) for change in plan.changes],
        "unchanged": [{"kind": kind, "name": name} for kind, name in plan.unchanged],
        "purpose": plan.purpose,
        "required": list(plan.required),
        "used": [asdict(each) for each in plan.used],
        "refusals": [_finding(each) for each in plan.refusals],
        "warnings": [_finding(each) for each in plan.warnings],
        "notes": list(plan.notes),
    }


def applied_object(report: ApplyReport) -> dict[str, Any]:
    """The plan, and under `result` how far it got."""
    failed = report.failed
    return plan_object(report.plan) | {
        "result": {
            "complete": report.complete,
            "done": [_name(change) for change in report.done],
            "failed": failed and {**_name(failed.change), "reason": failed.reason, "hint": failed.hint},
            "interrupted": report.interrupted and _name(report.interrupted),
            "remaining": [_name(change) for change in report.remaining],
        }
    }


def _name(change: Change) -> dict[str, Any]:
    return {"action": change.action, "kind": change.kind, "name": change.name}


def _change(change: Change) -> dict[str, Any]:
    described = _name(change)
    match change:
        case CreateExchange(exchange=exchange):
            described["after"] = asdict(exchange)
        case CreateQueue(queue=queue):
            described["after"] = asdict(queue)
        case Bind(binding=binding) | EnsureBinding(binding=binding):
            described["after"] = asdict(binding)
        case PutPolicy(policy=policy, replaces=replaces):
            described["before"] = replaces and asdict(replaces)
            described["after"] = asdict(policy)
        case RemovePolicy(policy=policy):
            described["before"] = asdict(policy)
        case Unbind(binding=binding, why=why):
            described |= {"before": asdict(binding), "why": why}
        case Rebind(binding=binding, replaces=bound):
            described |= {"before": asdict(bound), "after": asdict(binding)}
        case Drain(queue=queue):
            described |= {
                "before": asdict(queue),
                "messages": change.messages,
                "delay_ms": change.delay_ms,
                "due_ms": change.due_ms,
                "returns_to": change.returns_to,
            }
        case DeleteQueue(queue=queue):
            described |= {
                "before": asdict(queue),
                "messages": change.messages,
                "consumers": change.consumers,
                "forced": change.forced,
                "why": change.why,
            }
        case DeleteExchange(exchange=exchange, why=why):
            described |= {"before": asdict(exchange), "why": why}
        case PutManifest(manifest=manifest, replaces=recorded):
            described |= {"before": recorded and to_json(recorded), "after": to_json(manifest)}
        case RemoveManifest(manifest=manifest):
            described["before"] = to_json(manifest)
        case _:
            assert_never(change)
    return described


def _finding(finding: Finding) -> dict[str, str]:
    return {"code": finding.code, "object": finding.object, "message": finding.message, "hint": finding.hint}
