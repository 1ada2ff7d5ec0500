"""The part of the management API that a private node needs, without importing an HTTP client."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import ProxyHandler, Request, build_opener

from amqpflow.errors import ManagementUnavailableError
from amqpflow.rabbitmq.address import BrokerAddress


def management_answers(address: BrokerAddress, *, timeout: float) -> bool:
    """Return whether the management API answers and accepts the address's user; `timeout` in seconds."""
    try:
        return "rabbitmq_version" in _call(address, "GET", "overview", timeout=timeout)
    except ManagementUnavailableError:
        return False


def create_virtual_host(address: BrokerAddress, vhost: str, *, timeout: float = 30) -> None:
    """Create a virtual host, and let the address's user do everything in it.

    Raises:
        ManagementUnavailableError: it failed; the text says why.
    """
    name = quote(vhost, safe="")
    _call(address, "PUT", f"vhosts/{name}", {}, timeout=timeout)
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    _call(address, "PUT", f"permissions/{name}/{quote(address.user, safe='')}", everything, timeout=timeout)


def _call(address: BrokerAddress, method: str, path: str, body: Any = None, *, timeout: float) -> Any:
    """Call the API, never through a proxy: private nodes are on loopback."""
    user, password = address.management_credentials()
    token = base64.b64encode(f"{user}:{password}".encode()).decode()
    request = Request(  # noqa: S310
        f"{address.management_candidates()[-1]}/api/{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Basic {token}", "Content-Type": "application/json"},
        method=method,
    )
    try:
        with build_opener(ProxyHandler({})).open(request, timeout=timeout) as response:
            text = response.read()
            return json.loads(text) if text else None
    except HTTPError as error:
        with error:
            raise ManagementUnavailableError(f"{method} /api/{path}: {error}") from error
    except (OSError, ValueError) as error:
        raise ManagementUnavailableError(f"{method} /api/{path}: {error}") from error
