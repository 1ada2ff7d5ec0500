"""Exchanges and bindings: keys and arguments that fit the exchange's type."""

from __future__ import annotations

from amqpflow.topology.language.codes import Code
from amqpflow.topology.reading.problems import Problems
from amqpflow.topology.reading.spec import BindingSpec, ExchangeSpec, QueueSpec, TopologySpec

from .references import PREDECLARED

MAX_KEY_BYTES = 255
MOST_HASHES = 2
_MATCHES = ("all", "any", "all-with-x", "any-with-x")


def exchange_types(spec: TopologySpec, problems: Problems) -> None:
    """Check that a declared exchange has a type, and that an external one has no other keys."""
    for exchange in spec.exchanges.values():
        if exchange.external:
            for key in sorted(exchange.places.keys() - {"external", "type"}):
                message = f"exchange {exchange.name[:80]} is external: its owner sets {key}"
                problems.error(Code.NOT_DECLARED_HERE, exchange.at(key), message, f"remove {key}, or external")
        elif "type" not in exchange.places:
            hint = "direct, topic, fanout or headers; external: true if another program declares it"
            problems.error(Code.MISSING_KEY, exchange.place, f"exchange {exchange.name[:80]} has no type", hint)


def transient_exchanges(spec: TopologySpec, problems: Problems) -> None:
    """Warn about transient exchanges: a restart removes them with their bindings."""
    for exchange in spec.exchanges.values():
        if not exchange.durable and not exchange.external:
            message = f"exchange {exchange.name[:80]} and what is bound to it are gone after a restart of the broker"
            problems.warning(Code.TRANSIENT_EXCHANGE, exchange.at("durable"), message, "remove durable: false")


def binding_keys(spec: TopologySpec, problems: Problems) -> None:
    """Check that a routing key is an AMQP short string."""
    for _, binding in _bindings(spec):
        size = len(binding.routing_key.encode("utf-8", "replace"))
        if size > MAX_KEY_BYTES:
            message = f"the routing key is {size} bytes long, AMQP allows {MAX_KEY_BYTES}"
            problems.error(Code.ROUTING_KEY_TOO_LONG, binding.at("routing_key"), message)


def bindings_fit(spec: TopologySpec, problems: Problems) -> None:
    """Check that a binding has what its exchange routes by."""
    for _, binding in _bindings(spec):
        exchange_type = _type_of(spec, binding)
        if exchange_type in ("direct", "topic") and "routing_key" not in binding.places:
            hint = "routing_key: KEY" + (', or routing_key: "#" for every message' if exchange_type == "topic" else "")
            message = f"a binding to the {exchange_type} exchange {binding.exchange} needs a routing_key"
            problems.error(Code.BINDING, binding.place, message, hint)
        if exchange_type == "topic" and binding.routing_key.split(".").count("#") > MOST_HASHES:
            message = f"the binding key has more than {MOST_HASHES} # words, which RabbitMQ 4.3 refuses"
            problems.error(Code.BINDING, binding.at("routing_key"), message, f"write at most {MOST_HASHES}")
        if exchange_type in ("direct", "topic", "fanout") and binding.arguments:
            message = f"a {exchange_type} exchange ignores binding arguments"
            problems.warning(Code.BINDING, binding.at("arguments"), message, "they are for headers exchanges")
        match = binding.arguments.get("x-match")
        if exchange_type == "headers" and match is not None and match.value not in _MATCHES:
            message = f"x-match is one of {', '.join(_MATCHES)}, found {match.value!r}"
            problems.error(Code.BINDING, match.place, message, "x-match: all")


def duplicate_bindings(spec: TopologySpec, problems: Problems) -> None:
    """Warn about equal bindings, which RabbitMQ treats as one."""
    known: dict[tuple[str, str, str, str], BindingSpec] = {}
    for queue, binding in _bindings(spec):
        arguments = repr(sorted((name, repr(argument.value)) for name, argument in binding.arguments.items()))
        first = known.setdefault((queue.name, binding.exchange or "", binding.routing_key, arguments), binding)
        if first is not binding and binding.exchange is not None:
            message = f"queue {queue.name[:80]} has this binding already, on line {first.place.line}"
            problems.warning(Code.DUPLICATE_BINDING, binding.place, message, "remove one of them")


def delayed_message_type(spec: TopologySpec, problems: Problems) -> None:
    """Check that an x-delayed-message exchange names the type that it stands for."""
    for exchange in spec.exchanges.values():
        delayed = exchange.type == "x-delayed-message" and not exchange.external
        if delayed and "x-delayed-type" not in exchange.arguments:
            message = f"exchange {exchange.name[:80]}: the type x-delayed-message needs the argument x-delayed-type"
            problems.error(Code.MISSING_KEY, exchange.at("type"), message, "arguments: {x-delayed-type: direct}")


def _bindings(spec: TopologySpec) -> list[tuple[QueueSpec, BindingSpec]]:
    return [(queue, binding) for queue in spec.queues.values() for binding in queue.bindings]


def _type_of(spec: TopologySpec, binding: BindingSpec) -> str | None:
    exchange: ExchangeSpec | None = spec.exchanges.get(binding.exchange or "")
    return exchange.type if exchange is not None else PREDECLARED.get(binding.exchange or "")


RULES = (exchange_types, transient_exchanges, binding_keys, bindings_fit, duplicate_bindings, delayed_message_type)
