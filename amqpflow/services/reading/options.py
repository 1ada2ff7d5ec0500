"""How parked messages are read: the same for every command that reads them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Progress = Callable[[str, int, int], None]  #: parking queue, messages seen, messages expected


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """How to read parked messages: from which queues, how safely, how many at once, and who is notified."""

    from_queues: Sequence[str] = ()
    """Read these queues, which no file has to declare, instead of the parking queues of the topology."""
    origin: str | None = None  #: the work queue of messages that do not say where they failed
    unverified: bool = False
    """Read even if amqpflow cannot verify that reading is safe: no management API, no permission, or drop-head."""
    prefetch: int | None = None
    """Messages held at once, 1 to 65535, for a broker that closes connections with more; None: all that are read.

    RabbitMQ delivers first what was requeued. Of messages that stay it shows no more than these, and the result says
    that not all of them were read.
    """
    stop: asyncio.Event | None = None
    """Set it to end the reading. What was read so far is returned, and all messages are back in their queue."""
    on_progress: Progress | None = None  #: called with the parking queue, messages seen and messages expected
    on_wait: Callable[[str], None] | None = None  #: called once with the queue that another command is reading
