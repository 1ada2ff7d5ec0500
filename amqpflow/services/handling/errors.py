"""Turn an exception into values: its failure record, and the rules that name it."""

from __future__ import annotations

import hashlib
import sys
from functools import lru_cache

from amqpflow.delivery.verdict import ErrorRecord, Failed
from amqpflow.errors import AmqpflowError
from amqpflow.model.clip import MESSAGE_MAX, clip
from amqpflow.model.error_names import current_name
from amqpflow.model.outcome import Outcome
from amqpflow.model.routes import QueueRoutes

from .exception_groups import LEAVES_MAX, errors_in, has_error
from .handler import Handler
from .stack import location, message_of, raised_in, stack, type_name

_NAMED = 3  #: types of the other exceptions of a group that are named


def failed(error: BaseException, handler: Handler, routes: QueueRoutes) -> Failed:
    """Return an exception with the rules that name it."""
    return Failed(error=error_record(error, handler), matches=rule_names(error, routes))


def error_record(error: BaseException, handler: Handler) -> ErrorRecord:
    """Return an exception as the failure record keeps it.

    Of a group it is the first error in it, and how many more there are. What was never raised itself, as an exception
    that was only put into a group, was raised where the group was.
    """
    found = errors_in(error)
    first = found[0]
    at = first if first.__traceback__ is not None else error
    kind, message = type_name(type(first)), message_of(first)
    if len(found) > 1:
        more = _more(found)
        message = clip(message, MESSAGE_MAX - len(more.encode("utf-8", "backslashreplace"))) + more
    return ErrorRecord(
        type=kind,
        message=message,
        location=location(at, handler.function),
        stack=stack(first, within=error) if handler.keep_stack else None,
        fingerprint=_fingerprint(handler.queue, kind, raised_in(at)),
        raised=error,
    )


def _more(found: tuple[BaseException, ...]) -> str:
    kinds = [clip(each, 100) for each in dict.fromkeys(type_name(type(each)) for each in found[1:])]
    named = ", ".join(kinds[:_NAMED]) + (", ..." if len(kinds) > _NAMED else "")
    count = f"at least {len(found) - 1}" if len(found) == LEAVES_MAX else str(len(found) - 1)
    return f" (and {count} more in the group: {named})"


_NONE = frozenset[str]()


@lru_cache(maxsize=1024)
def _fingerprint(queue: str, kind: str, where: str) -> str:
    digest = hashlib.sha256("\0".join((queue, kind, where)).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()[:16]


def rule_names(error: BaseException, routes: QueueRoutes) -> frozenset[str]:
    """Return the names in a queue's rules that an exception's class or a base of it has.

    Of a group of several these are the names of all its errors, and its own: the first rule that names any of them
    decides.
    """
    if not routes.rules:
        return _NONE
    kinds = _kinds(error)
    names = {name for rule in routes.rules for name in rule.errors}
    return frozenset(name for name in names if any(is_named(kind, name) for kind in kinds))


def _kinds(error: BaseException) -> tuple[type, ...]:
    """Return the classes that an exception counts as, bases included."""
    found = errors_in(error)
    counting = {type(each) for each in found}
    if len(found) > 1:
        counting.add(type(error))
    return tuple(dict.fromkeys(base for kind in counting for base in kind.__mro__))


def named_among(error: BaseException, errors: tuple[type[BaseException] | str, ...]) -> BaseException | None:
    """Return the exception, or the first error of a group, that is one of these classes or names."""
    for each in errors_in(error):
        for wanted in errors:
            if isinstance(wanted, str):
                if any(is_named(kind, wanted) for kind in type(each).__mro__):
                    return each
            elif isinstance(each, wanted):
                return each
    return None


def is_named(kind: type, name: str) -> bool:
    """Return whether a class may be called so: ValueError, httpx.ConnectError."""
    if kind.__module__ == AmqpflowError.__module__:
        name = current_name(name)
    if name in (kind.__name__, kind.__qualname__, f"{kind.__module__}.{kind.__qualname__}"):
        return True
    # pydantic.ValidationError lives in another module than the one that people import it from
    module, _, attribute = name.rpartition(".")
    try:
        return bool(module) and getattr(sys.modules.get(module), attribute, None) is kind
    except Exception:
        return False  # a module that loads its names lazily, and cannot


def cause_of(outcome: Outcome, raised: BaseException, handler: Handler) -> ErrorRecord | None:
    """Return what an outcome was raised from, else an error that was raised beside it, in the group `raised`."""
    cause = outcome.__cause__ or (None if outcome.__suppress_context__ else outcome.__context__)
    if cause is None and raised is not outcome and has_error(raised):
        cause = raised
    return error_record(cause, handler) if cause is not None else None
