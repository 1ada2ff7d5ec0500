"""The handlers of a consumer: one for a work queue, checked against the topology when it is registered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from typing import Any, TypedDict

from amqpflow.delivery.breaker import Breaker
from amqpflow.delivery.override import RetryQueuesMissingError, with_policy
from amqpflow.errors import InvalidHandlerError
from amqpflow.model.routes import CompiledTopology, QueueRoutes
from amqpflow.model.units import format_duration, parse_rate

from .handler import Handler, HandlerFunction, make_handler
from .middleware import Middleware
from .ordering import HeaderKey, KeyOf


class HandlerOptions(TypedDict, total=False):
    concurrency: int
    prefetch: int | None
    timeout: float | None
    middlewares: Sequence[Middleware]
    breaker: Breaker | None
    rate: str | None
    order_by: str | KeyOf | None
    weight: float
    retry_policy: str | None


class Handlers:
    """Handlers by their queue, each with the routes that its settlements take."""

    def __init__(self, compiled: CompiledTopology, *, keep_stack: bool, middlewares: tuple[Middleware, ...]) -> None:
        self._compiled = compiled
        self._keep_stack = keep_stack
        self._middlewares = middlewares
        self._handlers: dict[str, Handler] = {}
        self._policies: dict[str, str | None] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._handlers)

    def __len__(self) -> int:
        return len(self._handlers)

    def __getitem__(self, queue: str) -> Handler:
        return self._handlers[queue]

    def values(self) -> Iterator[Handler]:
        return iter(self._handlers.values())

    def add(self, queue: str, function: HandlerFunction, options: HandlerOptions) -> None:
        """Register. Raises InvalidHandlerError."""
        self.require_queue(queue)
        if queue in self._handlers:
            raise InvalidHandlerError(f"queue {queue} already has a handler")
        routes = self._routes(self._compiled, queue, options.get("retry_policy"))
        concurrency, prefetch = options.get("concurrency", 10), options.get("prefetch")
        rate = self._rate(queue, options.get("rate"), routes)
        if rate is not None:
            prefetch = _prefetch_at(rate, queue, concurrency, prefetch, routes)
            concurrency = min(concurrency, prefetch)
        self._handlers[queue] = make_handler(
            queue,
            function,
            concurrency=concurrency,
            prefetch=prefetch,
            timeout=options.get("timeout"),
            keep_stack=self._keep_stack,
            middlewares=(*self._middlewares, *options.get("middlewares", ())),
            breaker=options.get("breaker"),
            rate=rate,
            order_by=_order(queue, options.get("order_by")),
            weight=_weight(queue, options.get("weight", 1)),
        )
        self._policies[queue] = options.get("retry_policy")

    def routes(self, queue: str, compiled: CompiledTopology) -> QueueRoutes:
        """Return where a queue's failed messages go, by its handler's `retry_policy` if it has one."""
        return self._routes(compiled, queue, self._policies[queue])

    def require_queue(self, queue: str) -> None:
        if queue not in self._compiled.routes:
            raise InvalidHandlerError(
                f"{self._compiled.file} has no queue {queue!r}",
                hint=_nearest(queue, self._compiled.routes, "its queues are"),
            )

    def _routes(self, compiled: CompiledTopology, queue: str, name: str | None) -> QueueRoutes:
        routes, policies, file = compiled.routes[queue], compiled.policies, compiled.file
        if name is None:
            return routes
        if name not in policies:
            raise InvalidHandlerError(
                f"{queue}: {file} has no retry policy {name!r}",
                hint=_nearest(name, policies, "its retry policies are")
                if policies
                else "write it under retry_policies",
            )
        if routes.native is not None or policies[name].native is not None:
            raise InvalidHandlerError(
                f"{queue}: retry_policy={name!r}: RabbitMQ's own retries are the queue's, not a handler's",
                hint=f"in {file}: queues: {queue}: retry: {name}",
            )
        try:
            return with_policy(routes, policies[name])
        except RetryQueuesMissingError as missing:
            delays = ", ".join(format_duration(each) for each in missing.delays)
            raise InvalidHandlerError(
                f"{queue}: retry_policy={name!r} needs retry queues of {delays}, which {file} does not create",
                hint=f"in {file}: queues: {queue}: retry: {name}; or a policy for the queue that has these delays"
                " too, in a rule under on: for example; then amqpflow apply",
            ) from None

    def _rate(self, queue: str, text: str | None, routes: QueueRoutes) -> float | None:
        if text is None:
            return None
        try:
            rate = parse_rate(text)
        except ValueError as error:
            raise InvalidHandlerError(f"{queue}: rate: {error}") from None
        if rate * routes.half_consumer_timeout < 1:
            raise InvalidHandlerError(
                f"{queue}: rate={text!r} makes a message wait longer than half the consumer timeout, after which the"
                " broker takes it back",
                hint=f"at least one in {format_duration(round(routes.half_consumer_timeout * 1000))}",
            )
        return rate


def _prefetch_at(rate: float, queue: str, concurrency: int, prefetch: int | None, routes: QueueRoutes) -> int:
    """As many as are handled at this rate within half the consumer timeout, after which the broker takes them back."""
    most = int(rate * routes.half_consumer_timeout)
    if prefetch is not None and prefetch > most:
        raise InvalidHandlerError(
            f"{queue}: prefetch={prefetch} at this rate makes messages wait longer than half the consumer timeout",
            hint=f"prefetch={most} at most",
        )
    return prefetch or min(concurrency, most)


def _weight(queue: str, weight: Any) -> float:
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= 1_000_000:
        raise InvalidHandlerError(f"{queue}: weight={weight!r}, must be a number above 0")
    return float(weight)


def _order(queue: str, order_by: str | KeyOf | None) -> KeyOf | None:
    if order_by is None:
        return None
    if not isinstance(order_by, str) and not isinstance(order_by, Callable):  # type: ignore[arg-type]
        raise InvalidHandlerError(f"{queue}: order_by={order_by!r}: give a header's name, or a function of the message")
    return HeaderKey(order_by) if isinstance(order_by, str) else order_by


def _nearest(name: str, names: Any, otherwise: str) -> str:
    close = get_close_matches(name, names, n=1)
    return f"did you mean {close[0]}?" if close else f"{otherwise} {', '.join(names)}"
