"""The publishes of one channel, and how each ends: confirmed, returned, refused, or uncertain.

A return names no publish: it has the exchange, the routing key and the message. So two publishes that are alike in
exchange, routing key and id are never in flight together; the later waits here for the confirm of the earlier.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence

from amqpflow.errors import AmqpflowError, BrokerUnavailableError, PublishRefusedError, UnroutableError
from amqpflow.model.content_header import ContentHeader
from amqpflow.model.message import Publish, identity_of

from .frames import publish_frames

log = logging.getLogger("amqpflow.channel")

Settled = Callable[[AmqpflowError | None], None]
"""Called once with the end of a publish: None when it was confirmed. Runs in the connection's reader."""

Key = tuple[str, str, str]


class Ticket:
    """Withdraws posted messages that are not written yet. Of one event loop."""

    __slots__ = ("withdrawn", "written")

    def __init__(self) -> None:
        self.withdrawn = False  #: what is not written by now is not to be sent
        self.written = False  #: one of them was written, and the broker may have it


class _Outstanding:
    """A publish without a confirm."""

    __slots__ = ("key", "returned", "settled")

    def __init__(self, key: Key, settled: Settled) -> None:
        self.key = key
        self.settled = settled
        self.returned = False


class Confirms:
    """Counts publishes and confirms. `write` keeps frames to be sent, in the order in which it is called."""

    def __init__(self, channel: int, frame_max: int, write: Callable[[bytes], None]) -> None:
        self._channel = channel
        self._frame_max = frame_max
        self._write = write
        self._last = 0
        self._written = 0  # the last one that a socket has taken
        self.on_idle: Callable[[], None] | None = None  #: called when the last one has its confirm
        self._nameless = 0
        self._taken_by: set[str] = set()  # exchanges that exist and may be published to, as far as this channel knows
        self._outstanding: dict[int, _Outstanding] = {}  # by sequence number, in that order
        self._sent: dict[Key, _Outstanding] = {}
        self._behind: dict[Key, deque[tuple[bytes, Settled, Ticket | None]]] = {}
        self._waiting = 0  # how many those are

    def __len__(self) -> int:
        """Count publishes without a confirm, also those that wait here to be sent."""
        return len(self._outstanding) + self._waiting

    @property
    def oldest(self) -> int:
        """The number of the oldest publish that was sent and is without a confirm; 0 when there is none."""
        return next(iter(self._outstanding), 0)

    def post(self, message: Publish, settled: Settled, ticket: Ticket | None = None) -> None:
        """Publish mandatory. A publish that waits for an equal one is not sent when its ticket is withdrawn meanwhile.

        Raises:
            ValueError: a name is too long, or the headers are; nothing is sent, and `settled` is not called.
        """
        data = publish_frames(self._channel, message, self._frame_max)
        key = message.returned_as
        if not message.identity:
            # put back as it was, without any id: its return counts for all that went to the same address
            self._nameless += 1
            key = message.exchange, message.routing_key, f"\0{self._nameless}"
        if key in self._sent:
            self._behind.setdefault(key, deque()).append((data, settled, ticket))
            self._waiting += 1
        else:
            self._send(key, data, settled, ticket)

    def _send(self, key: Key, data: bytes, settled: Settled, ticket: Ticket | None) -> None:
        if ticket is not None:
            ticket.written = True
        self._last += 1
        self._outstanding[self._last] = self._sent[key] = _Outstanding(key, settled)
        self._write(data)

    def written(self) -> None:
        """Note that the socket has all that `write` kept so far: from now on the broker may have it."""
        self._written = self._last

    def returned(self, text: str, exchange: str, routing_key: str, header: bytes) -> None:  # noqa: ARG002
        """Handle a basic.return: the confirm that follows it is not a success (fact 9.1)."""
        try:
            identity = identity_of(ContentHeader(header).properties)
            found = self._sent.get((exchange, routing_key, identity)) if identity else None
        except ValueError:
            found = None
        if found is not None:
            found.returned = True
            return
        # one that cannot be recognised may be any for that address: better a second copy than none
        for outstanding in self._outstanding.values():
            if outstanding.key[:2] == (exchange, routing_key):
                outstanding.returned = True

    def confirmed(self, tag: int, multiple: bool, acknowledged: bool) -> None:
        """Handle a basic.ack or basic.nack from the broker."""
        if not multiple:
            self._settle(tag, acknowledged)
            return
        for each in list(self._outstanding):
            if each > tag > 0:
                break
            self._settle(each, acknowledged)

    def _settle(self, tag: int, acknowledged: bool) -> None:
        outstanding = self._outstanding.pop(tag, None)
        if outstanding is None:
            return
        key = outstanding.key
        del self._sent[key]
        withdrawn = self._send_next(key) if self._behind else ()
        error: AmqpflowError | None = None
        self._taken_by.add(key[0])
        if outstanding.returned:
            error = UnroutableError(f"no queue for routing key {key[1]!r} on exchange {key[0]!r}")
        elif not acknowledged:
            error = PublishRefusedError(f"the broker refused a message for {key[1]!r} on exchange {key[0]!r}")
        _tell(outstanding.settled, error)
        for settled in withdrawn:
            _tell(settled, withdrawn_error())
        if not self._outstanding and self.on_idle is not None:
            self.on_idle()

    def _send_next(self, key: Key) -> Sequence[Settled]:
        """Send the publish that waited for this key. Return those before it that were withdrawn meanwhile."""
        withdrawn: list[Settled] = []
        behind = self._behind.get(key)
        while behind:
            data, settled, ticket = behind.popleft()
            self._waiting -= 1
            if not behind:
                del self._behind[key]
            if ticket is None or not ticket.withdrawn:
                self._send(key, data, settled, ticket)
                break
            withdrawn.append(settled)
        return withdrawn

    def end(self, error: Callable[[str, bool], AmqpflowError]) -> None:
        """Settle all, since the channel is closed. What a socket has taken is uncertain, each with its own
        `error(exchange, may_be_there)`. Nothing of the others was sent: they get `BrokerUnavailableError`.

        RabbitMQ reads a channel in order. If a publish to an exchange closed it, and the exchange has taken nothing on
        this channel before, or nothing else is on its way there, then nothing that is on its way there has arrived.
        """
        on_their_way = Counter(each.key[0] for each in self._outstanding.values())
        sent, self._outstanding = self._outstanding, {}
        waited, self._behind, self._waiting = self._behind, {}, 0
        self._sent.clear()
        for number, outstanding in sent.items():
            exchange = outstanding.key[0]
            if number > self._written:
                _tell(outstanding.settled, _not_sent())
                continue
            _tell(outstanding.settled, error(exchange, exchange in self._taken_by and on_their_way[exchange] > 1))
        for queue in waited.values():
            for _, settled, _ in queue:
                _tell(settled, _not_sent())


def withdrawn_error() -> BrokerUnavailableError:
    """Return the error for a message whose ticket was withdrawn in time."""
    return BrokerUnavailableError("the message was withdrawn before it was sent")


def _not_sent() -> BrokerUnavailableError:
    return BrokerUnavailableError("the channel was closed before the message was sent")


def _tell(settled: Settled, error: AmqpflowError | None) -> None:
    try:
        settled(error)
    except Exception:
        # raising here would end the reader of the whole connection
        log.exception("reporting the end of a publish failed")
