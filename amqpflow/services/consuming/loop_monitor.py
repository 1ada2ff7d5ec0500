"""Warn about code that keeps the event loop for seconds: meanwhile nothing is handled and no heartbeat is sent.

The loop notes the time twice a second. A thread of its own checks that time as often, and looks at the stack of the
loop's thread when the time is old. So the warning comes while it happens, with the handler, its message and the line.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from dataclasses import dataclass
from types import FrameType

from amqpflow.delivery.crashes import Identity, identity
from amqpflow.model.safe import safe
from amqpflow.model.units import roughly
from amqpflow.services.handling.handler import full_name
from amqpflow.services.handling.invocation import HandlerInvoker
from amqpflow.services.handling.stack import standing_at

log = logging.getLogger("amqpflow.consumer")

LIMIT = 2.0  #: seconds without a turn of the loop before a warning
_EVERY = 0.5  #: seconds between two looks
_REMEMBERED = 60.0  #: seconds during which a blocked loop may be the cause of a lost connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocked:
    what: str  #: `handler service.confirm with message o-1`, or `code outside handlers`
    at: str  #: file and line where it stood, "" when unknown
    queue: str  #: of the handler, "" without one
    message: Identity | None = None  #: the `identity` of its message

    def __str__(self) -> str:
        return f"{self.what}{f', at {self.at}' if self.at else ''}"


_NO_QUEUE = "consumer"  #: the subject of a line that is not about a queue
_UNSEEN = Blocked(what="code that let no other thread run, or the whole process stood still", at="", queue="")


class LoopMonitor:
    """Watches the event loop that it is entered in, until it is left."""

    def __init__(self) -> None:
        self._beat = 0.0
        self._seen: Blocked | None = None
        self._last: tuple[Blocked, float, float] | None = None  # what, for how long, and when it ended
        self._left = threading.Event()
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> LoopMonitor:
        self._loop = asyncio.get_running_loop()
        self._loops_thread = threading.get_ident()
        self._beat = time.monotonic()
        self._tick()
        self._thread = threading.Thread(target=self._watch, name="amqpflow loop monitor", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        if self._timer is not None:
            self._timer.cancel()
        self._thread.join()

    def _tick(self) -> None:
        now = time.monotonic()
        away, self._beat = now - self._beat, now
        if away >= LIMIT:
            blocked = self._seen or _UNSEEN
            self._last = blocked, away, now
            log.warning(
                "%s: the event loop runs again after %s; it was blocked by %s",
                blocked.queue or _NO_QUEUE,
                roughly(away),
                safe(str(blocked)),
            )
        self._seen = None
        self._timer = self._loop.call_later(_EVERY, self._tick)

    def _watch(self) -> None:
        looked = time.monotonic()
        while not self._left.wait(_EVERY) and not self._loop.is_closed():
            now = time.monotonic()
            late, looked = now - looked > LIMIT / 2, now
            # a stopped process, or a machine without time for it, is not the fault of a handler
            if self._seen is None and not late and now - self._beat >= LIMIT:
                self._seen = blocked = blocked_by(sys._current_frames().get(self._loops_thread))
                log.warning(
                    "%s: the event loop has been blocked for %s by %s: no other message is handled and no heartbeat is "
                    "sent; await what takes long, or make the handler a plain def, which runs in a thread",
                    blocked.queue or _NO_QUEUE,
                    roughly(now - self._beat),
                    safe(str(blocked)),
                )

    def why_heartbeats_were_missed(self, heartbeat: float) -> str:
        """Return what just kept the loop for so long that RabbitMQ missed heartbeats, or "".

        Args:
            heartbeat: seconds between two of them. RabbitMQ ends a connection that is silent for three (fact 18.3);
                after two it may be late in noticing.
        """
        kept = self._kept_for(heartbeat)
        return "" if kept is None else f"{kept[0]} blocked the event loop for {roughly(kept[1])}"

    def message_that_outlasted(self, heartbeat: float) -> Identity | None:
        """Return the `identity` of the message whose handler kept the loop so long; None when no known one did."""
        kept = self._kept_for(heartbeat)
        return None if kept is None else kept[0].message

    def _kept_for(self, heartbeat: float) -> tuple[Blocked, float] | None:
        """Return what kept the loop for too long, and for how many seconds."""
        if not heartbeat:
            return None
        now = time.monotonic()
        if now - self._beat >= 2 * heartbeat:  # it is still kept
            return self._seen or _UNSEEN, now - self._beat
        if self._last is not None:
            blocked, away, ended = self._last
            if away >= 2 * heartbeat and now - ended <= _REMEMBERED:
                return blocked, away
        return None


def blocked_by(frame: FrameType | None) -> Blocked:
    """Return what the thread with this innermost frame is doing."""
    at = standing_at(frame)
    while frame is not None:
        if frame.f_code is HandlerInvoker.call.__code__:
            caller, message = frame.f_locals["self"], frame.f_locals["message"]
            known = f"message {message.message_id}" if message.message_id else "a message without id"
            return Blocked(
                what=f"handler {full_name(caller.handler.function)} with {known}",
                at=at,
                queue=caller.routes.queue,
                message=identity(message._incoming),
            )
        frame = frame.f_back
    return Blocked(what="code outside handlers", at=at, queue="")
