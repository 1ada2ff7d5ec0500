"""Where a queue's failed messages go: the part of a compiled topology that consumers and replays use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .own_policies import DEFAULT_POLICY_PRIORITY
from .resources import BrokerState

DEFAULT_CONSUMER_TIMEOUT = 30 * 60.0  #: seconds; RabbitMQ's default
DEFAULT_CRASH_LIMIT = 5


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class RetryTier:
    """One retry queue: it holds a message for its delay and dead-letters it back to the work queue."""

    delay_ms: int  #: the queue's x-message-ttl
    queue: str  #: also its routing key on the retry exchange


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryStep:
    """One step of a schedule. With jitter it has several tiers, of which a consumer picks one at random."""

    delay_ms: int  #: as written in the file; the longest of the tiers
    tiers: tuple[RetryTier, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryRule:
    """What to do about some errors: exactly one of `steps` and `park` is set."""

    errors: tuple[str, ...]  #: exception names: ValueError, httpx.ConnectError
    steps: tuple[RetryStep, ...] | None = None
    park: str | None = None  #: permanent: parked at once, with this detail


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeRetry:
    """RabbitMQ 4.3's delayed retry: delay = min(min_ms * attempt, max_ms)."""

    min_ms: int
    max_ms: int
    retries: int

    def delay_ms(self, attempt: int) -> int:
        """Return how long the broker holds a message that was rejected on its n-th attempt, from 1 (fact 8.3)."""
        return min(self.min_ms * attempt, self.max_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """A retry policy of the file. It belongs to no queue: its tiers have delays and no names."""

    steps: tuple[RetryStep, ...] = ()  #: the default schedule: at most len(steps) retries
    rules: tuple[RetryRule, ...] = ()  #: first match wins
    give_up_after_ms: int | None = None
    native: NativeRetry | None = None  #: set when the engine is native

    @property
    def all_steps(self) -> tuple[RetryStep, ...]:
        """The steps of the default schedule and of every rule."""
        return (*self.steps, *(step for rule in self.rules for step in rule.steps or ()))


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueRoutes(RetryPolicy):
    """A retry policy applied to one work queue: all that a delivery of it needs to be settled."""

    queue: str
    queue_type: str  #: classic or quorum
    retry_exchange: str  #: direct; key = name of a tier, or of the work queue itself
    parking_exchange: str  #: direct; key = name of a parking queue
    parking_queue: str
    at_least_once: bool = True  #: the queue's own dead-lettering cannot lose (quorum, with arguments like ours)
    consumer_timeout_ms: int | None = None  #: None: the broker's default, 30 minutes
    crash_limit: int = DEFAULT_CRASH_LIMIT  #: deliveries without an answer after which a consumer parks the message
    existing: bool = False  #: declared by an application
    dead_letters: str | None = None  #: of an existing queue: keep or park; None: the file does not say
    limit_said: bool = False  #: of an existing queue: the file asks for a delivery limit
    overflow_said: bool = False  #: of an existing queue: the file says what a full queue does
    external: bool = False  #: owned by another topology
    owner: str | None = None  #: of an external queue, when the file says

    @property
    def half_consumer_timeout(self) -> float:
        """Seconds that a delivery is held at most: after twice that, RabbitMQ takes it back."""
        seconds = DEFAULT_CONSUMER_TIMEOUT if self.consumer_timeout_ms is None else self.consumer_timeout_ms / 1000
        return seconds / 2

    @property
    def tiers(self) -> tuple[RetryTier, ...]:
        """Every retry queue of this work queue once, shortest delay first."""
        return tuple(sorted({tier for step in self.all_steps for tier in step.tiers}))


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledTopology:
    """A topology file turned into values: what the broker should hold, and where messages go."""

    name: str
    vhost: str
    file: str  #: where it was read, for messages to the user
    retry_exchange: str
    parking_exchange: str
    desired: BrokerState
    routes: Mapping[str, QueueRoutes]  #: by work queue
    parking_queues: tuple[str, ...] = ()
    required_exchanges: tuple[str, ...] = ()  #: external: must exist, are never declared
    required_queues: tuple[str, ...] = ()  #: existing or external: must exist, are never declared
    notes: tuple[str, ...] = ()  #: what the plan should say: at most once here, no priorities there
    settings: str = "policies"  #: policies or arguments
    policy_priority: int = DEFAULT_POLICY_PRIORITY  #: of the policies that amqpflow writes
    policies: Mapping[str, RetryPolicy] = field(default_factory=dict)  #: by name, for a handler's `retry_policy`
    native_marker: str | None = None
    """The exchange whose presence shows that the broker delays rejected messages; None without native queues."""

    @property
    def native_queues(self) -> tuple[QueueRoutes, ...]:
        """The work queues with RabbitMQ's own delayed retry."""
        return tuple(routes for routes in self.routes.values() if routes.native is not None)
