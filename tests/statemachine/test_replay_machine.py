"""Whatever happens to those who replay: no message is lost, none is taken unasked, and what they are told is true.

Hypothesis makes up what happens: events that fan out to several work queues and are parked, in queues of their own or
in a shared one; replays of one, several or all of them, killed, cancelled or stopped at any point, run again, resumed;
a second operator beside the first; messages discarded into a file and restored; a topology file that is edited between
two runs, journals that are deleted. After each run every queue is looked at.

A part runs here, the same each time. Many more, others each time:

    AMQPFLOW_TEST_MACHINE=500 pytest tests/statemachine
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from amqpflow.rabbitmq.address import BrokerAddress
from tests.statemachine.machine import EXAMPLES, Replays
from tests.statemachine.shop import open_shop

# finding the shortest example of a failure takes minutes, a long run takes hours
pytestmark = [pytest.mark.timeout(0 if EXAMPLES else 1200)]
if not EXAMPLES:
    pytestmark.append(pytest.mark.one_broker)


def test_whatever_happens_to_replays_no_message_is_lost_or_taken_unasked(vhost: BrokerAddress, tmp_path: Path) -> None:
    with open_shop(vhost, tmp_path) as shop:
        run_state_machine_as_test(
            type("Machine", (Replays,), {"shop": shop}),
            settings=settings(
                max_examples=EXAMPLES or 30,
                stateful_step_count=10,
                deadline=None,
                derandomize=not EXAMPLES,
                database=None,
                print_blob=True,
                phases=[Phase.generate, Phase.shrink],
                suppress_health_check=list(HealthCheck),
            ),
        )
