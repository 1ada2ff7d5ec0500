"""What must hold beyond the shape of single values. Each rule is a small function; each finding has a code."""

from __future__ import annotations

from collections.abc import Callable

from amqpflow.topology.reading.problems import Problems
from amqpflow.topology.reading.spec import TopologySpec

from . import arguments, bindings, dead_letters, names, policy_keys, queues, references, retries, size

Rule = Callable[[TopologySpec, Problems], None]

RULES: tuple[Rule, ...] = (
    *names.RULES,
    *references.RULES,
    *bindings.RULES,
    *retries.RULES,
    *queues.RULES,
    *arguments.RULES,
    *dead_letters.RULES,
    *policy_keys.RULES,
)


def check_topology(spec: TopologySpec, problems: Problems) -> bool:
    """Apply every rule to one file; return False when it asks for so much that it was not looked at any further."""
    if not size.fits(spec, problems):
        return False
    for rule in RULES:
        rule(spec, problems)
    return True
