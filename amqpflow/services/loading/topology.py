"""A topology file, loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from amqpflow.errors import InvalidTopologyError, UsageError
from amqpflow.model.diagnostic import Diagnostic
from amqpflow.model.resources import BrokerState
from amqpflow.model.routes import CompiledTopology, QueueRoutes


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """A topology file, compiled. Pass it to `Consumer`, `plan`, `apply` and `replay`."""

    compiled: CompiledTopology
    warnings: tuple[Diagnostic, ...] = ()

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, environ: Mapping[str, str] | None = None) -> Topology:
        """Read, check and compile a topology file.

        Args:
            path: a file, or a directory that holds exactly one (several are several topologies).
            environ: values of `${VAR}` in it; None means the process environment.

        Raises:
            InvalidTopologyError: it cannot be read, or has errors; all of them, and warnings, are in `.diagnostics`.
        """
        from .topology_files import check_paths, not_one

        checked = check_paths([path], environ)
        if checked.errors:
            raise InvalidTopologyError(checked.diagnostics)
        if len(checked.topologies) != 1:
            raise InvalidTopologyError([not_one(path, checked.topologies)])
        return cls(compiled=checked.topologies[0], warnings=checked.warnings)

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
        """The file it was read from."""
        return self.compiled.file

    @property
    def routes(self) -> Mapping[str, QueueRoutes]:
        """Where failed messages of each work queue go."""
        return self.compiled.routes


def no_topology() -> CompiledTopology:
    """Return an empty topology, for queues that no file declares."""
    return CompiledTopology(
        name="", vhost="", file="", retry_exchange="", parking_exchange="", desired=BrokerState(), routes={}
    )


def unknown_queue(compiled: CompiledTopology, queue: str, known: Sequence[str]) -> UsageError:
    """Return the error for a queue that the file does not have, with the nearest that it has."""
    from difflib import get_close_matches

    close = get_close_matches(queue, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"its work queues are {', '.join(compiled.routes)}"
    return UsageError(f"{compiled.file} has no queue {queue}", hint=hint)
