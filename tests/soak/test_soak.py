"""A short soak, the same each time: half of the faults of the long one, on a private node."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from amqpflow.node.locate import Installation, locate
from tests.soak.__main__ import soak
from tests.soak.faults import possible
from tests.soak.node import SoakNode
from tests.soak.report import Bounds, problems, table

FAULTS = (
    "all cut",
    "password rotated",
    "handlers exit",
    "process killed",
    "no write permission",
    "publishing frozen",
    "forged headers",
    "consuming frozen",
)
SECONDS = 75
#: the rest of the suite takes the processors away for seconds; the long run has the real bounds
BUSY = Bounds(dead=30, local=12)


def test_a_consumer_whose_surroundings_fail_loses_nothing_and_continues(tmp_path: Path) -> None:
    if not isinstance(found := locate(), Installation):
        pytest.skip(f"a node of our own needs a RabbitMQ installed here: {found.reason}")
    with SoakNode(tmp_path / "node", None, None) as node:
        faults = dict(possible(ctl=True, only=FAULTS))
        assert len(faults) == len(FAULTS)
        scene, account, wrong = asyncio.run(soak(node, tmp_path, faults, seconds=SECONDS, seed=5, rate=40))
    print(table(scene, account, SECONDS))
    assert scene.happened
    assert [*wrong, *problems(scene, account, BUSY, SECONDS)] == []
