"""Every key of a topology file, once. The checks, the JSON Schema and the reference are all made from this."""

from __future__ import annotations

from .keys_of_queues import DEFAULTS, EXCHANGE, QUEUE
from .keys_of_retries import RETRY_POLICY
from .types import Choice, Integer, Key, Record, Table, Text

VERSION = 1
NO_RETRY = "none"

NAMING = Record(
    name="naming",
    keys=(
        Key(
            name="retry",
            shape=Text(word="template"),
            help="Name of a retry queue: {queue} and {delay} are needed, {topology} is possible.",
            default="{queue}.retry.{delay}",
            example="{queue}.retry.{delay}",
        ),
        Key(
            name="parking",
            shape=Text(word="template"),
            help="Name of a parking queue: {queue} is needed, {topology} is possible.",
            default="{queue}.parking",
            example="{queue}.parking",
        ),
        Key(
            name="retry_exchange",
            shape=Text(word="template"),
            help="Name of the exchange that consumers publish retries to: {topology} is needed.",
            default="{topology}.retry",
            example="{topology}.retry",
        ),
        Key(
            name="parking_exchange",
            shape=Text(word="template"),
            help="Name of the exchange that consumers park through: {topology} is needed.",
            default="{topology}.parking",
            example="{topology}.parking",
        ),
    ),
)
TOPOLOGY = Record(
    name="topology",
    keys=(
        Key(
            name="version",
            shape=Integer(minimum=VERSION, maximum=VERSION),
            help="Version of this language.",
            required=True,
            example=VERSION,
        ),
        Key(
            name="name",
            shape=Text(word="name"),
            help="Name of the topology: the owner of everything below. Letters, digits, . _ and -, at most 64.",
            required=True,
            example="orders",
        ),
        Key(
            name="vhost",
            shape=Text(word="virtual host"),
            help="Virtual host it belongs to.",
            default="the one in the broker's URL",
            example="${AMQPFLOW_VHOST:-/}",
        ),
        Key(
            name="settings",
            shape=Choice(words=("policies", "arguments")),
            help="What carries limits and timeouts. policies can be changed in place, and need the management API; "
            "arguments need AMQP alone, and a change of theirs replaces the queue.",
            default="policies",
            example="policies",
        ),
        Key(
            name="policy_priority",
            shape=Integer(minimum=0, maximum=1_000_000),
            help="Priority of the policies that amqpflow writes. Of all that match a queue only the one with the "
            "highest priority works, so that a higher one lets ours work instead of a foreign one, whose keys are "
            "then to be carried under policy.",
            default="10",
            example=10,
        ),
        Key(name="naming", shape=NAMING, help="Templates of the derived names.", example={"parking": "{queue}.parked"}),
        Key(
            name="defaults",
            shape=DEFAULTS,
            help="What queues have that do not say otherwise.",
            example={"retry": "standard"},
        ),
        Key(
            name="retry_policies",
            shape=Table(of=RETRY_POLICY, names="retry policy"),
            help="Named retry policies, for queues to refer to.",
            example={"standard": {"delays": ["5s", "30s", "5m"]}},
        ),
        Key(
            name="exchanges",
            shape=Table(of=EXCHANGE, names="exchange"),
            help="Exchanges that queues are bound to.",
            example={"orders.events": {"type": "topic"}},
        ),
        Key(
            name="queues",
            shape=Table(of=QUEUE, names="queue"),
            help="Work queues: those that services consume.",
            example={"orders.confirm": {"retry": "standard"}},
        ),
    ),
)
