"""A RabbitMQ to develop and test against: find one, or start a private throw-away node that leaves nothing behind.

from amqpflow.node import start_broker

with start_broker() as broker:      # or: async with
    print(broker.address, broker.version)
"""

import warnings
from typing import Any

from .management_api import create_virtual_host
from .start import BrokerContext, Found, RunningBroker, find_broker, start_broker

__all__ = ["BrokerContext", "Found", "RunningBroker", "create_virtual_host", "find_broker", "start_broker"]


def __getattr__(name: str) -> Any:
    if name != "Broker":  # its name until 0.1, an alias until 1.0
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn("amqpflow.node.Broker is now amqpflow.node.RunningBroker", DeprecationWarning, stacklevel=2)
    return RunningBroker
