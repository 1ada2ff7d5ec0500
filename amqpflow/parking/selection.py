"""Select parked messages: the same for list, stats, export, discard and replay.

A selection is a value; `Matcher` applies it to one message after the other. Criteria are combined with "and". Of
several values of one criterion any matches, but all headers and numbers of attempts must match.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from amqpflow.model.error_names import current_name, is_own
from amqpflow.model.headers import ParkReason
from amqpflow.model.routes import QueueRoutes
from amqpflow.model.units import parse_duration

from .expression import Expression
from .parked import FOREIGN, ID_LENGTH, UNKNOWN, ParkedMessage

SHORTEST_ID = 4  #: digits that the prefix of an id or fingerprint needs
_BEGINNING = re.compile(rf"[0-9a-fA-F]{{{SHORTEST_ID},{ID_LENGTH - 1}}}")
_IDS_AT_MOST = 10  #: that are named when several ids have a prefix
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
    """A selection cannot be read. `problems` has one sentence for each thing that is wrong."""

    def __init__(self, problems: Collection[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which parked messages are selected; an empty selection selects all of them. Texts are as on the command line.

    Raises:
        InvalidSelectionError: a part of it cannot be read; the error names all such parts.
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
    limit: int | None = None  #: the first messages in the order of delivery: higher priorities may come first
    sample: int | None = None  #: messages chosen evenly and at random among all that are selected
    seed: int = 0  #: another seed, another sample; the same seed, the same sample

    def __post_init__(self) -> None:
        if problems := [*_problems(self)]:
            raise InvalidSelectionError(problems)

    @property
    def is_all(self) -> bool:
        """Tell whether every message is selected."""
        return self == Selection()

    @property
    def filters(self) -> bool:
        """Tell whether some messages of a queue may be selected and others not."""
        return self != Selection(queues=self.queues, limit=self.limit, sample=self.sample, seed=self.seed)


def _problems(selection: Selection) -> list[str]:
    problems = []
    for reason in selection.reasons:
        if reason.split(":", 1)[0] not in REASONS:
            problems.append(f"`reasons` {reason}: unknown reason; use {', '.join(REASONS)}")
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
        problems.append(
            "`limit` and `sample` cannot be combined: one takes the first messages, the other takes at random"
        )
    for option, number in (("`limit`", selection.limit), ("`sample`", selection.sample)):
        if number is not None and number < 1:
            problems.append(f"{option} {number}: at least 1")
    return problems


class Matcher:
    """Applies a selection to one parked message after the other. Never raises, whatever a message holds.

    Args:
        selection: which messages are selected.
        now: ms since the epoch; ages are counted to it.
        routes: those of the topology, by work queue.
        certain: take by the name of a work queue only messages that say that they failed there. Otherwise messages that
            do not say are taken as well, where the file has no other work queue that parks there.
    """

    def __init__(
        self, selection: Selection, *, now: int, routes: Mapping[str, QueueRoutes], certain: bool = False
    ) -> None:
        self.selection = selection
        self.now = now
        self.undecided = 0  #: messages for which `match` could not be evaluated; they are not selected
        self.why_undecided = ""  #: of the first of them
        self._expression = Expression(selection.match) if selection.match is not None else None
        self._checks = tuple(_checks(selection, now, {} if certain else routes))

    def __call__(self, parked: ParkedMessage) -> bool:
        """Tell whether this message is selected. `limit` and `sample` do not count."""
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
        """Return notes for people, once all messages were matched."""
        if not self.undecided:
            return ()
        return (
            f"`match` could not be evaluated for {self.undecided} messages, which are left out: {self.why_undecided}",
        )


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
    """Return when it was parked, else when it first failed, in ms since the epoch; None when it does not say."""
    return parked.failed_at if parked.failed_at is not None else parked.first_failed_at


def is_named(parked: ParkedMessage, name: str) -> bool:
    """Tell whether the message has this id, or this id prefix, message id or hop."""
    return name in (parked.message_id, parked.hop) or _begins(parked.id, name)


class IdPrefixes:
    """The id prefixes in a selection, and the ids of the selected messages that have them.

    A command that changes something refuses a prefix that several ids share. It knows of that once it has read all
    messages; so it reads all of them first, if a selection has a prefix (`bool`).
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
        """Say which prefix several ids share, if one is shared."""
        for name, ids in self._found.items():
            if len(ids) > 1:
                return f"several ids begin with {name!r}: {', '.join(sorted(ids))}; nothing was done"
        return None


def parse_attempts(text: str) -> tuple[Callable[[int, int], bool], int]:
    """Read `3`, `>=3`, `<10`, `!=1`.

    Raises:
        ValueError: it is not a comparison.
    """
    found = _COMPARISON.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:32]!r} is not a comparison; write it like 3, '>=3', '<10' or '!=1'")
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
    if error_type is None:
        return False
    pairs = [(error_type, wanted)]
    if is_own(error_type):  # a message that was parked before 0.1 has the error's old name
        pairs.append((current_name(error_type), current_name(wanted)))
    return any(name == last or name.endswith((f".{last}", f":{last}")) for name, last in pairs)


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
    """Return a header as the command line names it: text as it is, true, false, null, numbers; None for the rest."""
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
    """Return a match for a topic pattern of RabbitMQ: words between dots, `*` is one word, `#` any number of words."""
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
