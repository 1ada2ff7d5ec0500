"""A RabbitMQ without ceremony: find one, or start a private throw-away node, and leave nothing behind.

from amqpflow.node import start_broker

with start_broker() as broker:      # or: async with
    print(broker.address, broker.version)
"""

from .management import create_virtual_host
from .start import Broker, BrokerContext, Found, find_broker, start_broker

__all__ = ["Broker", "BrokerContext", "Found", "create_virtual_host", "find_broker", "start_broker"]
