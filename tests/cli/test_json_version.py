"""Every JSON document says its version in the same way, so that a program can tell when it changes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from amqpflow.cli.main import amqpflow
from amqpflow.rabbitmq.address import BrokerAddress
from tests.brokers.management import Management
from tests.cli.parked_shop import fill, write_shop
from tests.commands import environment, run
from tests.parked import delivered

#: commands that take no --url
BROKERLESS = ("validate", "permissions")
#: as a user writes them, in an order in which each has something to do
DOCUMENTS = (
    "plan FILE", "apply FILE", "drift FILE", "status FILE", "explain FILE orders", "adopt FILE queue orders",
    "disown FILE queue orders", "parked list FILE", "parked show FILE m", "parked stats FILE",
    "parked export FILE --to EXPORT", "parked restore EXPORT --duplicates",
    "parked discard FILE --limit 1 --no-export --yes", "replay FILE --dry-run", "replay FILE --yes", "replay --history",
    "validate FILE", "permissions FILE", "destroy FILE",
)  # fmt: skip


def commands_with_json(command: click.Command, name: str = "") -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        for each in command.list_commands(context):
            if (found := command.get_command(context, each)) is not None:
                yield from commands_with_json(found, f"{name} {each}".strip())
    elif any("--output" in each.opts and "json" in getattr(each.type, "choices", ()) for each in command.params):
        yield name, command


@pytest.mark.parametrize(("name", "command"), list(commands_with_json(amqpflow)))
def test_every_command_with_json_is_in_the_list(name: str, command: click.Command) -> None:
    assert any(each.startswith(f"{name} ") for each in DOCUMENTS)
    assert (name in BROKERLESS) is not any("--url" in each.opts for each in command.params)


@pytest.mark.one_broker
def test_every_document_has_it(vhost: BrokerAddress, tmp_path: Path) -> None:
    file = write_shop(tmp_path)
    fill(file, vhost, [delivered("orders", message_id="m")])
    where = ("--url", vhost.url, "--management-url", Management(vhost).base)
    for document in DOCUMENTS:
        words = document.replace("FILE", str(file)).replace("EXPORT", str(tmp_path / "export.jsonl")).split()
        options = () if words[0] in BROKERLESS else where
        done = run(*words, "-o", "json", *options, env=environment(vhost))
        assert done.out, f"{document}: {done.err}"
        assert json.loads(done.out)["version"] == 1, document
