"""Names: what RabbitMQ and aio-pika can address, derived names included, and no two things of one name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from amqpflow.model.diagnostic import Place
from amqpflow.model.names import MAX_NAME_BYTES, name_problem
from amqpflow.topology.compile.naming import NEEDED, PLACEHOLDER, POSSIBLE, Names
from amqpflow.topology.compile.schedule import delays_by_policy
from amqpflow.topology.language.codes import Code
from amqpflow.topology.language.keys import NO_RETRY
from amqpflow.topology.reading.problems import Problems
from amqpflow.topology.reading.spec import QueueSpec, TopologySpec

_TOPOLOGY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


def topology_name(spec: TopologySpec, problems: Problems) -> None:
    """Check the topology's name, which becomes part of exchange, policy and parameter names."""
    if not spec.name:
        return
    if spec.name.startswith("amq."):
        message = "name: names starting with amq. are reserved by RabbitMQ"
        problems.error(Code.RESERVED_NAME, spec.at("name"), message)
    elif not _TOPOLOGY.fullmatch(spec.name):
        message = f"{spec.name[:80]!r} cannot name a topology"
        hint = "letters, digits, . _ and -, at most 64, a letter or digit first"
        problems.error(Code.BAD_NAME, spec.at("name"), message, hint)


def vhost_name(spec: TopologySpec, problems: Problems) -> None:
    """Check that a virtual host's name is an AMQP short string."""
    if len(spec.vhost.encode("utf-8", "replace")) > MAX_NAME_BYTES:
        message = f"the virtual host's name is longer than {MAX_NAME_BYTES} bytes"
        problems.error(Code.NAME_TOO_LONG, spec.at("vhost"), message)
    elif not spec.vhost.isprintable():
        problems.error(Code.BAD_NAME, spec.at("vhost"), "the virtual host's name holds a control character")


def written_names(spec: TopologySpec, problems: Problems) -> None:
    """Check the names of queues, exchanges and parking queues that the file holds."""
    for queue in spec.queues.values():
        _check_name(f"queue {queue.name[:80]!r}", queue.name, queue.place, problems)
        if queue.parking_queue is not None:
            what = f"parking queue {queue.parking_queue[:80]!r}"
            _check_name(what, queue.parking_queue, queue.at("parking_queue"), problems)
    for exchange in spec.exchanges.values():
        # what RabbitMQ brings along may be named, but not declared
        if not (exchange.external and exchange.name.startswith("amq.")):
            _check_name(f"exchange {exchange.name[:80]!r}", exchange.name, exchange.place, problems)


def policy_names(spec: TopologySpec, problems: Problems) -> None:
    """Refuse a policy named `none`, which means that there is no policy."""
    if NO_RETRY in spec.policies:
        message = f"a retry policy cannot be called {NO_RETRY}: retry: {NO_RETRY} means no retries"
        problems.error(Code.RESERVED_NAME, spec.policies[NO_RETRY].place, message)


def templates(spec: TopologySpec, problems: Problems) -> None:
    """Check that templates have the placeholders that keep names apart, and no unknown ones."""
    for key, template in _templates(spec):
        found = set(PLACEHOLDER.findall(template))
        place = spec.naming.at(key)
        for unknown in sorted(found - POSSIBLE[key]):
            hint = problems.nearest(unknown, POSSIBLE[key])
            problems.error(Code.BAD_TEMPLATE, place, f"{key}: unknown placeholder {{{unknown[:40]}}}", hint)
        for missing in sorted(NEEDED[key] - found):
            hint = "for one parking queue shared by all write defaults: {parking: {queue: NAME}}"
            message = f"{key}: the template lacks {{{missing}}}, so that names would be the same"
            problems.error(Code.BAD_TEMPLATE, place, message, hint if key == "parking" else f"add {{{missing}}}")
        if re.search(r"[{}]", PLACEHOLDER.sub("", template)):
            problems.error(Code.BAD_TEMPLATE, place, f"{key}: unbalanced brace", "write {NAME}")


def derived_names(spec: TopologySpec, problems: Problems) -> None:
    """Check the names that a template makes: their length and characters."""
    if not _nameable(spec):
        return
    names, delays = Names(topology=spec.name, naming=spec.naming), delays_by_policy(spec)
    for key, name in (("retry_exchange", names.retry_exchange), ("parking_exchange", names.parking_exchange)):
        _check_name(f"exchange {name[:80]!r} (naming.{key})", name, spec.naming.at(key), problems)
    for queue in spec.queues.values():
        if name_problem(queue.name):
            continue
        owner = Names(topology=queue.owner or spec.name, naming=spec.naming)
        if queue.parking_queue is None:
            name = owner.parking_queue(queue.name)
            _check_name(f"the parking queue of {queue.name[:80]!r}, {name[:80]!r},", name, queue.place, problems)
        tiers = [owner.retry_queue(queue.name, delay) for delay in delays.get(queue.retry, ())]
        if tiers:  # they differ in length alone
            name = max(tiers, key=len)
            _check_name(f"a retry queue of {queue.name[:80]!r}, {name[:80]!r},", name, queue.place, problems)


def collisions(spec: TopologySpec, problems: Problems) -> None:
    """Check that names are unique in one file; queues and exchanges have separate names."""
    known: dict[tuple[str, str], Claim] = {}
    for claim in claims(spec):
        first = known.setdefault((claim.kind, claim.name), claim)
        if first is claim or first.role == claim.role == "shared":
            continue
        message = f"{claim.what} and {first.what} would both be the {claim.kind} {claim.name[:255]}"
        hint = f"the other is on line {first.place.line}"
        if "shared" in (claim.role, first.role):
            hint += "; amqpflow declares parking queues: they are not work queues"
        problems.error(Code.NAME_COLLISION, claim.place, message, hint)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A name that a topology takes for itself."""

    kind: str  #: queue or exchange
    name: str
    what: str  #: what would have the name
    place: Place
    role: str = "only"  #: shared: several may claim it in this role
    declared: bool = True  #: False: another program declares it


def claims(spec: TopologySpec) -> Iterator[Claim]:
    """Yield every queue and exchange name of a topology, written and derived; nothing when names cannot be made."""
    for exchange in spec.exchanges.values():
        what, declared = f"exchange {exchange.name[:80]}", not exchange.external
        yield Claim(kind="exchange", name=exchange.name, what=what, place=exchange.place, declared=declared)
    for queue in spec.queues.values():
        what, declared = f"work queue {queue.name[:80]}", not queue.external
        yield Claim(kind="queue", name=queue.name, what=what, place=queue.place, declared=declared)
    if not _nameable(spec):
        return
    names = Names(topology=spec.name, naming=spec.naming)
    exchanges = {"the retry exchange": names.retry_exchange, "the parking exchange": names.parking_exchange}
    if any(policy.native for policy in spec.policies.values()):
        exchanges["the marker of native retry"] = names.native_marker
    for what, name in exchanges.items():
        yield Claim(kind="exchange", name=name, what=what, place=spec.naming.place)
    delays = delays_by_policy(spec)
    for queue in spec.queues.values():
        yield from _claims_of(queue, spec, delays.get(queue.retry, ()))


def _claims_of(queue: QueueSpec, spec: TopologySpec, delays: tuple[int, ...]) -> Iterator[Claim]:
    names = Names(topology=queue.owner or spec.name, naming=spec.naming)
    declared = not queue.external
    name = queue.parking_queue or names.parking_queue(queue.name)
    place = queue.place if queue.parking_queue is None else queue.at("parking_queue")
    what = f"the parking queue of {queue.name[:80]}"
    yield Claim(kind="queue", name=name, what=what, place=place, role="shared", declared=declared)
    what = f"a retry queue of {queue.name[:80]}"
    for name in (names.retry_queue(queue.name, delay) for delay in delays):
        yield Claim(kind="queue", name=name, what=what, place=queue.place, declared=declared)


def _templates(spec: TopologySpec) -> Iterator[tuple[str, str]]:
    for key in NEEDED:
        yield key, getattr(spec.naming, key)


def _nameable(spec: TopologySpec) -> bool:
    """Return whether derived names can be made: the topology has a name, and the templates are valid."""
    fit = all(NEEDED[key] <= set(PLACEHOLDER.findall(template)) <= POSSIBLE[key] for key, template in _templates(spec))
    return bool(spec.name) and fit


def _check_name(what: str, name: str, place: Place, problems: Problems) -> None:
    problem = name_problem(name)
    if problem is None:
        return
    if len(name.encode()) > MAX_NAME_BYTES:
        code = Code.NAME_TOO_LONG
    elif name.startswith("amq."):
        code = Code.RESERVED_NAME
    else:
        code = Code.BAD_NAME
    problems.error(code, place, f"{what} cannot be declared: {problem}")


RULES = (topology_name, vhost_name, written_names, policy_names, templates, derived_names, collisions)
