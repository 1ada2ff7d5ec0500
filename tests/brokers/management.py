"""A RabbitMQ's management API for tests: the standard library alone, so that our own client is not its own judge."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlunsplit
from urllib.request import ProxyHandler, Request, build_opener

from amqpflow.rabbitmq.address import BrokerAddress

_OPENER = build_opener(ProxyHandler({}))  # a broker on loopback is never behind a proxy


class Management:
    """The management API at an address, for setting up and looking at things. Not found is None, other errors raise."""

    def __init__(self, address: BrokerAddress) -> None:
        self.address = address
        self.base = address.management_candidates()[-1]
        user, password = address.management_credentials()
        self._authorization = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    def call(self, method: str, *path: str, body: Any = None, query: str = "", timeout: float = 60) -> Any:
        """Call `/api/` and the path segments, each of which is percent-encoded; return the decoded JSON.

        Raises:
            AssertionError: the API answered with an error other than 404, with its text.
            OSError: nobody answers.
        """
        url = f"{self.base}/api/" + "/".join(quote(part, safe="") for part in path) + (f"?{query}" if query else "")
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": self._authorization, "Content-Type": "application/json"}
        request = Request(url, data=data, method=method, headers=headers)
        try:
            with _OPENER.open(request, timeout=timeout) as response:
                text = response.read()
        except HTTPError as error:
            with error:
                if error.code == 404:
                    return None
                raise AssertionError(f"{method} {url}: HTTP {error.code}: {error.read()[:500]!r}") from error
        return json.loads(text) if text else None

    def get(self, *path: str, query: str = "") -> Any:
        return self.call("GET", *path, query=query)

    def has_queue(self, vhost: str, name: str) -> bool:
        """By the list: a question for the one queue answers 500 while that queue is being deleted (fact 11.28)."""
        return any(each["name"] == name for each in self.get("queues", vhost, query="disable_stats=true"))

    def put(self, *path: str, body: Any = None) -> Any:
        return self.call("PUT", *path, body={} if body is None else body)

    def delete(self, *path: str) -> Any:
        return self.call("DELETE", *path)


def as_user(address: BrokerAddress, user: str, password: str) -> BrokerAddress:
    """The same broker for another user, whoever the tests run as."""
    host = address.parts.netloc.rpartition("@")[2]
    netloc = f"{quote(user, safe='')}:{quote(password, safe='')}@{host}"
    return replace(address, url=urlunsplit(address.parts._replace(netloc=netloc)))
