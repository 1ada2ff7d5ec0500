"""Publish copies to retry and parking queues, and ack their deliveries once those are confirmed.

Nearly every failure is settled by one publish that is confirmed within milliseconds. No task waits for that: the ack
follows in the connection's reader, and the handler's task handles the next message. A publish that takes long, or is
returned, refused or uncertain, is `Settler`'s, in a task of its own.

If the process dies here, the delivery is unacked: it comes again, and settling it again writes the same hop id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from amqpflow.delivery.incoming import Incoming
from amqpflow.delivery.settle import Settlement, ToParking, ToTier
from amqpflow.errors import AmqpflowError
from amqpflow.services.process.waiting import wake

from .patience import CONFIRM_PATIENCE, Requeued
from .session import InBackground, Session
from .settler import Settler

_LOOK = 1.0  #: seconds between looks at what is not confirmed, and whether the broker blocks publishes

Report = Callable[[Settlement | Requeued], None]
"""Called once with what became of a delivery."""

Otherwise = Callable[[AmqpflowError | None], Coroutine[Any, Any, None]]
"""Settles and reports a delivery whose publish failed, or was not made yet; the delivery is still ours."""


@dataclass(slots=True, eq=False)
class PendingPublish:
    """A copy that is being published, and its delivery. The callbacks run in the context in which it was made."""

    session: Session
    incoming: Incoming
    settlement: ToTier | ToParking
    report: Report
    otherwise: Otherwise
    context: Context = field(default_factory=copy_context, init=False)  #: the handler's, which is not the reader's
    error: AmqpflowError | None = field(default=None, init=False)
    late: asyncio.Future[None] | None = field(default=None, init=False)  #: a task waits for the answer by now
    is_reported: bool = field(default=False, init=False)

    def end(self, settled: Settlement | Requeued) -> None:
        """Report once what became of it: a delivery that the broker has back may be confirmed later."""
        if not self.is_reported:
            self.is_reported = True
            self.context.run(self.report, settled)


class PendingPublishes:
    """Keeps the outstanding publishes of one settler that no task waits for."""

    def __init__(self, settler: Settler, most: int, in_background: InBackground) -> None:
        """`most`: how many may be outstanding."""
        self.settler = settler
        self._most = most
        self._in_background = in_background
        self._loop = asyncio.get_running_loop()
        self._pending: dict[PendingPublish, float] = {}  # when each was sent, in that order
        self._with_task = 0  # those that a task waits for by now, or settles in another way
        self._timer: asyncio.TimerHandle | None = None

    def is_crowded(self, session: Session) -> bool:
        """Return whether more publishes are outstanding than may be, those that are held not counted."""
        return len(self._pending) + max(0, self._with_task - len(session.admission.held_up)) > self._most

    def send(self, pending: PendingPublish) -> None:
        """Publish; ack once it is confirmed. It counts as outstanding until its `otherwise` has ended."""
        if not pending.session.holds(pending.incoming.delivery):
            # its channel ended while the handler ran: the broker has it, and its next consumer decides again
            pending.end(self.settler.patience.lost(pending.session))
            return
        if self.settler.outbox.blocked is not None:
            self.settle(pending.session, pending.otherwise(None))
            return
        self._pending[pending] = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(min(CONFIRM_PATIENCE, _LOOK), self._look)
        self.settler.step("publish.before")
        self.settler.outbox.post(pending.settlement.publish, partial(self._landed, pending))

    def _look(self) -> None:
        """Let tasks wait for what the broker does not confirm. One timer serves all publishes."""
        self._timer = None
        patience = CONFIRM_PATIENCE if self.settler.outbox.blocked is None else 0.0  # it will not confirm for now
        for pending, sent_at in list(self._pending.items()):
            left = sent_at + patience - self._loop.time()
            if left > 0:
                self._timer = self._loop.call_later(min(left, _LOOK), self._look)
                return
            del self._pending[pending]
            pending.late = self._loop.create_future()
            self.settle(pending.session, self._wait_for(pending, pending.late))

    def settle(self, session: Session, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Let a task settle a delivery; it counts as outstanding until it is settled or held."""
        self._with_task += 1
        task = self._in_background(session, work)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, _: asyncio.Task[None]) -> None:
        self._with_task -= 1

    async def _wait_for(self, pending: PendingPublish, answered: asyncio.Future[None]) -> None:
        """Hold the delivery until the broker answers, or has the delivery back."""
        try:
            await self.settler.patience.wait_for_confirm(pending.session, pending.incoming, answered)
        finally:
            pending.late = None
            if not answered.done():
                pending.end(self.settler.patience.lost(pending.session))
            elif pending.error is not None:
                self._failed(pending, pending.error)

    def _landed(self, pending: PendingPublish, error: AmqpflowError | None) -> None:
        """Settle the delivery by the broker's answer, or by the end of the channel."""
        self._pending.pop(pending, None)
        late, pending.error = pending.late, error
        if error is None:
            self.settler.step("publish.confirmed")
            acked = self.settler.ack(pending.session, pending.incoming)
            pending.end(pending.settlement if acked else self.settler.patience.lost(pending.session))
        elif late is None:
            self._failed(pending, error)
        if late is not None:
            wake(late)

    def _failed(self, pending: PendingPublish, error: AmqpflowError) -> None:
        if not pending.session.holds(pending.incoming.delivery):
            pending.end(self.settler.patience.lost(pending.session))
            return
        pending.context.run(self.settle, pending.session, pending.otherwise(error))
