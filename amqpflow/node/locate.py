"""Find a RabbitMQ on this machine, by looking at files and never by running it.

`rabbitmq-server --version` starts a broker, and Debian's /usr/sbin/rabbitmq-server wants to be root or the user
rabbitmq, and then uses the system's data. So we look for the distribution's own sbin directory, which has
`rabbitmq-env` beside the server script, and read the version off its names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

#: Where packages and people put RabbitMQ's home (the directory that has sbin/ and plugins/), the usual ones first.
HOMES = (
    "usr/lib/rabbitmq/lib/rabbitmq_server-*",  # Debian, Ubuntu, Fedora
    "usr/lib64/rabbitmq/lib/rabbitmq_server-*",
    "usr/lib/rabbitmq",
    "opt/homebrew/opt/rabbitmq",  # Homebrew on Apple silicon, on Intel, on Linux
    "usr/local/opt/rabbitmq",
    "home/linuxbrew/.linuxbrew/opt/rabbitmq",
    "opt/rabbitmq",  # the generic Unix archive, unpacked
    "opt/rabbitmq_server-*",
    "opt/rabbitmq/rabbitmq_server-*",
    "usr/local/rabbitmq_server-*",
    "usr/local/lib/rabbitmq_server-*",
)

#: Where `erl` may be when PATH is short, as it is in services and editors.
BINARIES = ("usr/local/bin", "usr/bin", "bin", "opt/homebrew/bin", "home/linuxbrew/.linuxbrew/bin")


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """A RabbitMQ that can be started, and the Erlang that runs it."""

    server: Path  #: sbin/rabbitmq-server of the distribution itself
    version: str  #: "3.10.8", or "" when it is not known
    erl: Path
    epmd: Path | None  #: None: the node has to start it
    path: str  #: PATH for the node, in which `erl` is found

    @property
    def home(self) -> Path:
        return self.server.parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """No RabbitMQ can be started, and why."""

    reason: str


def locate(environ: Mapping[str, str] | None = None, root: Path = Path("/")) -> Installation | Missing:
    """Find RabbitMQ and Erlang: $RABBITMQ_HOME, then the usual places, newest first, then PATH."""
    env = os.environ if environ is None else environ
    path = os.pathsep.join([env.get("PATH", ""), *(str(root / directory) for directory in BINARIES)]).strip(os.pathsep)
    for home in _homes(env, root):
        server = home / "sbin" / "rabbitmq-server"
        if not _is_server(server):
            continue
        erl = _which("erl", path)
        if erl is None:
            return Missing(reason=f"RabbitMQ is in {home}, but `erl`, the Erlang that runs it, is not in PATH")
        return Installation(server=server, version=version_of(home), erl=erl, epmd=_epmd(erl, path), path=path)
    return Missing(reason="no rabbitmq-server is installed")


def _homes(env: Mapping[str, str], root: Path) -> Iterator[Path]:
    if given := env.get("RABBITMQ_HOME"):
        yield Path(given)
    for pattern in HOMES:
        yield from sorted(root.glob(pattern), key=lambda home: _numbers(home.name), reverse=True)
    for directory in filter(None, env.get("PATH", "").split(os.pathsep)):
        yield Path(directory, "rabbitmq-server").resolve().parent.parent


def _is_server(server: Path) -> bool:
    """Return whether this is the distribution's script, not a wrapper: that one has no rabbitmq-env beside it."""
    return os.access(server, os.X_OK) and (server.resolve().parent / "rabbitmq-env").is_file()


def version_of(home: Path) -> str:
    """Return the version of the RabbitMQ in `home`: from its directory's name, else from its `rabbit` application's."""
    real = home.resolve()
    candidates = [real.name.removeprefix("rabbitmq_server-"), *(file.name for file in real.glob("plugins/rabbit-*"))]
    for name in candidates:
        if match := re.match(r"(?:rabbit-)?(\d+\.\d+\.\d+(?:-[a-z]+\.\d+)?)", name):
            return match[1]
    return ""


def _which(name: str, path: str) -> Path | None:
    for directory in filter(None, path.split(os.pathsep)):
        file = Path(directory, name)
        if os.access(file, os.X_OK) and file.is_file():  # in this order: is_file() raises where we may not look
            return file
    return None


def _epmd(erl: Path, path: str) -> Path | None:
    """Find Erlang's port mapper: in PATH, else where this `erl` has it."""
    if found := _which("epmd", path):
        return found
    directory = erl.resolve().parent
    for file in (directory / "epmd", *sorted(directory.parent.glob("erts-*/bin/epmd"), reverse=True)):
        if os.access(file, os.X_OK):
            return file
    return None


def _numbers(name: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", name)))
