"""Call a handler: a message goes in, a verdict comes out."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Sequence

from amqpflow.delivery.verdict import BadResult, CannotDecode, Decided, Verdict
from amqpflow.errors import UndecodableError
from amqpflow.model.outcome import Ack, Outcome
from amqpflow.model.routes import QueueRoutes
from amqpflow.model.safe import safe

from .errors import cause_of, error_record, failed
from .exception_groups import cancellation_in, meaning
from .exits import Exit, described, ends_the_process
from .handler import Handler, name_of
from .message import Message
from .middleware import Middleware, chain
from .stack import defined_at
from .thread_pool import Threads
from .turns import NotStarted

log = logging.getLogger("amqpflow.consumer")

DONE = Decided(outcome=Ack())  #: the verdict of nearly every call


class HandlerInvoker:
    """Calls one handler. `outer` are middlewares outside the timeout, outermost first.

    `stopping` is set before the consumer cancels its handlers; any other cancellation is the handler's own.
    """

    def __init__(
        self,
        handler: Handler,
        routes: QueueRoutes,
        stopping: asyncio.Event,
        *,
        threads: Threads | None,
        outer: Sequence[Middleware] = (),
    ) -> None:
        self.handler = handler
        self.routes = routes
        self._stopping = stopping
        self._chain = chain(
            handler.function,
            threads=threads,
            timeout=handler.timeout,
            name=name_of(handler.function).rpartition("<locals>.")[2],
            middlewares=handler.middlewares,
            outer=outer,
        )

    async def call(self, message: Message) -> Verdict:
        """Run the handler on a message and return what it decided.

        A handler that runs into its timeout has failed with TimeoutError. A thread cannot be stopped: its timed-out
        call still runs, and may overlap the retry. Any other exception is a failure, a BaseException too: gevent's
        timeouts are such, and an unsettled delivery would be held for ever. So are `sys.exit` and
        KeyboardInterrupt, unless a signal raised them: a message must not end the service.

        Raises:
            NotStarted: the handler was not called, and nothing is decided.
            asyncio.CancelledError: the consumer is being stopped; nothing is decided.
            KeyboardInterrupt, SystemExit: a signal asked the process to end.
        """
        try:
            result = await self._chain(message)
            if result is None:
                return DONE
            if inspect.isawaitable(result):
                result = await result
        except BaseException as raised:
            # in a call of its own: a local of this frame, which is in its traceback, would make it a reference cycle
            return self._verdict_on(raised, message)
        if result is None:
            return DONE
        if isinstance(result, Outcome):
            return Decided(outcome=result, error=cause_of(result, result, self.handler))
        name = name_of(self.handler.function)
        return BadResult(
            detail=f"{name} returned {type(result).__name__}, which is not an outcome",
            location=defined_at(self.handler.function),
        )

    def _verdict_on(self, raised: BaseException, message: Message) -> Verdict:
        """Return what an exception means. Raises it, or one of its group, where nothing is decided."""
        task = asyncio.current_task()
        being_cancelled = self._stopping.is_set() and task is not None and task.cancelling()
        if being_cancelled and (cancelled := cancellation_in(raised)) is not None:
            raise cancelled
        error = meaning(raised)
        if isinstance(error, NotStarted):
            raise error
        if isinstance(error, Exit):
            self._exited(error, message)
        while task is not None and task.cancelling():
            task.uncancel()  # the handler's own doing: the task has other messages to handle
        if isinstance(error, Outcome):
            return Decided(outcome=error, error=cause_of(error, raised, self.handler))
        if isinstance(error, UndecodableError):
            return CannotDecode(error=error_record(error, self.handler))
        return failed(raised, self.handler, self.routes)

    def _exited(self, error: Exit, message: Message) -> None:
        """Log an exit out of a handler, which looks like the end of the service. Raises it if a signal asked for it."""
        if ends_the_process(error):
            raise error
        log.warning(
            "%s: handler %s raised %s on message %s: the message has failed, and the process continues",
            message.queue,
            name_of(self.handler.function),
            safe(described(error)),
            safe(message.message_id or "without id"),
        )
