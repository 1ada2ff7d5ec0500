"""The request of a replay in its journal, so that resuming replays that and nothing else.

The journal keeps the request itself: the work queues, the selection with the time that its ages are counted to, the
destination, the rate. Values of headers that are set are not kept, since they may be secret. A digest tells whether
they are given again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from amqpflow.errors import RefusedError, UsageError
from amqpflow.model.routes import CompiledTopology
from amqpflow.parking.journal import JournalState
from amqpflow.parking.replay import Destination
from amqpflow.parking.selection import Matcher, Selection

from .request import ReplayRequest

_PLAIN = (
    "limit",
    "sample",
    "seed",
    "origin",
    "keep_attempts",
    "rate",
    "ramp_wait",
    "max_depth",
    "stop_if_reparked",
    "in_doubt",
)
_LISTS = ("ramp", "drop_headers")
_AS_FOUND = "function"
_NONE = ReplayRequest()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptRequest:
    """A request in the form of a journal."""

    queues: tuple[str, ...] | None
    selection: Mapping[str, Any]
    options: Mapping[str, Any]
    only: tuple[str, ...] | None


def kept_request(queue: str | Sequence[str] | None, choice: ReplayRequest) -> KeptRequest:
    """Turn a request into the form of a journal."""
    options = {name: getattr(choice, name) for name in _PLAIN if getattr(choice, name) != getattr(_NONE, name)}
    options |= {name: sorted(getattr(choice, name)) for name in _LISTS if getattr(choice, name)}
    if choice.to is not None:
        options["to"] = {each.name: getattr(choice.to, each.name) for each in fields(Destination)}
    if choice.set_headers:
        salt = os.urandom(16)
        options["set_headers"] = sorted(choice.set_headers)
        options["set_headers_digest"] = f"{salt.hex()}:{_digest_of(choice.set_headers, salt)}"
    return KeptRequest(
        queues=_queues(queue),
        selection=_kept_selection(choice),
        options=options,
        only=tuple(each.hex() for each in Counter(choice.only).elements()) if choice.only is not None else None,
    )


def resumed_request(
    state: JournalState, queue: str | Sequence[str] | None, choice: ReplayRequest | None, compiled: CompiledTopology
) -> tuple[tuple[str, ...] | None, ReplayRequest]:
    """Return the request of an interrupted replay.

    `queue` and `choice` are the request now; None, or a field at its default, takes what was requested then. `in_doubt`
    may differ. Headers that were set have to be given again.

    Raises:
        RefusedError: the request now is another one, or the journal does not tell the one then. Nothing was done.
    """
    head, choice = state.head, choice or ReplayRequest()
    kept = _kept_choice(state, compiled)
    differs: list[tuple[str, object, object]] = []
    if queue is not None and set(_queues(queue) or ()) != set(head.queues or ()):
        differs.append(("queue", _queues(queue), head.queues or "all"))
    for name in (*_PLAIN, *_LISTS, "to"):
        now, then = getattr(choice, name), getattr(kept, name)
        if name == "limit" and then is not None and now == state.head.options.get(name):
            continue  # as it was requested; messages that were sent since count
        if name != "in_doubt" and now != getattr(_NONE, name) and now != then:
            differs.append((name, now, then))
    if head.selection.get(_AS_FOUND):
        if not callable(choice.select) or isinstance(choice.select, Matcher):
            raise RefusedError(
                f"replay {head.id} selected its messages by a function, which a journal cannot keep; nothing was done",
                hint="give the same function again as `select` of the choice",
            )
        kept = replace(kept, select=choice.select)
    elif choice.select is not None and _kept_selection(choice, now=False) != _without_time(head.selection):
        differs.append(("select", _kept_selection(choice, now=False), _without_time(head.selection)))
    if differs:
        said = "; ".join(f"{name}: {_words(now)} now, {_words(then)} then" for name, now, then in differs)
        raise RefusedError(
            f"replay {head.id} has another request: {said}. Nothing was done",
            hint="leave out what differs to resume it as it was, or replay without resuming",
        )
    return head.queues, replace(
        kept,
        set_headers=_headers_given_again(state, choice.set_headers),
        in_doubt=choice.in_doubt or kept.in_doubt,
        only=_only(state, choice.only),
    )


def _kept_choice(state: JournalState, compiled: CompiledTopology) -> ReplayRequest:
    head = state.head
    options, kept = dict(head.options), dict(head.selection)
    try:
        now = int(kept.pop("now", head.at))
        by_function = kept.pop(_AS_FOUND, False)
        asked: dict[str, Any] = {name: tuple(each) if isinstance(each, list) else each for name, each in kept.items()}
        selection = Selection(**asked)
        choice = ReplayRequest(
            **{name: options[name] for name in _PLAIN if name in options},
            ramp=tuple(options.get("ramp", ())),
            drop_headers=frozenset(options.get("drop_headers", ())),
            to=Destination(**options["to"]) if "to" in options else None,
        )
    except (TypeError, ValueError, UsageError) as error:
        raise RefusedError(f"the request of replay {head.id} cannot be read from its journal: {error}") from error
    if choice.limit is not None:
        choice = replace(choice, limit=max(0, choice.limit - state.done))
    if kept and not by_function:
        choice = replace(choice, select=Matcher(selection, now=now, routes=compiled.routes))
    return choice


def _kept_selection(choice: ReplayRequest, *, now: bool = True) -> dict[str, Any]:
    if choice.select is None:
        return {}
    if isinstance(choice.select, Matcher):
        selection, at = choice.select.selection, choice.select.now
    elif isinstance(choice.select, Selection):
        selection, at = choice.select, None
    else:
        return {_AS_FOUND: True}
    # which queues, and how many, stand beside it
    selection = replace(selection, queues=(), limit=None, sample=None, seed=0)
    given = {each.name: getattr(selection, each.name) for each in fields(selection)}
    kept = {name: list(each) if isinstance(each, tuple) else each for name, each in given.items() if each}
    return {**kept, "now": at} if kept and now and at is not None else kept


def _without_time(selection: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in selection.items() if name != "now"}


def _queues(queue: str | Sequence[str] | None) -> tuple[str, ...] | None:
    return None if queue is None else (queue,) if isinstance(queue, str) else tuple(dict.fromkeys(queue))


def _headers_given_again(state: JournalState, given: Mapping[str, Any]) -> Mapping[str, Any]:
    names, kept = state.head.options.get("set_headers", []), state.head.options.get("set_headers_digest", "")
    if sorted(given) != sorted(names):
        wanted = ", ".join(names) or "none"
        raise RefusedError(
            f"replay {state.head.id} sets these headers: {wanted}. Its journal does not hold their values, so they "
            "must be given again, and no others; nothing was done"
        )
    salt, _, digest = str(kept).partition(":")
    if names and _digest_of(given, bytes.fromhex(salt)) != digest:
        raise RefusedError(
            f"replay {state.head.id} set {', '.join(names)} to other values than those given now: some of its copies "
            "would have one value and some another; nothing was done"
        )
    return given


def _digest_of(headers: Mapping[str, Any], salt: bytes) -> str:
    text = json.dumps(sorted((name, repr(value)) for name, value in headers.items()))
    return hashlib.scrypt(text.encode("utf-8", "surrogatepass"), salt=salt, n=1 << 14, r=8, p=1, dklen=8).hex()


def _only(state: JournalState, now: Mapping[bytes, int] | None) -> Mapping[bytes, int] | None:
    """Return the messages that both allow."""
    if state.only is None:
        return now
    then = {bytes.fromhex(name): count for name, count in state.only.items() if count > 0}
    return then if now is None else {each: min(count, now[each]) for each, count in then.items() if each in now}


def _words(value: object) -> str:
    if isinstance(value, Destination):
        return value.label
    if isinstance(value, Mapping):
        return " ".join(f"{name}={_words(each)}" for name, each in value.items()) or "everything"
    if isinstance(value, (tuple, list, frozenset)):
        return ", ".join(map(str, sorted(value, key=str))) or "none"
    return "none" if value is None else str(value)
