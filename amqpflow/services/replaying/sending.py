"""Choose which messages are sent next, and which are sent again or left after a failure."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from amqpflow.delivery.backoff import Backoff
from amqpflow.errors import AmqpflowError, PublishError, PublishForbiddenError, PublishRefusedError, UnroutableError
from amqpflow.parking.parked import ParkedMessage
from amqpflow.parking.replay import replay_publish
from amqpflow.services.reading.reader import ParkingReader

from .outbox import Address, PendingReplay, ReplayOutbox
from .rate_limiter import RateLimiter
from .sorting import MessageSorter
from .state import ReplayState

WINDOW = 4000  #: publishes without a confirm at a time; a crash leaves at most as many in doubt
BATCH = 1000  #: messages that go through the journal together, at most
CONFIRM_TIMEOUT = 30.0  #: seconds; a broker short of memory or disk does not confirm
PATIENCE = 5.0  #: seconds to wait for room in a work queue that is full, since it last took a message
RECONNECT_WITHIN = 30.0  #: seconds to try to publish after the connection was lost, since the last confirm
_RESEND = Backoff(0.05, 0.5)  #: before what was refused is sent again
_REFUSED = "the broker refused it (basic.nack)"
_GROUP = 30  #: confirms that are worth a write to the disk while more are on their way


@dataclass
class ReplaySender:
    """Sends the messages that wait, in one reading."""

    replay: ReplayState
    reader: ParkingReader
    outbox: ReplayOutbox
    limiter: RateLimiter
    sorter: MessageSorter
    stop: asyncio.Event
    has_nowhere: bool = False  #: no destination accepts messages any more
    resend_at: float = 0.0  #: seconds of the event loop

    def __post_init__(self) -> None:
        self._waiting = self.sorter.waiting
        self._resend: list[tuple[PendingReplay, AmqpflowError | None]] = []  # to be sent again, and why
        self._resend_wait = _RESEND.first
        self._loop = asyncio.get_running_loop()
        self._begun = self._last_success = self._loop.time()
        self._successes: dict[Address, float] = {}  # when the last confirm came, by destination

    @property
    def window(self) -> int:
        return self.limiter.window(WINDOW)

    @property
    def resends(self) -> bool:
        return bool(self._resend)

    def succeeded(self, confirmed: Iterable[PendingReplay]) -> None:
        """Note that RabbitMQ accepts messages, and where."""
        self._last_success = self._loop.time()
        self._successes |= dict.fromkeys((each.address for each in confirmed), self._last_success)
        self._resend_wait = _RESEND.first

    async def next_batch(self, *, behind: Sequence[PendingReplay] = ()) -> list[PendingReplay]:
        """Return messages that may be sent.

        A return names exchange, routing key and hop: of two copies that are the same in those, the second waits for
        the first, and others pass both.
        """
        if self._resend or not self._waiting:
            return []
        reserved = len(behind)
        on_its_way = self.outbox.outstanding or reserved
        if on_its_way and not (self.outbox.has_confirmed and self.outbox.is_open):
            return []  # the first goes alone: what closes the channel makes no other uncertain
        try:
            allowed = await self.limiter.allowance(self._loop.time())
        except AmqpflowError as error:
            # outstanding messages still have to be settled, and the write to be awaited
            self.replay.halt(str(error), getattr(error, "hint", "") or "replay again to continue")
            return []
        room = min(BATCH, WINDOW - self.outbox.outstanding - reserved, allowed - reserved)
        room = min(room, 1) if not self.outbox.has_confirmed else room
        if room < min(_GROUP, self._waiting.ready) and on_its_way:
            return []  # more room comes with the confirms that are on their way
        batch: list[PendingReplay] = []
        sending = {each.copy.returned_as for each in behind}
        self._waiting.release(lambda same: same not in sending and not self.outbox.is_outstanding(same))
        for _ in range(BATCH):  # at most as many of a long row of equals in one turn of the loop
            if len(batch) == room or (taken := self._waiting.take()) is None:
                break
            parked, since = taken
            pending = self._prepare(parked)
            if pending is None:
                continue
            same = pending.copy.returned_as
            if same in sending or self.outbox.is_outstanding(same):
                self.replay.next_number -= 1
                self._waiting.set_aside(same, parked, since)
                continue
            self.replay.count(parked)
            self.replay.report.taken += pending.tag not in self.sorter.numbers_before
            sending.add(same)
            batch.append(pending)
        return batch

    def put_back(self, prepared: list[PendingReplay]) -> None:
        """Let messages that were prepared and not sent wait for the next reading."""
        for pending in reversed(prepared):
            self.replay.uncount(pending.parked)
            self._waiting.add(pending.parked, self._loop.time())
        self.replay.report.taken -= sum(each.tag not in self.sorter.numbers_before for each in prepared)

    def _prepare(self, parked: ParkedMessage) -> PendingReplay | None:
        replay = self.replay
        destination = replay.destination(parked)
        assert destination is not None  # noqa: S101 - it was selected
        if (closed := replay.closed.get((destination.exchange, destination.routing_key))) is not None:
            self.reader.keep(parked.delivery)
            replay.leave(parked, closed)
            return None
        ordinal = replay.ordinal(parked)
        why = "its headers leave no room for a failure record in a frame"
        try:
            copy = replay_publish(parked, destination, replay.context, ordinal=ordinal)
        except (ValueError, TypeError, RecursionError) as error:
            copy, why = None, f"it cannot be encoded: {error}"
        if copy is None:
            self.reader.keep(parked.delivery)
            replay.leave(parked, why)
            return None
        return PendingReplay(number=replay.number(), parked=parked, copy=copy, key=(copy.identity, replay.name(parked)))

    # -- what goes wrong

    def give_up_waiting(self) -> None:
        """Leave messages that had no confirm for too long."""
        oldest = self.outbox.oldest_sent_at
        until = self._loop.time() - CONFIRM_TIMEOUT
        if oldest is None or oldest > until:
            return
        unconfirmed, why = self.outbox.give_up(until), f"no confirm within {CONFIRM_TIMEOUT:.0f} s"
        if blocked := self.outbox.blocked:
            why = f"{why}: the broker blocks publishes: {blocked}"
        self._leave(unconfirmed, why, in_doubt=True)
        if blocked:
            self.replay.halt(why, "replay again to continue")
        for address in dict.fromkeys(each.address for each in unconfirmed):
            self._close(address, f"{address[1]}: {why}", "replay again to continue")

    def handle_failures(self) -> None:
        failed, self.outbox.failed = self.outbox.failed, []
        for pending, error in failed:
            if isinstance(error, PublishRefusedError) and not isinstance(error, PublishForbiddenError):
                self._handle_refusal(pending)
            elif isinstance(error, PublishError):
                self._handle_failure(pending, error)
            else:  # whether it was sent or not: a second copy has the same hop id
                self._send_later(pending, error)

    def _handle_failure(self, pending: PendingReplay, error: PublishError) -> None:
        self.replay.step("publish.returned")
        exchange, key = pending.address
        if isinstance(error, UnroutableError):
            ours = exchange == self.replay.compiled.retry_exchange
            self._leave([pending], f"no queue for routing key {key!r} on exchange {exchange!r}")
            self._close(
                pending.address,
                f"{exchange or 'the default exchange'} cannot route to {key}: {error}",
                f"amqpflow apply {shlex.quote(self.replay.compiled.file)}" if ours else "create the destination first",
            )
            return
        self._leave([pending], str(error))
        if isinstance(error, PublishForbiddenError):
            self._close(pending.address, str(error), error.hint)

    def _handle_refusal(self, pending: PendingReplay) -> None:
        self.replay.step("publish.refused")
        if self._may_be_in_several_queues():
            self._leave([pending], _REFUSED, in_doubt=True)
            where = f"a queue behind {pending.copy.exchange}"
            self._close(
                pending.address, f"{where} accepts no more messages: {_REFUSED}", "replay again when it has room"
            )
        else:
            self._send_later(pending, None)

    def _send_later(self, pending: PendingReplay, error: AmqpflowError | None) -> None:
        """Send it again, for a while. `error` None: it was refused."""
        if not self._resend:
            self.resend_at = self._loop.time() + self._resend_wait
            self._resend_wait = _RESEND.after(self._resend_wait)
        self._resend.append((pending, error))

    async def send_again(self) -> None:
        if not self._resend or self.outbox.outstanding:
            return
        again: list[tuple[PendingReplay, AmqpflowError | None]] = []
        for pending, error in self._resend:
            if self._may_send_again(pending, error):
                again.append((pending, error))
            else:
                self._give_up(pending, error)
        self._resend = again
        if again and self._loop.time() >= self.resend_at:
            again.sort(key=lambda each: each[0].number)
            first, self._resend = again[:BATCH], again[BATCH:]
            await self.outbox.send([each for each, _ in first])

    def _may_send_again(self, pending: PendingReplay, error: AmqpflowError | None) -> bool:
        if self.stop.is_set() or self.replay.stopped or pending.address in self.replay.closed:
            return False
        since = self._loop.time() - (self._last_success if error else self._successes.get(pending.address, self._begun))
        return since < (RECONNECT_WITHIN if error else PATIENCE)

    def _give_up(self, pending: PendingReplay, error: AmqpflowError | None) -> None:
        if error is not None:
            self._leave([pending], str(error), in_doubt=pending.is_uncertain)
            self.replay.halt(str(error), "replay again to continue")
            return
        self._leave([pending], _REFUSED, in_doubt=pending.is_uncertain)
        if not (self.stop.is_set() or self.replay.stopped):
            why = f"{pending.copy.routing_key} accepts no more messages: {_REFUSED}"
            self._close(pending.address, why, "replay again when it has room")

    def _may_be_in_several_queues(self) -> bool:
        """Tell whether an exchange may route a copy to several queues: one may refuse it, and others may have it."""
        to = self.replay.choice.to
        return to is not None and to.queue is None

    def _close(self, address: Address, why: str, hint: str) -> None:
        self.replay.close(address, why, hint)
        self.has_nowhere = self.has_nowhere or all(each in self.replay.closed for each in self.replay.addresses_here())

    def _leave(self, pendings: list[PendingReplay], why: str, *, in_doubt: bool = False) -> None:
        for pending in pendings:
            self.reader.keep(pending.parked.delivery)
            self.replay.leave(pending.parked, why, in_doubt=in_doubt)
        if not in_doubt:
            self.replay.resolve(pendings, left=True)
