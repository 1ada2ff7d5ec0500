"""Names of what amqpflow adds, from the templates under `naming`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from amqpflow.model.units import format_duration
from amqpflow.topology.reading.spec import NamingSpec

PLACEHOLDER = re.compile(r"\{([^{}]*)\}")

NEEDED: dict[str, frozenset[str]] = {
    "retry": frozenset({"queue", "delay"}),
    "parking": frozenset({"queue"}),
    "retry_exchange": frozenset({"topology"}),
    "parking_exchange": frozenset({"topology"}),
}
"""Without these, two things would get one name."""

POSSIBLE = {key: needed | {"topology"} for key, needed in NEEDED.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """The derived names of one topology."""

    topology: str
    naming: NamingSpec

    def retry_queue(self, queue: str, delay_ms: int) -> str:
        """Return a retry queue; two delays never share a name, since a duration is written in one way only."""
        return _fill(self.naming.retry, topology=self.topology, delay=format_duration(delay_ms), queue=queue)

    def parking_queue(self, queue: str) -> str:
        """Return a work queue's own parking queue."""
        return _fill(self.naming.parking, topology=self.topology, queue=queue)

    @property
    def retry_exchange(self) -> str:
        return _fill(self.naming.retry_exchange, topology=self.topology)

    @property
    def parking_exchange(self) -> str:
        return _fill(self.naming.parking_exchange, topology=self.topology)

    @property
    def native_marker(self) -> str:
        """Return the exchange that says that the broker's delayed retry was found in effect."""
        return f"{self.topology}.native"


def _fill(template: str, **values: str) -> str:
    for placeholder, value in values.items():
        template = template.replace(f"{{{placeholder}}}", value)
    return template
