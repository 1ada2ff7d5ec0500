"""Requests to the management API: logins that change, and answers that are not RabbitMQ's. Knows the HTTP client."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import httpx2

from amqpflow.errors import ManagementUnavailableError
from amqpflow.version import __version__

from .address import BrokerAddress
from .management_errors import no_answer, refusal
from .peer import Protocol, ask

CONNECT_TIMEOUT = 5.0  #: seconds; a derived URL may point to a port that a firewall swallows
ANSWER_TIMEOUT = 60.0  #: seconds; a list of 100,000 queues takes a while


class ManagementHttp:
    """The requests of one `Management`.

    A password from a file or a function may expire while it is open: when RabbitMQ refuses the login, the password is
    read again, and the request is sent once more. So are TLS files, when no connection can be opened.
    """

    def __init__(self, address: BrokerAddress, url: str) -> None:
        self._address = address
        self._client, self._login = _client(address, url), address.management_credentials()
        self._left: list[httpx2.AsyncClient] = []  # with an earlier login; others may still await their answers
        self._renewing = asyncio.Lock()
        self.url = url

    async def close(self) -> None:
        for client in (self._client, *self._left):
            await client.aclose()

    async def call(
        self, method: str, *path: str, query: Mapping[str, str] | None = None, body: Mapping[str, Any] | None = None
    ) -> Any:
        """Send a request and return the JSON of its answer, None when it has none.

        Raises:
            PermissionDeniedError, BrokerError, ManagementUnavailableError: with what RabbitMQ, or another, answered.
        """
        url = f"{self.url}/api/" + "/".join(quote(part, safe="") for part in path)
        try:
            response = await self._answer(method, url, query, body)
            if method == "GET" and response.status_code == 500 and not response.content:
                response = await self._answer(method, url, query, body)  # a queue was being deleted (fact 11.28)
        except httpx2.HTTPError as error:
            slow, speaks = isinstance(error, httpx2.TimeoutException), Protocol.UNKNOWN
            if isinstance(error, httpx2.ReadError | httpx2.ProtocolError):
                parts = urlsplit(self.url)
                port = parts.port or (443 if parts.scheme == "https" else 80)
                speaks = await ask(parts.hostname or "", port, tls=parts.scheme == "https")
            raise no_answer(self.url, error, slow=slow, speaks=speaks) from error
        if response.status_code >= 300:
            raise refusal(self.url, response.status_code, response.content, path, response.headers.get("location", ""))
        if not response.content:
            return None
        try:
            return response.json()
        except ValueError as error:
            raise self.strange() from error

    async def _answer(
        self, method: str, url: str, query: Mapping[str, str] | None, body: Mapping[str, Any] | None
    ) -> httpx2.Response:
        client = self._client
        try:
            response = await client.request(method, url, params=query, json=body)
        except httpx2.ConnectError:
            if not (self.url.startswith("https:") and await self._renewed(client, another_login=False)):
                raise
        else:
            if response.status_code != 401 or not await self._renewed(client, another_login=True):
                return response
        return await self._client.request(method, url, params=query, json=body)

    async def _renewed(self, client: httpx2.AsyncClient, *, another_login: bool) -> bool:
        """Replace the client that failed, when the files and functions hold something new; return whether there is
        another.
        """
        async with self._renewing:
            if self._client is not client:
                return True
            now = await self._address.current_with_management()
            # a login for another broker is not for this one
            if self.url not in now.management_candidates():
                return False
            if another_login and now.management_credentials() == self._login:
                return False
            self._left.append(client)
            self._client, self._login = _client(now, self.url), now.management_credentials()
            return True

    def strange(self) -> ManagementUnavailableError:
        """Return the error for an answer that RabbitMQ would not give."""
        return ManagementUnavailableError(f"the server at {self.url} is not RabbitMQ's management API")


def _client(address: BrokerAddress, url: str) -> httpx2.AsyncClient:
    verify: ssl.SSLContext | bool = address.ssl_context() if url.startswith("https:") else False
    return httpx2.AsyncClient(
        auth=httpx2.BasicAuth(*address.management_credentials()),
        verify=verify,
        timeout=httpx2.Timeout(ANSWER_TIMEOUT, connect=CONNECT_TIMEOUT),
        trust_env=False,  # a proxy, or a password from ~/.netrc, is not meant for this broker
        headers={"user-agent": f"amqpflow/{__version__}", "accept": "application/json", "accept-encoding": "identity"},
    )
