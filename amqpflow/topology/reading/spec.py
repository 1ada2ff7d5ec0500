"""What a topology file says, as values that know where they were said. Defaults are filled in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from amqpflow.model.diagnostic import Place
from amqpflow.model.own_policies import DEFAULT_POLICY_PRIORITY
from amqpflow.model.routes import DEFAULT_CRASH_LIMIT
from amqpflow.topology.language.keys_of_queues import DEFAULT_DELIVERY_LIMIT

from .validate import At


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """Part of a file. `places` holds the keys that were written, also those whose value was of no use."""

    place: Place
    places: Mapping[str, Place] = field(default_factory=dict)

    def at(self, key: str) -> Place:
        """Return where a key stands, else where this part begins."""
        return self.places.get(key, self.place)


@dataclass(frozen=True, slots=True, kw_only=True)
class DelaySpec(Located):
    """One entry of delays."""

    delay_ms: int
    times: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class BackoffSpec(Located):
    """A growing schedule; None is what was left out or could not be read."""

    initial_ms: int | None = None
    multiplier: float = 2
    max_ms: int | None = None
    retries: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSpec(Located):
    """One entry of `on`."""

    errors: tuple[At, ...] = ()
    delays: tuple[DelaySpec, ...] | None = None
    backoff: BackoffSpec | None = None
    park: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeDelaySpec(Located):
    """`delay` of a native policy."""

    min_ms: int | None = None
    max_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySpec(Located):
    """A retry policy."""

    name: str
    engine: str = "tiers"  #: empty: written, and of no use
    delays: tuple[DelaySpec, ...] | None = None
    backoff: BackoffSpec | None = None
    give_up_after_ms: int | None = None
    jitter: Fraction = Fraction(0)
    on: tuple[RuleSpec, ...] = ()
    native_delay: NativeDelaySpec | None = None
    retries: int | None = None

    @property
    def native(self) -> bool:
        return self.engine == "native"

    @property
    def tiers(self) -> bool:
        return self.engine == "tiers"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeSpec(Located):
    """An exchange."""

    name: str
    type: str | None = None  #: None: external, and not said
    durable: bool = True
    alternate_exchange: str | None = None
    arguments: Mapping[str, At] = field(default_factory=dict)
    external: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BindingSpec(Located):
    """A binding of a queue."""

    exchange: str | None = None
    routing_key: str = ""
    arguments: Mapping[str, At] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSpec(Located):
    """A work queue with the defaults filled in.

    `places` has the keys written on the queue itself; `inherited` those that come from `defaults`.
    """

    name: str
    type: str = "quorum"  #: empty: written, and of no use
    bindings: tuple[BindingSpec, ...] = ()
    retry: str | None = None  #: name of a policy, none, or None when nothing names one
    max_priority: int | None = None
    max_length: int | None = None
    max_length_bytes: int | None = None
    overflow: str = "reject-publish"
    delivery_limit: int = DEFAULT_DELIVERY_LIMIT
    crash_limit: int = DEFAULT_CRASH_LIMIT
    consumer_timeout_ms: int | None = None
    single_active_consumer: bool = False
    parking_queue: str | None = None  #: None: from the template
    parking_type: str = "quorum"
    tiers_type: str = "quorum"
    arguments: Mapping[str, At] = field(default_factory=dict)
    carried: Mapping[str, At] = field(default_factory=dict)  #: `policy`: further keys of its policy
    existing: bool = False
    dead_letters: str | None = None  #: keep or park, of an existing queue; None: not said
    external: bool = False
    owner: str | None = None
    inherited: Mapping[str, Place] = field(default_factory=dict)

    def at(self, key: str) -> Place:
        """Return where a key stands: on the queue, else in the defaults, else the queue itself."""
        return self.places.get(key) or self.inherited.get(key) or self.place

    def says(self, key: str) -> bool:
        """Return whether the file has a key for it, on the queue or in the defaults."""
        return key in self.places or key in self.inherited

    def subject(self, key: str) -> str:
        """Return the subject of a message about this key."""
        return "the defaults" if key in self.inherited and key not in self.places else f"queue {self.name}"

    @property
    def quorum(self) -> bool:
        return self.type == "quorum"

    @property
    def classic(self) -> bool:
        return self.type == "classic"

    @property
    def limited(self) -> bool:
        return self.max_length is not None or self.max_length_bytes is not None

    @property
    def forgets(self) -> bool:
        """Return whether, by the file alone, messages leave it unhandled when they are old, or when it is full."""
        return "message-ttl" in self.carried or (self.limited and self.overflow == "drop-head")

    @property
    def keeps_dead_letters(self) -> bool:
        """Return whether, by the file alone, the application decides where its dead letters go."""
        return self.existing and (self.dead_letters == "keep" or (self.dead_letters is None and self.forgets))


@dataclass(frozen=True, slots=True, kw_only=True)
class NamingSpec(Located):
    """Templates of derived names."""

    retry: str = "{queue}.retry.{delay}"
    parking: str = "{queue}.parking"
    retry_exchange: str = "{topology}.retry"
    parking_exchange: str = "{topology}.parking"


@dataclass(frozen=True, slots=True, kw_only=True)
class TopologySpec(Located):
    """A topology file."""

    file: str
    name: str = ""  #: empty: missing, and said
    vhost: str = ""  #: empty: the one in the broker's URL
    settings: str = "policies"
    policy_priority: int = DEFAULT_POLICY_PRIORITY
    naming: NamingSpec
    policies: Mapping[str, PolicySpec] = field(default_factory=dict)
    exchanges: Mapping[str, ExchangeSpec] = field(default_factory=dict)
    queues: Mapping[str, QueueSpec] = field(default_factory=dict)
    default_retry: At | None = None
    unreadable: frozenset[str] = frozenset()  #: names of policies, exchanges and queues that are there, but no mapping

    def policy_of(self, queue: QueueSpec) -> PolicySpec | None:
        """Return the retry policy a queue names; None for none, and for one that is not defined."""
        return self.policies.get(queue.retry) if queue.retry is not None else None

    def has_tiers(self, queue: QueueSpec) -> bool:
        """Return whether a queue's retries go by retry queues."""
        policy = self.policy_of(queue)
        return policy is not None and not policy.native
