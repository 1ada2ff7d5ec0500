"""Look into exception groups: what a handler that raised one has decided, or failed with.

A group of one counts as the exception in it. For a group of several see `meaning`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from amqpflow.errors import UndecodableError
from amqpflow.model.outcome import Ack, Discard, Outcome, Park, Pause, Retry

LEAVES_MAX = 1000  #: exceptions of a group that are looked at
_STEPS_MAX = 10_000  #: exceptions and groups that are opened to find them
#: what a group of outcomes alone means is the first of these kinds that it has, the most careful before the others
_OUTCOMES: tuple[type[Outcome], ...] = (Pause, Retry, Discard, Ack)


def leaves(error: BaseException) -> tuple[BaseException, ...]:
    """Return the exceptions of a group in their order, those of groups within it too.

    What is not a group is its own only leaf. At most `LEAVES_MAX` are returned, and at least one.
    """
    return _opened(error)[0]


def _opened(error: BaseException) -> tuple[tuple[BaseException, ...], bool]:
    """Return the leaves, and whether these are all."""
    if not isinstance(error, BaseExceptionGroup):
        return (error,), True
    found: list[BaseException] = []
    levels: list[Iterator[BaseException]] = [iter(error.exceptions)]
    for _ in range(_STEPS_MAX):
        each = next(levels[-1], None)
        if each is None:
            levels.pop()
            if not levels:
                return tuple(found) or (error,), True
        elif isinstance(each, BaseExceptionGroup):
            levels.append(iter(each.exceptions))
        elif len(found) == LEAVES_MAX:
            break
        else:
            found.append(each)
    return tuple(found) or (error,), False


def errors_in(error: BaseException) -> tuple[BaseException, ...]:
    """Return the leaves that are errors, as rules, breakers and records see them.

    Outcomes are not errors. A cancellation beside errors is what came of them: it is left out.
    """
    if not isinstance(error, BaseExceptionGroup):
        return (error,)
    found = tuple(each for each in leaves(error) if not isinstance(each, Outcome))
    return tuple(each for each in found if not isinstance(each, asyncio.CancelledError)) or found or (error,)


def meaning(error: BaseException) -> BaseException:
    """Return what an exception that a handler raised counts as.

    A group of one leaf is that leaf; a cancellation beside other leaves is what came of them, and is not counted. A
    group of several is, in this order:

    1. a KeyboardInterrupt in it;
    2. a `Park` in it: one part of the work wants the message set aside, so it is not tried again;
    3. an `UndecodableError` in it, for the same reason;
    4. the group itself, a failure, if anything else in it is an error, or it has more leaves than are looked at: an
       `Ack`, `Discard` or `Retry` beside it was decided about a part of the work;
    5. of outcomes alone the first `Pause`, else the first `Retry`, `Discard`, `Ack`.
    """
    if not isinstance(error, BaseExceptionGroup):
        return error
    found, are_all = _opened(error)
    found = tuple(each for each in found if not isinstance(each, asyncio.CancelledError)) or found
    if are_all and len(found) == 1:
        return found[0]
    for kind in (KeyboardInterrupt, Park, UndecodableError):
        for each in found:
            if isinstance(each, kind):
                return each
    if not are_all or has_error(error):
        return error
    return next((each for kind in _OUTCOMES for each in found if isinstance(each, kind)), error)


def has_error(error: BaseException) -> bool:
    """Return whether a leaf is neither an outcome nor a cancellation."""
    return any(not isinstance(each, Outcome | asyncio.CancelledError) for each in leaves(error))


def cancellation_in(error: BaseException) -> asyncio.CancelledError | None:
    """Return the exception, or the first of its leaves, that is a cancellation."""
    return next((each for each in leaves(error) if isinstance(each, asyncio.CancelledError)), None)
