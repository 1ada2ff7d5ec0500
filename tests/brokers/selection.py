"""Which brokers the tests run against, and which of them a test wants.

In this order: AMQPFLOW_TEST_URLS (pairs `amqp://...|http://...`, separated by commas), AMQPFLOW_TEST_URL, else a
private node of our own, started when the first test asks for it. AMQPFLOW_URL is ignored: a shell may name a broker
there that others work with. A broker that was named and does not answer is an error, as is none at all when a test
needs one: a missing broker never looks like a passing run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from amqpflow.errors import AmqpflowError
from amqpflow.node import Found, find_broker
from amqpflow.rabbitmq.address import BrokerAddress, resolve_address

from .management import Management


class NoBroker(Exception):
    """There is no broker to test against, or one that was named does not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerUnderTest:
    """One RabbitMQ that tests run against; `address` is that of its virtual host `/`."""

    address: BrokerAddress
    version: tuple[int, ...]
    description: str

    @property
    def release(self) -> str:
        """Major and minor version: `3.10`."""
        return ".".join(map(str, self.version[:2]))

    @property
    def management(self) -> Management:
        return Management(self.address)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A broker that was found: one that is running (it has an address), or one that is still to be started."""

    version: tuple[int, ...]
    description: str
    address: BrokerAddress | None = None
    found: Found | None = None

    @property
    def release(self) -> str:
        return ".".join(map(str, self.version[:2])) or "no broker"


def parse_version(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text.partition("-")[0])[:3])


def find_candidates(environ: Mapping[str, str] | None = None) -> tuple[Candidate, ...]:
    """Find the brokers to test against, oldest release first.

    Raises:
        NoBroker: none was found, or one that the environment names does not answer.
    """
    env = os.environ if environ is None else environ
    if pairs := [pair for pair in env.get("AMQPFLOW_TEST_URLS", "").split(",") if pair.strip()]:
        found = [_running(pair, "AMQPFLOW_TEST_URLS") for pair in pairs]
    elif pair := env.get("AMQPFLOW_TEST_URL"):
        found = [_running(pair, "AMQPFLOW_TEST_URL")]
    else:
        found = [_to_be_started(env)]
    return tuple(sorted(found, key=lambda candidate: candidate.version))


def _running(pair: str, source: str) -> Candidate:
    url, _, management = pair.strip().partition("|")
    address = resolve_address(url, management or None, environ={})
    try:
        overview = Management(address).call("GET", "overview", timeout=30)
        version = overview["rabbitmq_version"]
    except (OSError, AssertionError, LookupError, TypeError, ValueError) as error:
        where = address.management_candidates()[-1]
        raise NoBroker(f"{source} names {address}, whose management API at {where} does not answer: {error}") from error
    return Candidate(version=parse_version(version), description=f"RabbitMQ {version} at {address}", address=address)


def _to_be_started(env: Mapping[str, str]) -> Candidate:
    try:
        found = find_broker(environ={"PATH": env.get("PATH", "")})
    except AmqpflowError as error:
        raise NoBroker(f"{error}\n{error.hint}") from error
    return Candidate(version=parse_version(found.version), description=found.description, found=found)


_CONDITION = re.compile(r"(>=|<=|==|!=|<|>)\s*(\d+(?:\.\d+)*)")


def matches(version: Sequence[int], conditions: str) -> bool:
    """Whether a version fulfils every condition of `>=4.0, <4.3`, each compared as far as it goes."""
    for part in conditions.split(","):
        match = _CONDITION.fullmatch(part.strip())
        if match is None:
            raise ValueError(f"not a condition on a release: {part.strip()!r}; write for example '>=4.3'")
        wanted = [int(number) for number in match[2].split(".")]
        mine = list(version[: len(wanted)])
        if not {
            ">=": mine >= wanted,
            "<=": mine <= wanted,
            "==": mine == wanted,
            "!=": mine != wanted,
            "<": mine < wanted,
            ">": mine > wanted,
        }[match[1]]:
            return False
    return True
