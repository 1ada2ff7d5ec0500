"""What is kept of an exception."""

from __future__ import annotations

import hashlib
import sys
import traceback
from functools import lru_cache

from amqpflow.delivery.verdict import ErrorRecord, Failed
from amqpflow.model.outcome import Outcome
from amqpflow.model.routes import QueueRoutes

from .handler import Handler


def failed(error: BaseException, handler: Handler, routes: QueueRoutes) -> Failed:
    """An exception with the rules that name it."""
    return Failed(error=error_record(error, handler), matches=rule_names(error, routes))


def error_record(error: BaseException, handler: Handler) -> ErrorRecord:
    """An exception as the failure record keeps it."""
    kind = type_name(type(error))
    try:
        message = str(error)
    except Exception as broken:
        message = f"<str() of the error raised {type(broken).__name__}>"
    where, at = "", error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    if at is not None:
        frame = at.tb_frame
        where = f"{frame.f_globals.get('__name__')}:{frame.f_code.co_qualname}"
    stack = None
    if handler.keep_stack:
        stack = "".join(traceback.format_tb(error.__traceback__))
    return ErrorRecord(type=kind, message=message, stack=stack, fingerprint=_fingerprint(handler.queue, kind, where))


_NONE = frozenset[str]()


@lru_cache(maxsize=1024)
def _fingerprint(queue: str, kind: str, where: str) -> str:
    digest = hashlib.sha256("\0".join((queue, kind, where)).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()[:16]


def type_name(kind: type) -> str:
    """ValueError, httpx.ConnectError: as a rule would name it."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def rule_names(error: BaseException, routes: QueueRoutes) -> frozenset[str]:
    """The names in a queue's rules that an exception's class or a base of it bears."""
    if not routes.rules:
        return _NONE
    names = {name for rule in routes.rules for name in rule.errors}
    return frozenset(name for name in names if any(bears(kind, name) for kind in type(error).__mro__))


def bears(kind: type, name: str) -> bool:
    """Whether this is how a class may be called: ValueError, httpx.ConnectError."""
    if name in (kind.__name__, kind.__qualname__, f"{kind.__module__}.{kind.__qualname__}"):
        return True
    # pydantic.ValidationError lives in another module than the one that people import it from
    module, _, attribute = name.rpartition(".")
    try:
        return bool(module) and getattr(sys.modules.get(module), attribute, None) is kind
    except Exception:
        return False  # a module that loads its names lazily, and cannot


def cause_of(outcome: Outcome, handler: Handler) -> ErrorRecord | None:
    """What an outcome was raised from."""
    cause = outcome.__cause__ or (None if outcome.__suppress_context__ else outcome.__context__)
    return error_record(cause, handler) if cause is not None else None
