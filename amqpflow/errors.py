"""The exception tree. Third-party exceptions stop at the adapters and become one of these.

AmqpflowError                     exit code 1 unless it says otherwise
├── TopologyInvalid               the file has errors; all of them are in .diagnostics
├── WrongUsage                    64: the command line does not fit
├── Refused                       4: a guard said no, nothing was done
│   └── NotApplied                the broker does not hold the topology; names the command that mends it
├── Locked                        5: another apply of the same topology is under way, and whose
├── LockLost                      the lock's connection was lost; apply stops
├── Interrupted                   130: it was asked to stop before it had a result
├── PartlyDone                    3: stopped in the middle; says what was done and what remains
├── BrokerUnavailable             cannot be reached, or the connection was lost
│   ├── AuthenticationFailed      wrong user or password
│   ├── VirtualHostMissing        no such virtual host, or no access to it
│   ├── AddressChanged            the URL names another broker or virtual host than it did
│   └── TlsFailed                 certificate or handshake
├── ClientLibraryError            the installed aiormq or aio-pika is not one that amqpflow works with
├── PermissionDenied              a permission or a tag is missing, and which
├── ManagementUnavailable         the management API cannot be reached or does not answer as one
├── BrokerError                   RabbitMQ refused an operation, in its own words
├── PublishFailed                 the message is certainly not in a queue
│   ├── Unroutable                returned: no queue is bound for its key
│   ├── PublishRefused            nacked: the queue is full, or the broker has a problem
│   │   └── PublishForbidden      the user has no write permission on the exchange
│   └── Unpublishable             the broker closes the channel over it, or it cannot be encoded
├── PublishUncertain              the channel closed before the confirm: it may or may not be in a queue
├── HandlerInvalid                a handler cannot be registered as written
└── Undecodable                   a body is not what its content type or encoding says; a handler raising it parks
"""

from __future__ import annotations

from collections.abc import Sequence

from .model.diagnostic import Diagnostic


class AmqpflowError(Exception):
    """All errors that amqpflow raises on purpose. `str()` is one clear sentence, `hint` says what to do."""

    exit_code = 1
    message_id: str | None = None  #: of the message, when a `Publisher` was to publish one

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class TopologyInvalid(AmqpflowError):
    """A topology file has errors."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        super().__init__("\n".join(map(str, diagnostics)))
        self.diagnostics = tuple(diagnostics)


class WrongUsage(AmqpflowError):
    """The command line or the arguments of a call do not fit."""

    exit_code = 64


class Refused(AmqpflowError):
    """A guard stopped the command before anything was done; `problems` lists every reason."""

    exit_code = 4

    def __init__(self, message: str, *, problems: Sequence[str] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.problems = tuple(problems)


class NotApplied(Refused):
    """The broker does not hold what the topology says; the hint names the command that mends it."""


class Locked(AmqpflowError):
    """Another apply of the same topology is under way, and `str()` says whose. Nothing was done."""

    exit_code = 5


class LockLost(AmqpflowError):
    """The connection that held the lock was closed: another apply may have begun, so this one stops."""


class Interrupted(AmqpflowError):
    """It was asked to stop, by Ctrl-C or by the `stop` of a call, before it had a result; nothing was changed."""

    exit_code = 130


class PartlyDone(AmqpflowError):
    """The command stopped in the middle. `report` is its account of what was done and what remains, when it has one."""

    exit_code = 3

    def __init__(self, message: str, *, hint: str = "", report: object = None) -> None:
        super().__init__(message, hint=hint)
        self.report = report


class BrokerUnavailable(AmqpflowError):
    """The broker cannot be reached, or the connection was lost."""


class AuthenticationFailed(BrokerUnavailable):
    """RabbitMQ does not accept this user and password."""


class VirtualHostMissing(BrokerUnavailable):
    """There is no such virtual host, or the user has no access to it; the text says which."""


class AddressChanged(BrokerUnavailable):
    """The URL, read again for a further connection, names another broker or virtual host than the first one's."""


class TlsFailed(BrokerUnavailable):
    """The TLS handshake failed: certificate, host name or protocol."""


class ClientLibraryError(AmqpflowError):
    """The installed aiormq or aio-pika does not read or write as amqpflow needs it; the hint names what to install."""


class PermissionDenied(AmqpflowError):
    """The user lacks a permission on an object, or a management tag."""


class ManagementUnavailable(AmqpflowError):
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


class PublishFailed(AmqpflowError):
    """The message is certainly not in a queue. `message_id` is its id when a `Publisher` published it."""


class Unroutable(PublishFailed):
    """The broker returned the message: nothing is bound for its routing key."""


class Unpublishable(PublishFailed):
    """No channel takes this message: too large, a header the broker objects to, or not encodable."""


class PublishRefused(PublishFailed):
    """The broker does not take the message: it answered with basic.nack, or see `PublishForbidden`."""


class PublishForbidden(PublishRefused):
    """The user has no write permission on the exchange. Nothing is wrong with the message: publish it again later."""


class PublishUncertain(AmqpflowError):
    """The channel or connection was lost before the confirm: the message may be in a queue or not (fact 9.2).

    `closed_by_publish` is the broker's text when the channel was closed by an error of a publish on it; `message_id`
    is the id to publish it with again when a `Publisher` published it.
    """

    def __init__(self, message: str, *, closed_by_publish: str | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.closed_by_publish = closed_by_publish
        #: not so where the broker closed the channel over its exchange, and nothing before it can have been taken there
        self.may_be_there = True


class HandlerInvalid(AmqpflowError):
    """A handler cannot be registered as it is written."""


class Undecodable(AmqpflowError):
    """A message body is not what its content type or encoding says."""
