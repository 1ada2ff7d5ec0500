"""Why a channel or a connection ended: the broker's text, and its meaning.

RabbitMQ gives its reason in channel.close and connection.close (fact 18.1). It gives none when it misses heartbeats:
then it resets the socket (fact 18.3).
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from typing import Literal

from .units import roughly

_ACK_TIMED_OUT = re.compile(r"delivery acknowledgement on channel \d+ timed out\. Timeout value used: (-?\d+) ms")

_MEANINGS = (
    ("connection", "reason 'shutdown'", "the RabbitMQ node was stopped"),
    ("connection", "maintenance mode", "the RabbitMQ node was put into maintenance mode"),
    ("connection", "Closed via management plugin", "an operator closed the connection in the management API"),
    ("connection", "number of channels opened", "a limit of channels is reached"),
    ("connection", "CONNECTION_FORCED - vhost '", "the virtual host was deleted or stopped"),
    ("connection", "CONNECTION_FORCED - user '", "the user was deleted"),
    ("connection", "credential expired", "the token that it logged in with has expired"),
    ("connection", "CONNECTION_FORCED", "an operator closed the connection"),
    ("channel", "delivery acknowledgement on channel", "a message was held longer than the consumer timeout"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseReason:
    """Why a channel or a connection ended. `str` of it is one sentence for a log."""

    text: str  #: one sentence
    code: int = 0  #: the reply code of channel.close or connection.close; 0 when the broker sent neither
    reply_text: str = ""  #: the broker's own text beside the code
    by_us: bool = False  #: whether amqpflow closed it

    def __str__(self) -> str:
        return self.text

    @property
    def consumer_timeout_ms(self) -> int | None:
        """The consumer timeout that ended the channel; 0: not named (4.3 may say -1); None: another reason ended it."""
        found = _ACK_TIMED_OUT.search(self.reply_text)
        return max(0, int(found[1])) if found else None

    @property
    def silent(self) -> bool:
        """The socket ended without a reason, as it does when RabbitMQ misses heartbeats."""
        return not self.code and not self.by_us


CLOSED_HERE = CloseReason(text="amqpflow closed it", by_us=True)


def closed_by_broker(what: Literal["channel", "connection"], code: int, reply_text: str) -> CloseReason:
    """Return the reason in a channel.close or connection.close, with its meaning in front where it is known."""
    meaning = next((means for kind, part, means in _MEANINGS if kind == what and part in reply_text), "")
    about_manual = r"\. This timeout value can be configured.*$"
    said = f"{code} {re.sub(about_manual, '', reply_text)}".strip()
    text = f"{meaning} ({said})" if meaning else f"RabbitMQ closed the {what}: {said}"
    return CloseReason(text=text, code=code, reply_text=reply_text)


def socket_failed(error: OSError) -> CloseReason:
    """Return the reason of a socket that failed: the system's text with the name of its error, such as ECONNRESET."""
    name = errno.errorcode.get(error.errno, "") if error.errno else ""
    words = error.strerror.lower() if error.strerror else str(error) or type(error).__name__
    return CloseReason(text=f"the socket failed: {words}{f' ({name})' if name else ''}")


def socket_closed() -> CloseReason:
    """Return the reason of a socket that the peer closed without a connection.close before."""
    return CloseReason(text="RabbitMQ or the network closed the socket without a reason")


def missed_heartbeats(heartbeat: float, silent_for: float) -> CloseReason:
    """Return the reason of a connection that received nothing for `silent_for` seconds. `heartbeat` is its interval."""
    text = f"missed heartbeats: nothing was received for {roughly(silent_for)} (heartbeat {roughly(heartbeat)})"
    return CloseReason(text=text)
