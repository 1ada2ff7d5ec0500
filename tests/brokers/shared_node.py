"""The private node of a run by several processes: one for all of them, started by the one that hands out the tests."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path
from threading import Thread

from amqpflow.node import BrokerContext, Found
from amqpflow.rabbitmq.address import BrokerAddress

from .selection import BrokerUnderTest, parse_version


class SharedNode:
    """A node that starts beside the first tests, which need none. Who needs it waits until its address is in `file`.

    It ends with the process that started it, in whatever way that ends.
    """

    def __init__(self, found: Found) -> None:
        self.file = Path(tempfile.mkdtemp(prefix="amqpflow-shared-")) / "broker.json"
        self._context = BrokerContext(found)
        self._starting: Thread | None = None

    def start(self) -> None:
        """Start it, the first time that this is called."""
        if self._starting is None:
            self._starting = Thread(target=self._start)
            self._starting.start()

    def _start(self) -> None:
        try:
            node = self._context.__enter__()
            address = {key: getattr(node.address, key) for key in ("url", "source", "management_url")}
            said = {"address": address, "version": node.version, "description": node.description}
        except Exception as error:  # whatever it is, it fails the tests that wait for the node
            said = {"error": f"{type(error).__name__}: {error}; {getattr(error, 'hint', '')}"}
        written = self.file.with_suffix(".new")
        written.write_text(json.dumps(said))
        written.replace(self.file)

    def stop(self) -> None:
        """Stop it; also while it is starting."""
        self._context.__exit__(None, None, None)
        if self._starting is not None:
            self._starting.join()
        shutil.rmtree(self.file.parent, ignore_errors=True)


def shared_node(file: Path) -> BrokerUnderTest:
    """Return the node whose address will be in the file."""
    deadline = time.monotonic() + 150
    while not file.exists():
        assert time.monotonic() < deadline, "the node that all processes share does not start"
        time.sleep(0.05)
    said = json.loads(file.read_text())
    assert "error" not in said, said["error"]
    return BrokerUnderTest(
        address=BrokerAddress(**said["address"]),
        version=parse_version(said["version"]),
        description=said["description"],
    )
