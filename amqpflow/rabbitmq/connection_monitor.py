"""Check a connection at equal intervals, and give it up when the broker does not answer on it any more.

A firewall that forgot a connection swallows what is sent and says nothing: no FIN, no RST, no error. Two signs of life
are looked for:

- something is received: RabbitMQ sends a heartbeat when it has nothing else to send
  (https://www.rabbitmq.com/docs/heartbeats), after the time of one at most.
- a publish is confirmed. Where it is not, the broker is asked on the same channel: one that answers is alive, and its
  queue does not confirm (a quorum queue without a majority). Publishing again there would only make copies.

Nothing is asked of a broker that said `connection.blocked`: it reads nothing, and says when it does again. Nor is it
while the socket takes what waits for it: a large message on a slow link has no confirm for long, and the question would
wait behind it.

Looks are counted, not seconds. A handler that blocked the event loop for a minute made one look late, and what the
broker sent meanwhile is read before the next.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from amqpflow.model.closing import missed_heartbeats
from amqpflow.model.units import format_duration

if TYPE_CHECKING:
    from .channel import Channel
    from .transport import ContentTransport

CONFIRM_PATIENCE = 10.0  #: seconds without a confirm, and half of that without an answer, after which it is given up
_LONGEST_INTERVAL, _SHORTEST_INTERVAL = 1.0, 0.25  #: seconds between checks
_SILENT = 2.0  #: heartbeats without a byte after which it is given up, as RabbitMQ does
_FEWEST_LOOKS = 12  #: a loop that is late now and then must not end a connection with short heartbeats


@dataclass(frozen=True, slots=True)
class Unchanged:
    """At how many checks in a row a value was the same as before."""

    value: int = -1
    checks: int = 0

    def check(self, value: int) -> Unchanged:
        """Return the state after the next check."""
        return Unchanged(value, self.checks + 1 if value == self.value else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SilenceLimits:
    """How long to wait for a sign of life. `interval` is in seconds, all else in checks; 0 is for ever."""

    interval: float
    silent: int  #: without a byte, until the connection is given up
    unconfirmed: int  #: with the same oldest publish, until the connection is given up
    unanswered: int  #: with the same question, until it is

    @classmethod
    def of(cls, heartbeat: float, confirm: float = CONFIRM_PATIENCE) -> SilenceLimits:
        """Compute the patience for a heartbeat (0: none) and for the time that a confirm may take, both in seconds."""
        interval = min(heartbeat / 10 or _LONGEST_INTERVAL, confirm / 10, _LONGEST_INTERVAL)
        interval = max(interval, min(_SHORTEST_INTERVAL, confirm / 10))

        def checks(seconds: float) -> int:
            return math.ceil(seconds / interval)

        return cls(
            interval=interval,
            silent=max(checks(heartbeat * _SILENT), _FEWEST_LOOKS) if heartbeat else 0,
            unconfirmed=checks(confirm),
            unanswered=checks(confirm / 2),
        )


@dataclass(slots=True)
class ConfirmCheck:
    """A channel's oldest publish without a confirm, and how long its question was unanswered."""

    oldest: Unchanged = field(default_factory=Unchanged)
    unanswered: int = 0

    def check(self, patience: SilenceLimits, oldest: int, *, asking: bool, busy: bool) -> tuple[bool, bool]:
        """Decide whether to ask now, and whether to give the connection up.

        `oldest` is its number, 0 when all are confirmed; `busy`: no answer can be expected now.
        """
        if busy or not oldest:
            self.oldest, self.unanswered = Unchanged(), 0
            return False, False
        self.oldest = self.oldest.check(oldest)
        self.unanswered = self.unanswered + 1 if asking else 0
        late = self.oldest.checks
        dead = late >= patience.unconfirmed and self.unanswered >= patience.unanswered
        return late >= patience.unconfirmed - patience.unanswered and not asking, dead


class ConnectionMonitor:
    """Checks one connection until it is stopped, or has given it up."""

    def __init__(self, transport: ContentTransport, heartbeat: float, give_up: Callable[[str], None]) -> None:
        """Args:
        transport: of the connection.
        heartbeat: in seconds, as negotiated; 0 for none.
        give_up: called once, with the reason.
        """
        self._transport = transport
        self._give_up = give_up
        self._heartbeat = heartbeat
        self._patience = SilenceLimits.of(heartbeat, CONFIRM_PATIENCE)
        self._silence = Unchanged()
        self._unsent = self._taken = 0  # at the last look
        self._channels: dict[Channel, ConfirmCheck] = {}
        self._loop = asyncio.get_running_loop()
        self._next: asyncio.TimerHandle | None = None
        self._later()

    def add(self, channel: Channel) -> None:
        """Check this channel, too, until it is closed."""
        self._channels[channel] = ConfirmCheck()

    def stop(self) -> None:
        """Stop checking."""
        if self._next is not None:
            self._next.cancel()
        self._next = None
        self._channels.clear()

    def _later(self) -> None:
        self._next = self._loop.call_later(self._patience.interval, self._check)

    def _check(self) -> None:
        if why := self._dead():
            self.stop()
            self._give_up(why)
        else:
            self._later()

    def _dead(self) -> str:
        patience = self._patience
        busy = self._sends() or self._transport.blocked is not None
        self._silence = self._silence.check(self._transport.received)
        silent = self._silence.checks
        if patience.silent and silent >= patience.silent:
            return str(missed_heartbeats(self._heartbeat, silent * patience.interval))
        open_ones = {channel: asked for channel, asked in self._channels.items() if not channel.is_closed}
        self._channels = open_ones
        for channel, asked in open_ones.items():
            ask, dead = asked.check(patience, channel.oldest, asking=channel.is_asking, busy=busy)
            if dead:
                without, silent_for = self._time(asked.oldest.checks), self._time(asked.unanswered)
                return f"no confirm for {without}, and no answer for {silent_for}"
            if ask:
                channel.ask()
        return ""

    def _sends(self) -> bool:
        """Return whether the socket took some of what waited for it at the last check.

        What it took at once proves nothing: the buffer of a dead connection takes some megabytes.
        """
        waited, taken = self._unsent, self._taken
        self._unsent, self._taken = self._transport.unsent, self._transport.taken
        return waited > 0 and self._taken > taken

    def _time(self, checks: int) -> str:
        return format_duration(round(checks * self._patience.interval * 1000))
