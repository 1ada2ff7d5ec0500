"""The result of calling a handler, as values from which the settlement is decided."""

from __future__ import annotations

from dataclasses import dataclass, field

from amqpflow.model.fast_dataclass import fast_init
from amqpflow.model.outcome import Outcome


@fast_init
@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorRecord:
    """An exception, as far as the failure record keeps it."""

    type: str  #: ValueError, httpx.ConnectError
    message: str = ""
    location: str | None = None  #: service.py:10, the innermost line of the user's own code
    stack: str | None = None  #: only when the consumer is configured to keep it
    fingerprint: str | None = None  #: stable hash of queue, type and raising frame
    #: the exception itself, for those who are notified of it; a group as it was raised
    raised: BaseException | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """The handler returned or raised an outcome; `error` is what it was raised from, if anything."""

    outcome: Outcome
    error: ErrorRecord | None = None


@fast_init
@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The handler raised. `matches` are the rule names that the exception's class or a base of it has."""

    error: ErrorRecord
    matches: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class CannotDecode:
    """The body is not what its content type or encoding says."""

    error: ErrorRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class BadResult:
    """The handler returned something else than an outcome."""

    detail: str
    location: str | None = None  #: where the handler is defined


@dataclass(frozen=True, slots=True, kw_only=True)
class Crashed:
    """The handler was not called: the message was delivered `crash_limit` times without an answer."""

    deliveries: int


Verdict = Decided | Failed | CannotDecode | BadResult | Crashed
