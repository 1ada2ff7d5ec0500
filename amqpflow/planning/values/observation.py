"""What was seen of a virtual host before planning, and how much of it could be seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from amqpflow.model.resources import BrokerState

from .manifest import Manifest, ManifestState, Recorded, Unseen


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """How many messages a queue holds, and who consumes, up to 9 s old (fact 11.7). None is a count that nothing gives.

    An unknown count is never taken for 0: RabbitMQ gives no statistics of a queue in its first seconds, of a queue
    whose node is down, or of any queue where they are switched off (fact 11.26).
    """

    messages: int | None = None  #: all of them: ready, unacked, retained and delayed
    ready: int | None = None
    unacked: int | None = None  #: a consumer has them; they may come back
    hidden: int | None = None  #: neither ready nor unacked: retained or delayed
    retained: int | None = None  #: `messages_dlx`: expired or rejected, and not yet confirmed by the queue they go to
    delayed: int | None = None  #: `messages_delayed`: they wait in RabbitMQ 4.3's delayed retry
    ready_bytes: int | None = None  #: `message_bytes_ready`, as RabbitMQ counts them against `max-length-bytes`
    unacked_bytes: int | None = None  #: `message_bytes_unacknowledged`
    consumers: int | None = None
    leader: str = ""  #: the node that counts; "" when not said


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """A look at one virtual host.

    With the management API it is `complete`: every exchange, queue, binding and policy. Over AMQP alone it holds only
    those exchanges and queues of the topology that exist, with the arguments RabbitMQ compares at a redeclare; owner
    stamps, bindings and policies cannot be read over AMQP 0-9-1.
    """

    product: str = "RabbitMQ"
    version: tuple[int, ...] = ()  #: (4, 3, 6); () when the broker does not say
    vhost: str = "/"
    state: BrokerState = field(default_factory=BrokerState)
    complete: bool = True
    source: str = ""  #: the management API's URL, or why there is none
    exchange_types: frozenset[str] | None = None  #: what can be declared; None when not known
    missing_types: frozenset[str] = frozenset()  #: asked for and known to be missing
    unreadable: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """(kind, name) of what exists and differs, with the broker's words, where those do not tell all."""
    retained: Mapping[str, int] = field(default_factory=dict)
    """By queue: messages that RabbitMQ keeps since their dead-lettering did not succeed; from statistics, up to 10 s
    old."""
    statistics: bool = True  #: False: the broker keeps none, and what it retains is not seen
    depths: Mapping[str, Depth] = field(default_factory=dict)  #: of queues that may be deleted or swapped
    manifest: ManifestState = field(default_factory=Unseen)
    others: tuple[Manifest, ...] = ()  #: of other topologies in this virtual host, as far as they can be read
    now_ms: int = 0  #: when it was looked, in ms since the epoch
    user: str = ""
    tags: frozenset[str] | None = None  #: the management user's tags; None when not known

    @property
    def recorded(self) -> Manifest | None:
        """Return the topology's manifest; None when there is none, or none that can be read."""
        return self.manifest.manifest if isinstance(self.manifest, Recorded) else None

    def depth(self, queue: str) -> Depth:
        """Return the depth of a queue; one without counts when it is not known."""
        return self.depths.get(queue) or Depth()

    def unbound_at(self, queue: str) -> int | None:
        """Return when a retiring queue was unbound, in ms since the epoch; None when that is not recorded."""
        return self.recorded.retiring.get(queue) if self.recorded is not None else None

    @property
    def release(self) -> str:
        """Return the version as text: 4.3.6; empty when the broker does not say."""
        return ".".join(map(str, self.version))

    @property
    def broker(self) -> str:
        """Return product and version: RabbitMQ 4.3.6"""
        return f"{self.product} {self.release}".rstrip()

    def has_exchange_type(self, kind: str) -> bool:
        """Return whether exchanges of this type can be declared; True when it is not known."""
        return kind not in self.missing_types and (self.exchange_types is None or kind in self.exchange_types)
