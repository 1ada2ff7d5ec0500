"""The exception tree. Third-party exceptions stop at the adapters and become one of these.

The exit code of a command is 1 unless the class says otherwise.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from .model.diagnostic import Diagnostic
from .model.error_names import RENAMED


class AmqpflowError(Exception):
    """All errors that amqpflow raises on purpose. `str()` is one clear sentence, `hint` says what to do."""

    exit_code = 1
    message_id: str | None = None  #: of the message, when a `Publisher` was to publish one

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class InvalidTopologyError(AmqpflowError):
    """A topology file has errors."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        super().__init__("\n".join(map(str, diagnostics)))
        self.diagnostics = tuple(diagnostics)


class UsageError(AmqpflowError):
    """The command line or the arguments of a call do not fit."""

    exit_code = 64


class RefusedError(AmqpflowError):
    """A guard stopped the command before anything was done; `problems` lists every reason."""

    exit_code = 4

    def __init__(self, message: str, *, problems: Sequence[str] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.problems = tuple(problems)


class NotAppliedError(RefusedError):
    """The broker does not hold what the topology says; the hint names the command that fixes it."""


class LockedError(AmqpflowError):
    """Another apply of the same topology is under way, and `str()` says whose. Nothing was done."""

    exit_code = 5


class LockLostError(AmqpflowError):
    """The connection that held the lock was closed: another apply may have begun, so this one stops."""


class StoppedError(AmqpflowError):
    """The call was stopped, by Ctrl-C or by its argument `stop`, before it had a result; nothing was changed."""

    exit_code = 130


class PartlyDoneError(AmqpflowError):
    """The command stopped in the middle. `report` is its account of what was done and what remains, when it has one."""

    exit_code = 3

    def __init__(self, message: str, *, hint: str = "", report: object = None) -> None:
        super().__init__(message, hint=hint)
        self.report = report


class BrokerUnavailableError(AmqpflowError):
    """The broker cannot be reached, or the connection was lost."""


class AuthenticationError(BrokerUnavailableError):
    """RabbitMQ does not accept this user and password."""


class VirtualHostMissingError(BrokerUnavailableError):
    """The virtual host does not exist, or the user has no access to it; the text says which."""


class AddressChangedError(BrokerUnavailableError):
    """The URL, read again for a further connection, names another broker or virtual host than the first one's."""


class TlsError(BrokerUnavailableError):
    """The TLS handshake failed: certificate, host name or protocol."""


class ClientLibraryError(AmqpflowError):
    """The installed aiormq or aio-pika does not read or write as amqpflow needs it; the hint names what to install."""


class PermissionDeniedError(AmqpflowError):
    """The user lacks a permission on an object, or a management tag."""


class ManagementUnavailableError(AmqpflowError):
    """The management API cannot be reached."""


class BrokerError(AmqpflowError):
    """RabbitMQ refused an operation. `code` is AMQP's reply code or HTTP's status."""

    def __init__(self, message: str, *, code: int = 0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code

    @property
    def missing(self) -> bool:
        """Whether an object does not exist. A 404 over AMQP may also say that its node is down, or its process."""
        return self.code == 404 and "NOT_FOUND - no " in str(self)


class PublishError(AmqpflowError):
    """The message is certainly not in a queue. `message_id` is its id when a `Publisher` published it."""


class UnroutableError(PublishError):
    """The broker returned the message: nothing is bound for its routing key."""


class UnpublishableError(PublishError):
    """The broker closes the channel over this message, or it cannot be encoded: too large, or a bad header."""


class PublishRefusedError(PublishError):
    """The broker does not take the message: it answered with basic.nack, or see `PublishForbiddenError`."""


class PublishForbiddenError(PublishRefusedError):
    """The user has no write permission on the exchange. Nothing is wrong with the message: publish it again later."""


class PublishUncertainError(AmqpflowError):
    """The channel or connection was lost before the confirm: the message may be in a queue or not (fact 9.2).

    `closed_by_publish` is the broker's text when the channel was closed by an error of a publish on it; `message_id`
    is the id to publish it with again when a `Publisher` published it.
    """

    def __init__(self, message: str, *, closed_by_publish: str | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.closed_by_publish = closed_by_publish
        #: not so where the broker closed the channel over its exchange, and nothing before it can have been taken there
        self.may_be_there = True


class InvalidHandlerError(AmqpflowError):
    """A handler cannot be registered as it is written."""


class UndecodableError(AmqpflowError):
    """A message body is not what its content type or encoding says."""


def __getattr__(name: str) -> Any:
    if name not in RENAMED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(f"amqpflow.{name} is now amqpflow.{RENAMED[name]}", DeprecationWarning, stacklevel=2)
    return globals()[RENAMED[name]]
