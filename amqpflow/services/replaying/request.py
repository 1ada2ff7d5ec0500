"""The request of a replay: which messages, where to, how fast, and when to stop by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Literal

from amqpflow.errors import UsageError
from amqpflow.model.headers import NEVER_TRAVELS, PREFIX
from amqpflow.model.outgoing import header_problems, listed, name_problems
from amqpflow.model.routes import CompiledTopology
from amqpflow.parking.parked import ParkedMessage
from amqpflow.parking.replay import Destination
from amqpflow.parking.selection import IdPrefixes, Matcher, Selection

Select = Callable[[ParkedMessage], bool]
InDoubt = Literal["send", "hold"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRequest:
    """The request of a replay. All that limits which messages is combined with "and"."""

    limit: int | None = None  #: messages, in the order of delivery
    select: Select | Selection | None = None
    """Which messages: a selection, whose `limit` and `sample` do not count, or a function of a message."""
    sample: int | None = None  #: as many of those selected, at random; takes a reading of its own
    seed: int = 0  #: another seed, another sample
    only: Mapping[bytes, int] | None = None  #: no other messages: how many of which digest, as a plan of it found them
    to: Destination | None = None  #: instead of the work queue each message failed in
    origin: str | None = None  #: the work queue of messages that do not say where they failed; without it they stay
    keep_attempts: bool = False  #: continue the count of attempts
    set_headers: Mapping[str, Any] = field(default_factory=dict)
    drop_headers: frozenset[str] = frozenset()
    rate: float | None = None  #: messages a second
    ramp: tuple[int, ...] = ()  #: messages of each of the first steps; then the rest
    ramp_wait: float = 30.0  #: seconds after each step, before what came back is counted
    max_depth: int | None = None  #: ready messages of a destination above which the replay waits
    stop_if_reparked: float | None = None  #: share of the replayed messages, 0 to 1, that are parked again
    in_doubt: InDoubt | None = None
    """Messages that an interrupted replay may have sent: `send` again, or `hold`. None: as resumed, else send."""

    def selects(self, parked: ParkedMessage) -> bool:
        """Tell whether the message is selected. The request has been through `with_matcher`."""
        if isinstance(self.select, Selection):
            raise TypeError("a selection has to be made a function by `with_matcher` first")
        return self.select is None or self.select(parked)

    @property
    def id_prefixes(self) -> IdPrefixes:
        """Return the id prefixes of the selection. The request has been through `with_matcher`."""
        return IdPrefixes(self.select.selection if isinstance(self.select, Matcher) else None)

    def lacks_origin(self, parked: ParkedMessage, *, everything: bool) -> bool:
        """Tell whether a message that is selected stays parked because nothing says where it failed.

        With `everything`, messages of all work queues are taken, so that with `to` the origin does not matter.
        """
        return parked.queue is None and not (self.to is not None and everything) and self.selects(parked)

    def __post_init__(self) -> None:
        dropped = (text for name in self.drop_headers for text in name_problems(name, "drop_headers"))
        if problems := listed(chain(header_problems(self.set_headers, "set_headers"), dropped)):
            raise UsageError(problems)
        for name in (*self.set_headers, *self.drop_headers):
            if name in NEVER_TRAVELS or name.startswith(PREFIX):
                raise UsageError(
                    f"the header {name} belongs to RabbitMQ or amqpflow, and a copy never has it as it was"
                )
            if not name:
                raise UsageError("a header's name is empty: AMQP allows 1 to 255 bytes")
        for name in (self.to.exchange, self.to.routing_key) if self.to is not None else ():
            if len(name.encode("utf-8", "surrogateescape")) > 255:
                raise UsageError(f"`to` {name[:40]!r}... is longer than the 255 bytes that AMQP allows for a name")
        if self.rate is not None and not self.rate > 0:
            raise UsageError("a rate must be more than 0 messages a second")
        if any(step < 1 for step in self.ramp) or list(self.ramp) != sorted(self.ramp):
            raise UsageError(
                "the steps of a ramp must be numbers of messages from 1 that do not fall, such as 1,10,100"
            )
        if self.stop_if_reparked is not None and not 0 < self.stop_if_reparked <= 1:
            raise UsageError("`stop_if_reparked` must be more than 0 % and at most 100 %")
        if self.max_depth is not None and self.max_depth < 1:
            raise UsageError("`max_depth` must be at least 1 message")


def with_matcher(choice: ReplayRequest, compiled: CompiledTopology) -> ReplayRequest:
    """Return the request with its selection as a function of a message. Raises UsageError: an unknown origin."""
    if choice.origin is not None and choice.origin not in compiled.routes:
        raise UsageError(
            f"origin {choice.origin[:80]!r} is not a work queue of the topology",
            hint=f"its work queues are {', '.join(compiled.routes)}",
        )
    if not isinstance(choice.select, Selection):
        return choice
    matcher = Matcher(choice.select, now=time.time_ns() // 1_000_000, routes=compiled.routes)
    return replace(choice, select=matcher)


def destination_of(text: str, work_queues: Mapping[str, Destination]) -> Destination:
    """Read the value of `to`: QUEUE, or EXCHANGE:KEY.

    A work queue of the topology is reached as a replay does; another queue by the default exchange. Text with a colon
    is an exchange and a key, unless it names a work queue; `:KEY` is the default exchange.

    Raises:
        UsageError: it is empty.
    """
    if text in work_queues:
        return work_queues[text]
    exchange, colon, key = text.partition(":")
    if not text or text == ":":
        raise UsageError("`to` takes a queue, or an exchange and a routing key as EXCHANGE:KEY")
    if not colon or not exchange:
        queue = key if colon else text
        return Destination(exchange="", routing_key=queue, queue=queue, label=queue)
    return Destination(exchange=exchange, routing_key=key, label=text)
