from __future__ import annotations

import pytest

from amqpflow.rabbitmq.address import BrokerAddress
from tests.brokers.management import Management
from tests.brokers.selection import BrokerUnderTest


def test_the_virtual_host_is_empty_and_ours(broker: BrokerUnderTest, vhost: BrokerAddress) -> None:
    management = Management(vhost)
    assert management.get("queues", vhost.vhost) == []
    assert management.get("overview")["rabbitmq_version"].startswith(broker.release)


@pytest.mark.one_broker
@pytest.mark.releases(">=4")
def test_marks_select_brokers(broker: BrokerUnderTest) -> None:
    assert broker.version >= (4,)
