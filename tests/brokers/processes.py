"""Which processes belong to a node: those that name its directory in their command line or environment (Linux)."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path


def belonging_to(directory: Path) -> dict[int, str]:
    """Process id -> command line of every live process of the node in `directory`, epmd included."""
    found = {}
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z":
                continue
            command = (process / "cmdline").read_bytes()
            if os.fsencode(directory) in command + (process / "environ").read_bytes():
                found[int(process.name)] = command.replace(b"\0", b" ").decode(errors="replace")[:120]
    return found


def wait_until_gone(directory: Path, *, seconds: float = 60) -> None:
    """Wait until neither processes nor files of the node are left.

    Raises:
        AssertionError: something is left, and what.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not belonging_to(directory) and not directory.exists():
            return
        time.sleep(0.05)
    files = sorted(map(str, directory.rglob("*")))[:10] if directory.exists() else []
    raise AssertionError(f"left behind: processes {belonging_to(directory)}, files {files}")
