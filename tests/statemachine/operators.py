"""People at work on one broker: each is a process, which can be killed, cancelled, stopped or held at a point."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

PATIENCE = 60.0  #: seconds for an answer


@dataclass(frozen=True, kw_only=True)
class Stop:
    """What happens to an operator, and where: at a point for the so many-th time."""

    how: str  #: kill, cancel, stop (as by Ctrl-C) or pause
    at: str
    times: int = 1


@dataclass(frozen=True, kw_only=True)
class Request:
    """What an operator is asked for. Of what follows `error_types` only a replay knows."""

    do: str = "replay"  #: or discard, into a file, or restore, from one
    queue: tuple[str, ...] | None = None
    limit: int | None = None
    error_types: tuple[str, ...] = ()
    to: str | None = None
    in_doubt: str = "send"
    stop_if_reparked: float | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an operator ended: with a report, with an error that names itself, cancelled, or (none of these) killed."""

    report: Mapping[str, Any] | None = None
    error: str | None = None
    text: str = ""
    cancelled: bool = False
    crash: str | None = None

    @property
    def killed(self) -> bool:
        return self.report is None and self.error is None and not self.cancelled and self.crash is None

    @property
    def is_undisturbed(self) -> bool:
        return self.report is not None and not self.report.get("interrupted")


class Operator:
    """One process. It is at work from the beginning."""

    def __init__(self, name: str, line: socket.socket) -> None:
        self.name = name
        self._line = line
        self._lines = line.makefile("rb")
        self._ended: Outcome | None = None

    def is_held(self) -> bool:
        """Wait until it is held at a point or waits for another reader; return False when it has ended instead."""
        return self._next() is None

    def _next(self) -> Outcome | None:
        if self._ended is not None:
            return self._ended
        line = self._lines.readline()
        values = json.loads(line) if line else {}
        if values.keys() & {"paused", "waiting"}:
            return None
        self._ended = Outcome(**values)
        self._lines.close()
        self._line.close()
        return self._ended

    def release(self) -> None:
        """Let it continue."""
        if self._ended is None:
            self._line.send(b".")

    def leave(self) -> None:
        """Let it go on alone, when its end was not waited for."""
        if self._ended is None:
            self._ended = Outcome()
            self._lines.close()
            self._line.close()

    def end(self) -> Outcome:
        """Wait for its end."""
        while (ended := self._next()) is None:
            pass
        return ended


class Operators:
    """Starts operators. Use as a context manager."""

    def __init__(self, topologies: Path) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.statemachine.operating", str(theirs.fileno()), str(topologies)],
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        self._numbers = count()

    def begin(self, request: Mapping[str, Any], stop: Stop | None) -> Operator:
        name = f"operator.{next(self._numbers)}"
        ours, theirs = socket.socketpair()
        ours.settimeout(PATIENCE)
        with theirs:
            data = json.dumps({**request, "name": name, "stop": asdict(stop) if stop else None}).encode()
            socket.send_fds(self._control, [data], [theirs.fileno()])
        return Operator(name, ours)

    def __enter__(self) -> Operators:
        return self

    def __exit__(self, *_: object) -> None:
        self._control.close()
        self._server.wait(PATIENCE)
