"""rabbitmqctl against a node of a test's own."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

from amqpflow.node.locate import Installation

#: What is the node's alone: with it, the command would take itself for the node.
_THE_NODES = ("RABBITMQ_PID_FILE", "RABBITMQ_DIST_PORT", "RUNNING_UNDER_SYSTEMD", "BINDIR", "ROOTDIR", "EMU")


def rabbitmqctl(
    installation: Installation, environment: Mapping[str, str], *arguments: str, within: float = 150
) -> str:
    """Run it in the `environment` of the node it is about, for at most `within` seconds; return what it printed."""
    done = subprocess.run(
        [installation.server.with_name("rabbitmqctl"), *arguments],
        env={name: value for name, value in environment.items() if name not in _THE_NODES},
        capture_output=True,
        text=True,
        timeout=within,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
