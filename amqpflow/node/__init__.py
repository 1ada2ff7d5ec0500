"""A RabbitMQ to develop and test against: find one, or start a private throw-away node that leaves nothing behind.

from amqpflow.node import start_broker

with start_broker() as broker:      # or: async with
    print(broker.address, broker.version)
"""

from .management_api import create_virtual_host
from .start import BrokerContext, Found, RunningBroker, find_broker, start_broker

__all__ = ["BrokerContext", "Found", "RunningBroker", "create_virtual_host", "find_broker", "start_broker"]
