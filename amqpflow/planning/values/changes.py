"""What apply can do to a broker: a closed family, each member with a kind, an action and a name.

What destroys nothing is made from a file alone. What removes (`Unbind`, `DeleteQueue`, `DeleteExchange`) or swaps a
retry queue (`Rebind`, `Drain`) comes into a plan only when it was asked for, see `Plan.needs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from amqpflow.model.resources import Binding, Exchange, Policy, Queue
from amqpflow.model.routes import NativeRetry

from .differences import Difference, policy_differences
from .findings import Ref
from .manifest import Manifest
from .queue_risk import QueueRisk

STANDS_IN = "x-amqpflow-stands-in-for"
"""The argument of a queue that carries a retry queue's key while that one is replaced: the name of the latter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfObject:
    kind: ClassVar[str]  #: also the field that holds the object

    @property
    def name(self) -> str:
        return str(getattr(self, self.kind).name)


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfExchange(_OfObject):
    kind: ClassVar[str] = "exchange"
    exchange: Exchange


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfQueue(_OfObject):
    kind: ClassVar[str] = "queue"
    queue: Queue


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfBinding(_OfObject):
    kind: ClassVar[str] = "binding"
    binding: Binding


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfPolicy(_OfObject):
    kind: ClassVar[str] = "policy"
    policy: Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfManifest(_OfObject):
    kind: ClassVar[str] = "manifest"
    manifest: Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateExchange(_OfExchange):
    """exchange.declare. The marker of native retry is declared once the broker was found to delay as it should."""

    action: ClassVar[str] = "create"
    delays: Mapping[str, NativeRetry] = field(default_factory=dict)  #: of the marker: by queue, what is read back first


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateQueue(_OfQueue):
    """queue.declare"""

    action: ClassVar[str] = "create"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind(_OfBinding):
    """queue.bind or exchange.bind"""

    action: ClassVar[str] = "create"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsureBinding(_OfBinding):
    """queue.bind of what may be bound already: bindings cannot be read over AMQP, and binding twice changes nothing."""

    action: ClassVar[str] = "ensure"


@dataclass(frozen=True, slots=True, kw_only=True)
class PutPolicy(_OfPolicy):
    """PUT /api/policies: a new policy of ours, or new values for one."""

    replaces: Policy | None = None
    at_stake: tuple[QueueRisk, ...] = ()  #: whose messages it may take away, see `message_loss`; looked at just before

    @property
    def action(self) -> str:
        return "create" if self.replaces is None else "update"

    @property
    def differences(self) -> tuple[Difference, ...]:
        """Return what an update changes; empty for a new policy."""
        return () if self.replaces is None else policy_differences(self.policy, self.replaces)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovePolicy(_OfPolicy):
    """DELETE /api/policies of one of our own that the file has no use for any more."""

    action: ClassVar[str] = "delete"
    at_stake: tuple[QueueRisk, ...] = ()  #: as of `PutPolicy`
    after: tuple[str, ...] = ()  #: queues that it covers, and that are gone before


@dataclass(frozen=True, slots=True, kw_only=True)
class Unbind(_OfBinding):
    """queue.unbind or exchange.unbind of a binding of ours. What is in the queue stays there."""

    action: ClassVar[str] = "delete"
    why: str = ""  #: the file no longer has it; queue orders.retry.5s is retired
    after: tuple[str, ...] = ()  #: queues that feed its destination, and are gone before
    unproven: bool = False  #: between two foreign objects, and it is not known whether apply made it


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebind(_OfBinding):
    """A key is taken from one queue and given to another: an unbind and then a bind.

    In the millisecond between the two a publish with this key is returned, and its publisher takes the next longer
    tier, or after the longest tries again. The other way round it would be copied to both.
    """

    action: ClassVar[str] = "update"
    binding: Binding  #: as it will be
    replaces: Binding  #: as it is


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain(_OfQueue):
    """Wait until a retry queue that nothing is bound to has returned all its messages to its work queue.

    Over when ready, unacked and `messages_dlx` are 0, seen twice, with the time in between by which statistics lag
    behind (fact 11.7). Without `--wait` this step and what depends on it are left for the next apply.
    """

    action: ClassVar[str] = "drain"
    messages: int | None = field(default=None, compare=False)  #: in it when the plan was made, None when not known
    since_ms: int | None = field(default=None, compare=False)
    """When it was unbound, in ms since the epoch; None: by this plan, or not known."""
    returns_to: str = ""  #: the work queue

    @property
    def delay_ms(self) -> int:
        """Return how long a message stays in it, and so the longest that there is to wait after the unbinding."""
        return int(self.queue.arguments.get("x-message-ttl", 0))

    @property
    def due_ms(self) -> int | None:
        """Return when the last message is due, in ms since the epoch; None when the time of unbinding is not known."""
        return None if self.since_ms is None else self.since_ms + self.delay_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteQueue(_OfQueue):
    """queue.delete of a queue of ours, on a connection of its own; its bindings go with it.

    Just before, it is looked at exactly: with messages, unacked ones and `messages_dlx` included, or consumers it is
    left, and apply stops, unless `forced`.
    """

    action: ClassVar[str] = "delete"
    messages: int | None = field(default=None, compare=False)
    """In it when the plan was made: ready, unacked and retained; None when not known."""
    consumers: int | None = field(default=None, compare=False)
    forced: bool = False  #: `--allow delete:NAME` names it: also with messages, which are then lost, and consumers
    fed_by: tuple[str, ...] = ()  #: queues that dead-letter into it; they are gone before
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteExchange(_OfExchange):
    """exchange.delete of an exchange of ours, if-unused: with a binding from it that is not ours it stays."""

    action: ClassVar[str] = "delete"
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PutManifest(_OfManifest):
    """PUT /api/global-parameters: what this topology owns and cannot stamp. No message is touched by it."""

    replaces: Manifest | None = None

    @property
    def action(self) -> str:
        return "create" if self.replaces is None else "update"

    @property
    def differences(self) -> tuple[str, ...]:
        """Return what it records, in words: adopts queue orders, 3 bindings recorded."""
        return tuple(self.manifest.differences(self.replaces))


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveManifest(_OfManifest):
    """DELETE /api/global-parameters, the last step of a destroy."""

    action: ClassVar[str] = "delete"


Addition = CreateExchange | CreateQueue | Bind | EnsureBinding | PutPolicy | RemovePolicy
"""What a plain apply does to exchanges, queues, bindings and policies."""

Removal = Unbind | Rebind | Drain | DeleteQueue | DeleteExchange
"""What --prune, destroy and the swap of a retry queue do."""

Change = Addition | Removal | PutManifest | RemoveManifest


def ref_of(change: Change) -> Ref:
    """Return a reference to the object that a change is about."""
    return Ref(change.kind, change.name)


def label(change: Change) -> str:
    """Return the object that a change is about as text: queue orders.confirm"""
    return str(ref_of(change))
