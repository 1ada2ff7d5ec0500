"""aio-pika's connection on a transport of ours, opened to one node."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import aio_pika

from amqpflow.errors import AmqpflowError, ClientLibraryError
from amqpflow.version import __version__

from .address import BrokerAddress
from .opening import Seen, not_opened
from .peer import ask

try:
    from .transport import ContentTransport

    _missing = ""
except ImportError as error:
    _missing = str(error)

CLIENT_LIBRARIES = {"aio-pika": ">=10.1,<11", "aiormq": ">=7.2,<8"}
"""What pyproject.toml requires, for the message when something else is installed."""


class PikaConnection(aio_pika.Connection):
    """aio-pika's connection on a transport of ours."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.content = ContentTransport()
        self.kwargs["transport_factory"] = self.content

    async def connect(self, *args: Any, **kwargs: Any) -> None:
        await super().connect(*args, **kwargs)
        if not self.content.in_use:
            await self.close()
            raise _unsupported("it does not read through a transport_factory")

    def __del__(self) -> None:
        """Do nothing: aio-pika closes it as a task of any event loop that runs in the thread of the collector."""


async def open_pika(address: BrokerAddress, properties: Mapping[str, str], timeout: float) -> Any:
    """Open a connection to the first URL of an address.

    Args:
        address: where to, with credentials and TLS settings.
        properties: client properties that the management API shows, beside ours.
        timeout: seconds until a silent peer is given up.

    Raises:
        AuthenticationError, VirtualHostMissingError, TlsError, BrokerUnavailableError: each with one clear sentence.
        ClientLibraryError: the installed aiormq or aio-pika is not one that amqpflow works with.
    """
    if _missing:
        raise _unsupported(_missing)
    context = address.ssl_context() if address.tls else None
    opening: list[PikaConnection] = []

    def make(*args: Any, **kwargs: Any) -> PikaConnection:
        opening.append(PikaConnection(*args, **kwargs))
        return opening[0]

    task, is_open = asyncio.current_task(), False
    cancels = task.cancelling() if task is not None else 0
    try:
        pika = await aio_pika.connect(
            address.url,
            ssl_context=context,
            timeout=timeout,
            heartbeat=str(address.heartbeat),
            connection_class=make,
            client_properties={
                **properties,
                "product": "amqpflow",
                "version": __version__,
                "platform": f"Python {platform.python_version()}",
            },
        )
        if task is not None and task.cancelling() > cancels:
            raise asyncio.CancelledError  # `asyncio.wait_for` of Python 3.11 drops one that comes with the result
        is_open = True
    except AmqpflowError:
        raise
    except (AttributeError, TypeError, NotImplementedError) as error:
        raise _unsupported(str(error)) from error
    except Exception as error:
        content = opening[0].content if opening else None
        seen = Seen(reached=content.reached, first=content.first, closed=content.close_reason) if content else Seen()
        if seen.reached and not seen.first and not isinstance(error, TimeoutError):
            seen = replace(seen, speaks=await ask(address.host, address.port, tls=address.tls))
        raise not_opened(error, address, seen) from error
    finally:
        if opening and not is_open:
            opening[0].content.abort()  # aiormq leaves it open when it is cancelled in the turn in which it opened it
    return pika


def _unsupported(why: str) -> ClientLibraryError:
    installed = " with ".join(f"{name} {_version_of(name)}" for name in reversed(CLIENT_LIBRARIES))
    wanted = " ".join(f"'{name}{versions}'" for name, versions in CLIENT_LIBRARIES.items())
    return ClientLibraryError(f"amqpflow cannot use {installed}: {why}", hint=f"pip install {wanted}")


def _version_of(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "of an unknown version"
