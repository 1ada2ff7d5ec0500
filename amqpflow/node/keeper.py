"""The process between the starter and a private RabbitMQ node: it ends the node when the starter ends, in whatever way.

Run as a file by `python -I -S`, with the standard library alone: keeper.py JSON. Its standard input is a pipe that the
starting process alone holds open. When that closes (the starter stopped it, exited, crashed or was killed), the node,
its epmd and, unless they are to be kept, its files go. Nothing else is needed from the starter, so nothing can be
forgotten. Should the node end first, our standard output closes, and its files stay until the starter has read them.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pathlib
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from typing import Any

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
LINUX = sys.platform == "linux"
LIBC: Any = ctypes.CDLL(None) if LINUX else None


def main() -> int:
    """Start epmd and the node, wait for a reason to end, end them, and return the node's exit code."""
    settings = json.loads(sys.argv[1])
    os.umask(0o077)
    if LINUX:
        # what the node leaves behind (erl starts an epmd that detaches itself) becomes our child, and ends with us
        LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    starter = Starter(settings["starter"])
    groups: list[subprocess.Popen[bytes]] = []
    code = 1
    try:
        if settings["epmd"]:
            groups.append(spawn(settings["epmd"]))
            wait_for_port(settings["epmd_port"])
        node = spawn(settings["node"])
        groups.append(node)
        starter.wait(node)
        if settings["keep"] and node.poll() is None:
            node.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                node.wait(settings["grace"])
        code = node.poll() or 0
    finally:
        for child in groups:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
        reap(deadline=time.monotonic() + 10)
        os.close(sys.stdout.fileno())
        starter.wait()
        if not settings["keep"]:
            remove(settings["directory"])
    return code


def spawn(command: list[str]) -> subprocess.Popen[bytes]:
    """Start a child in a process group of its own, which the kernel kills if the keeper is killed."""
    return subprocess.Popen(  # noqa: S603
        command, stdin=subprocess.DEVNULL, stdout=sys.stderr, process_group=0, preexec_fn=die_with_keeper
    )


def die_with_keeper() -> None:
    if LINUX:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class Starter:
    """The process that wants the node: it is there until our standard input closes, it is gone, or a signal comes."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.wants_it = True
        self.selector = selectors.DefaultSelector()
        self.selector.register(sys.stdin.fileno(), selectors.EVENT_READ, "stdin")
        self.wakeup, self.waker = socket.socketpair()
        for end in (self.wakeup, self.waker):
            end.setblocking(False)
        signal.set_wakeup_fd(self.waker.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        self.selector.register(self.wakeup, selectors.EVENT_READ, "signal")
        # a process that the starter forked without exec holds our pipe open too: watch the starter itself where we can
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):
                self.selector.register(os.pidfd_open(pid), selectors.EVENT_READ, "gone")

    def wait(self, node: subprocess.Popen[bytes] | None = None) -> None:
        """Wait until the starter no longer wants the node, or until `node` has ended by itself."""
        while self.wants_it and (node is None or node.poll() is None):
            for key, _ in self.selector.select():
                if key.data == "signal":
                    self.wants_it = set(self.wakeup.recv(1024)) <= {signal.SIGCHLD}
                elif key.data == "gone" or not os.read(sys.stdin.fileno(), 1024):
                    self.wants_it = False
            if os.getppid() != self.pid:
                self.wants_it = False


def wait_for_port(port: int) -> None:
    """Wait until epmd answers: a node that finds none starts one of its own, which would outlive it."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.01)
        else:
            return


def reap(*, deadline: float) -> None:
    """Kill all children, also those that detached themselves and were inherited, until there are none."""
    while time.monotonic() < deadline:
        for pid in orphans():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.01)


def orphans() -> list[int]:
    """List the processes whose parent this one is, by Linux's /proc; elsewhere the process groups have to do."""
    found = []
    for process in pathlib.Path("/proc").iterdir() if LINUX else ():
        with contextlib.suppress(OSError, ValueError, IndexError):
            pid = int(process.name)
            parent = (process / "stat").read_bytes().rpartition(b")")[2].split()[1]
            if int(parent) == os.getpid():
                found.append(pid)
    return found


def remove(directory: str) -> None:
    """Delete the data; a node that is dying may still create files meanwhile."""
    for _ in range(50):
        shutil.rmtree(directory, ignore_errors=True)
        if not os.path.lexists(directory):
            return
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
