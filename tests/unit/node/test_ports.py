from __future__ import annotations

import socket

from amqpflow.node.ports import FIRST, LAST, choose, taken
from amqpflow.node.settings import Ports


def test_ports_are_distinct_and_below_those_of_outgoing_connections() -> None:
    ports = list(choose())
    assert len(set(ports)) == 4
    assert all(FIRST <= port < LAST for port in ports)
    assert not taken(ports)


def test_a_port_in_use_is_taken_whichever_address_it_is_on() -> None:
    for address in ("127.0.0.1", ""):
        with socket.create_server((address, 0)) as server:
            port = server.getsockname()[1]
            assert taken([port]) == [port]


def test_the_ports_of_last_time_are_used_again_while_all_are_free() -> None:
    last = choose()
    assert choose(last) == last
    with socket.create_server(("127.0.0.1", last.management)):
        assert choose(last) != last


def test_a_ports_order_is_its_fields() -> None:
    assert list(Ports(amqp=1, management=2, distribution=3, epmd=4)) == [1, 2, 3, 4]
