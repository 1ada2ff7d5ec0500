"""The directory of a private node: a temporary one, or one that is kept and found again."""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from amqpflow.errors import RefusedError

from .settings import Identity, Ports, advanced_configuration, configuration

_FILE = "amqpflow-node.json"
_LOCK = "lock"
_ADVANCED = "advanced.config"
_MAY_BE_THERE = (_LOCK, "conf.d", _ADVANCED)  #: in a new directory: configuration of its user's
_LOG_PREFIX = re.compile(r"^\d{4}-\S+ \S+ \[\w+\] <[\d.]+> ?")


@dataclass(slots=True, kw_only=True)
class NodeDirectory:
    """A node's directory and identity, and the lock that keeps a second node out of a kept directory."""

    path: Path
    kept: bool
    identity: Identity
    ports: Ports | None = None  #: of the last run, to be used again where they are free
    version: str = ""  #: the RabbitMQ that wrote the data
    lock: int | None = None

    def write(self, ports: Ports) -> None:
        """Write all that the node reads at its start; only its user can read it, since it holds a password."""
        for name in ("data", "generated", "schema", "conf.d"):
            (self.path / name).mkdir(mode=0o700, exist_ok=True)
        _write(self.log, "")
        _write(self.path / "rabbitmq.conf", configuration(self.identity, ports))
        _write(self.path / "rabbitmq-env.conf", "")
        _write(self.path / "enabled_plugins", "[rabbitmq_management].\n")
        if not (self.path / _ADVANCED).exists():  # a kept directory may hold one of its user's
            _write(self.path / _ADVANCED, advanced_configuration())
        cookie = self.path / ".erlang.cookie"
        if not cookie.exists():
            _write(cookie, secrets.token_hex(16), mode=0o400)
        self.remember(ports, self.version)

    def remember(self, ports: Ports, version: str) -> None:
        """Record the node's identity in a kept directory, for the next run."""
        if self.kept:
            content = {
                "node": self.identity.name,
                "user": self.identity.user,
                "password": self.identity.password,
                "ports": list(ports),
                "rabbitmq": version,
            }
            _write(self.path / _FILE, json.dumps(content, indent=2) + "\n")

    def log_tail(self, lines: int = 12) -> str:
        """Return what the node logged last, each line once: from its own summary of a failed start on, where it wrote
        one.
        """
        try:
            text = self.log.read_text("utf-8", "replace")
        except OSError:
            return ""
        start = text.find("BOOT FAILED")
        said = dict.fromkeys(_LOG_PREFIX.sub("", line).rstrip() for line in text[max(start, 0) :].splitlines())
        kept = [line for line in said if line.strip("= ")]
        return "\n".join(kept[:lines] if start >= 0 else kept[-lines:])

    @property
    def log(self) -> Path:
        return self.path / "console.log"

    def discard(self) -> None:
        """Delete what is temporary (the keeper has, if there was one), and unlock what is kept."""
        if not self.kept:
            shutil.rmtree(self.path, ignore_errors=True)
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None


def temporary() -> NodeDirectory:
    """Make a new directory that the keeper deletes."""
    return NodeDirectory(path=Path(tempfile.mkdtemp(prefix="amqpflow-node-")), kept=False, identity=_new_identity())


def kept(path: Path) -> NodeDirectory:
    """Open the directory that `--keep` names: new, empty, or one that amqpflow made, locked until the node is gone.

    Raises:
        RefusedError: it holds something else, is in use, or cannot be used.
    """
    try:
        path = path.expanduser().absolute()
    except RuntimeError:
        raise RefusedError(
            f"cannot keep data in {path}: that home directory is not known", hint="write the path without ~"
        ) from None
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        known = path / _FILE
        if not known.exists() and any(entry.name not in _MAY_BE_THERE for entry in path.iterdir()):
            raise RefusedError(
                f"{path} is not empty and was not made by amqpflow dev", hint="name a new or an empty directory"
            )
        lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return _read(known, path, lock)
        except BaseException:
            os.close(lock)
            raise
    except BlockingIOError:
        raise RefusedError(
            f"{path} is in use by another node", hint="stop that one, or name another directory"
        ) from None
    except OSError as error:
        raise RefusedError(f"cannot keep data in {path}: {error.strerror or error}") from error


def _read(known: Path, path: Path, lock: int) -> NodeDirectory:
    if not known.exists():
        return NodeDirectory(path=path, kept=True, identity=_new_identity(), lock=lock)
    try:
        content = json.loads(known.read_text())
        amqp, management, distribution, epmd = map(int, content["ports"])
        return NodeDirectory(
            path=path,
            kept=True,
            identity=Identity(name=content["node"], user=content["user"], password=content["password"]),
            ports=Ports(amqp=amqp, management=management, distribution=distribution, epmd=epmd),
            version=content["rabbitmq"],
            lock=lock,
        )
    except (ValueError, LookupError, TypeError) as error:
        raise RefusedError(f"{known} is damaged: {error}", hint="name another directory") from error


def _new_identity() -> Identity:
    return Identity(
        name=f"amqpflow-{secrets.token_hex(4)}@localhost", user="amqpflow", password=secrets.token_urlsafe(12)
    )


def _write(file: Path, text: str, *, mode: int = 0o600) -> None:
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as stream:
        stream.write(text)
