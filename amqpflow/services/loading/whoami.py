"""The user of this process, for readers of a lock or a journal."""

from __future__ import annotations

import getpass
import os
import socket


def user() -> str:
    """Return the user's name, or the number of a user without a name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())


def whoami() -> str:
    return f"{user()}@{socket.gethostname()}"
