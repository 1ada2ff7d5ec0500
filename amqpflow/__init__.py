"""Retries, parking and replay on plain RabbitMQ.

The public names are loaded on first use, so that `import amqpflow` and `amqpflow --help` stay cheap: aio-pika and the
HTTP client are imported only by what talks to a broker. Type checkers read the same names in `__init__.pyi`.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

from .version import __version__ as __version__

_NAMES_IN = {
    ".api.client": "Client connect",
    ".api.functions": "adopt apply choose_parked destroy discard_parked disown drift explain export_parked parked "
    "parked_message parked_stats plan plan_replay replay restore_parked",
    ".api.parked_client": "ParkedClient",
    ".api.replaying": "prune_replay_history replay_history",
    ".delivery.breaker": "Breaker",
    ".errors": "AddressChangedError AmqpflowError AuthenticationError BrokerError BrokerUnavailableError "
    "ClientLibraryError InvalidHandlerError InvalidTopologyError LockLostError LockedError ManagementUnavailableError "
    "NotAppliedError PartlyDoneError PermissionDeniedError PublishError PublishForbiddenError PublishRefusedError "
    "PublishUncertainError RefusedError StoppedError TlsError UndecodableError UnpublishableError UnroutableError "
    "UsageError VirtualHostMissingError",
    ".model.event": "BreakerClosed BreakerHalfOpen BreakerOpened ConnectionBlocked ConnectionEvent ConnectionLost "
    "ConnectionRecovered ConnectionUnblocked ConsumerEvent ConsumerPaused ConsumerResumed ConsumerStarted "
    "ConsumerStopped Event MessageAcked MessageDiscarded MessageEvent MessageHandled MessageHeld MessageParked "
    "MessagePostponed MessageReceived MessageRequeued MessageRetried MessageSettled",
    ".model.outcome": "Ack Discard Outcome Park Pause Retry",
    ".model.outgoing": "OutgoingMessage",
    ".parking.selection": "InvalidSelectionError Selection",
    ".services.consuming.consumer": "Consumer",
    ".services.handling.message": "Message RetryState",
    ".services.handling.middleware": "CallNext Middleware",
    ".services.loading.topology": "Topology",
    ".services.publishing.publisher": "Publisher",
    ".services.reading.options": "ReadOptions",
    ".services.replaying.request": "ReplayRequest",
}
_MODULE_OF = {name: module for module, names in _NAMES_IN.items() for name in names.split()}
__all__ = sorted(_MODULE_OF)
#: names until 0.1 that are not errors', which stay as aliases until 1.0
_RENAMED = {
    "MessageGivenBack": "MessageRequeued",
    "ReplayChoice": "ReplayRequest",
    "SelectionInvalid": "InvalidSelectionError",
}


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        return _renamed(name)
    value = getattr(import_module(module, __name__), name)
    globals()[name] = value
    return value


def _renamed(name: str) -> Any:
    """Return what an old name stands for, with a warning. Raises AttributeError: it is not one."""
    from .model.error_names import RENAMED

    new = RENAMED.get(name) or _RENAMED.get(name)
    if new is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(f"amqpflow.{name} is now amqpflow.{new}", DeprecationWarning, stacklevel=3)
    return __getattr__(new)


def __dir__() -> list[str]:
    return __all__
