"""A topology file, loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from amqpflow.model.diagnostic import Diagnostic
from amqpflow.model.routes import CompiledTopology, QueueRoutes


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """What a topology file says, compiled: pass it to `Consumer`, `plan`, `apply` and `replay`."""

    compiled: CompiledTopology
    warnings: tuple[Diagnostic, ...] = ()

    @property
    def name(self) -> str:
        """The topology's name, which owns everything it declares."""
        return self.compiled.name

    @property
    def vhost(self) -> str:
        """The virtual host it belongs to."""
        return self.compiled.vhost

    @property
    def file(self) -> str:
        """Where it was read."""
        return self.compiled.file

    @property
    def routes(self) -> Mapping[str, QueueRoutes]:
        """Where failed messages of each work queue go."""
        return self.compiled.routes
