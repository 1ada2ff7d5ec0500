"""Keys of queues, exchanges and bindings, and of the defaults that queues have."""

from __future__ import annotations

from amqpflow.model.routes import DEFAULT_CRASH_LIMIT

from .types import Boolean, Choice, Duration, Free, Integer, Key, ListOf, Record, Size, Table, Text

DEFAULT_DELIVERY_LIMIT = 50

_STREAM = "a work queue is classic or quorum: a stream has no acknowledgement of single messages to retry by"
_QUEUE_TYPE = Choice(("quorum", "classic"), instead={"stream": _STREAM})
_ARGUMENTS = Table(Free(), "argument")

TIERS = Record(
    "tiers",
    (
        Key(
            "type",
            _QUEUE_TYPE,
            "Type of the retry queues. A classic one returns messages at most once: they are lost when the "
            "work queue is gone or full, so amqpflow refuses it together with limits.",
            default="quorum",
            example="quorum",
        ),
    ),
)

PARKING = Record(
    "parking",
    (
        Key(
            "queue",
            Text(word="queue name"),
            "Name of the parking queue. Several work queues may share one. It is declared for you, and is never "
            "listed under queues.",
            default="from naming.parking: NAME.parking",
            example="orders.parking",
        ),
        Key(
            "type",
            _QUEUE_TYPE,
            "Type of the parking queue; work queues that share it agree on it.",
            default="quorum",
            example="quorum",
        ),
    ),
)

LIMITS = Record(
    "limits",
    (
        Key("max_length", Integer(1, 2**53), "Ready messages the queue takes.", default="no limit", example=100000),
        Key("max_length_bytes", Size(), "Bytes of message bodies the queue takes.", default="no limit", example="1GiB"),
        Key(
            "overflow",
            Choice(("reject-publish", "drop-head", "reject-publish-dlx")),
            "What a full queue does. reject-publish: publishers get a basic.nack. The others are for classic "
            "queues: drop-head parks the oldest message, at most once; reject-publish-dlx rejects and parks.",
            default="reject-publish",
            example="reject-publish",
        ),
    ),
)

_PRIORITY = Key(
    "max_priority",
    Integer(1, 255),
    "Highest message priority: 1 to 255 on classic queues, 1 to 31 on quorum queues. On a quorum queue it is "
    "never an argument: RabbitMQ 4.3 has strict priorities 0 to 31, 4.0 to 4.2 two classes (0-4 and 5 up), 3.x none.",
    default="no priorities on classic queues",
    example=10,
)
_LIMITS = Key(
    "limits",
    LIMITS,
    "How much the queue takes. Carried by a policy, or by arguments with settings: arguments; overflow is always "
    "an argument.",
    default="no limits",
    example={"max_length": 100000, "overflow": "reject-publish"},
)
_DELIVERY_LIMIT = Key(
    "delivery_limit",
    Integer(1, 1_000_000),
    "Deliveries that may end without an answer (a crash, a lost connection) before RabbitMQ itself parks the "
    "message. Quorum queues only. Retries do not count.",
    default=str(DEFAULT_DELIVERY_LIMIT),
    example=50,
)
_CRASH_LIMIT = Key(
    "crash_limit",
    Integer(2, 1_000_000),
    "Deliveries that may end without an answer before the consumer parks the message, instead of handling it once "
    "more: it kills its consumer. From the third on the message is handled alone, so that its neighbours are not "
    "counted with it. Quorum queues only. Retries do not count. At delivery_limit RabbitMQ parks it, if that is lower.",
    default=str(DEFAULT_CRASH_LIMIT),
    example=5,
)
_CONSUMER_TIMEOUT = Key(
    "consumer_timeout",
    Duration(1000),
    "How long a delivery may stay unanswered before RabbitMQ takes it back. Quorum queues; RabbitMQ 3.12 and "
    "later, checked about once a minute before 4.3.",
    default="RabbitMQ's, 30 minutes",
    example="30m",
)
_SINGLE_ACTIVE_CONSUMER = Key(
    "single_active_consumer",
    Boolean(),
    "One consumer at a time gets messages, the others wait for it to go.",
    default="false",
    example=False,
)
_POLICY = Key(
    "policy",
    Table(Free(), "policy key"),
    "Further keys of the policy that amqpflow writes for this queue, in RabbitMQ's words and units: to carry what "
    "a foreign policy gave it, since of all that match a queue one policy works alone. On a queue it replaces "
    "that of the defaults. Not with settings: arguments.",
    default="none",
    example={"queue-leader-locator": "balanced"},
)
_TYPE = Key("type", _QUEUE_TYPE, "Type of the work queue.", default="quorum", example="quorum")
_RETRY = Key(
    "retry",
    Text(word="name of a retry policy"),
    "A retry policy of this file, or none: the first failure parks the message. A policy is always named; it "
    "cannot be written here.",
    default="defaults.retry, else none, with a warning",
    example="standard",
)
_TIERS = Key("tiers", TIERS, "The retry queues.", default="type: quorum", example={"type": "quorum"})
_PARKING = Key(
    "parking",
    PARKING,
    "Where messages go after their last retry.",
    default="one of its own, a quorum queue",
    example={"queue": "orders.parking"},
)

EXCHANGE = Record(
    "exchange",
    (
        Key(
            "type",
            Choice(("direct", "topic", "fanout", "headers"), more="x-[A-Za-z0-9._-]+"),
            "Exchange type; x-... needs the plugin that brings it. Required unless external.",
            example="topic",
        ),
        Key(
            "durable",
            Boolean(),
            "Whether it, and what is bound to it, is there after a restart of the broker.",
            default="true",
            example=True,
        ),
        Key(
            "alternate_exchange",
            Text(word="exchange name"),
            "Where unroutable messages go.",
            default="none: they are dropped, or returned when published mandatory",
            example="orders.unrouted",
        ),
        Key(
            "arguments",
            _ARGUMENTS,
            "Further arguments, passed through to the exchange type.",
            default="none",
            example={"x-delayed-type": "topic"},
        ),
        Key(
            "external",
            Boolean(),
            "Another program declares it: it must exist, and amqpflow never declares, changes or deletes "
            "it. Only type may be set besides.",
            default="false",
            example=False,
        ),
    ),
)
BINDING = Record(
    "binding",
    (
        Key(
            "exchange",
            Text(empty=True, word="exchange name"),
            "An exchange of this file, or one that RabbitMQ brings, such as amq.topic.",
            required=True,
            example="orders.events",
        ),
        Key(
            "routing_key",
            Text(empty=True, word="routing key"),
            "Binding key. Required for direct and topic exchanges.",
            default="empty",
            example="order.placed",
        ),
        Key(
            "arguments",
            _ARGUMENTS,
            "What a headers exchange matches on, x-match included.",
            default="none",
            example={"x-match": "all", "region": "eu"},
        ),
    ),
)
QUEUE = Record(
    "queue",
    (
        _TYPE,
        Key(
            "bindings",
            ListOf(BINDING),
            "What the queue gets. Without bindings it gets what is published to its name.",
            default="none",
            example=[{"exchange": "orders.events", "routing_key": "order.placed"}],
        ),
        _RETRY,
        _PRIORITY,
        _LIMITS,
        _DELIVERY_LIMIT,
        _CRASH_LIMIT,
        _CONSUMER_TIMEOUT,
        _SINGLE_ACTIVE_CONSUMER,
        _PARKING,
        _TIERS,
        _POLICY,
        Key(
            "arguments",
            _ARGUMENTS,
            "Further arguments, passed through. An unknown x- argument is a warning, since RabbitMQ ignores it.",
            default="none",
            example={"x-queue-leader-locator": "balanced"},
        ),
        Key(
            "existing",
            Boolean(),
            "An application declares this queue: it must exist, and its arguments stay. Retry queues and parking "
            "are built around it; dead-lettering and limits come by policy where no argument hinders. Name its type. "
            "The plan says which guarantees hold.",
            default="false",
            example=False,
        ),
        Key(
            "dead_letters",
            Choice(("keep", "park")),
            "With existing: where messages go that RabbitMQ itself dead-letters. keep: where they go today; "
            "amqpflow writes no policy for that. park: into the parking queue, by a policy.",
            default="park; keep where the application has a dead-letter exchange, and where the queue is configured "
            "to drop messages (a TTL, or a length with drop-head)",
            example="keep",
        ),
        Key(
            "external",
            Boolean(),
            "Another topology owns this queue: it may be consumed with that topology's retry and parking queues, "
            "and nothing is declared. retry, parking and naming must say what the owner's file says.",
            default="false",
            example=False,
        ),
        Key(
            "owner",
            Text(word="topology name"),
            "With external: name of the topology that owns the queue. Its retry and parking exchanges are then "
            "used; without it messages go by the default exchange.",
            default="unknown",
            example="billing",
        ),
    ),
)
DEFAULTS = Record(
    "defaults",
    (
        Key(
            "queue",
            Record(
                "defaults.queue",
                (
                    _TYPE,
                    _PRIORITY,
                    _LIMITS,
                    _DELIVERY_LIMIT,
                    _CRASH_LIMIT,
                    _CONSUMER_TIMEOUT,
                    _SINGLE_ACTIVE_CONSUMER,
                    _POLICY,
                ),
            ),
            "Defaults for all queues; each key under limits is inherited separately. A classic queue does not "
            "take delivery_limit, crash_limit and consumer_timeout.",
            example={"type": "quorum"},
        ),
        _RETRY,
        _TIERS,
        _PARKING,
    ),
)
