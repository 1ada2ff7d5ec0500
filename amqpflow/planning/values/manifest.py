"""What a topology owns and cannot stamp, written down on the broker itself: a global parameter, one per topology.

Queues and exchanges carry their owner among their arguments, and policies in their names; bindings, and what was
adopted, carry nothing. So the manifest holds those alone. https://www.rabbitmq.com/docs/parameters

What if the process dies between binding and recording? A binding stands under `unproven` before it is made, and under
`bindings` once it was made. So what is under `bindings` is surely ours; what is under `unproven` may be an
application's, and is not unbound unless a person names it. What format 1 recorded is taken for ours where the queue or
the exchange is, and is unproven between two foreign objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from amqpflow.model.resources import Binding
from amqpflow.model.units import plural

FORMAT = 2
READABLE = (1, 2)  #: 1 recorded every binding of the file, also those that were there before
ADOPTABLE = ("queue", "exchange", "policy", "binding")

_ENDS = {"queue": "q", "exchange": "x"}
_KINDS = {short: kind for kind, short in _ENDS.items()}


class UnreadableManifestError(ValueError):
    """The global parameter holds something else than a manifest of this topology. `str()` says what."""

    def __init__(self, text: str, *, hint: str = "") -> None:
        super().__init__(text)
        self.hint = hint or "delete it: what is in the file and on the broker is recorded again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The owned objects that carry no stamp, and the retry queues that are being retired."""

    topology: str
    vhost: str
    bindings: tuple[Binding, ...] = ()  #: made by apply, or adopted; those of our own queues in our exchanges are known
    unproven: tuple[Binding, ...] = ()  #: about to be made, or recorded by a version that did not tell them apart
    found: tuple[Binding, ...] = ()  #: in the file, and there before: never ours
    older: bool = field(default=False, compare=False)  #: read from a format that recorded all bindings of the file
    adopted: frozenset[tuple[str, str]] = frozenset()  #: (queue, exchange or policy; name)
    retiring: Mapping[str, int] = field(default_factory=dict, compare=False)
    """Queue: when it was unbound, in ms since the epoch. Told to people; no deletion rests on it."""

    @property
    def name(self) -> str:
        """Return the name of the global parameter."""
        return parameter_name(self.vhost, self.topology)

    @property
    def claimed(self) -> tuple[Binding, ...]:
        """Return the bindings that it says are the topology's, rightly or not."""
        return (*self.bindings, *(self.unproven if self.older else ()))

    @property
    def listed(self) -> frozenset[tuple[str, ...]]:
        """Return the identities of every binding that its topology's file lists, whoever made them."""
        return frozenset(each.identity for each in (*self.bindings, *self.unproven, *self.found))

    def says_the_same(self, other: Manifest | None) -> bool:
        """Return whether replacing the other by it changes nothing; no manifest and an empty one are the same."""
        mine, theirs = to_json(self), to_json(other or Manifest(topology=self.topology, vhost=self.vhost))
        return mine | {"retiring": [*mine["retiring"]]} == theirs | {"retiring": [*theirs["retiring"]]}

    def differences(self, before: Manifest | None) -> Iterator[str]:
        """Yield what is recorded that was not, in words."""
        old = before or Manifest(topology=self.topology, vhost=self.vhost)
        for kind, name in sorted(self.adopted - old.adopted):
            yield f"adopts {kind} {name}"
        for kind, name in sorted(old.adopted - self.adopted):
            yield f"releases {kind} {name}"
        mine, theirs = self._kinds_of_bindings(), old._kinds_of_bindings()
        for what in dict.fromkeys(mine.values()):
            if count := sum(said == what and theirs.get(each) != what for each, said in mine.items()):
                yield f"{plural(count, 'binding')} {what}"
        if dropped := len(theirs.keys() - mine.keys()):
            yield f"{plural(dropped, 'binding')} dropped"
        for queue in sorted(self.retiring.keys() - old.retiring.keys()):
            yield f"queue {queue} is being retired"
        for queue in sorted(old.retiring.keys() - self.retiring.keys()):
            yield f"queue {queue} is retired"

    def _kinds_of_bindings(self) -> dict[tuple[str, ...], str]:
        parts = {"recorded": self.bindings, "to be made": self.unproven, "found there": self.found}
        return {each.identity: what for what, bindings in parts.items() for each in bindings}


@dataclass(frozen=True, slots=True, kw_only=True)
class Unseen:
    """The manifest was not read, and cannot be written."""

    why: str = ""  #: empty: over AMQP alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Absent:
    """The topology has no manifest yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Damaged:
    """Something has the name of the manifest, and is not one of this topology."""

    why: str
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """The topology's manifest, as it was read."""

    manifest: Manifest


ManifestState = Unseen | Absent | Damaged | Recorded


def parameter_name(vhost: str, topology: str) -> str:
    """Return amqpflow.VHOST.NAME; dots of the virtual host are written %2E, which keeps names apart."""
    return f"amqpflow.{vhost.replace('%', '%25').replace('.', '%2E')}.{topology}"


def to_json(manifest: Manifest) -> dict[str, Any]:
    """Return the parameter's value: sorted, so that the same ownership is the same text."""
    return {
        "format": FORMAT,
        "topology": manifest.topology,
        "vhost": manifest.vhost,
        "bindings": _binding_rows(manifest.bindings),
        "unproven": _binding_rows(manifest.unproven),
        "found": _binding_rows(manifest.found),
        "adopted": [list(each) for each in sorted(manifest.adopted)],
        "retiring": dict(sorted(manifest.retiring.items())),
    }


def from_json(value: Any, *, vhost: str, topology: str) -> Manifest:
    """Read a parameter's value. Raises UnreadableManifestError: damaged, newer, or of another topology."""
    if not isinstance(value, Mapping):
        raise UnreadableManifestError("it is not an object of JSON")
    found = value.get("format")
    if isinstance(found, int) and not isinstance(found, bool) and found > FORMAT:
        raise UnreadableManifestError(
            f"its format is {found}, and this version of amqpflow reads {FORMAT}",
            hint="a newer amqpflow wrote it: use that one",
        )
    try:
        if found not in READABLE or isinstance(found, bool):
            raise UnreadableManifestError("it has no format")
        of = (value["topology"], value["vhost"])
        if of != (topology, vhost):
            raise UnreadableManifestError(f"it is that of topology {of[0]} in virtual host {of[1]}")
        parts = ("bindings", "unproven", "found") if found == FORMAT else ("bindings",)
        bindings = {part: tuple(map(_binding, value[part])) for part in parts}
        return Manifest(
            topology=topology,
            vhost=vhost,
            older=found != FORMAT,
            **(bindings if found == FORMAT else {"unproven": bindings["bindings"]}),
            adopted=frozenset(_adopted(row) for row in value["adopted"]),
            retiring={_text(queue): _since(since) for queue, since in dict(value["retiring"]).items()},
        )
    except UnreadableManifestError:
        raise
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise UnreadableManifestError(f"it is damaged: {type(error).__name__} {error}") from error


def _binding_rows(bindings: Iterable[Binding]) -> list[list[Any]]:
    return [_binding_row(each) for each in sorted(bindings, key=lambda each: each.identity)]


def _binding_row(binding: Binding) -> list[Any]:
    row = [binding.source, _ENDS[binding.destination_type], binding.destination, binding.routing_key]
    return [*row, dict(binding.arguments)] if binding.arguments else row


def _binding(row: Any) -> Binding:
    source, end, destination, key, *arguments = row
    if len(arguments) > 1 or not isinstance(row, list):
        raise ValueError("a binding has four or five parts")
    return Binding(
        source=_text(source),
        destination_type=_KINDS[end],
        destination=_text(destination),
        routing_key=_text(key),
        arguments=dict(arguments[0]) if arguments else {},
    )


def _adopted(row: Any) -> tuple[str, str]:
    kind, name = row
    if kind not in ADOPTABLE or kind == "binding":
        raise ValueError(f"nothing of kind {kind!r} can be adopted")
    return kind, _text(name)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a name")
    return value


def _since(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError(f"{value!r} is not a time")
    return value
