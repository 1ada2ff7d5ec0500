"""The lines of a replay's journal, as they are written. `journal` reads them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from amqpflow.model.json_values import picked

from .journal import FORMAT, VERSION, JournalHead, Key


def head_line(head: JournalHead) -> bytes:
    """Write the first line of a journal."""
    return _line(
        {
            "format": FORMAT,
            "version": VERSION,
            **picked(head, "id", "at", "by", "topology", "vhost", "cluster", "address"),
            "parking_queues": list(head.parking_queues),
            "queues": None if head.queues is None else list(head.queues),
            "selection": dict(head.selection),
            "options": dict(head.options),
            "written_by": head.written_by,
        }
    )


def only_line(names: Iterable[str]) -> bytes:
    """Limit the replay to these messages; a name stands as often as there are such messages."""
    return _line({"only": "".join(names)})


def intent_line(first: int, keys: Sequence[Key], again: Iterable[int] = ()) -> bytes:
    """Say that these are about to be sent, numbered from `first`. `again`: the numbers of those that an earlier run of
    this replay had confirmed, and whose acks RabbitMQ had not taken.
    """
    before = _ranges(again)
    return _line({"send": first, "keys": keys} | ({"again": before} if before else {}))


def confirmed_line(numbers: Iterable[int]) -> bytes:
    """Say that RabbitMQ has confirmed these, and that none of them was acked."""
    return _line({"confirmed": _ranges(numbers)})


def left_line(numbers: Iterable[int]) -> bytes:
    """Say that these are certainly not in the destination."""
    return _line({"left": _ranges(numbers)})


def acking_line(numbers: Iterable[int]) -> bytes:
    """Say that these are about to be acked: from here on the journal cannot tell whether they are still parked."""
    return _line({"acking": _ranges(numbers)})


def acked_line(first: int, last: int) -> bytes:
    """Say that all of these numbers that were to be acked are out of the parking queue."""
    return _line({"acked": [[first, last]]})


def resumed_line(at: int, by: str) -> bytes:
    """Say who resumes the replay."""
    return _line({"resumed": at, "by": by})


def end_line(summary: Mapping[str, Any]) -> bytes:
    """End the journal, perhaps until the replay is resumed."""
    return _line({"end": dict(summary)})


def _ranges(numbers: Iterable[int]) -> list[list[int]]:
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return found


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
