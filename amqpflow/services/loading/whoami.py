"""Who runs this process, for those who read a lock or a journal later."""

from __future__ import annotations

import getpass
import os
import socket


def user() -> str:
    """The user's name, the number of one that has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())


def whoami() -> str:
    """user@host"""
    return f"{user()}@{socket.gethostname()}"
