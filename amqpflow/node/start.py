"""Get a broker: a given URL, else an installed RabbitMQ, else Docker; else say what to install.

with start_broker() as broker:
    ... broker.address ...
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from amqpflow.errors import BrokerUnavailableError, UsageError
from amqpflow.rabbitmq.address import BrokerAddress, resolve_address

from .docker import DockerNode, find_engine
from .greeting import greet
from .locate import Installation, Missing, locate
from .private import PrivateNode

Origin = Literal["given", "local", "docker"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningBroker:
    """A broker that answers."""

    address: BrokerAddress
    version: str  #: the broker's, such as "4.3.6"
    description: str  #: one line for people, without a password
    origin: Origin
    seconds: float  #: how long it took to answer


class Node(Protocol):
    """Something that can be started and stopped; see PrivateNode."""

    @property
    def version(self) -> str: ...
    @property
    def description(self) -> str: ...
    def start(self) -> BrokerAddress: ...
    def wait(self) -> None: ...
    def stop(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The broker that `start_broker` would use; only a given one runs already."""

    origin: Origin
    version: str  #: as far as it is known without starting it
    description: str
    node: Node


class GivenBroker:
    """A broker that is running already: it is greeted, and left as it is."""

    def __init__(self, address: BrokerAddress) -> None:
        self.given = address
        self.version = ""
        self.product = "a broker"

    @property
    def description(self) -> str:
        return f"{self.product} {self.version} at {self.given.redacted}"

    def start(self) -> BrokerAddress:
        try:
            product, self.version = greet(self.given, timeout=10)
        except BrokerUnavailableError as error:
            hint = "start it, or leave the URL out for a private node"
            raise type(error)(str(error), hint=hint) from error
        self.product = product or self.product
        return self.given

    def wait(self) -> None:
        """Return at once: it is not ours to wait for."""

    def stop(self) -> None:
        """Do nothing: the broker was not started here."""


def find_broker(
    url: str | None = None,
    management_url: str | None = None,
    *,
    keep: Path | None = None,
    environ: Mapping[str, str] | None = None,
    root: Path = Path("/"),
) -> Found:
    """Decide which broker to use: `url`, else a local RabbitMQ, else Docker.

    AMQPFLOW_URL and its like are ignored: the broker of a shell may be one that others work with.

    Raises:
        BrokerUnavailableError: there is none; the hint is the command that installs one.
        UsageError: the URL is malformed, or `keep` is given for a broker that is not a local node.
    """
    env = os.environ if environ is None else environ
    if url is not None:
        if keep is not None:
            raise UsageError("data can be kept for a private node only", hint="leave out the URL, or `keep`")
        given = GivenBroker(resolve_address(url, management_url, environ=env))
        return Found(origin="given", version="", description=given.given.redacted, node=given)
    installation = locate(env, root)
    if isinstance(installation, Installation):
        private = PrivateNode(installation, keep=keep)
        return Found(origin="local", version=private.version, description=private.description, node=private)
    engine = find_engine()
    if isinstance(engine, Missing):
        raise BrokerUnavailableError(
            f"there is no RabbitMQ to start: {installation.reason}, and {engine.reason}", hint=how_to_install()
        )
    if keep is not None:
        raise UsageError("data can be kept for a local RabbitMQ only, and there is none", hint=how_to_install())
    container = DockerNode(engine)
    return Found(origin="docker", version=container.version, description=container.description, node=container)


def how_to_install(which: Callable[[str], str | None] = shutil.which, platform: str = sys.platform) -> str:
    """Return the one command that puts a RabbitMQ on this machine."""
    if platform == "darwin" or (which("brew") and not which("apt-get")):
        return "install one: brew install rabbitmq"
    if which("apt-get"):
        sudo = "" if os.geteuid() == 0 else "sudo "
        return f"install one: {sudo}apt-get install --no-install-recommends rabbitmq-server"
    for tool, command in (("dnf", "dnf install rabbitmq-server"), ("apk", "apk add rabbitmq-server")):
        if which(tool):
            return f"install one: {command}"
    return "install rabbitmq-server (https://www.rabbitmq.com/docs/download) or Docker, or give the URL of a broker"


class BrokerContext:
    """A broker for the length of a `with` or `async with` block; what was started for it is gone afterwards."""

    def __init__(self, found: Found) -> None:
        self.found = found

    def __enter__(self) -> RunningBroker:
        began = time.monotonic()
        address = self.found.node.start()
        return RunningBroker(
            address=address,
            version=self.found.node.version,
            description=self.found.node.description,
            origin=self.found.origin,
            seconds=time.monotonic() - began,
        )

    def __exit__(self, *_: object) -> None:
        self.found.node.stop()

    async def __aenter__(self) -> RunningBroker:
        starting = asyncio.create_task(asyncio.to_thread(self.__enter__))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            await asyncio.to_thread(self.found.node.stop)  # ends the start that is under way in the thread
            with contextlib.suppress(Exception):
                await starting
            raise

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.found.node.stop)

    def wait(self) -> None:
        """Wait until the started broker ends by itself; return at once when the broker was given.

        Raises:
            BrokerUnavailableError: it has ended, with the end of its log.
        """
        self.found.node.wait()


def start_broker(
    url: str | None = None,
    management_url: str | None = None,
    *,
    keep: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> BrokerContext:
    """Start a broker to develop or test against, for the length of a block; see `find_broker` for which one.

    A private node or container listens on loopback, has a generated user and password, throws its data away unless
    `keep` names a directory for it, and is gone when the block or this process ends, however it ends.

    Raises:
        BrokerUnavailableError: there is none (at once), or it does not answer (on entering the block).
        UsageError: as `find_broker`.
        RefusedError: the directory to keep data in cannot be used (on entering the block).
    """
    return BrokerContext(find_broker(url, management_url, keep=keep, environ=environ))
