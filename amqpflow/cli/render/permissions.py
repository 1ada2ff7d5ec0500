"""Show permissions, as text, as shell commands and as JSON."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from typing import Any

from amqpflow.cli.safe import safe, said, with_options
from amqpflow.model.routes import CompiledTopology
from amqpflow.planning.reports.permissions import PURPOSES, Grant

VERSION = 1


def permissions_text(topology: CompiledTopology, grants: Iterable[Grant]) -> str:
    """Return each role with its patterns, tags and notes, then the commands that grant them."""
    return "\n".join(_lines(topology, tuple(grants)))


def _lines(topology: CompiledTopology, grants: tuple[Grant, ...]) -> Iterator[str]:
    where = f"virtual host {topology.vhost}" if topology.vhost else "its virtual host"
    yield safe(f"Topology {topology.name}, in {where}:")
    for grant in grants:
        yield ""
        yield f"{grant.role}: {PURPOSES[grant.role]}"
        for kind, pattern in grant.patterns.items():
            yield f"  {kind:<9}  {safe(pattern.text)}"
        yield f"  {'tags':<9}  {', '.join(grant.tags) or 'none'}"
        yield from (f"  note: {said(note)}" for note in grant.notes)
    yield ""
    yield "# Create the users first: rabbitmqctl add_user NAME asks for a password."
    if not topology.vhost:
        yield "# FILE names no virtual host: replace / if yours is another one."
    for grant in grants:
        yield from map(safe, commands(topology, grant))


def commands(topology: CompiledTopology, grant: Grant) -> tuple[str, str]:
    """Return the two rabbitmqctl commands for a role, quoted for a POSIX shell. They replace the tags of the user."""
    user = f"{topology.name}-{grant.role}"
    patterns = [pattern.text for pattern in grant.patterns.values()]
    return (
        shlex.join(["rabbitmqctl", "set_permissions", "--vhost", topology.vhost or "/", user, *patterns]),
        shlex.join(["rabbitmqctl", "set_user_tags", user, *grant.tags]),
    )


def permissions_object(topology: CompiledTopology, grants: Iterable[Grant]) -> dict[str, Any]:
    """Return the grants for JSON, see docs/how-to/least-privilege.md. `version` grows if a key changes or goes."""
    return {
        "version": VERSION,
        "topology": topology.name,
        "vhost": topology.vhost or None,
        "roles": [
            {
                "role": grant.role,
                "purpose": PURPOSES[grant.role],
                **{kind: pattern.text for kind, pattern in grant.patterns.items()},
                "tags": list(grant.tags),
                "exact": not any(pattern.widened for pattern in grant.patterns.values()),
                "fits_every_release": all(pattern.fits for pattern in grant.patterns.values()),
                "notes": [with_options(each) for each in grant.notes],
                "commands": list(commands(topology, grant)),
            }
            for grant in grants
        ],
    }
