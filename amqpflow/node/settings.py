"""The configuration file and the environment of a private node. Pure text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

STATISTICS_INTERVAL = 1000  #: ms between a queue's counts
#: with RabbitMQ's `none` each file that a start reads wakes a thread through the kernel: 5.5 s instead of 3.4
_BUSY_WAIT = "+sbwtdio very_short"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The four ports of a node, all on loopback."""

    amqp: int
    management: int
    distribution: int
    epmd: int

    def __iter__(self) -> Iterator[int]:
        return iter((self.amqp, self.management, self.distribution, self.epmd))


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A node's name and user, to which its data belongs."""

    name: str  #: amqpflow-1a2b3c@localhost
    user: str
    password: str


def configuration(identity: Identity, ports: Ports) -> str:
    """Write rabbitmq.conf: loopback listeners, one administrator, and limits that fit a laptop.

    See https://www.rabbitmq.com/docs/configure. A smaller write-ahead log keeps a node on a small disk alive; the
    default of RabbitMQ for free disk space, 50 MB, is written out since packages change it. Counts are one or two
    seconds old instead of five to ten (fact 11.29): a person who tries things soon sees what they did.
    """
    return f"""\
listeners.tcp.default = 127.0.0.1:{ports.amqp}
management.tcp.ip = 127.0.0.1
management.tcp.port = {ports.management}
default_user = {identity.user}
default_pass = {identity.password}
disk_free_limit.absolute = 50MB
vm_memory_high_watermark.relative = 0.4
raft.wal_max_size_bytes = 67108864
collect_statistics_interval = {STATISTICS_INTERVAL}
management.sample_retention_policies.global.605 = 1
management.sample_retention_policies.global.3660 = 60
management.sample_retention_policies.global.29400 = 600
management.sample_retention_policies.global.86400 = 1800
management.sample_retention_policies.basic.605 = 1
management.sample_retention_policies.basic.3600 = 60
management.sample_retention_policies.detailed.605 = 1
"""


def advanced_configuration() -> str:
    """Write advanced.config: the interval at which a quorum queue counts, which rabbitmq.conf has no key for."""
    return f"[{{rabbit, [{{quorum_tick_interval, {STATISTICS_INTERVAL}}}]}}].\n"


def environment(identity: Identity, ports: Ports, directory: Path, *, path: str) -> dict[str, str]:
    """Return the node's whole environment; nothing is inherited, since RabbitMQ's scripts read some fifty variables.

    Every file RabbitMQ would read from /etc/rabbitmq or write to /var is named here and lies in `directory`.
    RUNNING_UNDER_SYSTEMD makes the script become the Erlang machine instead of waiting for it, as in RabbitMQ's own
    container image: signals then reach the node itself.
    """
    return {
        "PATH": path,
        "HOME": str(directory),
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "RABBITMQ_NODENAME": identity.name,
        "RABBITMQ_CONF_ENV_FILE": str(directory / "rabbitmq-env.conf"),
        "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
        "RABBITMQ_CONFIG_FILES": str(directory / "conf.d"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(directory / "advanced.config"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
        "RABBITMQ_MNESIA_BASE": str(directory / "data"),
        "RABBITMQ_GENERATED_CONFIG_DIR": str(directory / "generated"),
        "RABBITMQ_SCHEMA_DIR": str(directory / "schema"),
        "RABBITMQ_LOG_BASE": str(directory),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_PID_FILE": str(directory / "node.pid"),
        "RABBITMQ_DIST_PORT": str(ports.distribution),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"-kernel inet_dist_use_interface {{127,0,0,1}} {_BUSY_WAIT}",
        "RUNNING_UNDER_SYSTEMD": "true",
        "ERL_EPMD_PORT": str(ports.epmd),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_CRASH_DUMP": "/dev/null",
    }
