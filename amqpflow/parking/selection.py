"""Which parked messages are meant: the same for list, stats, export, discard and replay.

A selection is a value; `Matcher` asks it about one message after the other. Different criteria are combined with and;
of several values of one criterion any does, but headers and numbers of attempts, of which all must hold.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from amqpflow.model.headers import ParkReason
from amqpflow.model.routes import QueueRoutes
from amqpflow.model.units import parse_duration

from .expression import Expression
from .parked import FOREIGN, ID_LENGTH, UNKNOWN, ParkedMessage

SHORTEST_ID = 4  #: digits of the beginning of an id, or of a fingerprint, that are enough
_BEGINNING = re.compile(rf"[0-9a-fA-F]{{{SHORTEST_ID},{ID_LENGTH - 1}}}")
_IDS_AT_MOST = 10  #: that are named when the beginning of an id is that of several
REASONS = (*(reason.value for reason in ParkReason), FOREIGN, UNKNOWN)

_COMPARISON = re.compile(r"\s*(>=|<=|==|=|!=|>|<|)\s*(\d{1,9})\s*", re.ASCII)
_OPERATORS: Mapping[str, Callable[[int, int], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "!=": operator.ne,
    "==": operator.eq,
    "=": operator.eq,
    "": operator.eq,
}


class InvalidSelectionError(ValueError):
    """A selection cannot be meant as it is written. `problems` has one sentence for each thing that is wrong."""

    def __init__(self, problems: Collection[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """
    Which parked messages are meant. Empty means all of them. Texts are as on the command line.

    Raises:
        InvalidSelectionError: something in it cannot be read; names everything at once.
    """

    queues: tuple[str, ...] = ()  #: work queues or parking queues
    reasons: tuple[str, ...] = ()  #: `exhausted`; `broker:expired` asks for the detail too
    error_types: tuple[str, ...] = ()  #: the class name, or its last part: `TimeoutError`, `httpx.ConnectError`
    fingerprints: tuple[str, ...] = ()  #: or their first four digits or more
    headers: tuple[str, ...] = ()  #: `k=v`, or `k` for any value
    older_than: str | None = None  #: a duration: parked at least so long ago
    newer_than: str | None = None  #: a duration: parked less long ago
    routing_keys: tuple[str, ...] = ()  #: as first published; `*` and `#` as in a topic binding
    attempts: tuple[str, ...] = ()  #: `3`, `>=3`, `<10`, `!=1`
    ids: tuple[str, ...] = ()  #: ids or their first four digits or more, message ids, or hops
    match: str | None = None  #: JMESPath over {headers, properties, body, record}
    limit: int | None = None  #: the first so many, in the order of delivery: higher priorities may come first
    sample: int | None = None  #: so many, chosen evenly and at random among all that are selected
    seed: int = 0  #: another seed, another sample; the same seed, the same sample

    def __post_init__(self) -> None:
        if problems := [*_problems(self)]:
            raise InvalidSelectionError(problems)

    @property
    def is_all(self) -> bool:
        """Nothing was asked for: every message is meant."""
        return self == Selection()

    @property
    def filters(self) -> bool:
        """It asks for more than a queue: some messages of a queue may be selected and others not."""
        return self != Selection(queues=self.queues, limit=self.limit, sample=self.sample, seed=self.seed)


def _problems(selection: Selection) -> list[str]:
    problems = []
    for reason in selection.reasons:
        if reason.split(":", 1)[0] not in REASONS:
            problems.append(f"`reasons` {reason}: there is no such reason; there are {', '.join(REASONS)}")
    for option, texts in (("`fingerprints`", selection.fingerprints), ("`ids`", selection.ids)):
        problems += [f"{option} is empty" for text in texts if not text]
    problems += [f"`headers` {text}: write NAME=VALUE, or NAME" for text in selection.headers if not _header(text)[0]]
    checks: list[tuple[str, str | None, Callable[[str], Any]]] = [
        ("`older_than`", selection.older_than, parse_duration),
        ("`newer_than`", selection.newer_than, parse_duration),
        *(("`attempts`", text, parse_attempts) for text in selection.attempts),
        ("`match`", selection.match, Expression),
    ]
    for option, text, parse in checks:
        if text is not None:
            try:
                parse(text)
            except ValueError as error:
                problems.append(f"{option}: {error}")
    if selection.limit is not None and selection.sample is not None:
        problems.append("`limit` and `sample` cannot be combined: one takes the first, the other takes at random")
    for option, number in (("`limit`", selection.limit), ("`sample`", selection.sample)):
        if number is not None and number < 1:
            problems.append(f"{option} {number}: at least 1")
    return problems


class Matcher:
    """
    Asks a selection about one parked message after the other. Never raises, whatever a message holds.

    Args:
        selection: which messages are meant.
        now: ms since the epoch; ages are counted to it.
        routes: those of the topology, by work queue.
        certain: take by the name of a work queue only what says that it failed there. Otherwise what does not say is
            shown as well, where the file has no other work queue that parks there.
    """

    def __init__(
        self, selection: Selection, *, now: int, routes: Mapping[str, QueueRoutes], certain: bool = False
    ) -> None:
        self.selection = selection
        self.now = now
        self.undecided = 0  #: messages on which `match` gave no answer; they are not selected
        self.why_undecided = ""  #: of the first of them
        self._expression = Expression(selection.match) if selection.match is not None else None
        self._checks = tuple(_checks(selection, now, {} if certain else routes))

    def __call__(self, parked: ParkedMessage) -> bool:
        """Is this message meant? `limit` and `sample` are not looked at."""
        if not all(check(parked) for check in self._checks):
            return False
        if self._expression is None:
            return True
        try:
            return self._expression.matches(parked)
        except ValueError as error:
            self.undecided += 1
            self.why_undecided = self.why_undecided or f"message {parked.id}: {error}"
            return False

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should be told once all messages were asked about."""
        if not self.undecided:
            return ()
        return (f"`match` gave no answer for {self.undecided} messages, which are not selected; {self.why_undecided}",)


Check = Callable[[ParkedMessage], bool]


def _checks(selection: Selection, now: int, routes: Mapping[str, QueueRoutes]) -> list[Check]:
    checks: list[Check] = []
    if selection.queues:
        checks.append(_in_queues(frozenset(selection.queues), routes))
    if selection.reasons:
        reasons = [tuple(each.split(":", 1)) for each in selection.reasons]
        checks.append(lambda parked: any((parked.reason, parked.detail)[: len(each)] == each for each in reasons))
    if selection.error_types:
        checks.append(lambda parked: any(_is_type(parked.error_type, each) for each in selection.error_types))
    if selection.fingerprints:
        checks.append(lambda parked: any(_begins(parked.fingerprint, each) for each in selection.fingerprints))
    checks += [_has_header(*_header(each)) for each in selection.headers]
    if selection.older_than is not None:
        before = now - parse_duration(selection.older_than)
        checks.append(lambda parked: (at := parked_at(parked)) is not None and at <= before)
    if selection.newer_than is not None:
        after = now - parse_duration(selection.newer_than)
        checks.append(lambda parked: (at := parked_at(parked)) is not None and at > after)
    if selection.routing_keys:
        keys = [_topic(each) for each in selection.routing_keys]
        checks.append(lambda parked: parked.routing_key is not None and any(key(parked.routing_key) for key in keys))
    for each in selection.attempts:
        checks.append(_attempted(*parse_attempts(each)))
    if selection.ids:
        checks.append(lambda parked: any(is_named(parked, each) for each in selection.ids))
    return checks


def parked_at(parked: ParkedMessage) -> int | None:
    """When it was parked, else when it first failed, in ms since the epoch; None when nobody wrote it down."""
    return parked.failed_at if parked.failed_at is not None else parked.first_failed_at


def is_named(parked: ParkedMessage, name: str) -> bool:
    """Is it the message with this id, or one that begins so, message id or hop?"""
    return name in (parked.message_id, parked.hop) or _begins(parked.id, name)


class IdPrefixes:
    """
    The beginnings of ids in a selection, and the ids of the selected messages that begin so.

    A command that changes something refuses the beginning of several ids. It knows of that when it has seen all
    messages; so it looks at all of them first, if a selection has any (`bool`).
    """

    def __init__(self, selection: Selection | None) -> None:
        names = selection.ids if selection is not None else ()
        self._found: dict[str, set[str]] = {name: set() for name in names if _BEGINNING.fullmatch(name)}

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, parked: ParkedMessage) -> None:
        """Add a message that is selected."""
        for name, ids in self._found.items():
            is_whole = name in (parked.id, parked.message_id, parked.hop)
            if len(ids) < _IDS_AT_MOST and not is_whole and is_named(parked, name):
                ids.add(parked.id)

    @property
    def problem(self) -> str | None:
        """Which name is the beginning of several ids, if one is."""
        for name, ids in self._found.items():
            if len(ids) > 1:
                return f"{name!r} is the beginning of several ids: {', '.join(sorted(ids))}; nothing was done"
        return None


def parse_attempts(text: str) -> tuple[Callable[[int, int], bool], int]:
    """
    Read `3`, `>=3`, `<10`, `!=1`.

    Raises:
        ValueError: it is nothing of that.
    """
    found = _COMPARISON.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:32]!r} is no comparison: write it like 3, '>=3', '<10' or '!=1'")
    return _OPERATORS[found[1]], int(found[2])


def _attempted(compare: Callable[[int, int], bool], number: int) -> Check:
    return lambda parked: compare(parked.attempts, number)


def _in_queues(queues: Collection[str], routes: Mapping[str, QueueRoutes]) -> Check:
    # what cannot be read may have failed in any queue that is parked there, and is not hidden
    also = {each.parking_queue for name, each in routes.items() if name in queues}
    shared = {each.parking_queue for name, each in routes.items() if name not in queues}

    def check(parked: ParkedMessage) -> bool:
        if parked.queue in queues or parked.delivery.queue in queues:
            return True
        return parked.queue is None and parked.delivery.queue in also - shared

    return check


def _is_type(error_type: str | None, wanted: str) -> bool:
    return error_type is not None and (error_type == wanted or error_type.endswith((f".{wanted}", f":{wanted}")))


def _begins(text: str | None, beginning: str) -> bool:
    if text is None:
        return False
    return text == beginning or (len(beginning) >= SHORTEST_ID and text.startswith(beginning.lower()))


def _header(text: str) -> tuple[str, str | None]:
    name, equals, value = text.partition("=")
    return name, value if equals else None


def _has_header(name: str, wanted: str | None) -> Check:
    def check(parked: ParkedMessage) -> bool:
        headers = parked.delivery.properties.headers or {}
        return name in headers and (wanted is None or header_text(headers[name]) == wanted)

    return check


def header_text(value: Any) -> str | None:
    """A header as the command line can name it: text as it is, true, false, null, numbers; None for the rest."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case bytes() | bytearray():
            return bytes(value).decode("utf-8", "backslashreplace")
        case dict() | list():
            return None
        case _:
            return str(value)


def _topic(pattern: str) -> Callable[[str], bool]:
    """RabbitMQ's topic patterns: words between dots, `*` is one word, `#` any number of them."""
    if not {"*", "#"} & set(pattern.split(".")):
        return pattern.__eq__
    wanted = pattern.split(".")

    def matches(key: str) -> bool:
        # which beginnings of the key each beginning of the pattern matches; no backtracking
        words = key.split(".") if key else []
        reached = {0}
        for part in wanted:
            if part == "#":
                reached = set(range(min(reached), len(words) + 1)) if reached else set()
            else:
                reached = {at + 1 for at in reached if at < len(words) and part in ("*", words[at])}
        return len(words) in reached

    return matches
