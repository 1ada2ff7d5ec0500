"""Every key of a topology file, once. The checks, the JSON Schema and the reference are all made from this."""

from __future__ import annotations

from .keys_of_queues import DEFAULTS, EXCHANGE, QUEUE
from .keys_of_retries import RETRY_POLICY
from .types import Choice, Integer, Key, Record, Table, Text

VERSION = 1
NO_RETRY = "none"


def _template(name: str, default: str, text: str) -> Key:
    return Key(name, Text(word="template"), text, default=default, example=default)


NAMING = Record(
    "naming",
    (
        _template(
            "retry",
            "{queue}.retry.{delay}",
            "Name of a retry queue: {queue} and {delay} are needed, {topology} is possible.",
        ),
        _template("parking", "{queue}.parking", "Name of a parking queue: {queue} is needed, {topology} is possible."),
        _template(
            "retry_exchange",
            "{topology}.retry",
            "Name of the exchange that consumers publish retries to: {topology} is needed.",
        ),
        _template(
            "parking_exchange",
            "{topology}.parking",
            "Name of the exchange that consumers park through: {topology} is needed.",
        ),
    ),
)
TOPOLOGY = Record(
    "topology",
    (
        Key("version", Integer(VERSION, VERSION), "Version of this language.", required=True, example=VERSION),
        Key(
            "name",
            Text(word="name"),
            "Name of the topology: the owner of everything below. Letters, digits, . _ and -, at most 64.",
            required=True,
            example="orders",
        ),
        Key(
            "vhost",
            Text(word="virtual host"),
            "Virtual host it belongs to.",
            default="the one in the broker's URL",
            example="${AMQPFLOW_VHOST:-/}",
        ),
        Key(
            "settings",
            Choice(("policies", "arguments")),
            "What carries limits and timeouts. policies can be changed in place, and need the management API; "
            "arguments need AMQP alone, and a change of theirs replaces the queue.",
            default="policies",
            example="policies",
        ),
        Key(
            "policy_priority",
            Integer(0, 1_000_000),
            "Priority of the policies that amqpflow writes. Of all that match a queue only the one with the "
            "highest priority works, so that a higher one lets ours work instead of a foreign one, whose keys are "
            "then to be carried under policy.",
            default="10",
            example=10,
        ),
        Key("naming", NAMING, "Templates of the derived names.", example={"parking": "{queue}.parked"}),
        Key("defaults", DEFAULTS, "Defaults for all queues.", example={"retry": "standard"}),
        Key(
            "retry_policies",
            Table(RETRY_POLICY, "retry policy"),
            "Named retry policies, for queues to refer to.",
            example={"standard": {"delays": ["5s", "30s", "5m"]}},
        ),
        Key(
            "exchanges",
            Table(EXCHANGE, "exchange"),
            "Exchanges that queues are bound to.",
            example={"orders.events": {"type": "topic"}},
        ),
        Key(
            "queues",
            Table(QUEUE, "queue"),
            "Work queues: those that services consume.",
            example={"orders.confirm": {"retry": "standard"}},
        ),
    ),
)
