"""Take the messages of a parking queue, and sort them: to be replayed, only to be taken out, or to stay parked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

from amqpflow.errors import BrokerError, BrokerUnavailableError
from amqpflow.model.message import Delivery
from amqpflow.parking.identity import parked_digest
from amqpflow.parking.parked import ParkedMessage, read_parked
from amqpflow.parking.replay import replayed_hop
from amqpflow.services.reading.reader import ParkingReader

from .interrupted_sends import InterruptedSend
from .plan import is_allowed, is_misplaced
from .state import ReplayState
from .waiting_messages import WaitingMessages

WAITING_BYTES = 32 * 1024 * 1024  #: bodies that wait to be sent; what is over that is read again later


class MessageSorter:
    """Sorts the messages of one reading. `waiting` and `settled` are emptied by the sender and the acks."""

    def __init__(self, replay: ReplayState, reader: ParkingReader, news: asyncio.Event) -> None:
        self.waiting = WaitingMessages()  #: to be replayed
        self.settled: list[tuple[ParkedMessage, InterruptedSend]] = []
        """Sent by an interrupted replay, and proven to be: to be acked."""
        self.sent_before: set[int] = set()  #: delivery tags of messages that an interrupted replay may have sent
        self.numbers_before: dict[int, int] = {}
        """Delivery tag -> number in this replay's journal, of messages that an earlier run of it confirmed."""
        self.has_deferred = False  #: messages had no room to wait, and are left to another reading
        self.came_back = 0  #: replayed before by this replay, and parked again
        self.brought_back = 0  #: replayed by another that began after the first reading, and parked again
        self.looked_at = 0  #: messages
        self.new = 0  #: of these, parked since the replay began, with a priority
        self._replay = replay
        self._reader = reader
        self._news = news
        self._allowed = replay.allowed()
        limit = replay.choice.limit
        self._left = None if limit is None else limit - replay.report.taken
        self._selected = 0
        self._since: int | None = None

    async def run(
        self, *, at_most: int, since: int | None, window: int, busy: Callable[[], bool], is_over: Callable[[], bool]
    ) -> None:
        """Sort until the reading ends.

        Args:
            at_most: messages to look at, besides those that certainly were not there at first.
            since: when the first reading of the queue began, in ms since the epoch; None: this is the first. What a
                replay that began later has replayed is passed over.
            window: messages that are held at once, besides those that stay.
        """
        self._since = since
        # messages that came back may be ahead of those that were there, so all of the queue may have to be read
        wanted = self._reader.ready if at_most else 0
        try:
            async with aclosing(self._reader.arrivals(at_most=wanted, window=2 * window, busy=busy)) as arrivals:
                async for batch in arrivals:
                    for delivery in batch:
                        (self._reader.keep if self._has_all(at_most) else self._sort)(delivery)
                    self._news.set()
                    if is_over() or self._has_all(at_most):
                        break
        except (BrokerUnavailableError, BrokerError) as error:
            self._replay.halt(str(error), "replay again to continue")
        finally:
            self._news.set()

    @property
    def _were_there(self) -> int:
        return self.looked_at - self.came_back - self.brought_back

    def _has_all(self, at_most: int) -> bool:
        return self._were_there >= at_most or (self._has_enough() and not self._replay.interrupted)

    def _has_enough(self) -> bool:
        """Tell whether as many were selected as were requested; what interrupted replays sent is still taken out."""
        return self._left is not None and self._selected >= self._left

    def _sort(self, delivery: Delivery) -> None:
        replay, reader = self._replay, self._reader
        unreadable = reader.unreadable.get(delivery.delivery_tag)
        parked = read_parked(delivery, replay.compiled.routes, unreadable=unreadable, origin=replay.choice.origin)
        known = replay.interrupted
        self.looked_at += 1
        self.new += bool(parked.priority) and parked.failed_at is not None and parked.failed_at > replay.context.at
        if unreadable is not None:
            replay.leave_unread(parked, unreadable)
        if unreadable is not None or replay.was_left(parked) or not self._is_selected(parked):
            reader.keep(delivery)
            if unreadable is None and known:
                known.pass_over(parked_digest(delivery).hex())
            return
        if known and self._is_settled(parked):
            return
        counts = delivery.delivery_tag not in self.numbers_before  # the others are in what the limit leaves of it
        if counts and self._has_enough():
            reader.keep(delivery)
            return
        if self.waiting.size > WAITING_BYTES:
            reader.keep(delivery)
            self.has_deferred = True
            return
        self._selected += counts
        self.waiting.add(parked, asyncio.get_running_loop().time())

    def _is_settled(self, parked: ParkedMessage) -> bool:
        """Tell whether an interrupted replay sent it, so that it is only to be taken out, or to be left."""
        replay, known = self._replay, self._replay.interrupted
        sent = known.take(replay.name(parked))
        if sent is None and not known.was_sent_of_old(lambda: replayed_hop(parked, replay.context)):
            return False
        if sent is not None and known.proves(sent, parked):
            self.settled.append((parked, sent))
            return True
        if replay.choice.in_doubt == "hold":
            replay.pass_ordinal(parked)
            self._reader.keep(parked.delivery)
            known.pass_over(parked_digest(parked.delivery).hex())
            replay.leave(
                parked, "an interrupted replay may have sent it; `in_doubt` send publishes it again", in_doubt=True
            )
            return True
        if sent is not None:
            if sent.by.file is replay.journal and sent.number not in sent.by.state.in_doubt:
                self.numbers_before[parked.delivery.delivery_tag] = sent.number
            known.use((sent,))
        self.sent_before.add(parked.delivery.delivery_tag)
        return False

    def _is_selected(self, parked: ParkedMessage) -> bool:
        replay, report = self._replay, self._replay.report
        mark = parked.record.replay if parked.record else None
        if mark is not None and mark.id == replay.context.id:
            self.came_back += 1
            return False
        if self._since is not None and mark is not None and mark.at is not None and mark.at > self._since:
            self.brought_back += 1
            return False
        choice = replay.choice
        if choice.lacks_origin(parked, everything=replay.queues is None):
            report.unknown_origin += 1
            return False
        if replay.destination(parked) is None or not choice.selects(parked) or not is_allowed(self._allowed, parked):
            report.others += 1
            report.misplaced += is_misplaced(parked, replay.compiled)
            return False
        return True
